"""Ask a released selection function: completeness by conditions or by sky position. Needs only numpy and pyarrow.

    >>> f = load("releases/my-lenses-1.0.0")                                             # doctest: +SKIP
    >>> f.completeness(theta_e=1.5, psf=1.3, depth=23.6)                                 # doctest: +SKIP

A look-up returns the value of the cell that holds the conditions, its interval, the number of injections behind it
and a flag. It never interpolates between cells, never snaps to the nearest one and never extrapolates (a release may
hold a continuous model too, which answers only when asked by ``model=True``, and only in supported cells):

``in support``    the cell has as many injections as the release asks for; ``insufficient``  it has fewer: the value
is that of the cell alone, with its wide interval, and ``nan`` where it has none; ``outside``       the conditions are
outside the grid, or unknown: ``nan``.

The interval is for the priors the injections were drawn from. Where these were fitted to lenses the fit has an error of its
own, and ``priors=True`` asks for the interval that holds it too.

The realism verdict of the release travels with every result. This file is also inside each release, and works from
there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

SCHEMA = 1
FLAGS = ("in support", "insufficient", "outside")
LEVELS = (0.68, 0.95)
SKY_NSIDE = 128
_CHUNK = 32_768


@dataclass(frozen=True)
class Result:
    """Values, interval bounds, injections and flags, of the broadcast shape of the question (0-d for scalars).

    ``code`` is the index into :data:`FLAGS`. ``verdict`` is the realism verdict of the release.
    """

    value: F64
    lo: F64
    hi: F64
    n: I64
    code: npt.NDArray[np.int8]
    level: float
    verdict: str

    @property
    def flag(self) -> Any:
        """The flag in words: a string for a scalar question, else an array of strings."""
        words = np.asarray(FLAGS)[self.code]
        return str(words) if words.ndim == 0 else words

    def __repr__(self) -> str:
        if self.value.ndim:
            return f"Result({self.value.size} values, {int((self.code == 0).sum())} in support; {self.verdict})"
        return (
            f"{self.value:.4g} [{self.lo:.4g}, {self.hi:.4g}] at {100 * self.level:.0f} %, n = {self.n}, {self.flag}; "
            f"{self.verdict}"
        )


@dataclass(frozen=True)
class Expected:
    """Expected number found among given lenses: ``value`` with a 1-sigma ``error``, for the part in support.

    ``weight`` is the total weight in support; ``insufficient`` and ``outside`` are the weights left out of ``value``.
    If none, or all, of those were found the number would be ``value`` or ``value + insufficient + outside``.
    """

    value: float
    error: float
    weight: float
    insufficient: float
    outside: float
    verdict: str


class Factor(Protocol):
    """Anything with a completeness by conditions."""

    def completeness(
        self,
        *,
        theta_e: npt.ArrayLike,
        psf: npt.ArrayLike,
        depth: npt.ArrayLike,
        threshold: str = ...,
        level: float = ...,
    ) -> Result:
        """Value, interval, n and flag."""
        ...


def load(path: str | Path, surface: str | None = None) -> SelectionFunction:
    """Read a release directory; ``surface`` picks one of its surfaces, by default its primary one.

    Raises ``FileNotFoundError`` when ``path`` holds no surface, ``ValueError`` for an unknown surface or schema
    version.
    """
    import pyarrow.parquet as pq

    folder = Path(path)
    headers = sorted(folder.glob("surface*.json"))
    if len(headers) != 1:
        raise FileNotFoundError(f"{folder} holds {len(headers)} files surface*.json; a release has one")
    header = json.loads(headers[0].read_text())
    if header["schema_version"] != SCHEMA:
        raise ValueError(f"release schema {header['schema_version']}; this look-up reads {SCHEMA}")
    surface = header["primary"] if surface is None else surface
    if surface not in header["surfaces"]:
        raise ValueError(f"no surface {surface!r}; there are {', '.join(header['surfaces'])}")
    names = [f"{kind}_{side}{level}" for kind in ("total", "host") for level in (68, 95) for side in ("lo", "hi")]
    read = ["operating_point", "completeness", "n_injections", "n_unique_hosts", "support", *names]
    file = pq.ParquetFile(headers[0].with_suffix(".parquet"))
    full = [f"full_{side}{level}" for level in (68, 95) for side in ("lo", "hi")]
    read += [name for name in full if name in file.schema_arrow.names]  # releases of before have none
    table = file.read(columns=["surface", *read])
    mine = table["surface"].to_numpy() == surface
    columns = {name: table[name].to_numpy()[mine] for name in read}
    sky = None
    if (folder / "sky.parquet").is_file():
        t = pq.ParquetFile(folder / "sky.parquet").read(columns=["cell", "sky_psf", "sky_depth"])
        sky = {name: t[name].to_numpy() for name in t.column_names}
    models = sorted(folder.glob("model*.npz")) if surface == header["primary"] else []
    return SelectionFunction(header, surface, columns, sky, load_models(models[0]) if models else None)


def corners(knots: Sequence[F64], at: Sequence[F64]) -> tuple[I64, F64]:
    """Flat knot numbers and weights (2**axes, n) of multilinear interpolation at points (n,) along each axis; beyond the
    outermost knots the value at the knot holds."""
    index, weight = np.zeros((1, at[0].size), np.int64), np.ones((1, at[0].size))
    for x, k in zip(at, knots, strict=True):
        i = np.clip(np.searchsorted(k, x, side="right") - 1, 0, max(k.size - 2, 0))
        step = (k[i + 1] - k[i]) if k.size > 1 else np.ones(x.size)
        f = np.clip((x - k[i]) / step, 0, 1) if k.size > 1 else np.zeros(x.size)
        upper = np.minimum(i + 1, k.size - 1)
        index = np.concatenate([index * k.size + i, index * k.size + upper])
        weight = np.concatenate([weight * (1 - f), weight * f])
    return index, weight


@dataclass(frozen=True)
class Continuous:
    """A continuous model: logit C at ``knots`` (theta_E, PSF, depth), ``draws`` (1 + replicates, and one axis each).

    The first draw is the fit, the others are its bootstrap replicates.
    """

    knots: tuple[F64, F64, F64]
    draws: npt.NDArray[np.float32]

    def __call__(self, theta_e: F64, psf: F64, depth: F64, level: float = 0.68) -> tuple[F64, F64, F64]:
        """Value and bounds (n,) at points (n,) that are finite."""
        flat = self.draws.reshape(len(self.draws), -1)
        value, lo, hi = (np.empty(theta_e.size) for _ in range(3))
        for start in range(0, theta_e.size, _CHUNK // 8):
            part = slice(start, start + _CHUNK // 8)
            index, weight = corners(self.knots, (theta_e[part], psf[part], depth[part]))
            g = np.zeros((len(flat), index.shape[1]))
            for i, w in zip(index, weight, strict=True):
                g += flat[:, i] * w
            c = 1 / (1 + np.exp(-g))
            value[part] = c[0]
            if len(c) > 1:
                bounds = np.quantile(c[1:], [(1 - level) / 2, (1 + level) / 2], axis=0)
                lo[part], hi[part] = np.minimum(bounds[0], c[0]), np.maximum(bounds[1], c[0])
            else:
                lo[part] = hi[part] = np.nan
        return value, lo, hi


def load_models(path: str | Path) -> dict[str, Continuous]:
    """The models of a ``model*.npz`` by operating point. Nothing in it is code: it is read without pickle."""
    with np.load(path, allow_pickle=False) as held:
        names = json.loads(bytes(held["points"]).decode())
        knots = tuple(np.asarray(held[f"knots_{a}"], float) for a in ("theta_e", "psf", "depth"))
        return {name: Continuous((knots[0], knots[1], knots[2]), held[f"draws_{i}"]) for i, name in enumerate(names)}


class SelectionFunction:
    """One surface of a release. Made by :func:`load`."""

    def __init__(
        self, header: Mapping[str, Any], surface: str, columns: Mapping[str, npt.NDArray[Any]],
        sky: Mapping[str, npt.NDArray[Any]] | None = None, models: Mapping[str, Continuous] | None = None,
    ) -> None:  # fmt: skip
        self.header = header
        self.surface = surface
        self.models = dict(models or {})
        about = header["surfaces"][surface]
        self.name, self.version = str(header["name"]), str(header["version"])
        self.verdict = str(about["verdict"]["title"])
        self.go = bool(about["verdict"]["go"])
        self.default_threshold = str(about["default_point"])
        self.operating_points: dict[str, dict[str, Any]] = {p["name"]: p for p in about["operating_points"]}
        self.thresholds = tuple(sorted(self.operating_points))
        axes = [header["grid"][a] for a in ("theta_e", "psf", "depth")]
        self._edges = [np.asarray(a["edges"], float) for a in axes]
        self.shape = tuple(len(a["centres"]) for a in axes)
        size = int(np.prod(self.shape))
        if len(columns["operating_point"]) != size * len(self.thresholds):
            raise ValueError("the table does not hold every cell at every operating point")
        self.priors_fitted = bool(about.get("prior"))
        self._tables: dict[tuple[str, float], F64] = {}
        self._full: dict[tuple[str, float], F64] = {}
        self._hosts: dict[str, I64] = {}
        for i, point in enumerate(self.thresholds):
            rows = slice(i * size, (i + 1) * size)
            if not np.all(columns["operating_point"][rows] == point):
                raise ValueError("the table is not sorted by operating point and cell")
            n = columns["n_injections"][rows].astype(float)
            code = np.where(columns["support"][rows] == "supported", 0.0, 1.0)
            self._hosts[point] = columns["n_unique_hosts"][rows].astype(np.int64)
            for level in LEVELS:
                tag = f"{100 * level:.0f}"
                bounds = [columns[f"{kind}_{side}{tag}"][rows] for kind in ("total", "host") for side in ("lo", "hi")]
                # one row a cell, so that a look-up touches memory once; the last row is what lies outside
                table = np.stack([columns["completeness"][rows], *bounds[:2], n, code, *bounds[2:]], axis=1).astype(
                    float
                )
                nowhere = np.array([[np.nan, np.nan, np.nan, 0, 2, np.nan, np.nan, 0]])
                self._tables[point, level] = np.vstack([np.column_stack([table, np.zeros(size)]), nowhere])
                if self.priors_fitted:
                    ends = np.stack([columns[f"full_{side}{tag}"][rows] for side in ("lo", "hi")], axis=1)
                    self._full[point, level] = np.vstack([ends.astype(float), np.full((1, 2), np.nan)])
        self._sky: tuple[F64, F64] | None = None
        if sky is not None:
            psf, depth = (np.full(12 * SKY_NSIDE**2, np.nan) for _ in range(2))
            psf[sky["cell"]], depth[sky["cell"]] = sky["sky_psf"], sky["sky_depth"]
            self._sky = psf, depth

    def completeness(
        self,
        *,
        theta_e: npt.ArrayLike,
        psf: npt.ArrayLike,
        depth: npt.ArrayLike,
        threshold: str = "default",
        level: float = 0.68,
        model: bool = False,
        priors: bool = False,
    ) -> Result:
        """Completeness for Einstein radii (arcsec) under r-band seeing (FWHM, arcsec) and 5-sigma point-source depth
        (AB).

        Arguments broadcast. ``level`` is 0.68 or 0.95; ``threshold`` one of :attr:`thresholds`. The interval allows for
        the injections' number, for hosts that were used more than once, and for the error of the threshold.

        ``model`` asks the continuous model in place of the table, where the release holds one (``ValueError`` if not). It
        answers in supported cells alone; elsewhere is ``nan`` and the flag of the cell. ``n`` stays that of the cell.

        ``priors`` asks for the interval that holds the error of the fitted priors too (``ValueError`` where they were not
        fitted, and for the model, which does not know it); a bound that too few injections speak for is ``nan``.
        """
        table = self._table(threshold, level)
        full = self._with_priors(threshold, level, model) if priors else None
        args = np.broadcast_arrays(*(np.asarray(a, float) for a in (theta_e, psf, depth)))
        shape = args[0].shape
        flat = [np.ascontiguousarray(a).reshape(-1) for a in args]
        size = flat[0].size
        value, lo, hi = (np.empty(size) for _ in range(3))
        n, code = np.empty(size, np.int64), np.empty(size, np.int8)
        for start in range(0, size, _CHUNK):
            part = slice(start, start + _CHUNK)
            cells = self._cells(*(a[part] for a in flat))
            rows = table.take(cells, axis=0)
            value[part], lo[part], hi[part], n[part], code[part] = (rows[:, i] for i in range(5))
            if full is not None:
                lo[part], hi[part] = full.take(cells, axis=0).T
        if model:
            point = self._point(threshold)
            if point not in self.models:
                why = self.header.get("models_refused", {}).get(point)
                raise ValueError(
                    f"the continuous model at {point!r} was refused: {why}; take the table"
                    if why
                    else f"this release holds no continuous model at {point!r}; it has {sorted(self.models)}"
                )
            inside = code == 0
            for column in (value, lo, hi):
                column[~inside] = np.nan
            answer = self.models[point](flat[0][inside], flat[1][inside], flat[2][inside], level)
            value[inside], lo[inside], hi[inside] = answer
        return Result(
            value.reshape(shape), lo.reshape(shape), hi.reshape(shape), n.reshape(shape), code.reshape(shape),
            level=level, verdict=self.verdict,
        )  # fmt: skip

    def at(
        self,
        ra: npt.ArrayLike,
        dec: npt.ArrayLike,
        theta_e: npt.ArrayLike,
        *,
        threshold: str = "default",
        level: float = 0.68,
        model: bool = False,
        priors: bool = False,
    ) -> Result:
        """Completeness at sky positions (ICRS degrees), under the median conditions of their HEALPix cell (nside 128).

        A cell the survey has no objects in is ``outside``. Conditions vary inside a cell: where the PSF and depth at
        the object itself are known, :meth:`completeness` is the better question. Raises ``ValueError`` without a sky
        table.
        """
        if self._sky is None:
            raise ValueError("this release holds no sky table (sky.parquet)")
        cell = ang2pix_nest(SKY_NSIDE, ra, dec)
        known = cell >= 0
        psf, depth = (np.where(known, column[np.where(known, cell, 0)], np.nan) for column in self._sky)
        asked: dict[str, Any] = {"threshold": threshold, "level": level, "model": model, "priors": priors}
        return self.completeness(theta_e=theta_e, psf=psf, depth=depth, **asked)

    def expected_found(
        self,
        *,
        theta_e: npt.ArrayLike,
        psf: npt.ArrayLike,
        depth: npt.ArrayLike,
        weights: npt.ArrayLike | None = None,
        threshold: str = "default",
        priors: bool = False,
    ) -> Expected:
        """Expected number found of a population of lenses, with the error of the surface (not the Poisson noise of
        the sky).

        Cells that share a PSF and depth share hosts, so their errors are added linearly; the others in quadrature; the
        error of the threshold is common to all cells and added linearly. Half of the 68 % width stands for sigma. ``priors``: with
        the error of the fitted priors (``ValueError`` where they were not fitted), which is common to all cells too; ``nan``
        where a cell in use has no such bound.
        """
        table = self._table(threshold, 0.68)
        t, p, d = np.broadcast_arrays(*(np.asarray(a, float) for a in (theta_e, psf, depth)))
        w = _weights(weights, t.shape)
        per_cell = np.bincount(self._cells(t.ravel(), p.ravel(), d.ravel()), w, len(table))
        code = table[:, 4]
        used = (code == 0) & (per_cell > 0)
        inside = np.where(used, per_cell, 0.0)[:-1]
        rows = np.nan_to_num(table[:-1])
        host = (rows[:, 6] - rows[:, 5]) / 2
        ends = rows[:, 1:3]
        if priors:
            ends = np.where(inside[:, None] > 0, self._with_priors(threshold, 0.68, False)[:-1], rows[:, 5:7])
        both = np.maximum((ends[:, 1] - ends[:, 0]) / 2, host)
        cut = np.sqrt(both**2 - host**2)
        columns = (inside * host).reshape(self.shape[0], -1).sum(axis=0)
        error = math.hypot(float(np.sqrt(np.sum(columns**2))), float(np.sum(inside * cut)))
        return Expected(
            value=float(np.sum(inside * rows[:, 0])),
            error=error,
            weight=float(inside.sum()),
            insufficient=float(per_cell[code == 1].sum()),
            outside=float(per_cell[code == 2].sum()),
            verdict=self.verdict,
        )

    def describe(
        self, *, theta_e: float, psf: float, depth: float, threshold: str = "default", level: float = 0.68,
        model: bool = False,
    ) -> str:  # fmt: skip
        """One answer in words: value, interval, n, flag and verdict."""
        point = self._point(threshold)
        r = self.completeness(theta_e=theta_e, psf=psf, depth=depth, threshold=point, level=level, model=model)
        lines = [f'completeness at theta_E = {theta_e:g}", PSF FWHM = {psf:g}", depth r = {depth:g} mag']
        if np.isfinite(r.value):
            lines.append(f"  value     {r.value:.4f}")
            lines.append(f"  interval  {r.lo:.4f} to {r.hi:.4f} ({100 * level:.0f} %)")
            if self.priors_fitted and not model:
                lo, hi = self._full[point, level][
                    int(self._cells(*(np.array([float(a)]) for a in (theta_e, psf, depth)))[0])
                ]
                known = (
                    f"{lo:.4f} to {hi:.4f}"
                    if np.isfinite([lo, hi]).all()
                    else "not known: too few injections speak for it"
                )
                lines.append(f"            {known}, with the error of the fitted priors")
        else:
            lines.append("  value     nan")
            lines.append("  interval  none")
        lines.append(f"  n         {int(r.n)} injections")
        lines.append(f"  flag      {r.flag}")
        cut = self.operating_points[point]
        rate = f", false-positive rate {cut['fpr_target']:g}" if cut.get("fpr_target") else ""
        lines.append(f"  threshold {point}: score >= {cut['cut']:.6g}{rate}")
        if model:
            lines.append("  from      the continuous model, not the table")
        lines.append(f"  verdict   {self.verdict}")
        lines.append(f"  release   {self.name} {self.version}, surface {self.surface}")
        return "\n".join(lines)

    def __mul__(self, other: Factor) -> Product:
        return Product(self, other)

    def __repr__(self) -> str:
        return f"SelectionFunction({self.name} {self.version}, {self.surface}; {self.verdict})"

    def _point(self, threshold: str) -> str:
        point = self.default_threshold if threshold == "default" else threshold
        if point not in self.operating_points:
            raise ValueError(f"no threshold {point!r}; there are {', '.join(self.thresholds)}")
        return point

    def _table(self, threshold: str, level: float) -> F64:
        if level not in LEVELS:
            raise ValueError(f"level {level}: a release holds {' and '.join(map(str, LEVELS))}")
        return self._tables[self._point(threshold), level]

    def _with_priors(self, threshold: str, level: float, model: bool) -> F64:
        if model:
            raise ValueError("the continuous model does not know the error of the priors: ask the table")
        if not self.priors_fitted:
            raise ValueError(
                f"the priors of {self.surface} were not fitted to lenses: there is no error of a fit to add"
            )
        return self._full[self._point(threshold), level]

    def _cells(self, theta_e: F64, psf: F64, depth: F64) -> I64:
        """Row of the table: cells are half-open; the last row is outside (``nan`` too)."""
        cell = np.zeros(theta_e.size, np.int64)
        inside = np.ones(theta_e.size, bool)
        for x, edges in zip((theta_e, psf, depth), self._edges, strict=True):
            inside &= (x >= edges[0]) & (x < edges[-1])
            last = edges.size - 2
            with np.errstate(invalid="ignore"):
                guess = ((x - edges[0]) * ((last + 1) / (edges[-1] - edges[0]))).astype(np.int64)
            np.clip(guess, 0, last, out=guess)
            # rounding may put the guess one cell off at an edge: the edges decide
            guess -= (x < edges.take(guess)) & (guess > 0)
            guess += (x >= edges.take(guess + 1)) & (guess < last)
            cell *= last + 1
            cell += guess
        return np.where(inside, cell, int(np.prod(self.shape)))


class Product:
    """Two selection functions in a row (for instance a finder, then human inspection), taken as independent of each
    other.

    The value is the product. Upper and lower distances are those of the factors, scaled and added in quadrature; n is
    the smaller one, the flag the worse one, and the verdict is a no-go if either is. Independence given the
    conditions is an assumption of whoever multiplies: lenses that one stage finds easily, the next one often does
    too.
    """

    def __init__(self, first: Factor, second: Factor) -> None:
        self.first, self.second = first, second

    def completeness(
        self, *, theta_e: npt.ArrayLike, psf: npt.ArrayLike, depth: npt.ArrayLike, threshold: str = "default",
        level: float = 0.68,
    ) -> Result:  # fmt: skip
        """As :meth:`SelectionFunction.completeness`, with the default threshold of each factor where none is named."""
        where = {"theta_e": theta_e, "psf": psf, "depth": depth}
        a = self.first.completeness(**where, threshold=threshold, level=level)
        b = self.second.completeness(**where, threshold=threshold, level=level)
        value = a.value * b.value
        down = np.hypot((a.value - a.lo) * b.value, (b.value - b.lo) * a.value)
        up = np.hypot((a.hi - a.value) * b.value, (b.hi - b.value) * a.value)
        # at a value of 0 the product is still bounded from above by both upper bounds
        up = np.maximum(up, np.where(value == 0, a.hi * b.hi, 0.0))
        verdicts = {a.verdict, b.verdict}
        worst = [v for v in sorted(verdicts) if v.startswith("NO-GO")] or sorted(verdicts)
        return Result(
            value=np.asarray(value),
            lo=np.asarray(np.clip(value - down, 0, 1)),
            hi=np.asarray(np.clip(value + up, 0, 1)),
            n=np.asarray(np.minimum(a.n, b.n)),
            code=np.asarray(np.maximum(a.code, b.code), np.int8),
            level=level,
            verdict="; ".join(worst),
        )

    def expected_found(
        self,
        *,
        theta_e: npt.ArrayLike,
        psf: npt.ArrayLike,
        depth: npt.ArrayLike,
        weights: npt.ArrayLike | None = None,
        threshold: str = "default",
    ) -> Expected:
        """As :meth:`SelectionFunction.expected_found`. Lenses of one cell share both factors' errors, and which errors
        cells share is no longer known here, so all are added linearly: the error is an upper bound.
        """
        t, p, d = np.broadcast_arrays(*(np.asarray(a, float) for a in (theta_e, psf, depth)))
        w = _weights(weights, t.shape)
        r = self.completeness(theta_e=t.ravel(), psf=p.ravel(), depth=d.ravel(), threshold=threshold)
        used = r.code == 0
        return Expected(
            value=float(np.sum(w[used] * r.value[used])),
            error=float(np.sum(w[used] * (r.hi - r.lo)[used] / 2)),
            weight=float(w[used].sum()),
            insufficient=float(w[r.code == 1].sum()),
            outside=float(w[r.code == 2].sum()),
            verdict=r.verdict,
        )

    def __mul__(self, other: Factor) -> Product:
        return Product(self, other)


def _weights(weights: npt.ArrayLike | None, shape: tuple[int, ...]) -> F64:
    w = np.ones(shape) if weights is None else np.broadcast_to(np.asarray(weights, float), shape)
    if not np.all(np.isfinite(w)) or np.any(w < 0):
        raise ValueError("weights must be finite and not negative")
    return w.ravel()


def ang2pix_nest(nside: int, ra: npt.ArrayLike, dec: npt.ArrayLike) -> I64:
    """Nested HEALPix cell of positions in degrees (Gorski et al. 2005, doi:10.1086/427976); -1 where not a position.

    ``nside`` is a power of two, at most 2**20.
    """
    order = nside.bit_length() - 1
    if nside < 1 or nside != 1 << order or order > 20:
        raise ValueError(f"nside {nside} is not a power of two up to 2**20")
    lon, lat = np.broadcast_arrays(np.asarray(ra, float), np.asarray(dec, float))
    ok = np.isfinite(lon) & np.isfinite(lat) & (np.abs(lat) <= 90)
    phi, theta = np.radians(np.where(ok, lon, 0.0)), np.radians(90.0 - np.where(ok, lat, 0.0))
    z = np.cos(theta)
    za = np.abs(z)
    tt = np.mod(phi, 2 * np.pi) / (np.pi / 2)
    tt = np.where(tt >= 4, 0.0, tt)
    # equatorial belt
    up, down = nside * (0.5 + tt) - nside * z * 0.75, nside * (0.5 + tt) + nside * z * 0.75
    jp, jm = np.floor(up).astype(np.int64), np.floor(down).astype(np.int64)
    ifp, ifm = jp >> order, jm >> order
    face_e = np.where(ifp == ifm, (ifp & 3) + 4, np.where(ifp < ifm, ifp & 3, (ifm & 3) + 8))
    ix_e, iy_e = jm & (nside - 1), nside - 1 - (jp & (nside - 1))
    # polar caps; sin(theta) keeps the precision that 1 - |z| loses at the poles
    quarter = np.minimum(tt.astype(np.int64), 3)
    tp = tt - quarter
    reach = np.where(
        za < 0.99, nside * np.sqrt(np.maximum(3 * (1 - za), 0)), nside * np.sin(theta) / np.sqrt((1 + za) / 3)
    )
    jp = np.minimum((tp * reach).astype(np.int64), nside - 1)
    jm = np.minimum(((1 - tp) * reach).astype(np.int64), nside - 1)
    north = z >= 0
    face_p = np.where(north, quarter, quarter + 8)
    ix_p, iy_p = np.where(north, nside - 1 - jm, jp), np.where(north, nside - 1 - jp, jm)
    belt = za <= 2 / 3
    face, ix, iy = np.where(belt, face_e, face_p), np.where(belt, ix_e, ix_p), np.where(belt, iy_e, iy_p)
    return np.where(ok, face * nside**2 + _spread(ix) + 2 * _spread(iy), -1)


def _spread(value: I64) -> I64:
    """The bits of ``value`` on the even places."""
    out = np.zeros_like(value)
    for bit in range(20):
        out |= (value >> bit & 1) << (2 * bit)
    return out
