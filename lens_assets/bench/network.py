"""A ResNet-18 trained for a moment on invented stamps: what the scoring benchmarks score with.

An untrained network has small logits and so a small bfloat16 drift, which would flatter us. This one has learnt to tell
arcs from none (``auc`` on stamps it has not seen is part of the line). It is no lens finder: the drift of a real detector is
measured when its training ends and stored with its weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import roc_auc_score
from torch.nn.functional import binary_cross_entropy_with_logits

from lens_assets.science.cutouts.normalise import NormalisationSpec, normalise
from lens_assets.science.detectors.networks import LensNet, build_network
from lens_assets.science.detectors.recipes import load_recipes
from lens_assets.science.detectors.score import Scorer, measure_drift
from lens_assets.science.hashing import generator

F32 = npt.NDArray[np.float32]
BATCH = 32


@dataclass(frozen=True)
class Trained:
    """The network, its drift in logit over held-out stamps, and what it has learnt."""

    net: LensNet
    spec: NormalisationSpec
    size: int
    drift: float
    auc: float
    logit_range: float
    steps: int
    held_out: int

    def scorer(self) -> Scorer:
        """As the platform would score with it: bfloat16 only where the processor has it and the drift allows it."""
        return Scorer(self.net, self.spec, self.size, key="bench", drift=self.drift)

    def facts(self) -> dict[str, object]:
        """Fields of a result line."""
        return {
            "drift": self.drift,
            "drift_measured_on": f"resnet18 after {self.steps} steps of {BATCH} invented stamps, {self.held_out} held out",
            "auc": self.auc,
            "logit_range": self.logit_range,
        }


def stamps(n: int, size: int, *identity: object) -> tuple[F32, F32]:
    """(n, 3, size, size) float32 nmgy/pixel and labels (n,): galaxies in noise, every second one with an arc."""
    rng = generator("bench-stamps", *identity)
    y, x = np.mgrid[:size, :size] - size // 2
    r, angle = np.hypot(x, y), np.arctan2(y, x)
    images = rng.normal(0, 0.01, (n, 3, size, size))
    red, blue = np.array([0.4, 0.8, 1.0])[:, None, None], np.array([1.0, 0.7, 0.4])[:, None, None]
    label = np.arange(n) % 2
    for i in range(n):
        images[i] += red * rng.uniform(0.2, 0.6) * np.exp(-r / rng.uniform(2.0, 5.0))
        arc = np.exp(-0.5 * ((r - rng.uniform(6, 14)) / 1.8) ** 2) * (1 + np.cos(angle - rng.uniform(0, 2 * np.pi)))
        images[i] += label[i] * rng.uniform(0.02, 0.08) * blue * arc
    return images.astype(np.float32), label.astype(np.float32)


@lru_cache(maxsize=2)
def trained(size: int = 101, steps: int = 20, held_out: int = 192) -> Trained:
    """Train for ``steps`` of :data:`BATCH` stamps of ``size`` pixels (seconds), and measure the drift on ``held_out``."""
    recipe = load_recipes()["resnet18"]
    spec = recipe.normalisation
    net = build_network(recipe.network, seed=1).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.3  # few steps: the running statistics must keep up
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-3)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=max(steps, 4))
    for step in range(steps):
        images, label = stamps(BATCH, size, "train", step)
        x = torch.from_numpy(normalise(images, spec)).contiguous(memory_format=torch.channels_last)
        loss = binary_cross_entropy_with_logits(net(x), torch.from_numpy(label))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        rate.step()
    net = net.eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    images, label = stamps(held_out, size, "held out")
    seen = normalise(images, spec)
    with torch.inference_mode():
        logit = np.concatenate([net(torch.from_numpy(seen[i : i + 64])).numpy() for i in range(0, held_out, 64)])
    if not np.isfinite(logit).all():
        raise RuntimeError("the benchmark's network did not train: its logits are not finite")
    drift = measure_drift(net, seen, size)
    return Trained(net, spec, size, drift, float(roc_auc_score(label, logit)), float(np.ptp(logit)), steps, held_out)
