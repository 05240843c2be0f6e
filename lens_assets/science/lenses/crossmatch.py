"""From systems to survey objects: the nearest primary object within the stated radius, one system an object, and a
reason for every system that has none.

:func:`crossmatch` looks at one tile and may find, near an edge, an object that is not the nearest of all;
:func:`nearest_objects` tells what is near the systems that it leaves over; :func:`positives` sees every tile and
decides. An object of TYPE DUP (a Gaia star where an extended source is, without flux of its own) is never a match.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import polars as pl

from lens_assets.science import sphere
from lens_assets.science.columns.lenses import LENS_MATCHES, LENS_NEAREST, POSITIVES, UNMATCHED
from lens_assets.science.errors import Rejections
from lens_assets.science.lenses.settings import Settings
from lens_assets.science.surveys.layout import brick_at, tile_at

OUTSIDE = "outside the footprint"
NO_TILE = "in a tile that was not read"
NO_BRICK = "in a brick without objects"
WRONG_TYPE = "nearest object is of a TYPE that is not matched"
TAKEN = "nearest object is a better match of another system"
NOT_A_LENS = "labelled not_lens"
DISPUTED = "a lens to one channel, not_lens to another"
SURVEY_DEC = (-90.0, 40.0)
"""Declinations (deg) of DR10's sweeps: rows of 5 degrees from -90, the last one beginning at +35."""
_OF_SYSTEM = ("system_id", "tier", "weight", "label", "kind", "trains", "independent", "z_lens", "theta_e", "channels")


def no_object(settings: Settings) -> str:
    """The reason of a system without a survey object; how far the nearest one is stands beside it."""
    return f"no primary object within {settings.match_radius_arcsec:g} arcsec"


def crossmatch(registry: pl.DataFrame, sweeps: pl.DataFrame, settings: Settings | None = None) -> pl.DataFrame:
    """Match the registry to the ``sweeps`` of one tile: the ``lens_matches`` table, at most one row a system.

    Equal separations go to the smaller galaxy_id; systems far from the tile cost nothing.
    """
    settings = settings or Settings()
    radius = settings.match_radius_arcsec
    objects = _near(sweeps, registry, radius).filter(pl.col("type").is_in(list(settings.match_types)))
    index, apart = _nearest(registry, objects := objects.sort("galaxy_id"))
    hit = np.flatnonzero(apart <= radius)
    systems = registry[hit].select(_OF_SYSTEM)
    found = objects[index[hit]]
    frame = pl.concat([systems, found], how="horizontal").with_columns(pl.Series("sep_arcsec", apart[hit], pl.Float64))
    return LENS_MATCHES.conform(frame)


def nearest_objects(registry: pl.DataFrame, sweeps: pl.DataFrame, settings: Settings | None = None) -> pl.DataFrame:
    """The ``lens_nearest`` table of one tile: for each system without a match there, the nearest primary object of any
    TYPE within ``search_radius_arcsec``, where there is one."""
    settings = settings or Settings()
    rest = registry.filter(~pl.col("system_id").is_in(crossmatch(registry, sweeps, settings)["system_id"].to_list()))
    objects = _near(sweeps, rest, settings.search_radius_arcsec).sort("galaxy_id")
    index, apart = _nearest(rest, objects)
    hit = np.flatnonzero(apart <= settings.search_radius_arcsec)
    found = objects[index[hit]]
    return LENS_NEAREST.conform(
        rest[hit].select("system_id").with_columns(
            tile=found["tile"], nearest_id=found["galaxy_id"], nearest_type=found["type"],
            nearest_arcsec=pl.Series(apart[hit], dtype=pl.Float64),
        )
    )  # fmt: skip


def _nearest(registry: pl.DataFrame, objects: pl.DataFrame) -> tuple[sphere.I64, sphere.F64]:
    place = [frame[c].to_numpy() for frame in (registry, objects) for c in ("ra", "dec")]
    return sphere.nearest(place[0], place[1], place[2], place[3])


def _near(sweeps: pl.DataFrame, registry: pl.DataFrame, radius: float) -> pl.DataFrame:
    """Objects in the HEALPix cells that the systems' circles touch: a few per cent of a tile."""
    ra, dec = registry["ra"].to_numpy(), registry["dec"].to_numpy()
    step = 2 * radius / 3600
    wide = step / np.maximum(np.cos(np.radians(np.abs(dec) + step)), 1e-6)
    cells = [
        sphere.cell_of((ra + i * np.minimum(wide, 180.0)) % 360, np.clip(dec + j * step, -90, 90))
        for i in (-1, 0, 1)
        for j in (-1, 0, 1)
    ]
    wanted = pl.Series(np.unique(np.concatenate(cells)))
    return sweeps.filter(pl.col("cell").is_in(wanted.implode()))


def positives(
    matches: pl.DataFrame,
    registry: pl.DataFrame,
    tiles: Collection[str],
    settings: Settings | None = None,
    bricks: Collection[int] | None = None,
    *,
    nearest: pl.DataFrame | None = None,
    footprint: Collection[str] | None = None,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Decide what each system is: a positive with its ``use``, or unmatched with a reason.

    Parameters
    ----------
    matches : ``lens_matches`` of all tiles.
    registry : the whole ``lens_registry``.
    tiles : keys of the tiles that were searched.
    bricks : BRICKIDs that hold objects, where known: a finer footprint.
    nearest : ``lens_nearest`` of all tiles, where known: which object was too far, and how far.
    footprint : keys of all tiles of the survey, where known; else every declination of DR10 counts as inside.

    Returns
    -------
    the ``positives`` and the ``unmatched`` table; together they hold every system of the registry once.

    ``train``: known to a channel that trains, of a kind that trains. ``evaluation``: the others (``independent`` says
    whether they may be called so, or only held out). A system without a tier is neither.
    """
    settings = settings or Settings()
    closest = matches.sort("system_id", "sep_arcsec", "galaxy_id").unique(
        "system_id", keep="first", maintain_order=True
    )
    winners = closest.sort("galaxy_id", "sep_arcsec", "system_id").unique(
        "galaxy_id", keep="first", maintain_order=True
    )
    disputed = pl.col("system_id").is_in(registry.filter(pl.col("conflict_label"))["system_id"].to_list())
    useful = (pl.col("tier") != "none") & (pl.col("label") != "not_lens") & ~disputed
    trainable = pl.col("trains") & pl.col("kind").is_in(list(settings.train_kinds))
    use = pl.when(useful & trainable).then(pl.lit("train")).when(useful).then(pl.lit("evaluation")).otherwise(None)
    judged = winners.with_columns(use.alias("use"))
    found = judged.filter(pl.col("use").is_not_null())
    unmatched = _unmatched(registry, found, judged, closest, winners, nearest, settings, tiles, bricks, footprint)
    rejections = Rejections()
    rejections.add("unmatched", unmatched.height)
    rejections.check(registry.height, found.height)
    return POSITIVES.conform(found), unmatched


def _unmatched(
    registry: pl.DataFrame, found: pl.DataFrame, judged: pl.DataFrame, closest: pl.DataFrame, winners: pl.DataFrame,
    nearest: pl.DataFrame | None, settings: Settings, tiles: Collection[str], bricks: Collection[int] | None,
    footprint: Collection[str] | None,
) -> pl.DataFrame:  # fmt: skip
    """Every system that is no positive, with the first reason that holds and what is nearest to it."""
    matched = {row["system_id"]: row for row in closest.iter_rows(named=True)}
    owner = dict(winners.select("galaxy_id", "system_id").iter_rows())
    idle = set(judged.filter(pl.col("use").is_null())["system_id"])
    seen: dict[str, dict[str, Any]] = {}
    if nearest is not None:
        for row in nearest.sort("system_id", "nearest_arcsec", "nearest_id").iter_rows(named=True):
            seen.setdefault(row["system_id"], row)
    read, known = set(tiles), None if footprint is None else {*footprint, *tiles}
    covered = None if bricks is None else set(bricks)
    made = []
    for row in registry.filter(~pl.col("system_id").is_in(found["system_id"].to_list())).iter_rows(named=True):
        system, ra, dec = row["system_id"], row["ra"], row["dec"]
        near = seen.get(system, {})
        at = {
            "nearest_id": near.get("nearest_id"), "nearest_type": near.get("nearest_type"),
            "nearest_arcsec": near.get("nearest_arcsec"), "taken_by": None,
        }  # fmt: skip
        if system in matched:
            own = matched[system]
            at |= {"nearest_id": own["galaxy_id"], "nearest_type": own["type"], "nearest_arcsec": own["sep_arcsec"]}
            other = owner[own["galaxy_id"]]
            at["taken_by"] = None if other == system else other
            reason = no_use(row["label"], disputed=row["conflict_label"]) if system in idle else TAKEN
        else:
            tile = tile_at(ra, dec).key
            inside = SURVEY_DEC[0] <= dec < SURVEY_DEC[1] if known is None else tile in known
            if not inside:
                reason = OUTSIDE
            elif tile not in read:
                reason = NO_TILE
            elif covered is not None and brick_at(ra, dec).brickid not in covered:
                reason = NO_BRICK
            elif near and near["nearest_arcsec"] <= settings.match_radius_arcsec:
                reason = WRONG_TYPE
            else:
                reason = no_object(settings)
        made.append({"system_id": system, "ra": ra, "dec": dec, "reason": reason, **at})
    return UNMATCHED.conform(pl.DataFrame(made, schema={c.name: c.dtype for c in UNMATCHED.columns}))


def no_use(label: str, *, disputed: bool = False) -> str:
    """Why a matched system is no positive."""
    if disputed:
        return DISPUTED
    return NOT_A_LENS if label == "not_lens" else f"label {label} has no tier: it neither trains nor evaluates"
