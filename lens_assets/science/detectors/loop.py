"""One training as Lightning runs it: the step, the batches of each epoch, and the keeper.

The keeper judges an epoch by the ``select`` rows, keeps the best weights, decides when to stop, and after each epoch
writes the whole state as one file that replaces its predecessor in one step. Everything it needs to go on is in that
file. Which rows, which configuration, and what becomes of the result: ``train``.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import polars as pl
import torch
from sklearn.metrics import roc_auc_score
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader

from lens_assets.science.detectors.dataset import Batch, Epoch, Views
from lens_assets.science.detectors.layers import LensNet
from lens_assets.science.detectors.news import News
from lens_assets.science.detectors.recipes import Recipe, Schedule
from lens_assets.science.detectors.rows import Rows

PULSE = 60.0
"""Seconds between two lines about a running epoch."""
_KEPT = ("history", "best", "best_epoch", "ended", "seconds")
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
        inputs, target, weight = batch
        loss = weighted_loss(self.net(self._ordered(inputs)), target, weight)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss.item()} in epoch {self.current_epoch}")
        self.losses.append(loss.detach())
        return loss

    def validation_step(self, batch: Batch, _: int) -> None:
        self.logits.append(self.net(self._ordered(batch[0])).float().cpu())

    def _ordered(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs.contiguous(memory_format=self.net.memory_format) if inputs.ndim == 4 else inputs

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
    """A new :class:`Epoch` for each epoch; of several processes each has its part of every batch."""

    def __init__(
        self, rows: Rows, inputs: Views, select: Rows, select_inputs: Views, recipe: Recipe, workers: int
    ) -> None:
        super().__init__()
        self._train, self._select = (rows, inputs), (select, select_inputs)
        self._recipe, self._workers = recipe, workers

    def train_dataloader(self) -> DataLoader[Batch]:
        assert self.trainer is not None
        rank, world = self.trainer.global_rank, self.trainer.world_size
        epoch = Epoch(*self._train, self._recipe, self.trainer.current_epoch, rank=rank, world=world)
        return DataLoader(epoch, batch_size=None, num_workers=self._workers, pin_memory=torch.cuda.is_available())

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(self.select_epoch(), batch_size=None, pin_memory=torch.cuda.is_available())

    def select_epoch(self) -> Epoch:
        """The ``select`` rows as they are."""
        assert self.trainer is not None
        rank, world = self.trainer.global_rank, self.trainer.world_size
        return Epoch(*self._select, self._recipe, 0, augment=False, rank=rank, world=world)


class Keeper(lightning.Callback):
    """Judges each epoch, keeps the best weights, decides when to stop, and writes the state after each epoch.

    With several processes all judge alike, on logits gathered from all; the first one writes and tells.
    """

    def __init__(
        self, path: Path, schedule: Schedule, select: Rows, news: News, max_minutes: float | None, threads: int
    ) -> None:
        self.path, self.news, self._schedule, self._select = path, news, schedule, select
        self._max_minutes, self._threads = max_minutes, threads
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, torch.Tensor] = {}
        self.best_epoch, self.ended = -1, ""
        self.seconds: list[float] = []
        self._began = self._epoch_began = self._told = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _KEPT}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name in _KEPT:
            setattr(self, name, state_dict[name])

    def peek(self) -> int | None:
        """Load what an earlier run, or another process, left; the last finished epoch, or ``None``."""
        if not self.path.is_file():
            return None
        state = torch.load(self.path, map_location="cpu", weights_only=True)
        self.load_state_dict(state["callbacks"][self.state_key])
        return int(self.history[-1]["epoch"])

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        torch.set_num_threads(self._threads)  # of this process, which may not be the one that was asked

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._epoch_began = self._told = time.monotonic()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.monotonic()
        if now - self._told > PULSE and trainer.is_global_zero:
            self._told = now
            n = int(trainer.num_training_batches)
            left = (now - self._epoch_began) / (batch_idx + 1) * (n - batch_idx - 1)
            self.news.pulse(
                f"epoch {trainer.current_epoch}: {batch_idx + 1} of {n} batches; its last in about {left / 60:.1f} min"
            )

    def on_validation_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        module = self._module(pl_module)
        module.logits.clear()
        if trainer.world_size > 1:  # running statistics are each process's own until here
            for buffer in module.net.buffers():
                torch.distributed.broadcast(buffer, 0)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        module = self._module(pl_module)
        logit = self._gathered(trainer, torch.cat(module.logits)).double()
        label = torch.from_numpy(self._select.label).double()
        epoch = int(trainer.current_epoch)
        loss = torch.stack(module.losses).double().mean()
        row: dict[str, Any] = {
            "epoch": epoch,
            "steps": trainer.global_step,
            "lr": float(trainer.optimizers[0].param_groups[0]["lr"]),
            "train_loss": float(trainer.strategy.reduce(loss, reduce_op="mean")),
            "select_loss": float(binary_cross_entropy_with_logits(logit, label)),
            "select_auc": float(roc_auc_score(self._select.label, logit.numpy())),
        }
        module.losses.clear()
        _refuse_difference(trainer, module.net)
        if not self.history or _merit(row) > _merit(self.history[self._index(self.best_epoch)]):
            self.best_epoch = epoch
            self.best = {name: t.detach().cpu().clone() for name, t in module.net.state_dict().items()}
        self.history.append(row)
        patience, over = self._schedule.patience, time.monotonic() - self._began
        late = self._max_minutes is not None and over > 60 * self._max_minutes
        if patience is not None and epoch - self.best_epoch >= patience:
            self.ended = f"no better epoch in {patience}"
        elif trainer.strategy.broadcast(late):
            self.ended = f"{self._max_minutes:g} minutes were over"
        elif epoch + 1 >= self._schedule.epochs:
            self.ended = "all epochs"
        trainer.should_stop = bool(self.ended)
        self.seconds.append(time.monotonic() - self._epoch_began)
        self._write(trainer)
        if trainer.is_global_zero:
            left = 0.0 if self.ended else float(np.mean(self.seconds[-5:])) * (self._schedule.epochs - epoch - 1)
            self.news.epoch({**row, "seconds": self.seconds[-1], "at_most": left})

    def _gathered(self, trainer: lightning.Trainer, logits: torch.Tensor) -> torch.Tensor:
        """The logits of all ``select`` rows, in their order, from those of each process."""
        if trainer.world_size == 1:
            return logits
        assert isinstance(trainer.datamodule, Stamps)  # type: ignore[attr-defined]
        epoch = trainer.datamodule.select_epoch()  # type: ignore[attr-defined]
        slots = [epoch.slots(rank) for rank in range(trainer.world_size)]
        padded = torch.zeros(max(map(len, slots)), device=trainer.strategy.root_device)
        padded[: len(logits)] = logits.to(padded.device)
        parts = trainer.strategy.all_gather(padded).cpu()
        whole = torch.empty(len(self._select))
        for part, places in zip(parts, slots, strict=True):
            whole[torch.from_numpy(places)] = part[: len(places)]
        return whole

    def _write(self, trainer: lightning.Trainer) -> None:
        scratch = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        trainer.save_checkpoint(scratch)
        if trainer.is_global_zero:
            with open(scratch, "rb") as stream:
                os.fsync(stream.fileno())
            os.replace(scratch, self.path)
            for dead in self.path.parent.glob(f".{self.path.name}.*"):
                dead.unlink(missing_ok=True)
        trainer.strategy.barrier()

    def _index(self, epoch: int) -> int:
        return next(i for i, row in enumerate(self.history) if row["epoch"] == epoch)

    @staticmethod
    def _module(module: lightning.LightningModule) -> Finder:
        assert isinstance(module, Finder)
        return module


def _refuse_difference(trainer: lightning.Trainer, net: LensNet) -> None:
    """Every process must hold the same network after a step; a difference would make the best epoch a lie."""
    if trainer.world_size == 1:
        return
    total = torch.stack([t.detach().double().abs().sum() for t in net.state_dict().values()]).sum().reshape(1)
    sums = trainer.strategy.all_gather(total).cpu().reshape(-1)
    if not (sums == sums[0]).all():
        raise RuntimeError(f"the processes hold different networks: sums of weights {sums.tolist()}")


def _merit(row: Mapping[str, Any]) -> tuple[float, float]:
    return row["select_auc"], -row["select_loss"]
