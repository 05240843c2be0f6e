"""The sensitivity band: how far completeness moves when the injections, or the detector, are made another way.

Surfaces of one grid are compared in families: ``variants`` (the reference's detector, every variant), ``detectors``
(the reference's variant, every detector) and ``all``. Per cell and per marginal: lowest, median and highest
completeness, which surface is which, and the reference's own statistical interval to read the band against. The band is
a range of measured values, so part of it is their noise; which differences are real is for the paired tests to say.

Marginals are counted in the cells that *every* surface of the family supports: else a band would show which cells a
variant happened to fill. Pairs are surfaces that differ in one thing, detector or variant; injections are paired by
identity (Einstein radius, cell, index) *and* host, so two variants with other hosts share nothing, and are counted and
not tested. Two detectors are compared at the thresholds of the same name, taken as they are: the sampling error of
the thresholds is in each surface's own interval and not in the paired probability. Holm's procedure runs over all
pairs and places of one scope and operating point; ``differs`` needs McNemar's test and the clustered ones over hosts and bricks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import polars as pl

from lens_assets.science.columns.sensitivity import BAND_CELLS, BAND_MARGINALS, PAIRS
from lens_assets.science.completeness.marginals import standard, survey_weighted
from lens_assets.science.completeness.model import LEVELS, Surface, bounds
from lens_assets.science.completeness.paired import NAME, compare
from lens_assets.science.completeness.physics import holm
from lens_assets.science.errors import BadInput
from lens_assets.science.hashing import sites_of

_CELL = ["i_theta", "i_psf", "i_depth"]
_PLACE = [*_CELL, "cell_theta_e", "cell_psf", "cell_depth"]
_TESTS = ("p_mcnemar", "p_host", "p_brick")
COMMON = "in cells every surface of the family supports"


@dataclass(frozen=True)
class Sensitivity:
    """The three tables, and the name of the surface the band is read against."""

    cells: pl.DataFrame
    marginals: pl.DataFrame
    pairs: pl.DataFrame
    reference: str


def sensitivity(surfaces: Mapping[str, Surface], reference: str, conditions: pl.DataFrame | None = None) -> Sensitivity:
    """Band and paired tests of ``surfaces`` (by name) about ``reference``.

    ``conditions`` (``psf_bin``, ``depth_bin``, ``n``) adds survey-weighted marginals. A family of one surface has no
    rows. Raises :class:`BadInput` for an unknown reference, surfaces of different grids, two of the same detector and
    variant, or operating points that none shares with the reference.
    """
    if reference not in surfaces:
        raise BadInput(f"no surface {reference!r}; there are {', '.join(surfaces)}")
    surfaces = dict(sorted(surfaces.items()))
    main = surfaces[reference]
    made = {name: _made(name, s) for name, s in surfaces.items()}
    if len(set(made.values())) < len(made):
        raise BadInput("two surfaces are of the same detector and variant", column="surface")
    for name, surface in surfaces.items():
        if surface.grid != main.grid:
            raise BadInput(f"surface {name!r} has another grid than {reference!r}")
    points = [p.name for p in main.points if all(p.name in {q.name for q in s.points} for s in surfaces.values())]
    if not points:
        raise BadInput("the surfaces share no operating point", column="operating_point")
    detector, variant = made[reference]
    families = {
        "variants": [n for n, m in made.items() if m[0] == detector],
        "detectors": [n for n, m in made.items() if m[1] == variant],
        "all": list(surfaces),
    }
    cells, marginals = [], []
    for family, names in families.items():
        if len(names) < 2:
            continue
        part = {n: surfaces[n] for n in names}
        cells.append(_cells(part, reference, family, points))
        marginals.append(_marginals(part, reference, family, points, conditions))
    pairs = [
        _pair(surfaces[a], surfaces[b], a, b, made, points)
        for a, b in combinations(surfaces, 2)
        if (made[a][0] == made[b][0]) != (made[a][1] == made[b][1])
    ]
    return Sensitivity(
        BAND_CELLS.conform(_joined(cells, BAND_CELLS)),
        BAND_MARGINALS.conform(_joined(marginals, BAND_MARGINALS)),
        PAIRS.conform(_adjusted(pairs, main.settings.family_error)),
        reference,
    )


def _made(name: str, surface: Surface) -> tuple[str, str]:
    for key in ("detector", "variant"):
        if not surface.meta.get(key):
            raise BadInput(f"surface {name!r} does not say its {key}", column=key)
    return str(surface.meta["detector"]), str(surface.meta["variant"])


def _joined(parts: list[pl.DataFrame], table: object) -> pl.DataFrame:
    schema = {c.name: c.dtype for c in table.columns}  # type: ignore[attr-defined]
    return pl.concat(parts) if parts else pl.DataFrame(schema=schema)


def _cells(part: Mapping[str, Surface], reference: str, family: str, points: list[str]) -> pl.DataFrame:
    rows = pl.concat(
        s.cells.filter((pl.col("support") == "supported") & pl.col("operating_point").is_in(points)).with_columns(
            pl.lit(name).alias("surface")
        )
        for name, s in part.items()
    )
    everywhere = part[reference].cells.filter(pl.col("operating_point").is_in(points))
    return _band(rows, everywhere, ["operating_point", *_CELL], _PLACE[3:], reference, family)


def _marginals(
    part: Mapping[str, Surface], reference: str, family: str, points: list[str], conditions: pl.DataFrame | None
) -> pl.DataFrame:
    common = None
    for surface in part.values():
        first = surface.cells.filter(pl.col("operating_point") == surface.points[0].name)
        mine = first.filter(pl.col("support") == "supported").select(_CELL)
        common = mine if common is None else common.join(mine, on=_CELL, how="semi")
    assert common is not None
    frames = []
    for name, surface in part.items():
        few = replace(
            surface,
            members=surface.members.join(common, on=_CELL, how="semi"),
            cells=surface.cells.with_columns(support=_only(surface.cells, common)),
        )
        own = standard(few)
        if conditions is not None:
            own = pl.concat([own, survey_weighted(few, conditions).select(own.columns)])
        frames.append(own.with_columns(pl.lit(name).alias("surface")))
    rows = pl.concat(frames).filter(pl.col("operating_point").is_in(points))
    rows = rows.with_columns((pl.col("weighting") + f"; {COMMON}").alias("weighting"))
    everywhere = rows.filter(pl.col("surface") == reference).drop("surface")
    key = ["operating_point", "weighting", "axis", "i_axis"]
    return _band(rows.filter(pl.col("completeness").is_not_null()), everywhere, key, ["axis_centre"], reference, family)


def _only(cells: pl.DataFrame, common: pl.DataFrame) -> pl.Series:
    """``support``, with ``empty`` for every cell that is not among the common ones."""
    marked = cells.select(*_CELL, "support").join(common.with_columns(pl.lit(True).alias("in")), on=_CELL, how="left")
    return marked.select(pl.when(pl.col("in")).then(pl.col("support")).otherwise(pl.lit("empty"))).to_series()


def _band(
    rows: pl.DataFrame, everywhere: pl.DataFrame, key: list[str], place: list[str], reference: str, family: str
) -> pl.DataFrame:
    c, by = pl.col("completeness"), ["completeness", "surface"]
    ranked = rows.sort([*key, *by])
    band = ranked.group_by(key, maintain_order=True).agg(
        pl.len().cast(pl.Int64).alias("n_surfaces"),
        c.first().alias("band_lowest"),
        c.median().alias("band_median"),
        c.last().alias("band_highest"),
        pl.col("surface").first().alias("lowest_surface"),
        pl.col("surface").last().alias("highest_surface"),
    )
    own = rows.filter(pl.col("surface") == reference).select(*key, "completeness", *_totals())
    return (
        everywhere.select(*key, *place)
        .join(band, on=key, how="left")
        .join(own, on=key, how="left")
        .with_columns(pl.col("n_surfaces").fill_null(0), pl.lit(family).alias("band_family"))
    )


def _totals() -> list[str]:
    return [f"total_{side}{level}" for level in (68, 95) for side in ("lo", "hi")]


def _pair(
    a: Surface, b: Surface, name_a: str, name_b: str, made: Mapping[str, tuple[str, str]], points: list[str]
) -> pl.DataFrame:
    left, right = (_identified(s, made[n][1]) for s, n in ((a, name_a), (b, name_b)))
    both = left.join(right, on=["identity", "host", *_CELL], how="inner", suffix="_b", validate="1:1")
    both = both.sort("identity")
    host = np.unique(both["host"].to_numpy().astype(str), return_inverse=True)[1]
    brick = sites_of(both["host"].to_list())
    index = [both[i].to_numpy().astype(np.int64) for i in _CELL]
    grid = a.grid
    scopes = {
        "all": (np.zeros(both.height, np.int64), 1),
        "theta_e": (index[0], len(grid.theta_e)),
        "cell": (grid.flat(*index), grid.size),
    }
    frames = []
    for point in points:
        first = (both["injection_score"] >= a.point(point).cut).to_numpy()
        second = (both["injection_score_b"] >= b.point(point).cut).to_numpy()
        for scope, (group, size) in scopes.items():
            own = compare(group, host, first, second, size, LEVELS, brick=brick)
            at = grid.unflat(np.arange(size)) if scope == "cell" else (np.arange(size), None, None)
            with np.errstate(invalid="ignore", divide="ignore"):
                c_a, c_b = (own.both + own.only_first) / own.n, (own.both + own.only_second) / own.n
            nothing = [None] * size
            frame = pl.DataFrame(
                {
                    "operating_point": [point] * size,
                    "surface_a": [name_a] * size,
                    "surface_b": [name_b] * size,
                    "pair_scope": [scope] * size,
                    "at_theta_e": nothing if scope == "all" else np.asarray(grid.theta_e.centres)[at[0]],
                    "at_psf": nothing if at[1] is None else np.asarray(grid.psf.centres)[at[1]],
                    "at_depth": nothing if at[2] is None else np.asarray(grid.depth.centres)[at[2]],
                    "n_pairs": own.n,
                    "n_unique_hosts": own.n_hosts,
                    "n_unique_bricks": own.n_bricks,
                    "n_only_a": own.only_first,
                    "n_only_b": own.only_second,
                    "completeness_a": c_a,
                    "completeness_b": c_b,
                    "paired_difference": own.difference,
                    **bounds("paired", own.intervals),
                    "paired_method": [NAME] * size,
                    "p_mcnemar": own.p_mcnemar,
                    "p_host": own.p_host,
                    "p_brick": own.p_brick,
                },
                schema_overrides=dict.fromkeys(("at_theta_e", "at_psf", "at_depth"), pl.Float64),
            )
            frames.append(frame if scope == "all" else frame.filter(pl.col("n_pairs") > 0))
    return pl.concat(frames).with_columns(pl.col(pl.Float64).fill_nan(None))


def _identified(surface: Surface, variant: str) -> pl.DataFrame:
    """Members with the identity of each injection: its id without the name of the variant."""
    return surface.members.select(
        pl.col("injection").str.strip_prefix(f"{variant}|").alias("identity"), "host", *_CELL, "injection_score"
    )


def _adjusted(pairs: list[pl.DataFrame], family_error: float) -> pl.DataFrame:
    if not pairs:
        return pl.DataFrame(schema={c.name: c.dtype for c in PAIRS.columns})
    parts = []
    for part in pl.concat(pairs).partition_by("operating_point", "pair_scope", maintain_order=True):
        tested = (part["n_pairs"] > 0).to_numpy()
        columns = {}
        for name in _TESTS:
            p = np.full(part.height, np.nan)
            p[tested] = holm(part[name].to_numpy()[tested])
            columns[f"{name}_holm"] = pl.Series(p).fill_nan(None)
            columns[name] = part[name].set(pl.Series(~tested), None)
        part = part.with_columns(**columns)
        parts.append(
            part.with_columns(
                differs=pl.all_horizontal(pl.col(f"{name}_holm") < family_error for name in _TESTS).fill_null(False)
            )
        )
    return pl.concat(parts)
