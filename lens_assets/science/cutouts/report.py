"""What the stamps of a sample say about themselves: shortcuts, duplicates, what was rejected from which class,
pictures.

The report is for people and gates; it changes no stamp. Only stamps of the sample count, and the shortcut test only
those that a detector may learn from or be chosen by (not the guard ring, not the independent evaluation lenses).
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from lens_assets.science.cutouts.duplicates import Prints, fingerprint, sky_of
from lens_assets.science.cutouts.features import noise_lags, shortcut_features
from lens_assets.science.cutouts.figures import feature_distributions, gallery
from lens_assets.science.cutouts.pairs import compared, duplicate_pairs
from lens_assets.science.cutouts.settings import Settings
from lens_assets.science.cutouts.shard import Shard, ShardSet
from lens_assets.science.cutouts.shortcut import shortcut_report
from lens_assets.science.cutouts.source import noise_classifier
from lens_assets.science.hashing import galaxy_key, mix64
from lens_assets.science.splits.settings import SPLITS

_CHUNK = 512
_NOTHING = pl.DataFrame(schema={"tile": pl.String, "reason": pl.String, "n": pl.UInt32})
_NO_REASON = pl.DataFrame(schema={"galaxy_id": pl.String, "reason": pl.String})
_SHOWN = 32


@dataclass(frozen=True)
class QualityReport:
    """Tables and figures about the stamps of a sample."""

    shortcuts: pl.DataFrame
    """Table ``shortcuts``: AUC, intervals and colour of every feature, the background's autocorrelation included."""
    features: pl.DataFrame
    """``galaxy_id, label, split`` and every feature."""
    duplicates: pl.DataFrame
    """Table ``duplicates``: pairs of stamps that share pixels, or look like the same."""
    rejected: pl.DataFrame
    """``label, reason, n``: objects without a stamp by class."""
    tiles: pl.DataFrame
    """``tile, asked, kept``: objects of the sample outside the guard ring, and those with a stamp."""
    rejected_by_tile: pl.DataFrame
    """``tile, reason, n``."""
    lost: pl.DataFrame
    """``galaxy_id, reason``: every object of the sample that was rejected."""
    facts: dict[str, Any]
    stamps: ShardSet

    def save_figures(self, folder: str | Path) -> list[Path]:
        """Write ``features.png``, ``positives.png`` and ``negatives.png`` (those of smallest hash, so always the
        same)."""
        known = self.features.filter(pl.col("split").is_in(list(SPLITS)))
        out = []
        if known.height:
            target = Path(folder) / "features.png"
            out.append(feature_distributions(known, known["label"].to_numpy(), self.shortcuts, target))
        for label, name in ((1, "positives"), (0, "negatives")):
            ids = known.filter(pl.col("label") == label)["galaxy_id"]
            if len(ids):
                ids = ids.gather(np.argsort(mix64(_keys(ids)), kind="stable")[:_SHOWN])
                out.append(gallery(self.stamps.images(ids), ids.to_list(), Path(folder) / f"{name}.png"))
        return out


def quality_report(
    shards: Sequence[Shard], sample: pl.DataFrame, settings: Settings, workers: int = 1
) -> QualityReport:
    """Measure the stamps of ``sample`` (``galaxy_id, label, split, cell``; others may be there) in ``shards``.

    The facts hold ``stamps``, ``rejected`` (by class), ``red`` and ``yellow`` (feature names),
    ``duplicates`` (``pairs.duplicate_pairs``), ``noise`` (``source.noise_classifier``), ``sources`` (stamps by class and
    reader).
    """
    stamps = ShardSet(shards)
    tile = pl.col("tile") if "tile" in sample.columns else pl.lit("all").alias("tile")
    sample = sample.select("galaxy_id", "label", "split", "cell", tile).sort("galaxy_id")
    index = stamps.index if stamps.shards else pl.DataFrame(schema={"galaxy_id": pl.String})
    here = sample.join(index, on="galaxy_id", how="inner", maintain_order="left")
    features, prints = _features(stamps, here, settings, workers)
    table = pl.concat([here.select("galaxy_id", "label", "split"), features], how="horizontal")

    judged = here.with_row_index("at").filter(pl.col("split").is_in(list(SPLITS)))
    shortcuts = shortcut_report(
        features[judged["at"].to_numpy()],
        judged["label"].to_numpy(),
        judged["cell"].to_numpy(),
        ("cutout-quality",),
        settings.bootstrap_draws,
    )
    duplicates, twice = duplicate_pairs(stamps, here, prints)
    lost = pl.concat([shard.rejected for shard in shards]) if shards else pl.DataFrame(schema={"galaxy_id": pl.String})
    rejected = sample.join(lost, on="galaxy_id", how="inner")
    by_class = (
        rejected.group_by("label", "reason").len("n").sort("label", "reason")
        if rejected.height
        else pl.DataFrame(schema={"label": sample.schema["label"], "reason": pl.String, "n": pl.UInt32})
    )
    noise = noise_classifier(
        features[judged["at"].to_numpy()],
        judged["label"].to_numpy(),
        judged["cell"].to_numpy(),
        settings.bootstrap_draws,
    )
    asked = sample.filter(pl.col("split") != "guard")
    kept = asked["galaxy_id"].is_in(here["galaxy_id"].to_list())
    tiles = asked.with_columns(kept=kept).group_by("tile").agg(asked=pl.len(), kept=pl.col("kept").sum()).sort("tile")
    by_tile = rejected.group_by("tile", "reason").len("n").sort("tile", "reason") if rejected.height else _NOTHING
    reasons = rejected.select("galaxy_id", "reason") if rejected.height else _NO_REASON
    facts: dict[str, Any] = {
        "stamps": here.height,
        "positives": int((here["label"] == 1).sum()),
        "without_stamp": sample.height - here.height,
        "rejected": {f"{label}: {reason}": n for label, reason, n in by_class.iter_rows()},
        "red": shortcuts.filter(pl.col("colour") == "red")["feature"].to_list(),
        "yellow": shortcuts.filter(pl.col("colour") == "yellow")["feature"].to_list(),
        "duplicates": twice,
        "noise": noise.facts(),
    }
    if here.height:
        sources = here.group_by("label", "source").len("n").sort("label", "source")
        facts["sources"] = {f"{label}: {source}": n for label, source, n in sources.iter_rows()}
    return QualityReport(shortcuts, table, duplicates, by_class, tiles, by_tile, reasons, facts, stamps)


def _features(stamps: ShardSet, here: pl.DataFrame, settings: Settings, workers: int) -> tuple[pl.DataFrame, Prints]:
    positions = here["position"].to_numpy() if here.height else np.empty(0, np.int64)
    chunks = [positions[start : start + _CHUNK] for start in range(0, len(positions), _CHUNK)]
    if not chunks:
        return pl.DataFrame(), Prints(np.empty((0, 0), np.int8))
    measure = partial(_measure, stamps, settings)
    if workers == 1 or len(chunks) == 1:
        measured = list(map(measure, chunks))
    else:
        with ProcessPoolExecutor(min(workers, len(chunks)), mp_context=multiprocessing.get_context("spawn")) as pool:
            measured = list(pool.map(measure, chunks))
    return pl.concat(frame for frame, _ in measured), Prints(np.concatenate([sign for _, sign in measured]))


def _measure(
    stamps: ShardSet, settings: Settings, positions: npt.NDArray[np.int64]
) -> tuple[pl.DataFrame, npt.NDArray[np.int8]]:
    images, invvar = stamps.images(positions), stamps.invvar(positions)
    lags = noise_lags(images, invvar, bands="".join(settings.bands))
    sign = fingerprint(*sky_of(*compared(images, invvar))).sign
    return pl.concat([shortcut_features(images, invvar, settings.normalisation), lags], how="horizontal"), sign


def _keys(ids: pl.Series) -> npt.NDArray[np.int64]:
    parts = ids.str.split_exact("-", 2).struct.unnest().cast(pl.Int64)
    return galaxy_key(*(parts[:, k].to_numpy() for k in range(3)))
