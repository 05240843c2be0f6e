"""Training: a recipe, the rows of roles ``train`` and ``select``, their stamps -> the weights of the best epoch.

Only these two roles are read. The epoch is chosen by the AUC on ``select`` (equal AUCs, which small samples have, by the
unweighted loss on the same rows); training stops when that has not improved for ``patience`` epochs. No injection and no
row of another role can reach this module's network: the rest of the sample is filtered away first.

A run can be killed at any moment and started again: after each epoch one file (weights, optimiser, schedule, history and
the best weights so far) replaces its predecessor in one step. It lies in a folder named after everything that decides the
result, and because every epoch is a function of (seed, epoch) the continued run ends in the same bytes as an undisturbed
one on the same machine with the same number of threads. Saving the result is ``checkpoint``'s, MLflow is ``tracking``'s.
"""

from __future__ import annotations

import logging
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import lightning as L
import numpy as np
import polars as pl
import torch
from sklearn.metrics import roc_auc_score
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader

from lens_assets.science.detectors.dataset import (
    POSITIVE,
    Batch,
    Epoch,
    Normalised,
    Rows,
    StampSource,
    epoch_counts,
    n_batches,
    prior_shift,
    rows_of,
)
from lens_assets.science.detectors.networks import LensNet, build_network, count_parameters
from lens_assets.science.detectors.recipes import Recipe, Schedule
from lens_assets.science.detectors.score import bf16_supported, measure_drift
from lens_assets.science.detectors.settings import Settings
from lens_assets.science.hashing import digest
from lens_assets.science.provenance import code_digest, versions

ROOMS = ("detectors/recipes.py", "detectors/networks.py", "detectors/dataset.py", "detectors/train.py", "cutouts/normalise.py")
"""Source files whose change makes another detector."""


class Logger(Protocol):
    """What training tells a tracker."""

    def params(self, values: Mapping[str, Any]) -> None:
        """The effective configuration, once."""
        ...

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """The curves, once an epoch."""
        ...


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
    trainer = L.Trainer(
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
        trainer.fit(module, data, ckpt_path=str(keeper.path) if resumed else None, weights_only=True)
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
    """The configuration that really acts: after overrides, with realised counts and weights, and the digests of the data."""
    counts = epoch_counts(rows, recipe.mixture)
    positive = rows.group == POSITIVE
    mean_weight = float(rows.weight[positive].mean() / rows.weight[~positive].mean())
    distinct, times = np.unique(rows.weight, return_counts=True)
    sides = [[list(r.galaxy_ids), r.label.tolist(), r.target.tolist(), r.weight.tolist(), r.group.tolist()] for r in (rows, select)]
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


HISTORY = {
    "epoch": pl.Int32,
    "steps": pl.Int32,
    "lr": pl.Float64,
    "train_loss": pl.Float64,
    "select_loss": pl.Float64,
    "select_auc": pl.Float64,
}


class Finder(L.LightningModule):
    """The training step: weighted binary cross-entropy. The logits of the validation rows are left for the keeper."""

    def __init__(self, net: LensNet, schedule: Schedule, steps_per_epoch: int) -> None:
        super().__init__()
        self.net, self.schedule, self.steps_per_epoch = net, schedule, steps_per_epoch
        self.losses: list[torch.Tensor] = []
        self.logits: list[torch.Tensor] = []

    def training_step(self, batch: Batch, _: int) -> torch.Tensor:
        stamps, target, weight = batch
        loss = weighted_loss(self.net(stamps), target, weight)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss.item()} in epoch {self.current_epoch}")
        self.losses.append(loss.detach())
        return loss

    def validation_step(self, batch: Batch, _: int) -> None:
        self.logits.append(self.net(batch[0]).float().cpu())

    def configure_optimizers(self) -> Any:
        plain = [p for p in self.net.parameters() if p.ndim > 1]
        flat = [p for p in self.net.parameters() if p.ndim <= 1]  # norms and biases are not decayed
        groups = [{"params": plain, "weight_decay": self.schedule.weight_decay}, {"params": flat, "weight_decay": 0.0}]
        optimiser = torch.optim.AdamW(groups, lr=self.schedule.lr)
        rate = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: rate_factor(self.schedule, step / self.steps_per_epoch)
        )
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": rate, "interval": "step"}}


def weighted_loss(logit: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """``mean(weight * cross-entropy)``: divided by the number of stamps, so a batch of light weights moves the network less."""
    return (weight * binary_cross_entropy_with_logits(logit.float(), target, reduction="none")).mean()


def rate_factor(schedule: Schedule, epoch: float) -> float:
    """The learning rate at a (fractional) epoch in units of ``lr``: linear warm-up, then the schedule."""
    if epoch < schedule.warmup_epochs:
        return (epoch + 1e-3) / (schedule.warmup_epochs + 1e-3)
    if schedule.kind == "step":
        return schedule.gamma ** sum(epoch >= m for m in schedule.milestones)
    if schedule.kind == "constant":
        return 1.0
    span = max(schedule.epochs - schedule.warmup_epochs, 1e-9)
    return max(0.5 * (1 + math.cos(math.pi * min(1.0, (epoch - schedule.warmup_epochs) / span))), 1e-3)


class Stamps(L.LightningDataModule):
    """A new :class:`Epoch` for each epoch."""

    def __init__(
        self, rows: Rows, pixels: Normalised, select: Rows, select_pixels: Normalised, recipe: Recipe, workers: int
    ) -> None:
        super().__init__()
        self._train, self._select, self._recipe, self._workers = (rows, pixels), (select, select_pixels), recipe, workers

    def train_dataloader(self) -> DataLoader[Batch]:
        assert self.trainer is not None
        epoch = Epoch(*self._train, self._recipe, self.trainer.current_epoch)
        return DataLoader(epoch, batch_size=None, num_workers=self._workers)

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(Epoch(*self._select, self._recipe, 0, augment=False), batch_size=None)


class Keeper(L.Callback):
    """Judges each epoch, keeps the best weights, decides when to stop, and writes the state after each epoch."""

    def __init__(
        self,
        path: Path,
        schedule: Schedule,
        select: Rows,
        logger: Logger | None,
        progress: Callable[[dict[str, Any]], None] | None,
        max_minutes: float | None,
    ) -> None:
        self.path, self._schedule, self._select = path, schedule, select
        self._logger, self._progress, self._max_minutes = logger, progress, max_minutes
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, torch.Tensor] = {}
        self.best_epoch, self.ended = -1, ""
        self.seconds: list[float] = []
        self._began = self._epoch_began = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history, "best": self.best, "best_epoch": self.best_epoch, "ended": self.ended}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history, self.best = state_dict["history"], state_dict["best"]
        self.best_epoch, self.ended = state_dict["best_epoch"], state_dict["ended"]

    def peek(self) -> int | None:
        """Load what an earlier run left; the last finished epoch, or ``None``."""
        if not self.path.is_file():
            return None
        state = torch.load(self.path, map_location="cpu", weights_only=True)
        self.load_state_dict(state["callbacks"][self.state_key])
        if self._logger is not None:
            for row in self.history:
                self._logger.metrics(_numbers(row), step=row["epoch"])
        return int(self.history[-1]["epoch"])

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._epoch_began = time.monotonic()

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._module(pl_module).logits.clear()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        module = self._module(pl_module)
        logit = torch.cat(module.logits).double()
        label = torch.from_numpy(self._select.label).double()
        row = {
            "epoch": trainer.current_epoch,
            "steps": trainer.global_step,
            "lr": float(trainer.optimizers[0].param_groups[0]["lr"]),
            "train_loss": float(torch.stack(module.losses).double().mean()),
            "select_loss": float(binary_cross_entropy_with_logits(logit, label)),
            "select_auc": float(roc_auc_score(self._select.label, logit.numpy())),
        }
        module.losses.clear()
        if not self.history or _merit(row) > _merit(self.history[self._index(self.best_epoch)]):
            self.best_epoch = row["epoch"]
            self.best = {name: t.detach().cpu().clone() for name, t in module.net.state_dict().items()}
        self.history.append(row)
        if row["epoch"] - self.best_epoch >= self._schedule.patience:
            self.ended = f"no better epoch in {self._schedule.patience}"
        elif self._max_minutes is not None and time.monotonic() - self._began > 60 * self._max_minutes:
            self.ended = f"{self._max_minutes:g} minutes were over"
        elif row["epoch"] + 1 >= self._schedule.epochs:
            self.ended = "all epochs"
        trainer.should_stop = bool(self.ended)
        self._write(trainer)
        self.seconds.append(time.monotonic() - self._epoch_began)
        if self._logger is not None:
            self._logger.metrics(_numbers(row), step=row["epoch"])
        if self._progress is not None:
            self._progress({**row, "seconds": self.seconds[-1]})

    def _write(self, trainer: L.Trainer) -> None:
        scratch = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        trainer.save_checkpoint(scratch)
        with open(scratch, "rb") as stream:
            os.fsync(stream.fileno())
        os.replace(scratch, self.path)
        for dead in self.path.parent.glob(f".{self.path.name}.*"):
            dead.unlink(missing_ok=True)

    def _index(self, epoch: int) -> int:
        return next(i for i, row in enumerate(self.history) if row["epoch"] == epoch)

    @staticmethod
    def _module(module: L.LightningModule) -> Finder:
        assert isinstance(module, Finder)
        return module


def _merit(row: Mapping[str, Any]) -> tuple[float, float]:
    return row["select_auc"], -row["select_loss"]


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in row.items() if name != "epoch"}


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, item in value.items():
        flat |= _flat(item, f"{prefix}{name}.") if isinstance(item, Mapping) and item else {f"{prefix}{name}": item}
    return flat


@contextmanager
def _quiet_and_deterministic(threads: int | None) -> Iterator[int]:
    """Deterministic algorithms and a stated number of threads while training; Lightning's chatter off; all put back after."""
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
