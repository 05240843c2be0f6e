"""The configuration of a training that really acts: after overrides, with what the data made of it.

It decides the identity of a training, goes to the tracker, and stays with the detector. Weights that were stated and not
used, or a mixture that the sample could not give, would be seen here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from lens_assets.science.detectors.dataset import Normalised
from lens_assets.science.detectors.networks import SOURCES, LensNet, count_parameters, family
from lens_assets.science.detectors.recipes import Recipe
from lens_assets.science.detectors.rows import POSITIVE, Rows, epoch_counts, in_domain, prior_shift, split_of
from lens_assets.science.hashing import digest
from lens_assets.science.provenance import code_digest, versions

ROOMS = (
    "detectors/recipes.py",
    *SOURCES,
    "detectors/rows.py",
    "detectors/dataset.py",
    "detectors/frozen.py",
    "detectors/loop.py",
    "detectors/train.py",
    "detectors/effective.py",
    "cutouts/normalise.py",
)
"""Source files whose change makes another detector."""


BLOCKED = "train and select are blocks on the sky"
AT_RANDOM = "rows of train and select split at random, {:.0%} to train: not blocked on the sky, its select AUC flatters"
WHOLE = "all rows"


@dataclass(frozen=True)
class Data:
    """What a training learns from and is judged by; ``left_out`` counts what the recipe's domain excludes."""

    rows: Rows
    pixels: Normalised
    select: Rows
    select_pixels: Normalised
    left_out: dict[str, int]


def left_out_of(sample: pl.DataFrame, recipe: Recipe) -> dict[str, int]:
    """Rows of each role and class that lie outside the recipe's domain."""
    outside = split_of(sample, recipe).filter(~in_domain(recipe.domain))
    return {
        f"{role}_{name}": outside.filter((pl.col("role") == role) & (pl.col("label") == label)).height
        for role in ("train", "select")
        for label, name in ((1, "positives"), (0, "negatives"))
    }


def start_logit(rows: Rows, recipe: Recipe) -> float:
    """The log-odds of an epoch, weights included: where the head starts."""
    counts = epoch_counts(rows, recipe.mixture)
    positive = rows.group == POSITIVE
    mean_weight = float(rows.weight[positive].mean() / rows.weight[~positive].mean())
    return math.log(counts[0] / (counts[1] + counts[2])) + math.log(mean_weight)


def effective(recipe: Recipe, data: Data, net: LensNet) -> dict[str, Any]:
    """The configuration that really acts: after overrides, with realised counts and weights, and the digests of the
    data."""
    rows, select = data.rows, data.select
    counts = epoch_counts(rows, recipe.mixture)
    distinct, times = np.unique(rows.weight, return_counts=True)
    sides = [
        [list(r.galaxy_ids), r.label.tolist(), r.target.tolist(), r.weight.tolist(), r.group.tolist()]
        for r in (rows, select)
    ]
    return {
        "recipe": recipe.model_dump(mode="json", exclude={"about", "seeds"}),
        "family": family(recipe.network),
        "loss": "binary cross-entropy x weight, mean over the batch" if recipe.weighted else "binary cross-entropy",
        "loss_weights": {f"{w:g}": int(n) for w, n in zip(distinct, times, strict=True)},
        "label_smoothing_rows": int((rows.target != rows.label).sum()),
        "split": BLOCKED if recipe.random_split is None else AT_RANDOM.format(recipe.random_split.train),
        "domain": WHOLE if recipe.domain is None else recipe.domain.about,
        "outside_domain": data.left_out,
        "train_rows": len(rows),
        "train_positives": int((rows.group == POSITIVE).sum()),
        "select_rows": len(select),
        "select_positives": int((select.label == 1).sum()),
        "epoch_size": sum(counts),
        "epoch_positives": counts[0],
        "epoch_n1": counts[1],
        "epoch_n2": counts[2],
        "prior_logit": start_logit(rows, recipe),
        "prior_shift": prior_shift(rows, recipe.mixture),
        "parameters": count_parameters(net),
        "trained_parameters": count_parameters(net.head if net.frozen else net),
        "data_digest": digest(sides, data.pixels.digest, data.select_pixels.digest),
        "code_digest": code_digest(*ROOMS),
        "versions": versions("torch", "lightning", "numpy", *(("transformers",) if net.frozen else ())),
    }


def flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, item in value.items():
        out |= flat(item, f"{prefix}{name}.") if isinstance(item, Mapping) and item else {f"{prefix}{name}": item}
    return out
