"""Fitting how an ensemble combines its members, on rows of the role ``calibrate`` and on no other.

No member may have seen these rows: a network that trained on them gives them logits as it gives no new stamp, and a
combination fitted there learns to trust whoever memorised most (the published search fitted its meta-learner on the
base networks' training outputs). What the members saw is known row by row, and an overlap is refused.

What is fitted is judged out of fold: the rows are divided by sky cell, each fold's rows are combined by a rule fitted
on the others, and these out-of-fold logits give the loss that chooses the stacker's strength and the gain over the plain
mean that is reported. The rule that scores is then fitted on all of them. ``threshold``, ``report`` and hosts are not
touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.optimize import minimize

from lens_assets.science.detectors.ensemble_combine import F64, LogitMap, Rule
from lens_assets.science.detectors.ensemble_maps import isotonic, platt, targets
from lens_assets.science.detectors.ensembles import Combiner
from lens_assets.science.detectors.measures import auc_and_ap, expit, percentiles, ranked
from lens_assets.science.detectors.recipes import Domain
from lens_assets.science.detectors.rows import in_domain
from lens_assets.science.errors import BadInput
from lens_assets.science.hashing import generator, seed_of

Bools = npt.NDArray[np.bool_]
I64 = npt.NDArray[np.int64]
FOLDS = 5
STRENGTHS: tuple[float, ...] = (np.inf, 1e3, 3e2, 1e2, 3e1, 1e1, 3.0, 1.0, 0.3, 0.1)
"""Penalties of the stacker that are tried, from the calibrated mean (no member weighs more than another) downwards."""
DRAWS = 500
BOUNDS = ("lo68", "hi68", "lo95", "hi95")


@dataclass(frozen=True)
class Fit:
    """A rule, the out-of-fold table (galaxy_id, label, fold, logit, mean_logit), and what is to be told of the fit."""

    rule: Rule
    rows: pl.DataFrame | None
    facts: dict[str, Any]


def refuse_seen(rows: Iterable[str], seen: Mapping[str, Iterable[str]]) -> None:
    """:class:`BadInput` when a member (key -> galaxies it trained or was selected on) has seen one of ``rows``."""
    wanted = {*rows}
    for member, galaxies in seen.items():
        if both := sorted(wanted & {*galaxies}):
            raise BadInput(
                f"member {member} has seen {len(both)} of the {len(wanted)} rows its ensemble would be fitted on "
                f"(for instance {both[0]}): train it again on the present split",
                column="galaxy_id",
            )


def fit(
    combiner: Combiner,
    table: pl.DataFrame,
    members: Sequence[str],
    *,
    seed: int,
    domains: Sequence[Domain | None] = (),
    log_odds: float | None = None,
) -> Fit:
    """Fit a combiner.

    Parameters
    ----------
    table : one row a galaxy of the role ``calibrate``: galaxy_id, label, cell, the columns of the domains, and one
        column of logits a member, named by its key. Any order; the result does not depend on it. Not looked at by
        ``mean``.
    domains : of the members, for ``routed``.
    log_odds : ln(lenses / non-lenses) of the training sample, which a detector's logit refers to; ``calibrate`` may hold
        the classes in another ratio, and what is fitted there is moved by the difference. ``None``: not moved.

    Raises
    ------
    BadInput : too few lenses or non-lenses and the combiner says ``refuse``; a member whose logits do not rise with
        the label; nobody to route to.
    """
    if combiner.kind == "mean":
        return Fit(Rule(kind="mean", scale=combiner.scale), None, {"combiner": "mean", "fitted_on": 0})
    if combiner.kind == "routed" and not any(domains):
        raise BadInput("a routed ensemble needs a member with a domain; none has one", column="members")
    held = domains if combiner.kind == "routed" else (None,) * len(members)
    table = table.sort("galaxy_id")
    label = table["label"].to_numpy() == 1
    inside = np.stack(
        [table.select(_in=in_domain(d)).to_series().to_numpy() & np.ones(len(label), bool) for d in held], 1
    )
    counts: dict[str, Any] = {"fitted_on": table.height, "fitted_on_positives": int(label.sum())}
    faults = [(_too_few(label[i], combiner.min_positives), d) for i, d in zip(inside.T, held, strict=True)]
    if fault := next((f"{f}{f' ({d.about})' if d else ''}" for f, d in faults if f), ""):
        if combiner.fallback == "refuse":
            raise BadInput(
                f"a {combiner.kind} ensemble cannot be fitted: {fault}. Give the role `calibrate` a larger share of the "
                "split, choose a mean, or state `fallback: mean`",
                column="role",
            )
        told = {**counts, "combiner": "mean", "fell_back": f"mean instead of {combiner.kind}: {fault}"}
        return Fit(Rule(kind="mean", scale=combiner.scale), None, told)
    x = np.column_stack([table[m].to_numpy().astype(np.float64) for m in members])
    cell = table["cell"].to_numpy()
    fold = folds_of(cell, label)
    facts: dict[str, Any] = {**counts, "combiner": combiner.kind}
    if combiner.kind == "stacked":
        strength, losses = choose_strength(x, label, cell, fold)
        facts |= {"strength": _json(strength), "oof_loss_by_strength": {str(_json(k)): v for k, v in losses.items()}}

    def make(rows: Bools) -> Rule:
        if combiner.kind == "stacked":
            return stacked(x[rows], label[rows], strength)
        maps = calibrated(x[rows], label[rows], inside[rows], combiner, members)
        routed: dict[str, Any] = {"domains": tuple(domains)} if combiner.kind == "routed" else {}
        return Rule(kind=combiner.kind, scale=combiner.scale, maps=maps, **routed)

    logit = out_of_fold(x, fold, make, table)
    plain = out_of_fold(x, fold, lambda rows: stacked(x[rows], label[rows], np.inf))
    facts |= judged(logit, plain, label, cell, seed)
    rows = table.select("galaxy_id", "label").with_columns(
        fold=pl.Series(fold.astype(np.int32)), oof_logit=pl.Series(logit), oof_mean_logit=pl.Series(plain)
    )
    offset = 0.0 if log_odds is None else float(np.log(label.sum() / (~label).sum())) - log_odds
    return Fit(make(np.ones(len(label), bool)).moved(-offset), rows, facts | {"moved_by": -offset})


def _too_few(label: Bools, fewest: int) -> str:
    for name, n in (("lenses", int(label.sum())), ("non-lenses", int((~label).sum()))):
        if n < fewest:
            return f"the role `calibrate` has {n} {name}, {fewest} are needed"
    return ""


def _json(value: float) -> float | str:
    return "equal weights" if np.isinf(value) else value


def folds_of(cell: npt.ArrayLike, label: Bools, folds: int = FOLDS) -> I64:
    """Fold of each row: whole sky cells, lenses spread evenly, then rows; the same whatever the order of the rows."""
    names, where = np.unique(np.asarray(cell), return_inverse=True)
    lenses = np.bincount(where, label, len(names)).astype(int)
    rows = np.bincount(where, minlength=len(names))
    order = sorted(range(len(names)), key=lambda i: (-lenses[i], seed_of("fold", str(names[i]))))
    of_cell, filled = np.zeros(len(names), np.int64), np.zeros((folds, 2), int)
    for i in order:
        place = min(range(folds), key=lambda f: (filled[f, 0] if lenses[i] else 0, filled[f, 1], f))
        of_cell[i] = place
        filled[place] += lenses[i], rows[i]
    found: I64 = of_cell[where]
    for f in range(folds):
        train = label[found != f]
        if train.all() or not train.any():
            raise BadInput(f"the lenses lie in too few sky cells to be divided into {folds} folds", column="cell")
    return found


def out_of_fold(x: F64, fold: I64, make: Callable[[Bools], Rule], conditions: pl.DataFrame | None = None) -> F64:
    """The combined logit of each row by a rule made from the other folds' rows (given as a mask)."""
    out = np.empty(len(x))
    for f in np.unique(fold):
        held = fold == f
        out[held] = make(~held)(x[held], None if conditions is None else conditions.filter(pl.Series(held)))
    return out


def cross_entropy(logit: F64, label: npt.NDArray[Any]) -> F64:
    """``-log p`` of each row's label."""
    return np.logaddexp(0.0, np.where(np.asarray(label) == 1, -logit, logit))


def stacked(x: F64, label: Bools, strength: float) -> Rule:
    """Logistic regression on the members' logits with weights that are not negative and are pulled to one another.

    Minimises ``sum(-log p) + strength / 2 * sum_j s_j^2 (w_j - mean w)^2``, s_j the standard deviation of member j's
    difference to the members' mean; the common weight and the bias are free. So few rows give the calibrated mean, and
    only many give one member more than another. p is compared with Platt's targets, which keep the weights finite where
    the classes are apart. Non-negative weights: Breiman (1996, doi:10.1007/BF00117832).
    """
    m, y = x.shape[1], targets(label)
    if np.isinf(strength):
        line = platt(x.mean(1), label)
        bias = line.knots[0][1] - line.slope * line.knots[0][0]
        return Rule(kind="stacked", weights=(line.slope / m,) * m, bias=bias)
    spread = (x - x.mean(1, keepdims=True)).std(0) ** 2
    centre = np.eye(m) - 1.0 / m
    start = stacked(x, label, np.inf)

    def loss(p: F64) -> tuple[float, F64]:
        z = p[0] + x @ p[1:]
        away = centre @ p[1:]
        residual = expit(z) - y
        value = (np.logaddexp(0.0, z) - y * z).sum() + strength / 2 * (spread * away**2).sum()
        return float(value), np.concatenate([[residual.sum()], x.T @ residual + strength * centre @ (spread * away)])

    found = minimize(
        loss, [start.bias, *start.weights], jac=True, method="L-BFGS-B", bounds=[(None, None), *[(0.0, None)] * m],
        options={"ftol": 1e-12, "gtol": 1e-8, "maxiter": 2000},
    )  # fmt: skip
    return Rule(kind="stacked", weights=tuple(float(w) for w in found.x[1:]), bias=float(found.x[0]))


def choose_strength(x: F64, label: Bools, cell: npt.ArrayLike, fold: I64) -> tuple[float, dict[float, float]]:
    """The largest strength whose out-of-fold loss lies within one standard error of the smallest (Breiman et al. 1984),
    and the mean loss of each. The standard error is that of the paired difference, by sky cell."""
    losses = {
        s: cross_entropy(out_of_fold(x, fold, lambda rows, s=s: stacked(x[rows], label[rows], s)), label)  # type: ignore[misc]
        for s in STRENGTHS
    }
    means = {s: float(values.mean()) for s, values in losses.items()}
    best = min(means, key=lambda s: (means[s], -s))
    _, where = np.unique(np.asarray(cell), return_inverse=True)
    for s in STRENGTHS:
        difference = np.bincount(where, losses[s] - losses[best])
        error = float(np.sqrt((difference**2).sum())) / len(x)
        if means[s] - means[best] <= error:
            return s, means
    return best, means


def calibrated(x: F64, label: Bools, inside: Bools, combiner: Combiner, members: Sequence[str]) -> tuple[LogitMap, ...]:
    """Each member's map, fitted on the rows that lie in its domain (``inside``, (n, members))."""
    make = platt if combiner.map == "platt" else isotonic
    maps = []
    for j, member in enumerate(members):
        rows = inside[:, j]
        if label[rows].all() or not label[rows].any():
            raise BadInput(f"member {member}: the rows of its domain in a fold are of one class", column="role")
        try:
            maps.append(make(x[rows, j], label[rows]))
        except BadInput as fault:
            raise BadInput(f"member {member}: {fault}") from fault
    return tuple(maps)


def judged(logit: F64, plain: F64, label: Bools, cell: npt.ArrayLike, seed: int) -> dict[str, Any]:
    """Out-of-fold loss and AUC of the fit, and their differences to the calibrated plain mean with intervals by a
    bootstrap of sky cells (paired: both lose and win on the same rows)."""
    names, where = np.unique(np.asarray(cell), return_inverse=True)
    gain = cross_entropy(plain, label) - cross_entropy(logit, label)
    drawn_cells = generator("ensemble fit", seed, len(label)).integers(0, len(names), (DRAWS, len(names)))
    times = np.stack([np.bincount(d, minlength=len(names)) for d in drawn_cells])
    weights = np.vstack([np.ones(len(label)), times[:, where]])
    one, other = (auc_and_ap(ranked(z, label), weights[:, np.argsort(-z, kind="stable")])[0] for z in (logit, plain))
    weights = weights[1:]
    drawn = (weights @ gain) / weights.sum(1)
    return {
        "oof_loss": float(cross_entropy(logit, label).mean()),
        "oof_auc": float(one[0]),
        "oof_loss_gain_over_mean": {"value": float(gain.mean()), **dict(zip(BOUNDS, percentiles(drawn), strict=True))},
        "oof_auc_gain_over_mean": {
            "value": float(one[0] - other[0]),
            **dict(zip(BOUNDS, percentiles(one[1:] - other[1:]), strict=True)),
        },
    }
