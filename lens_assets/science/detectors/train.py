"""Training: a recipe, the rows of roles ``train`` and ``select``, their stamps -> the weights of the best epoch.

Only these two roles are read. The epoch is chosen by the AUC on ``select`` (equal AUCs, which small samples have, by
the unweighted loss on the same rows); training stops when that has not improved for ``patience`` epochs. No injection
and no row of another role can reach this module's network: the rest of the sample is filtered away first.

A run can be killed at any moment and started again: after each epoch one file (weights, optimiser, schedule, history
and the best weights so far) replaces its predecessor in one step. It lies in a folder named after everything that
decides the result, and because every epoch is a function of (seed, epoch) the continued run ends in the same bytes as
an undisturbed one on the same machine with the same number of threads. Saving the result is ``checkpoint``'s, MLflow
is ``tracking``'s.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import polars as pl
import torch

from lens_assets.science.detectors.dataset import (
    POSITIVE,
    Normalised,
    Rows,
    StampSource,
    epoch_counts,
    n_batches,
    prior_shift,
    rows_of,
)
from lens_assets.science.detectors.loop import HISTORY, Finder, Keeper, Logger, Stamps
from lens_assets.science.detectors.networks import LensNet, build_network, count_parameters
from lens_assets.science.detectors.recipes import Recipe
from lens_assets.science.detectors.score import bf16_supported, measure_drift
from lens_assets.science.detectors.settings import Settings
from lens_assets.science.hashing import digest
from lens_assets.science.provenance import code_digest, versions

ROOMS = (
    "detectors/recipes.py",
    "detectors/networks.py",
    "detectors/dataset.py",
    "detectors/loop.py",
    "detectors/train.py",
    "cutouts/normalise.py",
)
"""Source files whose change makes another detector."""


@dataclass(frozen=True)
class TrainResult:
    """The best epoch's weights (the mixture's prior taken off), the curves, and what made them.

    ``facts`` holds what was measured about the run (times, rates, how it ended) beside the effective configuration;
    ``history`` has one row an epoch: epoch, steps, lr, train_loss, select_loss, select_auc, best.
    """

    recipe: Recipe
    weights: dict[str, torch.Tensor]
    history: pl.DataFrame
    best_epoch: int
    identity: str
    config: dict[str, Any]
    facts: dict[str, Any]
    checkpoint: Path = field(compare=False)

    def network(self) -> LensNet:
        """The trained network in eval mode."""
        net = build_network(self.recipe.network)
        net.load_state_dict(self.weights)
        return net.eval()


def train(
    recipe: Recipe,
    sample: pl.DataFrame,
    stamps: StampSource,
    workdir: Path,
    *,
    settings: Settings | None = None,
    logger: Logger | None = None,
    progress: Callable[[dict[str, Any]], None] | None = None,
    epochs: int | None = None,
) -> TrainResult:
    """Train one detector, or finish the training that a killed run began in ``workdir``.

    Parameters
    ----------
    sample : one row a galaxy: galaxy_id, role, label, weight, and tier and pool where known (see ``dataset.rows_of``).
    stamps : raw stamps, nanomaggies per pixel, and their inverse variance.
    workdir : a folder that outlives the process; the state goes to ``<workdir>/<identity>/last.ckpt``.
    progress : called with the history row of each epoch (and ``seconds``).
    epochs : instead of the recipe's.

    Raises
    ------
    BadInput : sample or stamps that cannot be used. ``FloatingPointError`` : a loss that is not finite.
    """
    settings = settings or Settings()
    if epochs is not None:
        recipe = recipe.model_copy(update={"schedule": recipe.schedule.model_copy(update={"epochs": epochs})})
    rows, select = rows_of(sample, "train", recipe), rows_of(sample, "select", recipe)
    pixels = Normalised(rows.galaxy_ids, stamps, recipe.normalisation, settings.cache_bytes)
    left = settings.cache_bytes - (pixels._pixels.nbytes)
    select_pixels = Normalised(select.galaxy_ids, stamps, recipe.normalisation, left)
    with _quiet_and_deterministic(settings.threads) as threads:
        return _train(recipe, rows, pixels, select, select_pixels, workdir, settings, logger, progress, threads)


def _train(
    recipe: Recipe,
    rows: Rows,
    pixels: Normalised,
    select: Rows,
    select_pixels: Normalised,
    workdir: Path,
    settings: Settings,
    logger: Logger | None,
    progress: Callable[[dict[str, Any]], None] | None,
    threads: int,
) -> TrainResult:
    cuda = torch.cuda.is_available()
    fast = recipe.precision == "bf16" or (recipe.precision == "auto" and (cuda or bf16_supported()))
    config = _effective(recipe, rows, pixels, select, select_pixels) | {
        "precision_used": "bf16-mixed" if fast else "32-true",
        "device": "cuda" if cuda else "cpu",
        "threads": threads,
        "max_minutes": settings.max_minutes,
    }
    identity = digest("training", config)
    home = workdir / identity[:16]
    home.mkdir(parents=True, exist_ok=True)
    keeper = Keeper(home / "last.ckpt", recipe.schedule, select, logger, progress, settings.max_minutes)
    net = build_network(recipe.network, seed=recipe.seed, prior_logit=config["prior_logit"])
    if logger is not None:
        logger.params(_flat(config))
    trainer = lightning.Trainer(
        accelerator="cuda" if cuda else "cpu",
        devices=1,
        precision="bf16-mixed" if fast else "32-true",
        max_epochs=recipe.schedule.epochs,
        accumulate_grad_batches=recipe.schedule.accumulate,
        gradient_clip_val=recipe.schedule.clip,
        callbacks=[keeper],
        deterministic=True,
        reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=home,
    )
    steps = n_batches(sum(epoch_counts(rows, recipe.mixture)), recipe) // recipe.schedule.accumulate
    resumed = keeper.peek()
    if not keeper.ended:
        module = Finder(net.to(memory_format=torch.channels_last), recipe.schedule, steps)  # type: ignore[call-overload]
        data = Stamps(rows, pixels, select, select_pixels, recipe, settings.workers)
        trainer.fit(module, data, ckpt_path=str(keeper.path) if resumed is not None else None, weights_only=True)
    weights = {name: tensor.contiguous().clone() for name, tensor in keeper.best.items()}
    weights["head.bias"] = weights["head.bias"] - config["prior_shift"]
    history = pl.DataFrame(keeper.history, schema=HISTORY).with_columns(best=pl.col("epoch") == keeper.best_epoch)
    result = TrainResult(recipe, weights, history, keeper.best_epoch, identity, config, {}, keeper.path)
    drift = None
    if bf16_supported():
        few = np.unique(np.linspace(0, len(select) - 1, min(len(select), settings.drift_stamps)).astype(int))
        drift = measure_drift(result.network(), select_pixels[few], recipe.input_size, settings.score_batch)
    spent = sum(keeper.seconds)
    result.facts.update(
        {
            "best_epoch": keeper.best_epoch,
            "select_auc": history.filter("best")["select_auc"][0],
            "epochs_run": history.height,
            "ended": keeper.ended or "all epochs",
            "resumed_after_epoch": resumed,
            "bf16_drift": drift,
            "seconds": round(spent, 2),
            "stamps_per_second": round(len(keeper.seconds) * config["epoch_size"] / spent, 1) if spent else None,
            "cached": pixels.cached,
        }
    )
    return result


def _effective(
    recipe: Recipe, rows: Rows, pixels: Normalised, select: Rows, select_pixels: Normalised
) -> dict[str, Any]:
    """The configuration that really acts: after overrides, with realised counts and weights, and the digests of the
    data."""
    counts = epoch_counts(rows, recipe.mixture)
    positive = rows.group == POSITIVE
    mean_weight = float(rows.weight[positive].mean() / rows.weight[~positive].mean())
    distinct, times = np.unique(rows.weight, return_counts=True)
    sides = [
        [list(r.galaxy_ids), r.label.tolist(), r.target.tolist(), r.weight.tolist(), r.group.tolist()]
        for r in (rows, select)
    ]
    return {
        "recipe": recipe.model_dump(mode="json", exclude={"about", "seeds"}),
        "loss": "binary cross-entropy x weight, mean over the batch",
        "loss_weights": {f"{w:g}": int(n) for w, n in zip(distinct, times, strict=True)},
        "label_smoothing_rows": int((rows.target != rows.label).sum()),
        "train_rows": len(rows),
        "train_positives": int(positive.sum()),
        "select_rows": len(select),
        "select_positives": int((select.label == 1).sum()),
        "epoch_size": sum(counts),
        "epoch_positives": counts[0],
        "epoch_n1": counts[1],
        "epoch_n2": counts[2],
        "prior_logit": math.log(counts[0] / (counts[1] + counts[2])) + math.log(mean_weight),
        "prior_shift": prior_shift(rows, recipe.mixture),
        "parameters": count_parameters(build_network(recipe.network)),
        "data_digest": digest(sides, pixels.digest, select_pixels.digest),
        "code_digest": code_digest(*ROOMS),
        "versions": versions("torch", "lightning", "numpy"),
    }


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, item in value.items():
        flat |= _flat(item, f"{prefix}{name}.") if isinstance(item, Mapping) and item else {f"{prefix}{name}": item}
    return flat


@contextmanager
def _quiet_and_deterministic(threads: int | None) -> Iterator[int]:
    """Deterministic algorithms and a stated number of threads while training; Lightning's chatter off; all put back
    after."""
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    chatter = logging.getLogger("lightning.pytorch")
    level = chatter.level
    try:
        torch.set_num_threads(threads or before[0])
        chatter.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*")
            yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])
        chatter.setLevel(level)
