"""What the benchmarks of a GPU share: the device, what it is, and clocks that wait for it.

Work on a GPU is queued: a clock read before it is done measures the queue. Every side here ends by waiting.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from lens_assets.bench.timing import Side, seconds_of


def device_of(name: str) -> torch.device:
    """The device to measure. Raises ``RuntimeError`` for a GPU that is not there."""
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("there is no CUDA device here")
    return device


def facts(device: torch.device) -> dict[str, Any]:
    """What was measured on: the card, its driver's and libraries' versions, and the processors beside it."""
    found: dict[str, Any] = {"device": "cpu", "cpus": os.cpu_count(), "torch": torch.__version__}
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        found |= {
            "device": card.name, "memory_gib": round(card.total_memory / 2**30, 1), "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
            "multiprocessors": card.multi_processor_count,
        }  # fmt: skip
    return found


def finished(side: Side, device: torch.device) -> Side:
    """The side, done when the device is."""

    def run() -> None:
        side()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return run


def rate(side: Side, work: int, device: torch.device, repeats: int = 5, warm: int = 1) -> dict[str, float]:
    """Median, least and greatest of ``work`` items a second over ``repeats`` calls, after ``warm`` that do not count."""
    run = finished(side, device)
    for _ in range(warm):
        run()
    found = work / np.array([seconds_of(run) for _ in range(repeats)])
    return {"median": float(np.median(found)), "least": float(found.min()), "most": float(found.max())}


def attempt(work: Callable[..., Any], *arguments: Any) -> Any:
    """What ``work`` of these arguments gives, or ``{"failed": why}``: one way that a card cannot do must not lose the others."""
    try:
        return work(*arguments)
    except Exception as fault:
        return {"failed": f"{type(fault).__name__}: {str(fault)[:300]}"}
