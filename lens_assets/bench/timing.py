"""Interleaved timing of two sides, and the line of numbers that comes of it. What is timed is each benchmark's business."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

Side = Callable[[], object]


def seconds_of(side: Side) -> float:
    """Wall time of one call, seconds."""
    start = time.perf_counter()
    side()
    return time.perf_counter() - start


def cpu_seconds_of(side: Side) -> float:
    """Processor time of one call over all threads, seconds: other users of the machine disturb it less."""
    start = time.process_time()
    side()
    return time.process_time() - start


def interleaved(
    ours: Side, theirs: Side, repeats: int, clock: Callable[[Side], float] = seconds_of
) -> tuple[list[float], list[float]]:
    """Seconds of ``repeats`` calls of each side, one after the other; who goes first alternates. Warm up beforehand."""
    if repeats < 1:
        raise ValueError(f"{repeats} repeats measure nothing")
    took: tuple[list[float], list[float]] = ([], [])
    for i in range(repeats):
        for k in (0, 1) if i % 2 == 0 else (1, 0):
            took[k].append(clock((ours, theirs)[k]))
    return took


def line(
    name: str,
    reference: str,
    seconds: tuple[list[float], list[float]],
    work: tuple[int, int],
    unit: str,
    threads: int,
    **extras: Any,
) -> dict[str, Any]:
    """The fields of a result: medians of the rates (``work`` items a call), the median ratio and half its range.

    Raises ``RuntimeError`` when a side did nothing or a time is not a time.
    """
    times = np.array(seconds, dtype=float)
    if min(work) < 1 or not np.isfinite(times).all() or (times <= 0).any():
        raise RuntimeError(f"nothing was measured: {work} items in {times.tolist()} seconds")
    ours, theirs = work[0] / times[0], work[1] / times[1]
    ratios = ours / theirs
    return {
        "name": name,
        "reference": reference,
        "ours": float(np.median(ours)),
        "theirs": float(np.median(theirs)),
        "ratio": float(np.median(ratios)),
        "spread": float(ratios.max() - ratios.min()) / 2,
        "unit": unit,
        "threads": threads,
        "repeats": len(ratios),
        **extras,
    }
