"""One training as Lightning runs it: the step, the batches of each epoch, and the keeper.

The keeper judges an epoch by the ``select`` rows, keeps the best weights, decides when to stop, and after each epoch
writes the whole state as one file that replaces its predecessor in one step. Everything it needs to go on is in that
file. Which rows, which configuration, and what becomes of the result: ``train``.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import lightning
import polars as pl
import torch
from sklearn.metrics import roc_auc_score
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader

from lens_assets.science.detectors.dataset import Batch, Epoch, Normalised, Rows
from lens_assets.science.detectors.networks import LensNet
from lens_assets.science.detectors.recipes import Recipe, Schedule


class Logger(Protocol):
    """What training tells a tracker."""

    def params(self, values: Mapping[str, Any]) -> None:
        """The effective configuration, once."""
        ...

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """The curves, once an epoch."""
        ...


HISTORY = {
    "epoch": pl.Int32,
    "steps": pl.Int32,
    "lr": pl.Float64,
    "train_loss": pl.Float64,
    "select_loss": pl.Float64,
    "select_auc": pl.Float64,
}


class Finder(lightning.LightningModule):
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
    """``mean(weight * cross-entropy)``: divided by the number of stamps, so a batch of light weights moves the
    network less."""
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


class Stamps(lightning.LightningDataModule):
    """A new :class:`Epoch` for each epoch."""

    def __init__(
        self, rows: Rows, pixels: Normalised, select: Rows, select_pixels: Normalised, recipe: Recipe, workers: int
    ) -> None:
        super().__init__()
        self._train, self._select = (rows, pixels), (select, select_pixels)
        self._recipe, self._workers = recipe, workers

    def train_dataloader(self) -> DataLoader[Batch]:
        assert self.trainer is not None
        epoch = Epoch(*self._train, self._recipe, self.trainer.current_epoch)
        return DataLoader(epoch, batch_size=None, num_workers=self._workers)

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(Epoch(*self._select, self._recipe, 0, augment=False), batch_size=None)


class Keeper(lightning.Callback):
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

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._epoch_began = time.monotonic()

    def on_validation_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._module(pl_module).logits.clear()

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        module = self._module(pl_module)
        logit = torch.cat(module.logits).double()
        label = torch.from_numpy(self._select.label).double()
        epoch = int(trainer.current_epoch)
        row: dict[str, Any] = {
            "epoch": epoch,
            "steps": trainer.global_step,
            "lr": float(trainer.optimizers[0].param_groups[0]["lr"]),
            "train_loss": float(torch.stack(module.losses).double().mean()),
            "select_loss": float(binary_cross_entropy_with_logits(logit, label)),
            "select_auc": float(roc_auc_score(self._select.label, logit.numpy())),
        }
        module.losses.clear()
        if not self.history or _merit(row) > _merit(self.history[self._index(self.best_epoch)]):
            self.best_epoch = epoch
            self.best = {name: t.detach().cpu().clone() for name, t in module.net.state_dict().items()}
        self.history.append(row)
        if epoch - self.best_epoch >= self._schedule.patience:
            self.ended = f"no better epoch in {self._schedule.patience}"
        elif self._max_minutes is not None and time.monotonic() - self._began > 60 * self._max_minutes:
            self.ended = f"{self._max_minutes:g} minutes were over"
        elif epoch + 1 >= self._schedule.epochs:
            self.ended = "all epochs"
        trainer.should_stop = bool(self.ended)
        self._write(trainer)
        self.seconds.append(time.monotonic() - self._epoch_began)
        if self._logger is not None:
            self._logger.metrics(_numbers(row), step=epoch)
        if self._progress is not None:
            self._progress({**row, "seconds": self.seconds[-1]})

    def _write(self, trainer: lightning.Trainer) -> None:
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
    def _module(module: lightning.LightningModule) -> Finder:
        assert isinstance(module, Finder)
        return module


def _merit(row: Mapping[str, Any]) -> tuple[float, float]:
    return row["select_auc"], -row["select_loss"]


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in row.items() if name != "epoch"}
