"""Stamps a second of training on a GPU: ``train`` whole, as the platform runs it, against the same training in float32.

Invented stamps; an epoch shows every stamp once. Rates are those of the epochs after the first, judging the epoch on its
``select`` rows included. ``by_recipe`` gives them by precision and number of loader processes, with the AUC on ``select``
that each ended with (no measure of a finder: a few epochs of invented stamps).
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from lens_assets.bench.device import attempt, device_of, facts
from lens_assets.bench.network import stamps
from lens_assets.science.detectors.recipes import Recipe, load_recipes
from lens_assets.science.detectors.settings import Settings
from lens_assets.science.detectors.train import train

F32 = npt.NDArray[np.float32]


class _Source:
    """Stamps in memory."""

    def __init__(self, n: int, size: int) -> None:
        self.pixels, self.label = stamps(n, size, "training")
        self.ids = [f"10002-2-{i:06d}" for i in range(n)]
        self._place = {name: i for i, name in enumerate(self.ids)}

    def images(self, galaxy_ids: Sequence[str]) -> F32:
        """Stamps, nmgy per pixel."""
        return np.take(self.pixels, [self._place[name] for name in galaxy_ids], axis=0)

    def invvar(self, galaxy_ids: Sequence[str]) -> F32:
        """Inverse variances of one."""
        return np.ones((len(galaxy_ids), *self.pixels.shape[1:]), np.float32)

    def sample(self, select: int) -> pl.DataFrame:
        """Every stamp trains but the last ``select``."""
        n = len(self.ids)
        return pl.DataFrame({
            "galaxy_id": self.ids, "role": ["train"] * (n - select) + ["select"] * select,
            "label": pl.Series(self.label.astype(np.int8)), "weight": np.ones(n),
            "pool": [None if lens else "N1" for lens in self.label], "tier": ["A" if lens else None for lens in self.label],
        })  # fmt: skip


def _trained(recipe: Recipe, source: _Source, select: int, settings: Settings) -> dict[str, Any]:
    seconds: list[float] = []
    with tempfile.TemporaryDirectory(prefix="lens-assets-bench-") as scratch:
        result = train(
            recipe, source.sample(select), source, Path(scratch), settings=settings,
            progress=lambda row: seconds.append(row["seconds"]),
        )  # fmt: skip
    shown = result.config["epoch_size"]
    rates = [shown / s for s in seconds[1:] or seconds]
    return {
        "median": float(np.median(rates)), "least": min(rates), "most": max(rates), "epochs": len(seconds), "stamps": shown,
        "precision": result.config["precision_used"], "device": result.config["device"],
        "select_auc": float(result.history["select_auc"][-1]),
    }  # fmt: skip


def bench_gpu_training(
    repeats: int = 4, *, device: str = "cuda", n: int = 2304, select: int = 256, size: int = 101,
    recipes: tuple[str, ...] = ("resnet18", "efficientnetv2_s"), workers: tuple[int, ...] = (0, 4),
) -> dict[str, Any]:  # fmt: skip
    """One result line: stamps a second of the first recipe, bfloat16 with the most workers against float32 without any;
    ``repeats`` epochs are timed after one that is not."""
    where = device_of(device)
    source = _Source(n, size)
    found: dict[str, dict[str, Any]] = {}
    for name in recipes:
        found[name] = {}
        for precision in ("fp32", "bf16"):
            for count in workers:
                recipe = load_recipes()[name]
                recipe = recipe.model_copy(
                    update={
                        "input_size": min(recipe.input_size, size), "precision": precision,
                        "mixture": recipe.mixture.model_copy(update={"n1": None, "n2": None, "positive_fraction": None}),
                        "schedule": recipe.schedule.model_copy(update={"epochs": repeats + 1, "patience": None}),
                    }
                )  # fmt: skip
                key = f"{precision}, {count} workers"
                settings = Settings(workers=count, drift_stamps=64)
                found[name][key] = attempt(_trained, recipe, source, select, settings)
    first = found[recipes[0]]
    ours, theirs = (first[key] for key in (f"bf16, {workers[-1]} workers", f"fp32, {workers[0]} workers"))
    for side in (ours, theirs):
        if "failed" in side:
            raise RuntimeError(side["failed"])
    return {
        "name": "training-gpu", "reference": "the same training in float32, batches made by its own process",
        "ours": ours["median"], "theirs": theirs["median"], "ratio": ours["median"] / theirs["median"],
        "spread": 0.5 * (ours["most"] / theirs["least"] - ours["least"] / theirs["most"]), "unit": "stamps/s",
        "threads": torch.get_num_threads(), "repeats": repeats, **facts(where), "by_recipe": found, "n": n,
    }  # fmt: skip
