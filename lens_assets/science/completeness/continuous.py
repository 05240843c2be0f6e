r"""A continuous model of the completeness, beside the table and never in its place.

logit C = g(theta_E, PSF, depth), g trilinear between its values at knots (the cells' centres in theta_E, their edges
in PSF and depth, where hosts have values of their own). Penalised binomial likelihood with squared second differences
along each axis (P-splines of degree 1: Eilers & Marx 1996, doi:10.1214/ss/1038425655), one weight for all: a tenth
of what cross-validation over whole hosts prefers. The preferred one predicts best and has bias as large as its error:
on ten simulated surveys of 36 cells its 68 % and 95 % intervals hold the truth in 56 % and 83 % of cells; with a tenth
they do in 68 % and 92 %, at a root mean square error of 0.038 in place of 0.036 (the table's: 0.047).

Shape: C may not fall with depth, may not rise with PSF, and may not fall with theta_E while theta_E is below the PSF's
FWHM, where a larger ring is better resolved; above that the data decide, since arcs may leave the aperture a finder has
learnt. Imposed by asymmetric penalties (Bollaerts, Eilers & van Mechelen 2006, doi:10.1002/sim.2280) and made exact by
one pass over the knots.

Uncertainty: bootstrap over hosts, the threshold drawn from its own error in each replicate, and bricks that differ by more
than their hosts do (``bricks``): an offset in the logit for each, drawn anew in each replicate. Bricks are not resampled, since
a cell with one brick has nothing to draw from, and its error would be left out. It does not know of the bias of smoothing;
``agreement`` compares with the table, cell by cell, and ``reliability`` holds predictions for hosts that were left out against
what was found. Values exist in *supported* cells alone: elsewhere is ``nan`` and a flag.

With ``brightness`` there is one more term, not rising with the lensed r magnitude: completeness given the arc. It is for
study; a look-up has no lensed magnitude to give.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy import sparse
from scipy.linalg import cho_factor, cho_solve
from scipy.special import expit, logit

from lens_assets.lookup import Continuous, corners
from lens_assets.science.completeness.agreement import compared
from lens_assets.science.completeness.bricks import bricks_of
from lens_assets.science.completeness.model import Surface
from lens_assets.science.completeness.thresholds import OperatingPoint
from lens_assets.science.errors import BadInput
from lens_assets.science.hashing import generator, sites_of
from lens_assets.science.intervals import jeffreys

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

METHOD = "host bootstrap of a monotone penalised logistic surface, bricks and threshold drawn (percentile)"
SMOOTHING = (0.3, 3.0, 30.0, 300.0)
"""Weights of the squared second differences that cross-validation chooses from."""
UNDERSMOOTHED = 0.1
_RIDGE, _SHAPE, _MOST = 0.02, 1e5, 12.0
MAG_KNOTS = (18.0, 19.0, 20.0, 21.0, 22.0, 23.0, 24.0, 25.0, 26.0)


@dataclass(frozen=True)
class Fitted:
    """A model at one operating point: what a look-up evaluates, and how well it does.

    ``agreement`` : ``chi2`` over ``n_cells`` supported cells with ``edf`` effective parameters, ``inside68`` and
    ``inside95`` (shares of cells whose host-aware interval holds the model), ``log_loss`` by smoothing; ``misfit`` and its
    probability ``p_misfit`` (see ``agreement.misfit``), ``refused``: why it may not be published, or an empty string; the
    scatter of ``bricks`` in the logit with its degrees of freedom.
    ``reliability`` : one row a tenth of the left-out predictions. ``brightness`` : knots and draws of the further term.
    """

    model: Continuous
    agreement: dict[str, Any]
    reliability: pl.DataFrame
    brightness: tuple[F64, F64] | None = None


@dataclass(frozen=True)
class _Problem:
    """Design (injections x knots), penalties, and the pairs (lower, upper) that must not fall."""

    design: sparse.csr_matrix
    smooth: F64
    lower: I64
    upper: I64
    order: tuple[tuple[int, tuple[int, ...]], ...]
    shape: tuple[int, int, int]


def fit(surface: Surface, point: str = "default", *, draws: int = 100, brightness: bool = False) -> Fitted:
    """Fit one operating point of a surface.

    Raises :class:`BadInput` where no cell is supported, or a lensed magnitude is asked for that the injections lack.
    """
    p = surface.point(point)
    members, at = _data(surface, brightness)
    problem, knots = _problem(surface, at)
    host = np.unique(members["host"].to_numpy().astype(str), return_inverse=True)[1]
    score = members["injection_score"].to_numpy()
    found = (score >= p.cut).astype(float)
    even = np.ones(found.size)
    fold = generator("continuous", "folds").integers(0, 5, int(host.max()) + 1)[host]
    losses, best, held_out = {}, np.inf, np.full(found.size, np.nan)
    for smoothing in SMOOTHING:
        own = np.empty(found.size)
        for k in range(5):
            if (fold == k).any():
                g = _solve(problem, found, (fold != k).astype(float), smoothing, None)[0]
                own[fold == k] = (problem.design @ g)[fold == k]
        losses[smoothing] = float(np.mean(np.logaddexp(0, own) - found * own))
        if losses[smoothing] < best - 1e-9:
            best, chosen, held_out = losses[smoothing], smoothing, expit(own)
    chosen *= UNDERSMOOTHED
    main, edf = _solve(problem, found, even, chosen, None)
    predicted = expit(problem.design @ main)
    place = members["i_psf"].to_numpy().astype(np.int64) * len(surface.grid.depth) + members["i_depth"].to_numpy()
    bricks = bricks_of(sites_of(members["host"].to_list()), host, place, found, predicted)
    rng = generator("continuous", "bootstrap", p.name)
    kept = [main]
    for _ in range(draws):
        weight = np.bincount(rng.integers(0, host.max() + 1, host.max() + 1), minlength=host.max() + 1)[host]
        cut = _drawn(p, rng)
        offset = bricks.drawn(generator("continuous", "bricks", p.name, len(kept)))
        kept.append(_solve(problem, (score >= cut).astype(float), weight.astype(float), chosen, main, offset)[0])
    size = int(np.prod(problem.shape))
    grids = np.array([g[:size].reshape(problem.shape) for g in kept], np.float32)
    agreement = compared(surface, members, p.name, predicted, (host, bricks.brick), found, edf)
    agreement |= {
        "bricks": bricks.to_json(),
        "edf": edf,
        "smoothing": chosen,
        "log_loss": losses,
        "draws": draws,
        "method": METHOD,
    }
    further = (np.asarray(MAG_KNOTS), np.array([g[size:] for g in kept])) if brightness else None
    return Fitted(Continuous(knots, grids), agreement, _reliability(held_out, found), further)


def models_of(surface: Surface) -> dict[str, Fitted]:
    """The models a release of ``surface`` carries, as its settings ask: of every operating point, or none."""
    draws = surface.settings.model_draws
    return {p.name: fit(surface, p.name, draws=draws) for p in surface.points} if draws else {}


def save_models(path: str | Path, fitted: Mapping[str, Fitted]) -> None:
    """Write models by operating point as arrays (``np.load`` without pickle reads them); the same models, the same
    bytes. All must have the same knots. A model that its own agreement refuses is left out; with none left there is no
    file."""
    names = sorted(name for name, f in fitted.items() if not f.agreement["refused"])
    if not names:
        return
    knots = fitted[names[0]].model.knots
    held: dict[str, Any] = {"points": np.frombuffer(json.dumps(names).encode(), np.uint8)}
    held |= {f"knots_{a}": k for a, k in zip(("theta_e", "psf", "depth"), knots, strict=True)}
    held |= {f"draws_{i}": fitted[name].model.draws for i, name in enumerate(names)}
    np.savez_compressed(path, **held)


def _data(surface: Surface, brightness: bool) -> tuple[pl.DataFrame, list[F64]]:
    """Injections in supported cells, and their place along each axis: the host's own where it is recorded."""
    first = surface.cells.filter(pl.col("operating_point") == surface.points[0].name)
    cells = first.filter(pl.col("support") == "supported").select("i_theta", "i_psf", "i_depth")
    members = surface.members.join(cells, on=["i_theta", "i_psf", "i_depth"], how="semi")
    if not members.height:
        raise BadInput("a continuous model needs supported cells; there is none", column="support")
    grid = surface.grid
    at = [np.asarray(grid.theta_e.centres)[members["i_theta"].to_numpy()]]
    for axis, own in ((grid.psf, "host_psf"), (grid.depth, "host_depth")):
        centre = np.asarray(axis.centres)[members[f"i_{axis.name}"].to_numpy()]
        at.append(np.where(members[own].is_not_null(), members[own].fill_null(0.0).to_numpy(), centre))
    if brightness:
        if members["injection_mag_r"].null_count() == members.height:
            raise BadInput("the injections have no lensed magnitude", column="injection_mag_r")
        at.append(members["injection_mag_r"].fill_null(MAG_KNOTS[-1]).to_numpy())  # no light: as faint as can be
    return members, at


def _problem(surface: Surface, at: list[F64]) -> tuple[_Problem, tuple[F64, F64, F64]]:
    grid = surface.grid
    knots = (np.asarray(grid.theta_e.centres, float), grid.psf.edges, grid.depth.edges)
    shape = (knots[0].size, knots[1].size, knots[2].size)
    blocks = [_sparse(*corners(knots, at[:3]), int(np.prod(shape)))]
    index = np.arange(int(np.prod(shape))).reshape(shape)
    resolved = knots[0][1:, None] > knots[1][None, :]  # (theta step, psf): no constraint above the FWHM
    steps = [
        (index[:, :, :-1].ravel(), index[:, :, 1:].ravel()),
        (index[:, 1:, :].ravel(), index[:, :-1, :].ravel()),
        (index[:-1][~resolved].ravel(), index[1:][~resolved].ravel()),
    ]
    penalties = [_second(index, axis) for axis in range(3)]
    width = index.size
    if len(at) > 3:
        mags = np.asarray(MAG_KNOTS)
        j, w = corners((mags,), at[3:])
        blocks.append(_sparse(j, w, mags.size))
        own = index.size + np.arange(mags.size)
        steps.append((own[1:], own[:-1]))
        penalties.append(_second(own, 0))
        width += mags.size
    smooth = np.zeros((width, width))
    for rows in penalties:
        d = sparse.lil_matrix((len(rows), width))
        for i, (a, b, c) in enumerate(rows):
            d[i, a], d[i, b], d[i, c] = 1, -2, 1
        smooth += (d.T @ d).toarray()
    lower, upper = (np.concatenate([s[i] for s in steps]).astype(np.int64) for i in (0, 1))
    below: dict[int, list[int]] = {}
    for a, b in zip(lower.tolist(), upper.tolist(), strict=True):
        below.setdefault(b, []).append(a)
    rank = [(i, -j, k) for i, j, k in np.ndindex(*shape)] + [(0, 0, -m) for m in range(width - index.size)]
    order = tuple((i, tuple(below[i])) for i in sorted(below, key=lambda i: (i >= index.size, rank[i])))
    return _Problem(sparse.hstack(blocks).tocsr(), smooth, lower, upper, order, shape), knots


def _sparse(index: I64, weight: F64, width: int) -> sparse.csr_matrix:
    rows = np.repeat(np.arange(index.shape[1]), index.shape[0])
    return sparse.csr_matrix((weight.T.ravel(), (rows, index.T.ravel())), (index.shape[1], width))


def _second(index: I64, axis: int) -> list[tuple[int, int, int]]:
    """Triples of neighbours along ``axis``."""
    moved = np.moveaxis(index, axis, 0)
    return list(zip(moved[:-2].ravel().tolist(), moved[1:-1].ravel().tolist(), moved[2:].ravel().tolist(), strict=True))


def _solve(
    problem: _Problem, found: F64, weight: F64, smoothing: float, start: F64 | None, offset: F64 | float = 0.0
) -> tuple[F64, float]:
    """Knot values and effective parameters: Newton steps, shape penalties on the pairs that fall. ``offset`` is in the logit."""
    rate = float(np.clip(np.average(found, weights=weight), 1e-4, 1 - 1e-4))
    middle = np.zeros(problem.design.shape[1])
    middle[: int(np.prod(problem.shape))] = logit(rate)
    g = middle.copy() if start is None else start.copy()
    base = smoothing * problem.smooth + _RIDGE * np.eye(g.size)
    falls = np.zeros(problem.lower.size, bool)
    b = problem.design
    for _ in range(60):
        eta = np.clip(b @ g + offset, -_MOST, _MOST)
        mu = expit(eta)
        w = weight * np.maximum(mu * (1 - mu), 1e-5)
        now = g[problem.upper] < g[problem.lower]
        a = base.copy()
        lo, up = problem.lower[now], problem.upper[now]
        for one, other, sign in ((lo, lo, 1), (up, up, 1), (lo, up, -1), (up, lo, -1)):
            np.add.at(a, (one, other), sign * _SHAPE)
        data = (b.T @ b.multiply(w[:, None])).toarray()
        right = b.T @ (w * (eta - offset) + weight * (found - mu)) + _RIDGE * middle
        factor = cho_factor(a + data)
        new = cho_solve(factor, right)
        new = np.clip(g + np.clip(new - g, -4, 4), -_MOST, _MOST)
        moved, g = float(np.max(np.abs(new - g))), new
        if moved < 1e-3 and np.array_equal(now, falls):
            break
        falls = now
    edf = float(np.trace(cho_solve(factor, data)))
    for i, under in problem.order:
        g[i] = max(g[i], *(g[j] for j in under))
    return g, edf


def _drawn(p: OperatingPoint, rng: np.random.Generator) -> float:
    """A cut from the threshold's own error: half a normal to each side, of the widths of its 68 % bounds."""
    z = float(rng.standard_normal())
    return p.cut + z * ((p.hi68 - p.cut) if z > 0 else (p.cut - p.lo68)) if p.has_error else p.cut


def _reliability(predicted: F64, found: F64) -> pl.DataFrame:
    """Ten bins of equal number by prediction for left-out hosts: mean prediction, found share, 95 % Jeffreys bounds."""
    order = np.argsort(predicted, kind="stable")
    rows = []
    for part in np.array_split(order, 10):
        if part.size:
            own = jeffreys(found[part].sum(), part.size, 0.95)
            rows.append(
                (float(predicted[part].mean()), float(found[part].mean()), float(own.lo), float(own.hi), part.size)
            )
    return pl.DataFrame(rows, schema=["predicted", "found", "lo95", "hi95", "n"], orient="row")
