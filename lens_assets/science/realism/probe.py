"""The linear probe: can a straight line in the frozen detector's feature space tell injections from real lenses?

Standardise, reduce by PCA to at most a fifth of the rows, fit a ridge logistic regression; everything is fitted
inside the training folds. Folds are stratified and keep a group (a host galaxy, a lens system) together, because
injections that share a host share its features. The AUC is averaged over folds (pooling scores of different fits
biases it) and over several fold assignments. Its interval resamples groups; its null permutes labels between groups
on the same folds.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from lens_assets.science.detectors.crossvalidated import CrossValidated, against_null, fold_auc
from lens_assets.science.errors import BadInput
from lens_assets.science.hashing import generator, seed_of

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Probe(CrossValidated):
    """The AUC of sample ``a`` against ``b``."""

    fold_aucs: tuple[float, ...]
    components: int
    n_a: int
    n_b: int
    groups: int
    fpr: tuple[float, ...] = ()
    tpr: tuple[float, ...] = ()


def auc(scores: F64, positive: npt.NDArray[np.bool_]) -> float:
    """Area under the ROC (Mann-Whitney, ties half); nan with one class."""
    n1 = int(positive.sum())
    n0 = len(positive) - n1
    if not (n1 and n0):
        return float("nan")
    return float((rankdata(scores)[positive].sum() - n1 * (n1 + 1) / 2) / (n1 * n0))


def _fold_features(x: F64, train: I64, components: int) -> F64:
    pipe = make_pipeline(StandardScaler(), PCA(n_components=components, svd_solver="full"), StandardScaler())
    pipe.fit(x[train])
    return np.asarray(pipe.transform(x), dtype=np.float64)


def _fit_score(z: F64, y: npt.NDArray[np.bool_], train: I64, test: I64, c: float) -> F64:
    if len(np.unique(y[train])) < 2:
        return np.zeros(len(test))
    model = LogisticRegression(C=c, class_weight="balanced", max_iter=500)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(z[train], y[train])
    return np.asarray(model.decision_function(z[test]), dtype=np.float64)


def _permuted(y: npt.NDArray[np.bool_], groups: I64, mixed: npt.NDArray[np.bool_], rng: np.random.Generator) -> Any:
    """Labels permuted between groups of one label; groups that hold both labels are flipped as a whole or not."""
    first = np.zeros(groups.max() + 1, bool)
    first[groups] = y
    pure = np.flatnonzero(~mixed)
    first[pure] = rng.permutation(first[pure])
    flip = rng.integers(0, 2, len(mixed)).astype(bool)
    return np.where(mixed[groups], y ^ flip[groups], first[groups])


@threadpool_limits.wrap(limits=1)  # many small fits: BLAS threads only get in each other's way, and change last bits
def linear_probe(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    *,
    ids_a: npt.NDArray[np.str_],
    ids_b: npt.NDArray[np.str_],
    groups_a: npt.NDArray[np.str_],
    groups_b: npt.NDArray[np.str_],
    identity: tuple[Any, ...],
    folds: int = 5,
    repeats: int = 3,
    max_components: int = 64,
    c: float = 1.0,
    permutations: int = 200,
    draws: int = 500,
    grouped: bool = True,
) -> Probe:
    """Separate the rows of ``a`` (n, d) (the positive class) from those of ``b`` (m, d).

    ``ids_*`` identify rows (they fix the order, so the order of input does not matter), ``groups_*`` the groups.
    ``permutations`` or ``draws`` of 0 skip the null or the interval. ``grouped=False`` lets groups straddle folds and
    exists to show what that does. Raises :class:`BadInput` where a class has fewer groups than folds.
    """
    fa, fb = np.asarray(a, float), np.asarray(b, float)
    oa, ob = np.argsort(ids_a, kind="stable"), np.argsort(ids_b, kind="stable")
    x = np.concatenate([fa[oa], fb[ob]])
    y = np.arange(len(x)) < len(fa)
    names = np.concatenate([np.asarray(groups_a)[oa], np.asarray(groups_b)[ob]])
    _, groups = np.unique(names, return_inverse=True)
    groups = groups.astype(np.int64)
    for side, label in ((y, "first"), (~y, "second")):
        if len(np.unique(groups[side])) < folds:
            raise BadInput(f"the {label} class has {len(np.unique(groups[side]))} groups, fewer than {folds} folds")
    mixed = np.array([len(np.unique(y[groups == g])) == 2 for g in range(groups.max() + 1)])
    components = max(1, min(x.shape[1], max_components, int(len(x) * (folds - 1) / folds) // 5))
    scores = np.empty((repeats, len(x)))
    fold_of = np.empty((repeats, len(x)), np.int64)
    cached: list[tuple[F64, I64, I64]] = []
    for r in range(repeats):
        splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed_of("folds", *identity, r) % 2**32)
        for f, (train, test) in enumerate(splitter.split(x, y, groups if grouped else np.arange(len(x)))):
            z = _fold_features(x, train, min(components, len(train) - 1))
            scores[r, test] = _fit_score(z, y, train, test, c)
            fold_of[r, test] = f
            if r == 0:
                cached.append((z, train, test))
    value = float(np.mean([fold_auc(scores[r], y, fold_of[r]) for r in range(repeats)]))
    fold_aucs = tuple(auc(scores[0, fold_of[0] == f], y[fold_of[0] == f]) for f in range(folds))

    rng = generator("probe-null", *identity)
    null = []
    for _ in range(permutations):
        yp = _permuted(y, groups, mixed, rng)
        sp = np.empty(len(x))
        for z, train, test in cached:
            sp[test] = _fit_score(z, yp, train, test, c)
        null.append(fold_auc(sp, yp, fold_of[0]))

    rng = generator("probe-bootstrap", *identity)
    members = [np.flatnonzero(groups == g) for g in range(groups.max() + 1)]
    side = np.array([bool(y[m[0]]) for m in members])
    values = []
    for _ in range(draws):
        rows = []
        for s in (True, False):
            pool = np.flatnonzero(side == s)
            if len(pool):
                rows += [members[g] for g in pool[rng.integers(0, len(pool), len(pool))]]
        i = np.concatenate(rows)
        values.append(np.mean([fold_auc(scores[r, i], y[i], fold_of[r, i]) for r in range(repeats)]))
    drawn = np.asarray(values, float)
    drawn = drawn[np.isfinite(drawn)]
    q = np.quantile(drawn, [0.16, 0.84, 0.025, 0.975]) if len(drawn) else np.full(4, np.nan)
    lo68, hi68, lo95, hi95 = (float(v) for v in q)
    mean, high, p = against_null(value, null)
    fpr, tpr = _curve(scores[0], y, fold_of[0])
    return Probe(
        auc=value,
        lo68=lo68,
        hi68=hi68,
        lo95=lo95,
        hi95=hi95,
        null_mean=mean,
        null_hi95=high,
        p_value=p,
        fold_aucs=fold_aucs,
        components=components,
        n_a=len(fa),
        n_b=len(fb),
        groups=len(members),
        fpr=fpr,
        tpr=tpr,
    )


def _curve(scores: F64, y: npt.NDArray[np.bool_], folds: I64) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """ROC averaged vertically over folds, at 51 false-positive rates; for the figure."""
    grid = np.linspace(0, 1, 51)
    curves = []
    for f in np.unique(folds):
        here = folds == f
        pos, neg = np.sort(scores[here & y]), np.sort(scores[here & ~y])
        if len(pos) and len(neg):
            cut = np.quantile(neg, 1 - grid)
            curves.append(1 - np.searchsorted(pos, cut, side="left") / len(pos))
    mean = np.mean(curves, axis=0) if curves else np.full(51, np.nan)
    mean[-1] = 1.0
    return tuple(grid.tolist()), tuple(mean.tolist())


def halves_control(
    x: npt.ArrayLike,
    *,
    ids: npt.NDArray[np.str_],
    groups: npt.NDArray[np.str_],
    identity: tuple[Any, ...],
    splits: int,
    **options: Any,
) -> F64:
    """The probe on random halves of one sample (whole groups): AUCs (splits,) of a case with nothing to find."""
    f = np.asarray(x, float)
    unique = np.unique(groups)
    out = []
    for s in range(splits):
        chosen = generator("halves", *identity, s).permutation(len(unique))[: len(unique) // 2]
        first = np.isin(groups, unique[chosen])
        result = linear_probe(
            f[first],
            f[~first],
            ids_a=ids[first],
            ids_b=ids[~first],
            groups_a=groups[first],
            groups_b=groups[~first],
            identity=("halves", *identity, s),
            **{**options, "permutations": 0, "draws": 0, "repeats": 1},
        )
        out.append(result.auc)
    return np.asarray(out, float)
