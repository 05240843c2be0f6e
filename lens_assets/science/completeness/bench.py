"""How many look-ups of a released surface a second: the classic grid, random conditions, a fifth of them outside."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from lens_assets.lookup import SelectionFunction
from lens_assets.science.completeness.grid import Grid
from lens_assets.science.completeness.settings import Settings
from lens_assets.science.hashing import generator

N = 1_000_000


def classic() -> SelectionFunction:
    """A selection function on the classic grid with made-up numbers: what is timed is the look-up."""
    grid = Grid.of(Settings())
    rng = generator("bench", "lookup")
    c = rng.random(grid.size)
    columns: dict[str, Any] = {
        "operating_point": np.full(grid.size, "t", dtype=object),
        "completeness": c,
        "n_injections": np.full(grid.size, 200),
        "n_unique_hosts": np.full(grid.size, 40),
        "support": np.full(grid.size, "supported", dtype=object),
    }
    for level in (68, 95):
        for kind in ("total", "host"):
            columns[f"{kind}_lo{level}"], columns[f"{kind}_hi{level}"] = 0.9 * c, np.minimum(1.0, 1.1 * c)
    surface = {
        "verdict": {"go": True, "title": "GO: benchmark"},
        "default_point": "t",
        "operating_points": [{"name": "t", "cut": 0.5}],
    }
    header = {"name": "bench", "version": "0", "grid": grid.to_json(), "surfaces": {"s": surface}}
    return SelectionFunction(header, "s", columns)


def bench_lookup(repeats: int = 5) -> dict[str, Any]:
    """Look-ups per second (value, interval, n and flag each): median of ``repeats`` passes over a million, and their
    spread."""
    f = classic()
    rng = generator("bench", "lookup", "questions")
    theta_e, psf, depth = rng.uniform(0.3, 3.2, N), rng.uniform(0.8, 1.9, N), rng.uniform(22.2, 24.8, N)
    rates = []
    for i in range(repeats + 1):
        start = time.perf_counter()
        result = f.completeness(theta_e=theta_e, psf=psf, depth=depth)
        took = time.perf_counter() - start
        if i:  # the first pass touches fresh memory
            rates.append(N / took)
    if not (result.code == 0).any() or not (result.code == 2).any():
        raise RuntimeError("the benchmark did not ask inside and outside the grid")
    return {
        "name": "lookup",
        "value": float(np.median(rates)),
        "unit": "look-ups/s",
        "spread": [float(min(rates)), float(max(rates))],
        "n": N,
        "repeats": repeats,
        "threads": 1,  # element-wise numpy
    }
