"""Did the stamps of both classes come from the same reader? By their column, and by their noise.

A brick slice was resampled once, a stamp of the viewer's twice: 7 % less scatter, 0.08 more correlation between
neighbouring pixels. A network sees that at once, and if lenses came from one source and non-lenses from the other it
learns the source. (Earlier runs downloaded the two classes from different services at different times.) Two guards:

- the column ``source``: no sample may hold stamps of two sources, not even in equal shares in both classes. "Equal
  shares" would have to hold in every stratum a network can tell apart; one source is simple and can be proved;
- the noise: a cross-validated logistic regression on the background's autocorrelation (lags 1 and 2 along both axes, per
  band) must not tell the classes apart. It sees what a column cannot: a mislabelled source, another pipeline version.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from lens_assets.science.cutouts.shard import ShardSet
from lens_assets.science.errors import BadInput
from lens_assets.science.hashing import generator, seed_of
from lens_assets.science.intervals import bootstrap
from lens_assets.science.splits.shortcut import weighted_auc

F64 = npt.NDArray[np.float64]
BAR = 0.60
"""The lower 68 % bound of the AUC may not exceed it: the bar of the metadata-only classifier (``splits.shortcut``)."""
FOLDS = 5
MIN_CLASS = 20


@dataclass(frozen=True)
class NoiseResult:
    """Cross-validated AUC of the noise alone with its group-bootstrap 68 % bounds; ``verdict`` pass, fail or
    insufficient (fewer than 20 stamps of a class)."""

    auc: float | None
    lo68: float | None
    hi68: float | None
    n: int
    n_pos: int
    verdict: str
    bar: float = BAR
    rule: str = "pass if the lower 68 % bound of the cross-validated AUC is <= the bar"

    def facts(self) -> dict[str, Any]:
        """For a manifest."""
        return asdict(self)


def mixed_sources(counts: Mapping[str, int]) -> list[str]:
    """What is wrong with the sources of a sample, in words (nothing: one source).

    ``counts``: stamps by ``"<label>: <source>"``, as the report has them.
    """
    by_class: dict[str, dict[str, int]] = {}
    for key, n in counts.items():
        label, source = key.split(": ", 1)
        by_class.setdefault(label, {})[source] = n
    kinds = sorted({source for found in by_class.values() for source in found})
    if len(kinds) < 2:
        return []
    told = "; ".join(
        f"{'positives' if label == '1' else 'negatives'}: " + ", ".join(f"{n} {s}" for s, n in sorted(found.items()))
        for label, found in sorted(by_class.items(), reverse=True)
    )
    return [f"stamps come from {len(kinds)} sources ({told}): make all of them from one"]


def noise_classifier(
    features: pl.DataFrame, labels: npt.ArrayLike, groups: npt.ArrayLike, draws: int = 500, bar: float = BAR
) -> NoiseResult:
    """Tell the classes apart by the columns ``noise_lag*`` of ``features`` (``features.noise_lags``).

    Parameters
    ----------
    labels : 1 positive, 0 negative; classes are weighted to equal sums.
    groups : kept together in folds and resampled as wholes (HEALPix cells).

    A missing value (a stamp without enough sky) becomes the column's median of the training fold's stamps; rows where
    all are missing are left out.
    """
    names = sorted(name for name in features.columns if name.startswith("noise_lag"))
    y, group = np.asarray(labels), np.asarray(groups)
    if y.shape != (features.height,) or group.shape != y.shape:
        raise BadInput(f"{y.size} labels and {group.size} groups for {features.height} stamps", column="label")
    x = features.select(pl.col(n).cast(pl.Float64).fill_null(np.nan) for n in names).to_numpy() if names else None
    use = np.isfinite(x).any(axis=1) if x is not None else np.zeros(len(y), bool)
    y, group = y[use].astype(np.int64), group[use]
    n_pos = int(y.sum())
    folds = min(FOLDS, *(len(np.unique(group[y == k])) for k in (0, 1)))
    if x is None or min(n_pos, len(y) - n_pos) < MIN_CLASS or folds < 2:
        return NoiseResult(None, None, None, len(y), n_pos, "insufficient", bar)
    x = x[use]
    score = np.full(len(y), np.nan)
    split = StratifiedGroupKFold(folds, shuffle=True, random_state=seed_of("noise-classifier") % 2**32)
    with threadpool_limits(1):
        for train, held in split.split(x, y, group):
            if not 0 < y[train].sum() < len(train):
                continue
            middle = np.nan_to_num(np.nanmedian(x[train], axis=0))
            full, rest = (np.where(np.isfinite(x[part]), x[part], middle) for part in (train, held))
            model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, class_weight="balanced"))
            score[held] = model.fit(full, y[train]).predict_proba(rest)[:, 1]
    seen = np.isfinite(score)
    score, y, group = score[seen], y[seen], group[seen]
    ones = np.ones(len(y))

    def auc(rows: npt.NDArray[np.int64]) -> float:
        return weighted_auc(score, y, np.bincount(rows, minlength=len(y)).astype(np.float64))

    interval = bootstrap(auc, len(y), generator("noise-classifier"), groups=group, draws=draws)[0.68]
    point, lo, hi = weighted_auc(score, y, ones), float(interval.lo), float(interval.hi)
    if not np.isfinite(lo):
        return NoiseResult(point, None, None, len(y), int(y.sum()), "insufficient", bar)
    return NoiseResult(point, lo, hi, len(y), int(y.sum()), "pass" if lo <= bar else "fail", bar)


def compare_sources(first: ShardSet, second: ShardSet) -> pl.DataFrame:
    """The same objects through two readers: a few stamps of the service held against slices of the bricks.

    Returns
    -------
    One row an object that both have and a band: ``galaxy_id, band, largest`` (largest absolute difference, nmgy per
    pixel), ``correlation`` (of all pixels) and ``flux_ratio`` (sums within 12 px, second over first). Native slices
    differ by exactly 0; resampled ones correlate above 0.9 and keep the flux.
    """
    ids = first.index["galaxy_id"]
    ids = ids.filter(second.has(ids)).sort()
    if not len(ids):
        raise BadInput("the two sources have no object in common", column="galaxy_id")
    a, b = first.images(ids).astype(np.float64), second.images(ids).astype(np.float64)
    if a.shape != b.shape:
        raise BadInput(f"the stamps differ in shape: {a.shape[1:]} and {b.shape[1:]}")
    side = a.shape[-1]
    y, x = np.ogrid[:side, :side]
    core = np.hypot(x - side // 2, y - side // 2) < 12
    rows = []
    for k, name in enumerate(ids.to_list()):
        for band in range(a.shape[1]):
            u, v = a[k, band], b[k, band]
            both = np.isfinite(u) & np.isfinite(v)
            level = np.corrcoef(u[both], v[both])[0, 1] if u[both].std() > 0 and v[both].std() > 0 else np.nan
            ratio = v[core].sum() / u[core].sum()
            rows.append((name, band, float(np.abs(u - v)[both].max()), float(level), float(ratio)))
    return pl.DataFrame(rows, schema=["galaxy_id", "band", "largest", "correlation", "flux_ratio"], orient="row")
