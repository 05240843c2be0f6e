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
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import lightning
import numpy as np
import polars as pl
import torch

from lens_assets.science.detectors import frozen
from lens_assets.science.detectors.dataset import Normalised, StampSource, Views, n_batches
from lens_assets.science.detectors.effective import Data, effective, flat, left_out_of, start_logit
from lens_assets.science.detectors.encoder import EncoderNet, place_weights
from lens_assets.science.detectors.loop import HISTORY, Finder, Keeper, Stamps
from lens_assets.science.detectors.networks import LensNet, build_network
from lens_assets.science.detectors.news import Heard, Logger, relayed
from lens_assets.science.detectors.recipes import Recipe
from lens_assets.science.detectors.rows import rows_of
from lens_assets.science.detectors.score import best_device, bf16_supported, measure_drift
from lens_assets.science.detectors.settings import Settings
from lens_assets.science.errors import BadInput
from lens_assets.science.hashing import digest


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
    pulse: Callable[[str], None] | None = None,
    epochs: int | None = None,
) -> TrainResult:
    """Train one detector, or finish the training that a killed run began in ``workdir``.

    Parameters
    ----------
    sample : one row a galaxy: galaxy_id, role, label, weight, and tier and pool where known (see ``dataset.rows_of``).
    stamps : raw stamps, nanomaggies per pixel, and their inverse variance.
    workdir : a folder that outlives the process; the state goes to ``<workdir>/<identity>/last.ckpt``.
    progress : called with the history row of each epoch, the ``seconds`` it took and ``at_most``, the seconds to go if
        nothing ends the training early.
    pulse : called with a line of text about once a minute within an epoch.
    epochs : instead of the recipe's.

    Raises
    ------
    BadInput : sample or stamps that cannot be used, or more GPUs asked for than there
        are. ``FloatingPointError`` : a loss that is not finite.
    """
    settings = settings or Settings()
    if epochs is not None:
        recipe = recipe.model_copy(update={"schedule": recipe.schedule.model_copy(update={"epochs": epochs})})
    rows, select = rows_of(sample, "train", recipe), rows_of(sample, "select", recipe)
    pixels = Normalised(rows.galaxy_ids, stamps, recipe.normalisation, settings.cache_bytes)
    select_pixels = Normalised(
        select.galaxy_ids, stamps, recipe.normalisation, settings.cache_bytes - pixels._pixels.nbytes
    )
    data = Data(rows, pixels, select, select_pixels, left_out_of(sample, recipe))
    with _quiet_and_deterministic(settings.threads) as threads:
        return _train(recipe, data, workdir, settings, Heard(logger, progress, pulse), threads)


def _train(recipe: Recipe, data: Data, workdir: Path, settings: Settings, heard: Heard, threads: int) -> TrainResult:
    cuda = best_device().type == "cuda"
    if cuda and settings.devices > torch.cuda.device_count():
        there = torch.cuda.device_count()
        raise BadInput(
            f"{settings.devices} GPUs are asked for and there {'is' if there == 1 else 'are'} {there}", column="devices"
        )
    fast = recipe.precision == "bf16" or (recipe.precision == "auto" and bf16_supported())
    precision: Literal["bf16-mixed", "32-true"] = "bf16-mixed" if fast else "32-true"
    net = build_network(recipe.network, seed=recipe.seed, prior_logit=start_logit(data.rows, recipe))
    learnt = place_weights(net, settings.encoders) if isinstance(net, EncoderNet) else None
    processes = settings.devices * settings.nodes
    config = effective(recipe, data, net) | {
        "encoder": learnt,
        "precision_used": precision,
        "device": "cuda" if cuda else "cpu",
        "processes": processes,
        "threads": threads,
        "max_minutes": settings.max_minutes,
    }
    identity = digest("training", config)
    home = workdir / identity[:16]
    home.mkdir(parents=True, exist_ok=True)
    if heard.logger is not None:
        heard.logger.params(flat(config))
    keeper = Keeper(home / "last.ckpt", recipe.schedule, data.select, heard, settings.max_minutes, threads)
    resumed = keeper.peek()
    for row in keeper.history:
        Heard(heard.logger).epoch(row)
    pupil, inputs, select_inputs = _lesson(net, data, recipe, home, settings, heard)
    if not keeper.ended:
        trainer = lightning.Trainer(
            accelerator="cuda" if cuda else "cpu",
            devices=settings.devices,
            num_nodes=settings.nodes,
            strategy="auto" if processes == 1 else "ddp_spawn" if settings.strategy == "spawn" else "ddp",
            sync_batchnorm=cuda and processes > 1,
            precision=precision,
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
        steps = n_batches(config["epoch_size"], recipe) // recipe.schedule.accumulate
        module = Finder(pupil.to(memory_format=pupil.memory_format), recipe.schedule, steps)  # type: ignore[call-overload]
        batches = Stamps(data.rows, inputs, data.select, select_inputs, recipe, settings.workers)
        going_on = str(keeper.path) if resumed is not None else None
        if processes > 1 and settings.strategy == "spawn":
            with relayed(home / "news.jsonl", heard) as keeper.news:
                trainer.fit(module, batches, ckpt_path=going_on, weights_only=True)
            keeper.peek()
        else:
            trainer.fit(module, batches, ckpt_path=going_on, weights_only=True)
    return _result(recipe, data, config, identity, keeper, net, settings, resumed)


def _lesson(
    net: LensNet, data: Data, recipe: Recipe, home: Path, settings: Settings, heard: Heard
) -> tuple[LensNet, Views, Views]:
    """The network to train and its inputs: the whole one on stamps, or a frozen one's head on its features."""
    if not net.frozen:
        return net, data.pixels, data.select_pixels
    made: list[frozen.Features] = []
    views = frozen.orientations(recipe.augmentation)
    for name, pixels, seen in (("train", data.pixels, views), ("select", data.select_pixels, [(0, False)])):
        made.append(
            frozen.encoded(
                net, pixels, seen, recipe.input_size, home / f"features-{name}.npy",
                batch=settings.score_batch, device=best_device(), pulse=heard.pulse,
            )
        )  # fmt: skip
    return frozen.probe(net.cpu(), made[0]), made[0], made[1]


def _result(
    recipe: Recipe,
    data: Data,
    config: dict[str, Any],
    identity: str,
    keeper: Keeper,
    net: LensNet,
    settings: Settings,
    resumed: int | None,
) -> TrainResult:
    best = frozen.folded(net, keeper.best) if net.frozen else keeper.best
    weights = {name: tensor.contiguous().clone() for name, tensor in best.items()}
    weights["head.bias"] = weights["head.bias"] - config["prior_shift"]
    history = pl.DataFrame(keeper.history, schema=HISTORY).with_columns(best=pl.col("epoch") == keeper.best_epoch)
    result = TrainResult(recipe, weights, history, keeper.best_epoch, identity, config, {}, keeper.path)
    drift = None
    if bf16_supported():
        n = len(data.select)
        few = np.unique(np.linspace(0, n - 1, min(n, settings.drift_stamps)).astype(int))
        drift = measure_drift(result.network(), data.select_pixels[few], recipe.input_size, settings.score_batch)
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
            "cached": data.pixels.cached,
        }
    )
    return result


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
