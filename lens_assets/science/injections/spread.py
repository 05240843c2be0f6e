"""Samples spread to the native grid: whole pixels by one sample each, and cells by Gauss-Legendre rules.

A sample is a weighted point; a Kaiser-Bessel window, whose weights for all sub-pixel offsets come in a table, carries it
to ``TAPS`` x ``TAPS`` pixels. ``psf`` divides the window out in Fourier space.
"""

from __future__ import annotations

import numpy as np

from lens_assets.science.injections.compiling import compiled
from lens_assets.science.injections.evaluate import brightness

TAPS = 7
"""Pixels over which one sample is spread, per axis."""
SPLIT = 4
"""Each refinement splits a cell SPLIT x SPLIT."""
RULES = 3
"""Gauss-Legendre rules of 1, 2 and 3 points per axis."""
NODES = np.array([
    [0.0, 0.0, 0.0],
    [-0.28867513459481287, 0.28867513459481287, 0.0],
    [-0.3872983346207417, 0.0, 0.3872983346207417],
])  # fmt: skip
"""Their nodes, in units of the cell's side from its middle."""
WEIGHTS = np.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [5.0 / 18.0, 8.0 / 18.0, 5.0 / 18.0]])


@compiled()
def gauss(cells, g, side, first, scale, middle, lens, parts, place, pixels, inner, table, grid, flux):  # type: ignore[no-untyped-def]
    """Cells (rows, columns at ``side`` a pixel) by the rule of g x g points, spread to ``grid`` and summed in ``flux``."""
    count = cells.shape[0]
    n = g * g
    x = np.empty(count * n)
    y = np.empty(count * n)
    for c in range(count):
        for b in range(g):
            for a in range(g):
                k = c * n + b * g + a
                x[k] = ((cells[c, 1] + 0.5 + NODES[g - 1, a]) / side - 0.5 - middle) * scale
                y[k] = ((cells[c, 0] + 0.5 + NODES[g - 1, b]) / side - 0.5 - middle) * scale
    sb = np.empty(count * n)
    brightness(x, y, lens, parts, place, pixels, inner, sb)
    h = scale / side
    area = h * h
    strip = np.empty((3, TAPS))
    for c in range(count):
        pj = cells[c, 0] // side
        pi = cells[c, 1] // side
        oj = first + (cells[c, 0] - pj * side) * g
        oi = first + (cells[c, 1] - pi * side) * g
        for b in range(g):
            for t in range(TAPS):
                strip[b, t] = 0.0
            for a in range(g):
                k = c * n + b * g + a
                value = sb[k] * area
                flux[pj, pi] += value * WEIGHTS[g - 1, a] * WEIGHTS[g - 1, b]
                for t in range(TAPS):
                    strip[b, t] += value * table[oi + a, t]
        for u in range(TAPS):
            for b in range(g):
                w = table[oj + b, u]
                for t in range(TAPS):
                    grid[pj + u, pi + t] += strip[b, t] * w
    return count * n


@compiled()
def whole(plain, size, table, grid):  # type: ignore[no-untyped-def]
    """Spread pixels that one sample is enough for."""
    rows = np.zeros((size, size + TAPS - 1))
    for j in range(size):
        for t in range(TAPS):
            w = table[0, t]
            for i in range(size):
                rows[j, i + t] += w * plain[j, i]
    for j in range(size):
        for t in range(TAPS):
            w = table[0, t]
            for i in range(size + TAPS - 1):
                grid[j + t, i] += w * rows[j, i]
