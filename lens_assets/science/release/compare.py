"""Two releases side by side: where their completeness differs beyond their errors.

Cells are matched by what they are (centre and width on each axis), so a release on the classic grid and one on the deeper
``dr10`` grid are compared where both have cells; cells of one alone are counted. A cell is tested where both support
it: the difference on the scale arcsin sqrt C over the quadrature of the two published errors, each taken on the side that
faces the other value; two-sided normal probability, Holm's allowance over all cells tested. The two are taken as
independent. Releases that share injections are not: their number is reported, and then a difference is understated. Two at
one threshold of one detector share its error: ``common`` says how that is allowed for.

The releases are read as published: nothing here needs the platform's store.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.stats import norm

from lens_assets.lookup import SelectionFunction, load
from lens_assets.science.completeness.combine import angle
from lens_assets.science.completeness.physics import holm
from lens_assets.science.errors import BadInput
from lens_assets.science.release.common import at_bounds, same_threshold, shift
from lens_assets.science.release.publish import verify

F64 = npt.NDArray[np.float64]
FAMILY_ERROR = 0.01
_PLACE = ("cell_theta_e", "cell_psf", "cell_depth")
_VALUES = ("n_injections", "n_unique_hosts", "completeness", "total_lo68", "total_hi68", "total_lo95", "total_hi95",
           "host_lo68", "host_hi68", "support")  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """What :func:`compare_releases` found.

    ``cells`` : one row a cell of either: place, values of both (suffixes ``_a``, ``_b``), ``difference`` (A - B), ``z``,
    ``p``, ``p_holm``, ``differs``, ``tested``. ``marginals`` : the same along each axis, each injection counting once.
    ``about`` : of both: name, version, verdict, surface, point, cut, digests, grid, counts. ``summary`` : numbers.
    """

    cells: pl.DataFrame
    marginals: pl.DataFrame
    about: tuple[dict[str, Any], dict[str, Any]]
    metadata: list[tuple[str, str, str]]
    summary: dict[str, Any]


def compare_releases(
    a: str | Path, b: str | Path, *, surfaces: tuple[str | None, str | None] = (None, None),
    thresholds: tuple[str, str] = ("default", "default"),
) -> Comparison:  # fmt: skip
    """Compare one surface of release ``a`` with one of ``b``, each at an operating point of its own.

    Raises :class:`BadInput` where a release is damaged (against its SHA256SUMS) or the two have no cell in common.
    """
    folders = Path(a), Path(b)
    for folder in folders:
        verify(folder)
    loaded = tuple(load(f, s) for f, s in zip(folders, surfaces, strict=True))
    points = tuple(_point(f, t) for f, t in zip(loaded, thresholds, strict=True))
    frames = [_rows(folder, f, p, "surface") for folder, f, p in zip(folders, loaded, points, strict=True)]
    halves = [[f.header["grid"][x]["half"] for x in ("theta_e", "psf", "depth")] for f in loaded]
    keyed = [
        # the width is part of what a cell is
        f.select(*_PLACE, *(pl.lit(round(h, 6)).alias(f"half_{i}") for i, h in enumerate(half)), *_VALUES)
        .with_columns(pl.col(c).round(6) for c in _PLACE)
        for f, half in zip(frames, halves, strict=True)
    ]  # fmt: skip
    keys = [*_PLACE, "half_0", "half_1", "half_2"]
    cells = keyed[0].rename({v: f"{v}_a" for v in _VALUES}).join(
        keyed[1].rename({v: f"{v}_b" for v in _VALUES}), on=keys, how="full", coalesce=True
    )  # fmt: skip
    common = cells.filter(pl.col("support_a").is_not_null() & pl.col("support_b").is_not_null()).height
    if not common:
        raise BadInput("the two releases have no cell in common: their grids differ everywhere")
    ok = (pl.col("support_a") == "supported") & (pl.col("support_b") == "supported")
    moved = _moved(folders, loaded, points, frames)
    cells = _tested(cells.sort(keys), ok.fill_null(False), moved).drop("half_0", "half_1", "half_2")
    marginals = _marginals(folders, loaded, points, moved)
    shared, totals = _shared(folders, loaded)
    tested = cells.filter(pl.col("tested"))
    weights = (tested["n_injections_a"] + tested["n_injections_b"]).to_numpy().astype(float)
    summary = {
        "cells_a": frames[0].height,
        "cells_b": frames[1].height,
        "cells_common": common,
        "cells_tested": tested.height,
        "cells_differ": int(tested["differs"].sum()),
        "largest": _number(tested["difference"].abs().max()),
        "mean": float(np.average(tested["difference"].to_numpy(), weights=weights)) if tested.height else None,
        "expected_beyond_2_sigma": float(2 * norm.sf(2) * tested.height),
        "beyond_2_sigma": int((tested["z"].abs() > 2).sum()),
        "injections_a": totals[0],
        "injections_b": totals[1],
        "injections_shared": shared,
        "threshold_common": moved is not None,
        "pooled": next((r for r in marginals.iter_rows(named=True) if r["axis"] == "all" and r["tested"]), None),
    }
    about = tuple(_about(folder, f, p) for folder, f, p in zip(folders, loaded, points, strict=True))
    return Comparison(cells, marginals, (about[0], about[1]), _differences(about[0], about[1]), summary)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _point(f: SelectionFunction, threshold: str) -> str:
    point = f.default_threshold if threshold == "default" else threshold
    if point not in f.operating_points:
        raise BadInput(f"{f.name} has no threshold {point!r}; it has {', '.join(f.thresholds)}")
    return point


def _rows(folder: Path, f: SelectionFunction, point: str, stem: str) -> pl.DataFrame:
    found = sorted(folder.glob(f"{stem}*.parquet"))
    if len(found) != 1:
        raise BadInput(f"a release holds one {stem}*.parquet, not {len(found)}", file=str(folder))
    frame = pl.read_parquet(found[0])
    return frame.filter((pl.col("surface") == f.surface) & (pl.col("operating_point") == point))


def _moved(
    folders: tuple[Path, Path],
    loaded: tuple[SelectionFunction, ...],
    points: tuple[str, ...],
    frames: list[pl.DataFrame],
) -> pl.DataFrame | None:
    """What a common threshold's error does to each difference; ``None`` where thresholds are not one."""
    if not same_threshold(loaded, points):
        return None
    made = [
        at_bounds(x, f, f.operating_points[p], s) for x, f, p, s in zip(folders, loaded, points, frames, strict=True)
    ]
    return None if made[0] is None or made[1] is None else shift(made[0], made[1])


def _tested(frame: pl.DataFrame, ok: pl.Expr, moved: pl.DataFrame | None) -> pl.DataFrame:
    """``frame`` with differences and their probabilities; ``moved`` has the row's ``axis`` (``cell`` for a cell)."""
    frame = frame.with_columns(ok.alias("tested"))
    kind, common = "total", np.zeros(frame.height)
    if moved is not None:
        kind = "host"
        named = frame if "axis" in frame.columns else frame.with_columns(axis=pl.lit("cell"))
        keys = ["axis", "axis_centre"] if "axis" in frame.columns else ["axis", *_PLACE]
        joined = named.join(moved.select(*keys, "shift"), on=keys, how="left", nulls_equal=True, maintain_order="left")
        common = joined["shift"].fill_null(0.0).to_numpy()
    tested = frame["tested"].to_numpy()
    x = {c: frame[c].cast(pl.Float64).fill_null(np.nan).to_numpy() for c in frame.columns if c[-2:] in ("_a", "_b")
         and frame[c].dtype.is_numeric()}  # fmt: skip
    difference = x["completeness_a"] - x["completeness_b"]
    sigma = [
        _toward(x[f"completeness_{s}"], x[f"{kind}_lo68_{s}"], x[f"{kind}_hi68_{s}"], up)
        for s, up in (("a", difference < 0), ("b", difference > 0))
    ]
    with np.errstate(invalid="ignore", divide="ignore"):
        z = (angle(x["completeness_a"]) - angle(x["completeness_b"])) / np.hypot(np.hypot(*sigma), common)
    z = np.where(tested, np.nan_to_num(z), np.nan)
    p = np.full(z.size, np.nan)
    p[tested] = 2 * norm.sf(np.abs(z[tested]))
    adjusted = np.full(z.size, np.nan)
    adjusted[tested] = holm(p[tested])
    columns = {"difference": difference, "z": z, "p": p, "p_holm": adjusted}
    return frame.with_columns(
        *(pl.Series(k, v).fill_nan(None) for k, v in columns.items()),
        pl.Series("differs", tested & (np.nan_to_num(adjusted, nan=1.0) < FAMILY_ERROR)),
    )


def _toward(c: F64, lo: F64, hi: F64, up: npt.NDArray[np.bool_]) -> F64:
    """Width of the 68 % interval on the side of the other value, on the scale arcsin sqrt C."""
    return np.where(up, angle(hi) - angle(c), angle(c) - angle(lo))


def _marginals(
    folders: tuple[Path, Path],
    loaded: tuple[SelectionFunction, ...],
    points: tuple[str, ...],
    moved: pl.DataFrame | None,
) -> pl.DataFrame:
    keys = ["weighting", "axis", "axis_centre"]
    values = [v for v in _VALUES if v != "support"] + ["share_supported"]
    a, b = (
        _rows(folder, f, p, "marginals").with_columns(pl.col("axis_centre").round(6)).select(*keys, *values)
        for folder, f, p in zip(folders, loaded, points, strict=True)
    )
    both = a.rename({v: f"{v}_a" for v in values}).join(
        b.rename({v: f"{v}_b" for v in values}), on=keys, how="inner", nulls_equal=True
    )
    ok = pl.col("completeness_a").is_not_null() & pl.col("completeness_b").is_not_null()
    return _tested(both.sort(keys), ok, moved)


def _shared(folders: tuple[Path, Path], loaded: tuple[SelectionFunction, ...]) -> tuple[int, list[int]]:
    """Injections that both releases hold (same identity, whatever the variant, and host), and the number of each."""
    frames = []
    for folder, f in zip(folders, loaded, strict=True):
        found = sorted(folder.glob("injections*.parquet"))
        frame = pl.read_parquet(found[0]) if found else pl.DataFrame(schema={"surface": pl.String})
        if not found:
            return 0, [0, 0]
        variant = str(f.header["surfaces"][f.surface].get("meta", {}).get("variant") or "")
        frames.append(
            frame.filter(pl.col("surface") == f.surface).select(
                pl.col("injection").str.strip_prefix(f"{variant}|"), "host"
            )
        )
    return frames[0].join(frames[1], on=["injection", "host"], how="semi").height, [x.height for x in frames]


def _about(folder: Path, f: SelectionFunction, point: str) -> dict[str, Any]:
    inside = f.header["surfaces"][f.surface]
    meta, cut = inside.get("meta", {}), f.operating_points[point]
    plain: dict[str, str] = {}
    for name in ("DETECTOR", "PRIORS"):
        path = folder / f"{name}.json"
        plain |= _flat(json.loads(path.read_text()), name.lower()) if path.is_file() else {}
    grid = {
        f"grid {a}": f"{len(x['centres'])} cells, {x['edges'][0]:g} to {x['edges'][-1]:g} {x['unit']}"
        for a, x in f.header["grid"].items()
    }
    return {
        "release": f"{f.name} {f.version}",
        "go": f.go,
        "verdict": f.verdict,
        "surface": f.surface,
        "operating point": point,
        "cut": f"{cut['cut']:.6g}",
        "false-positive rate": "" if cut.get("fpr_target") is None else f"{cut['fpr_target']:g}",
        "negatives behind the cut": str(cut.get("n_negatives") or ""),
        **grid,
        "cells": ", ".join(f"{n} {k}" for k, n in sorted(meta.get("support", {}).items())),
        "injections": f"{meta.get('injections_used', 0):,}",
        "least injections a cell": str(inside.get("min_per_cell", "")),
        "detector digest": f.header["digests"]["detector"],
        "priors digest": f.header["digests"]["priors"],
        **plain,
    }


def _flat(value: Any, prefix: str) -> dict[str, str]:
    """Nested entries as one level: ``priors.set.r_mag.mean``."""
    if isinstance(value, dict):
        return {k: v for key in sorted(value) for k, v in _flat(value[key], f"{prefix}.{key}").items()}
    return {prefix: json.dumps(value, sort_keys=True)}


def _differences(a: dict[str, Any], b: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Entries of the two headers that are not the same, in the order of the first."""
    keys = [*a, *(k for k in b if k not in a)]
    return [(k, str(a.get(k, "\u2014")), str(b.get(k, "\u2014"))) for k in keys if k != "go" and a.get(k) != b.get(k)]
