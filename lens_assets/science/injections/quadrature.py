"""Adaptive quadrature of a lensed source, deposited on the native pixel grid: the compiled heart of the renderer.

One injection at a time, in float64, with its own loops, so its bytes cannot depend on what else is in the batch, on the
number of threads or on the vector width (``arithmetic``).

How: the source is evaluated at the middle of every pixel that it may reach, with bounds on how far the midpoint, a 2 x 2
and a 3 x 3 Gauss-Legendre rule would be off in that pixel (``light``). The least rule that is good enough next to the
light around is taken; where none is, the pixel is split 4 x 4 and its children are treated alike, up to ``levels`` times.
Each sample is a weighted point; it is spread to the grid with a Kaiser-Bessel window that ``render`` divides out in
Fourier space, so sub-pixel positions survive.

What does not belong here: the PSF, bands, photometry, threads.
"""

from __future__ import annotations

import numpy as np

from lens_assets.science.injections.compiling import compiled
from lens_assets.science.injections.evaluate import bounds
from lens_assets.science.injections.light import dark_radius
from lens_assets.science.injections.rays import stretch_at
from lens_assets.science.injections.spread import RULES, SPLIT, TAPS, gauss, whole

MIDPOINT = 4.0
"""The midpoint rule's bound counts this much more: its errors add along the borders to cells with better rules."""
WHOLE = 0.5
"""Whole pixels may be off by this share of what their parts may: one sample says less of the light around than sixteen."""
MOST = 1.0
"""No pixel counts for more than this, the unlensed source, when it is asked how much light there is around: where the core
of a cuspy image falls on a sample, the sample says a hundred times too much, and pixels beside it would be let off."""


@compiled()
def _floor_of_error(flux, size, tolerance, out):  # type: ignore[no-untyped-def]
    """Per pixel, the error that is still allowed: ``tolerance`` times the 5 x 5 mean flux, at least 1 % of its peak."""
    rows = np.zeros((size, size))
    peak = 0.0
    for j in range(size):  # five vectorisable passes per axis rather than one running sum, which would round
        for k in range(max(j - 2, 0), min(j + 3, size)):
            for i in range(size):
                rows[j, i] += min(flux[k, i], MOST)
    for j in range(size):
        for i in range(size):
            out[j, i] = rows[j, i]
        for t in range(1, 3):
            for i in range(size - t):
                out[j, i] += rows[j, i + t]
                out[j, i + t] += rows[j, i]
        for i in range(size):
            peak = max(peak, out[j, i])
    for j in range(size):
        for i in range(size):
            out[j, i] = tolerance * 0.04 * max(out[j, i], 0.01 * peak)


@compiled()
def _reach(lens, parts, place, pixels, farthest, step):  # type: ignore[no-untyped-def]
    """Distance from the lens (arcsec) beyond which the source has no light: nothing is evaluated there."""
    dark = dark_radius(parts)
    if pixels.size:
        size = np.sqrt(float(pixels.shape[0] ** 2 + pixels.shape[1] ** 2)) / place[4]
        dark = max(dark, np.sqrt(place[0] * place[0] + place[1] * place[1]) + size)
    r = farthest
    while r > 0.0 and r * (2.0 - stretch_at(r, lens)) > dark:  # |beta| >= r - |alpha| >= r (1 - (stretch - 1))
        r -= step
    return r + step


@compiled()
def _rule(e1, e2, e3, allowed, last):  # type: ignore[no-untyped-def]
    """Points per axis that are enough, or 0: split."""
    if MIDPOINT * e1 <= allowed:
        return 1
    if e2 <= allowed:
        return 2
    if e3 <= allowed or last:
        return 3
    return 0


@compiled()
def _mend(cells, sb, rule, side, value):  # type: ignore[no-untyped-def]
    """End correction of the midpoint rule (h^2 / 24 df/dn) where cells of the first split meet cells with a better rule."""
    index = np.full((side, side), -1, np.int32)
    for c in range(cells.shape[0]):
        for b in range(SPLIT):
            for a in range(SPLIT):
                index[cells[c, 0] * SPLIT + b, cells[c, 1] * SPLIT + a] = (c * SPLIT + b) * SPLIT + a
    for c in range(cells.shape[0]):
        for b in range(SPLIT):
            for a in range(SPLIT):
                k = (c * SPLIT + b) * SPLIT + a
                if rule[k] != 1:
                    continue
                here = sb[k] * (1.0 / 24.0)
                for way in range(4):
                    v = cells[c, 0] * SPLIT + b + (way == 0) - (way == 1)
                    u = cells[c, 1] * SPLIT + a + (way == 2) - (way == 3)
                    if 0 <= v < side and 0 <= u < side:
                        other = index[v, u]
                        if other >= 0 and rule[other] != 1:
                            value[k] -= here
                            value[other] += min(sb[other] * (1.0 / 24.0), 4.0 * here)


@compiled()
def _native(size, scale, lens, parts, place, pixels, spans, bend, inner, levels, tolerance, allowed, plain, flux, rule):  # type: ignore[no-untyped-def]
    """The pixels: midpoints into ``flux``, the rule each needs, and ``plain`` for those that need no other."""
    middle = 0.5 * (size - 1)
    reach = _reach(lens, parts, place, pixels, 1.5 * size * scale, 2.0 * scale)
    x = np.empty(size * size)
    y = np.empty(size * size)
    n = 0
    for j in range(size):
        dy = (j - middle) * scale - lens[1]
        for i in range(size):
            dx = (i - middle) * scale - lens[0]
            if dx * dx + dy * dy < reach * reach:
                x[n] = (i - middle) * scale
                y[n] = (j - middle) * scale
                n += 1
    sb, e1, e2, e3 = np.empty(n), np.empty(n), np.empty(n), np.empty(n)
    bounds(x[:n], y[:n], scale, lens, parts, place, pixels, spans, bend, inner, sb, e1, e2, e3)
    area = scale * scale
    for k in range(n):
        flux[int(y[k] / scale + middle + 0.5), int(x[k] / scale + middle + 0.5)] = sb[k] * area
    _floor_of_error(flux, size, WHOLE * tolerance, allowed)
    plain[:] = flux
    weak = np.zeros((size, size), np.bool_)
    for k in range(n):
        j = int(y[k] / scale + middle + 0.5)
        i = int(x[k] / scale + middle + 0.5)
        error = MIDPOINT * e1[k] * area
        r = _rule(e1[k] * area, e2[k] * area, e3[k] * area, allowed[j, i], levels == 0)
        rule[j, i] = r
        weak[j, i] = r == 1 and error >= 1e-3 * allowed[j, i]
        if r != 1:
            plain[j, i] = 0.0
    for j in range(size):  # where pixels of one sample meet better ones, the end correction of the midpoint rule
        for i in range(size):
            if not weak[j, i]:
                continue
            here = flux[j, i] * (1.0 / 24.0)
            for way in range(4):
                v = j + (way == 0) - (way == 1)
                u = i + (way == 2) - (way == 3)
                if 0 <= v < size and 0 <= u < size and rule[v, u] != 1:
                    plain[j, i] -= here
                    plain[v, u] += min(flux[v, u] * (1.0 / 24.0), 4.0 * here)
    return n


@compiled()
def deposit(size, scale, lens, parts, place, pixels, spans, bend, inner, levels, tolerance, table, first, grid, flux):  # type: ignore[no-untyped-def]
    """Quadrature of one lensed source, spread to ``grid``; returns the number of source evaluations.

    Parameters
    ----------
    size, scale : pixels on a side; arcsec per pixel. Pixel (row j, column i) is at ((i, j) - (size - 1) / 2) * scale.
    lens : tuple in the order of ``rays.LENS``; parts : (k, 10) in the order of ``light.COMPONENT``.
    place, pixels, spans, bend : a real galaxy (``light.PLACE``, ``planes.Plane``), or arrays of no elements.
    levels, tolerance : at most so many 4 x 4 splits; what error is allowed relative to the light around.
    table, first : weighted Kaiser-Bessel weights, TAPS columns; ``first[level, g - 1]`` is the row where those of cells of
        that level and of g points per axis begin.
    grid : (m, m) zeros with m >= size + TAPS - 1, receives fluxes; pixel (j, i) is at (j + 3, i + 3).
    flux : (size, size) zeros, receives the flux of each pixel before the PSF.
    """
    middle = 0.5 * (size - 1)
    allowed = np.empty((size, size))
    plain = np.empty((size, size))
    rules = np.ones((size, size), np.int8)
    evaluations = _native(
        size, scale, lens, parts, place, pixels, spans, bend, inner, levels, tolerance, allowed, plain, flux, rules
    )
    whole(plain, size, table, grid)
    chosen = np.empty((RULES + 1, size * size, 2), np.int64)
    counts = np.zeros(RULES + 1, np.int64)
    for j in range(size):
        for i in range(size):
            r = rules[j, i]
            if r != 1:
                chosen[r, counts[r], 0] = j
                chosen[r, counts[r], 1] = i
                counts[r] += 1
                flux[j, i] = 0.0
    for g in range(2, RULES + 1):
        evaluations += gauss(
            chosen[g, : counts[g]],
            g,
            1,
            first[0, g - 1],
            scale,
            middle,
            lens,
            parts,
            place,
            pixels,
            inner,
            table,
            grid,
            flux,
        )
    cells = chosen[0, : counts[0]]
    side = 1
    strip = np.empty((SPLIT, TAPS))
    for level in range(1, levels + 1):
        count = cells.shape[0]
        if count == 0:
            break
        side *= SPLIT
        h = scale / side
        area = h * h
        m = count * SPLIT * SPLIT
        x = np.empty(m)
        y = np.empty(m)
        for c in range(count):
            for b in range(SPLIT):
                for a in range(SPLIT):
                    k = (c * SPLIT + b) * SPLIT + a
                    x[k] = ((cells[c, 1] * SPLIT + a + 0.5) / side - 0.5 - middle) * scale
                    y[k] = ((cells[c, 0] * SPLIT + b + 0.5) / side - 0.5 - middle) * scale
        sb, e1, e2, e3 = np.empty(m), np.empty(m), np.empty(m), np.empty(m)
        bounds(x, y, h, lens, parts, place, pixels, spans, bend, inner, sb, e1, e2, e3)
        evaluations += m
        for k in range(m):
            c = k // (SPLIT * SPLIT)
            flux[cells[c, 0] * SPLIT // side, cells[c, 1] * SPLIT // side] += sb[k] * area
        if level == 1:
            _floor_of_error(flux, size, tolerance, allowed)
        rule = np.empty(m, np.int8)
        value = np.empty(m)
        chosen = np.empty((RULES + 1, m, 2), np.int64)
        counts[:] = 0
        weight = area * side  # an error counts with the side of the cell: errors add along an arc
        for c in range(count):
            row = cells[c, 0] * SPLIT
            column = cells[c, 1] * SPLIT
            pj = row // side
            pi = column // side
            for b in range(SPLIT):
                for a in range(SPLIT):
                    k = (c * SPLIT + b) * SPLIT + a
                    r = _rule(e1[k] * weight, e2[k] * weight, e3[k] * weight, allowed[pj, pi], level == levels)
                    rule[k] = r
                    value[k] = sb[k] if r == 1 else 0.0
                    if r != 1:
                        chosen[r, counts[r], 0] = row + b
                        chosen[r, counts[r], 1] = column + a
                        counts[r] += 1
                        flux[pj, pi] -= sb[k] * area
        if level == 1 and m > counts[2] + counts[3] + counts[0] > 0:
            _mend(cells, sb, rule, side * size, value)
        for c in range(count):
            row = cells[c, 0] * SPLIT
            column = cells[c, 1] * SPLIT
            pj = row // side
            pi = column // side
            oj = first[level, 0] + row - pj * side
            oi = first[level, 0] + column - pi * side
            for b in range(SPLIT):
                for t in range(TAPS):
                    total = 0.0
                    for a in range(SPLIT):
                        total += value[(c * SPLIT + b) * SPLIT + a] * table[oi + a, t]
                    strip[b, t] = total * area
            for u in range(TAPS):
                for t in range(TAPS):
                    total = 0.0
                    for b in range(SPLIT):
                        total += strip[b, t] * table[oj + b, u]
                    grid[pj + u, pi + t] += total
        for g in range(2, RULES + 1):
            evaluations += gauss(
                chosen[g, : counts[g]], g, side, first[level, g - 1], scale, middle, lens, parts, place, pixels, inner,
                table, grid, flux,
            )  # fmt: skip
        cells = chosen[0, : counts[0]]
    return evaluations
