"""Can the classes be told apart without looking at a pixel? A classifier on metadata alone, and its verdict.

If TYPE, exposures, PSF, depth, declination or extinction separate lenses from non-lenses, a network may learn these
(deeper stamps, softer noise) instead of the lens: the survey team documented that for its own first paper. Strata of
TYPE x nobs_z are weighted to equal sums of both classes, as the sampling meant them to be; what then remains is the
shortcut.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from lens_assets.science.hashing import generator, seed_of
from lens_assets.science.intervals import bootstrap
from lens_assets.science.negatives.strata import nobs_bin
from lens_assets.science.splits.settings import SPLITS, Settings

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

TYPES = ("REX", "EXP", "DEV", "SER")
NUMBERS = (*(f"{stem}_{b}" for stem in ("nobs", "psfsize", "depth") for b in "grz"), "dec", "ebv")
GROUPS = {"type": TYPES, **{stem: tuple(f"{stem}_{b}" for b in "grz") for stem in ("nobs", "psfsize", "depth")},
          "dec": ("dec",), "ebv": ("ebv",)}  # fmt: skip


@dataclass(frozen=True)
class ShortcutResult:
    """Cross-validated AUC of metadata alone with its group-bootstrap 68 % bounds; ``verdict`` pass, fail or
    insufficient.

    The numbers are those of the stronger of the two models (by lower bound); ``models`` holds both. ``importances``
    are the losses of AUC when a group of features is shuffled in the held-out folds. ``n`` and ``n_positive`` count
    what was used, ``left_out`` the objects of strata with one class only.
    """

    auc: float
    lo68: float
    hi68: float
    n: int
    n_positive: int
    left_out: int
    verdict: str
    model: str
    bar: float
    interval: str = "group-bootstrap"
    importances: dict[str, float] = field(default_factory=dict)
    models: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether the lower 68 % bound is below the bar."""
        return self.verdict == "pass"


def balancing_weights(stratum: npt.NDArray[Any], label: npt.NDArray[Any]) -> F64:
    """Weights that give both classes of a stratum the same sum, its number of positives; 0 where a class is missing."""
    _, s = np.unique(stratum, return_inverse=True)
    n_pos, n_neg = (np.bincount(s, weights=label == k).astype(float) for k in (1, 0))
    with np.errstate(divide="ignore", invalid="ignore"):
        w = np.where(label == 1, 1.0, (n_pos / n_neg)[s])
    return np.where((n_pos > 0)[s] & (n_neg > 0)[s], w, 0.0)


def weighted_auc(score: F64, label: npt.NDArray[Any], weight: F64) -> float:
    """P(score of a positive > that of a negative) + half the ties, under weights; ``nan`` with a class of no weight."""
    return _ranked_auc(np.unique(score, return_inverse=True)[1], label == 1, weight)


def _ranked_auc(rank: I64, positive: npt.NDArray[np.bool_], weight: F64) -> float:
    """:func:`weighted_auc` from dense ranks (0, 1, ... of the sorted distinct scores)."""
    n = int(rank.max(initial=0)) + 1
    pos = np.bincount(rank[positive], weights=weight[positive], minlength=n)
    neg = np.bincount(rank[~positive], weights=weight[~positive], minlength=n)
    total = pos.sum() * neg.sum()
    if not total > 0:
        return float("nan")
    return float(np.clip((pos * (np.cumsum(neg) - neg / 2)).sum() / total, 0, 1))


def _features(frame: pl.DataFrame) -> tuple[F64, list[str]]:
    one_hot = [(frame["type"] == t).cast(pl.Float64).to_numpy() for t in TYPES]
    numbers = [frame[c].cast(pl.Float64).fill_null(float("nan")).to_numpy() for c in NUMBERS]
    return np.column_stack([*one_hot, *numbers]), [*TYPES, *NUMBERS]


def _models(seed: int) -> dict[str, Any]:
    return {
        "gradient-boosting": HistGradientBoostingClassifier(
            max_iter=80, learning_rate=0.08, max_leaf_nodes=15, early_stopping=False, random_state=seed
        ),
        "logistic": make_pipeline(
            SimpleImputer(keep_empty_features=True), StandardScaler(), LogisticRegression(C=1.0, max_iter=1000)
        ),
    }


def _fit(model: Any, x: F64, y: I64, w: F64) -> Any:
    keyword = "logisticregression__sample_weight" if hasattr(model, "steps") else "sample_weight"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(x, y, **{keyword: w})


def metadata_shortcut(sample: pl.DataFrame, settings: Settings) -> ShortcutResult:
    """Cross-validate the classifiers, folds grouped by sky cell, over train, val and test of the split table.

    Rows are taken in order of ``galaxy_id``, so their order in the table does not matter.
    """
    with threadpool_limits(1):  # small fits: threads that wait for each other cost more than they give
        return _shortcut(sample, settings)


def _shortcut(sample: pl.DataFrame, settings: Settings) -> ShortcutResult:
    s = settings.shortcut
    every = sample.filter(pl.col("split").is_in(list(SPLITS))).sort("galaxy_id")
    stratum = every.select(pl.concat_str(pl.col("type"), nobs_bin(), separator="|").fill_null("null")).to_series()
    w = balancing_weights(stratum.to_numpy(), every["label"].to_numpy())
    used = every.filter(pl.Series(w > 0))
    w = w[w > 0]
    y, cells = used["label"].to_numpy().astype(np.int64), used["cell"].to_numpy()
    n_pos, left = int(y.sum()), every.height - used.height
    folds = min(s.folds, np.unique(cells[y == 1]).size, np.unique(cells[y == 0]).size)
    if n_pos < s.min_positives or folds < 2:
        nan = float("nan")
        return ShortcutResult(nan, nan, nan, used.height, n_pos, left, "insufficient", "none", s.bar)
    x, names = _features(used)
    seed = seed_of("splits", "shortcut", settings.seed) % 2**32
    parts = list(StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(x, y, cells))
    parts = [(a, b) for a, b in parts if 0 < y[a].sum() < a.size]
    found: dict[str, dict[str, float]] = {}
    fitted: dict[str, list[Any]] = {}
    for name, model in _models(seed).items():
        score = np.full(y.size, np.nan)
        fitted[name] = []
        for train, held in parts:
            fitted[name].append(_fit(clone(model), x[train], y[train], w[train]))
            score[held] = fitted[name][-1].predict_proba(x[held])[:, 1]
        seen = np.flatnonzero(np.isfinite(score))
        rank = np.unique(score[seen], return_inverse=True)[1]

        def auc(rows: I64, rank: I64 = rank, seen: npt.NDArray[np.int64] = seen) -> float:
            return _ranked_auc(rank, y[seen] == 1, w[seen] * np.bincount(rows, minlength=seen.size))

        interval = bootstrap(
            auc, seen.size, generator("splits", "shortcut", settings.seed, name), groups=cells[seen], draws=s.draws
        )[0.68]
        found[name] = {
            "auc": weighted_auc(score[seen], y[seen], w[seen]),
            "lo68": float(interval.lo),
            "hi68": float(interval.hi),
        }
    worst = max(found, key=lambda name: (np.nan_to_num(found[name]["lo68"], nan=2.0), name))
    best = found[worst]
    verdict = "pass" if best["lo68"] < s.bar else "fail"
    verdict = verdict if np.isfinite(best["lo68"]) else "insufficient"
    return ShortcutResult(
        best["auc"], best["lo68"], best["hi68"], used.height, n_pos, left, verdict, worst, s.bar,
        importances=_importances(fitted[worst], parts, x, y, w, names, settings),
        models=found,
    )  # fmt: skip


def _importances(
    fitted: list[Any], parts: list[tuple[Any, Any]], x: F64, y: I64, w: F64, names: list[str], settings: Settings
) -> dict[str, float]:
    """Loss of weighted AUC, averaged over held-out folds, when the columns of a group are shuffled together."""
    out = {}
    for group, columns in GROUPS.items():
        at = [names.index(c) for c in columns]
        losses = []
        for k, (model, (_, held)) in enumerate(zip(fitted, parts, strict=True)):
            order = generator("splits", "importance", settings.seed, group, k).permutation(held.size)
            shuffled = x[held].copy()
            shuffled[:, at] = shuffled[order][:, at]
            before, after = (
                weighted_auc(model.predict_proba(values)[:, 1], y[held], w[held]) for values in (x[held], shuffled)
            )
            losses.append(before - after)
        out[group] = float(np.nanmean(losses)) if np.isfinite(losses).any() else float("nan")
    return dict(sorted(out.items(), key=lambda item: -item[1]))
