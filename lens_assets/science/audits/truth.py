"""The mock's true lenses, put before the detector: the only place besides the closure tests that opens the truth.

A catalogue holds the lenses that somebody found, so its recall says nothing of those that nobody did. Here *every* true
lens of the cells that did not train is cut from the bricks by the ordinary code and scored by the frozen detector.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import polars as pl

from lens_assets.science.cutouts.cut import BrickLike, cut_brick
from lens_assets.science.cutouts.settings import Settings as CutoutSettings
from lens_assets.science.detectors.score import Scorer, conditions_of, probability
from lens_assets.science.errors import BadInput, Rejections
from lens_assets.science.sphere import SPLIT_NSIDE, cell_of

KINDS = ("galaxy",)
"""Lensed quasars are another class of arcs, with an injection variant of their own."""


class ReleaseLike(Protocol):
    """What is needed of a data release."""

    def brick(self, brickname: str) -> BrickLike: ...


def read_truth(folder: Path) -> pl.DataFrame:
    """The table of true lenses; :class:`BadInput` when the release has none (a real survey)."""
    path = folder / "lenses.parquet"
    if not path.is_file():
        raise BadInput("there is no truth: closure is for mock releases", file=str(path))
    return pl.read_parquet(path)


def unseen_lenses(truth: pl.DataFrame, sample: pl.DataFrame, sweeps: pl.DataFrame) -> tuple[pl.DataFrame, Rejections]:
    """True galaxy lenses in cells whose objects all stayed out of training, with the survey's own conditions.

    Returns
    -------
    ``galaxy_id, ra, dec, brickname, theta_e, psfsize_r, depth_r`` sorted by id, and the others by reason.
    """
    rejected = Rejections()
    cells = sample.filter(pl.col("split").is_in(["val", "test"]))["cell"].unique()
    learnt = sample.filter(pl.col("role").is_in(["train", "select"]))["galaxy_id"]
    rows = truth.with_columns(cell=pl.Series(cell_of(truth["ra"].to_numpy(), truth["dec"].to_numpy(), SPLIT_NSIDE)))
    for reason, keep in (
        ("another kind of lens", pl.col("true_kind").is_in(list(KINDS))),
        ("in a cell that trains", pl.col("cell").is_in(cells.implode())),
        ("trained or chose the epoch", ~pl.col("true_galaxy_id").is_in(learnt.implode())),
    ):
        kept = rows.filter(keep.fill_null(True))
        rejected.add(reason, rows.height - kept.height)
        rows = kept
    survey = sweeps.select(
        "galaxy_id", "brickname", "psfsize_r", "depth_r", pl.col("ra").alias("ra_s"), pl.col("dec").alias("dec_s")
    )
    found = rows.join(survey, left_on="true_galaxy_id", right_on="galaxy_id", how="inner")
    rejected.add("no object in the sweeps", rows.height - found.height)
    rejected.check(truth.height, found.height)
    return (
        found.select(
            pl.col("true_galaxy_id").alias("galaxy_id"), pl.col("ra_s").alias("ra"), pl.col("dec_s").alias("dec"),
            "brickname", pl.col("true_theta_e").alias("theta_e"), "psfsize_r", "depth_r",
        ).sort("galaxy_id"),
        rejected,
    )  # fmt: skip


def score_lenses(lenses: pl.DataFrame, release: ReleaseLike, scorer: Scorer, settings: CutoutSettings) -> pl.DataFrame:
    """``lenses`` with ``score``: cut from the bricks and scored; null where the stamp was rejected."""
    parts = []
    for (name,), rows in sorted(lenses.partition_by("brickname", as_dict=True).items()):
        images, invvar, index, _ = cut_brick(release.brick(str(name)), rows, settings)
        if index.height:
            seen = conditions_of(
                index.select("galaxy_id").join(rows, on="galaxy_id", how="left", maintain_order="left"), scorer
            )
            score = probability(scorer.score(images, invvar > 0, seen))
            parts.append(pl.DataFrame({"galaxy_id": index["galaxy_id"], "score": score}))
    scores = pl.concat(parts) if parts else pl.DataFrame(schema={"galaxy_id": pl.String, "score": pl.Float32})
    return lenses.join(scores, on="galaxy_id", how="left", validate="1:1").sort("galaxy_id")
