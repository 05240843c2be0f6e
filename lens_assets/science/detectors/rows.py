"""Which rows a network learns from: role, domain and weight of each, and the mixture of an epoch.

Only the roles ``train`` and ``select`` are ever read. What an epoch then shows of them: ``dataset``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from lens_assets.science.detectors.recipes import Domain, Interval, Mixture, Recipe
from lens_assets.science.errors import BadInput
from lens_assets.science.hashing import mix64, seed_of

F32 = npt.NDArray[np.float32]
U64 = npt.NDArray[np.uint64]

POSITIVE, N1, N2 = 0, 1, 2


@dataclass(frozen=True)
class Rows:
    """The rows of one role, sorted by ``galaxy_id``: identity, target, loss weight and the group they are drawn
    from."""

    galaxy_ids: tuple[str, ...]
    keys: U64
    label: F32
    target: F32
    weight: F32
    group: npt.NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.galaxy_ids)


def in_domain(domain: Domain | None) -> pl.Expr:
    """Whether a row lies in the domain; a null lies in none."""
    if domain is None:
        return pl.lit(True)
    alternatives = []
    for alternative in domain.any_of:
        terms = [pl.lit(True)]
        for column, wanted in sorted(alternative.items()):
            value = pl.col(column)
            if isinstance(wanted, Interval):
                terms.append(value.is_not_null())
                terms += [] if wanted.low is None else [value >= wanted.low]
                terms += [] if wanted.high is None else [value < wanted.high]
            else:
                terms.append(value.is_in(list(wanted)))
        alternatives.append(pl.all_horizontal(terms))
    return pl.any_horizontal(alternatives).fill_null(False)


def split_of(sample: pl.DataFrame, recipe: Recipe) -> pl.DataFrame:
    """The rows of roles ``train`` and ``select``; with a ``random_split`` their roles are drawn anew, by a hash of the
    galaxy alone."""
    part = sample.filter(pl.col("role").is_in(["train", "select"]))
    if recipe.random_split is None:
        return part
    keys = np.array([seed_of("galaxy", g) for g in part["galaxy_id"]], np.uint64)
    drawn = mix64(keys, seed_of("random split")) / 2.0**64 < recipe.random_split.train
    return part.with_columns(role=pl.Series(np.where(drawn, "train", "select"), dtype=pl.String))


def rows_of(sample: pl.DataFrame, role: str, recipe: Recipe) -> Rows:
    """The rows of ``sample`` with this ``role`` (``train`` or ``select``) in the recipe's domain, and the weights the
    recipe gives them.

    Needs columns galaxy_id, role, label (0/1), weight; those of the domain; tier and pool where they are. Raises
    :class:`BadInput` for repeated ids, other labels, weights that are not positive, or a role without both classes.
    """
    domain = [] if recipe.domain is None else recipe.domain.columns
    for column in ("galaxy_id", "role", "label", "weight", *domain):
        if column not in sample.columns:
            raise BadInput("the sample needs this column", column=column)
    part = split_of(sample, recipe).filter((pl.col("role") == role) & in_domain(recipe.domain)).sort("galaxy_id")
    if part["galaxy_id"].n_unique() != part.height:
        raise BadInput(f"a galaxy is more than once in role {role!r}", column="galaxy_id")
    label = part["label"].cast(pl.Float32).to_numpy(writable=True)
    if not np.isin(label, (0.0, 1.0)).all():
        raise BadInput(f"role {role!r} holds labels other than 0 and 1", column="label")
    if not (label == 1).any() or not (label == 0).any():
        within = "" if recipe.domain is None else f" within the domain ({recipe.domain.about})"
        raise BadInput(
            f"role {role!r} has {int((label == 1).sum())} positives and {int((label == 0).sum())} negatives{within}"
        )
    weight = part["weight"].cast(pl.Float32).fill_null(1.0).to_numpy().copy()
    if not recipe.weighted:
        weight[:] = 1.0
    target = label.copy()
    if "tier" in part.columns:
        tier_b = (part["tier"] == "B").fill_null(False).to_numpy() & (label == 1)
        if recipe.tier_b_weight is not None:
            weight[tier_b] = recipe.tier_b_weight
        target[tier_b] = 1.0 - recipe.label_smoothing_b
    if not (np.isfinite(weight) & (weight > 0)).all():
        raise BadInput(f"role {role!r}: a weight is not positive", column="weight")
    group = np.full(part.height, N1, np.int8)
    if "pool" in part.columns:
        group[(part["pool"] == "N2").fill_null(False).to_numpy()] = N2
    group[label == 1] = POSITIVE
    ids = tuple(part["galaxy_id"].to_list())
    keys = np.array([seed_of("galaxy", g) for g in ids], np.uint64)
    return Rows(ids, keys, label, target, weight, group)


def epoch_counts(rows: Rows, mixture: Mixture) -> tuple[int, int, int]:
    """How many positives, N1 and N2 an epoch draws. :class:`BadInput` when a group it needs is empty."""
    size = mixture.epoch_size or len(rows)
    have = np.bincount(rows.group, minlength=3)
    share = have[POSITIVE] / len(rows) if mixture.positive_fraction is None else mixture.positive_fraction
    positives = max(1, round(share * size))
    share_n2 = have[N2] / max(have[N1] + have[N2], 1) if mixture.n2 is None else mixture.n2
    n2 = round(share_n2 * (size - positives))
    counts = (positives, size - positives - n2, n2)
    for name, n, available in zip(("positives", "N1", "N2"), counts, have, strict=True):
        if n and not available:
            raise BadInput(f"the mixture asks for {n} {name} an epoch and the sample has none; change `mixture`")
    return counts


def prior_shift(rows: Rows, mixture: Mixture) -> float:
    """log-odds that the mixture adds over the sample's own ratio of positives to negatives (0 without oversampling).

    Training on odds multiplied by a factor adds the log of that factor to an ideal logit (Saerens et al. 2002,
    doi:10.1162/089976602753284446, eq. 2.4); it is taken off the head's bias when training ends. The mixing of N1 and
    N2 changes the negatives themselves and has no such correction; that is what the calibration map is for.
    """
    positives, n1, n2 = epoch_counts(rows, mixture)
    have = np.bincount(rows.group, minlength=3)
    return float(np.log(positives / (n1 + n2)) - np.log(have[POSITIVE] / (have[N1] + have[N2])))
