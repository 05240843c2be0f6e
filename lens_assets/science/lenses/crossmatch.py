"""From systems to survey objects: the nearest primary object within the stated radius, one system an object, and a
reason for every system that has none.

:func:`crossmatch` looks at one tile and may find, near an edge, an object that is not the nearest of all;
:func:`positives` sees every tile and decides.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import polars as pl

from lens_assets.science import sphere
from lens_assets.science.columns.lenses import LENS_MATCHES, POSITIVES, UNMATCHED
from lens_assets.science.errors import Rejections
from lens_assets.science.lenses.settings import Settings
from lens_assets.science.surveys.layout import brick_at, tile_at

OUTSIDE = "outside the footprint"
TAKEN = "nearest object is a better match of another system"
NOT_A_LENS = "labelled not_lens"
_OF_SYSTEM = ("system_id", "tier", "weight", "label", "kind", "trains", "independent", "z_lens", "theta_e", "channels")


def no_object(settings: Settings) -> str:
    """The reason of a system without a survey object."""
    return f"no primary object within {settings.match_radius_arcsec:g} arcsec"


def crossmatch(registry: pl.DataFrame, sweeps: pl.DataFrame, settings: Settings | None = None) -> pl.DataFrame:
    """Match the registry to the ``sweeps`` of one tile: the ``lens_matches`` table, at most one row a system.

    Equal separations go to the smaller galaxy_id; systems far from the tile cost nothing.
    """
    settings = settings or Settings()
    radius = settings.match_radius_arcsec
    objects = _near(sweeps, registry, radius).sort("galaxy_id")
    index, apart = sphere.nearest(
        registry["ra"].to_numpy(), registry["dec"].to_numpy(), objects["ra"].to_numpy(), objects["dec"].to_numpy()
    )
    hit = np.flatnonzero(apart <= radius)
    systems = registry[hit].select(_OF_SYSTEM)
    found = objects[index[hit]]
    frame = pl.concat([systems, found], how="horizontal").with_columns(pl.Series("sep_arcsec", apart[hit], pl.Float64))
    return LENS_MATCHES.conform(frame)


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
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Decide what each system is: a positive with its ``use``, or unmatched with a reason.

    Parameters
    ----------
    matches : ``lens_matches`` of all tiles.
    registry : the whole ``lens_registry``.
    tiles : keys of the tiles that were searched: the footprint.
    bricks : BRICKIDs that hold objects, where known: a finer footprint.

    Returns
    -------
    the ``positives`` and the ``unmatched`` table; together they hold every system of the registry once.

    ``train``: known to a channel that trains, of a kind that trains. ``evaluation``: the others (``independent`` says
    whether they may be called so, or only held out). A system without a tier is neither.
    """
    settings = settings or Settings()
    nearest = matches.sort("system_id", "sep_arcsec", "galaxy_id").unique(
        "system_id", keep="first", maintain_order=True
    )
    winners = nearest.sort("galaxy_id", "sep_arcsec", "system_id").unique(
        "galaxy_id", keep="first", maintain_order=True
    )
    trainable = pl.col("trains") & pl.col("kind").is_in(list(settings.train_kinds)) & (pl.col("tier") != "none")
    evaluates = (~pl.col("trains") | ~pl.col("kind").is_in(list(settings.train_kinds))) & (pl.col("tier") != "none")
    lens = pl.col("label") != "not_lens"
    judged = winners.with_columns(
        pl.when(lens & trainable)
        .then(pl.lit("train"))
        .when(lens & evaluates)
        .then(pl.lit("evaluation"))
        .otherwise(None)
        .alias("use")
    )
    found = judged.filter(pl.col("use").is_not_null())
    useless = judged.filter(pl.col("use").is_null())
    reasons = {
        row["system_id"]: no_use(row["label"]) for row in useless.select("system_id", "label").iter_rows(named=True)
    }
    reasons |= dict.fromkeys(set(nearest["system_id"]) - set(winners["system_id"]), TAKEN)
    rest = registry.filter(~pl.col("system_id").is_in(found["system_id"].implode())).select("system_id", "ra", "dec")
    footprint, covered = set(tiles), None if bricks is None else set(bricks)
    reason = []
    for system, ra, dec in rest.iter_rows():
        seen = tile_at(ra, dec).key in footprint and (covered is None or brick_at(ra, dec).brickid in covered)
        reason.append(reasons.get(system) or (no_object(settings) if seen else OUTSIDE))
    unmatched = UNMATCHED.conform(rest.with_columns(pl.Series("reason", reason, dtype=pl.String)))
    rejections = Rejections()
    rejections.add("unmatched", unmatched.height)
    rejections.check(registry.height, found.height)
    return POSITIVES.conform(found), unmatched


def no_use(label: str) -> str:
    """Why a matched system is no positive."""
    return NOT_A_LENS if label == "not_lens" else f"label {label} has no tier: it neither trains nor evaluates"
