"""The grid of a surface: cell centres, edges, and which cell a value lies in.

A cell holds [centre - half, centre + half): half-open, so a value on an edge belongs to the upper cell and to no
other. A value outside the range has index -1 and is left out. It is never snapped to the edge bin: a published
surface put all fields deeper than 24.75 into its 24.5 bin that way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from lens_assets.science.completeness.settings import Settings
from lens_assets.science.errors import BadInput

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

DEFAULT_HALF = {"theta_e": 0.125, "psf": 0.075, "depth": 0.25}
"""Half-widths of an axis with one centre: those of the classic grid."""


@dataclass(frozen=True)
class Axis:
    """One axis: its ``centres`` (equally spaced, increasing), ``half`` width and ``unit``."""

    name: str
    centres: tuple[float, ...]
    half: float
    unit: str
    meaning: str

    def __len__(self) -> int:
        return len(self.centres)

    @cached_property
    def edges(self) -> F64:
        """len + 1 edges, rounded to 1e-10 so that they do not depend on how the centres were written."""
        ends = [c - self.half for c in self.centres] + [self.centres[-1] + self.half]
        return np.array([round(end, 10) for end in ends], dtype=np.float64)

    def index(self, values: npt.ArrayLike) -> I64:
        """Cell of each value, -1 where it is outside or not finite. Same shape as ``values``."""
        x = np.asarray(values, float)
        i = np.searchsorted(self.edges, x, side="right").astype(np.int64) - 1
        return np.where(np.isfinite(x) & (i >= 0) & (i < len(self)), i, -1)

    def to_edge(self, values: npt.ArrayLike) -> F64:
        """Distance of each value to the nearest edge, in the axis's unit."""
        x = np.asarray(values, float)
        return np.asarray(np.min(np.abs(x[..., None] - self.edges), axis=-1), np.float64)


@dataclass(frozen=True)
class Grid:
    """theta_E x PSF x depth. A flat cell number runs over depth fastest, theta_E slowest."""

    theta_e: Axis
    psf: Axis
    depth: Axis

    @classmethod
    def of(cls, settings: Settings) -> Grid:
        """The grid that ``settings`` asks for."""
        return cls.from_json({name: {"centres": list(getattr(settings, name))} for name in ("theta_e", "psf", "depth")})

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Grid:
        """The inverse of :meth:`to_json`; half-widths may be left out (half the step)."""
        made = {}
        for name, unit, meaning in (
            ("theta_e", "arcsec", "Einstein radius"),
            ("psf", "arcsec", "r-band PSF FWHM at the host (PSFSIZE_R)"),
            ("depth", "mag", "r-band 5-sigma point-source depth at the host (AB)"),
        ):
            c = tuple(float(x) for x in value[name]["centres"])
            half = value[name].get("half")
            if half is None:
                half = round((c[1] - c[0]) / 2, 10) if len(c) > 1 else DEFAULT_HALF[name]
            made[name] = Axis(name, c, float(half), unit, meaning)
        return cls(**made)

    def to_json(self) -> dict[str, Any]:
        """Centres, half-widths, edges and units: everything a reader without this package needs."""
        return {
            a.name: {
                "centres": list(a.centres),
                "half": a.half,
                "edges": a.edges.tolist(),
                "unit": a.unit,
                "meaning": a.meaning,
            }
            for a in self.axes
        }

    def for_injections(self) -> dict[str, Any]:
        """The same grid in the words of the injections' settings: what a campaign for this grid is configured with."""
        return {
            "theta_e": self.theta_e.centres,
            "psf_centres": self.psf.centres,
            "psf_step": round(2 * self.psf.half, 10),
            "depth_centres": self.depth.centres,
            "depth_step": round(2 * self.depth.half, 10),
        }

    def check_injections(self, settings: Any) -> None:
        """Raise :class:`BadInput` naming the setting unless injection ``settings`` put hosts into the cells of this grid.

        ``theta_e`` may be some of the grid's: the others stay empty.
        """
        for key, wanted in self.for_injections().items():
            have, want = np.atleast_1d(getattr(settings, key)).astype(float), np.atleast_1d(wanted)
            if key == "theta_e":
                same = have.size > 0 and bool(np.all(np.min(np.abs(have[:, None] - want), axis=1) < 1e-9))
            else:
                same = have.size == want.size and bool(np.allclose(have, want, rtol=0, atol=1e-9))
            if not same:
                raise BadInput(f"injections are for {have.tolist()}, the grid has {want.tolist()}", column=key)

    @property
    def axes(self) -> tuple[Axis, Axis, Axis]:
        """The three axes in order."""
        return self.theta_e, self.psf, self.depth

    @property
    def shape(self) -> tuple[int, int, int]:
        """Cells along each axis."""
        return len(self.theta_e), len(self.psf), len(self.depth)

    @property
    def size(self) -> int:
        """Number of cells."""
        return int(np.prod(self.shape))

    def flat(self, i_theta: npt.ArrayLike, i_psf: npt.ArrayLike, i_depth: npt.ArrayLike) -> I64:
        """Flat cell number of indices along the axes; -1 where any of them is -1."""
        t, p, d = (np.asarray(i, np.int64) for i in (i_theta, i_psf, i_depth))
        _, n_p, n_d = self.shape
        return np.where((t >= 0) & (p >= 0) & (d >= 0), (t * n_p + p) * n_d + d, -1)

    def unflat(self, cell: npt.ArrayLike) -> tuple[I64, I64, I64]:
        """Indices along the axes of flat cell numbers (all >= 0)."""
        _, n_p, n_d = self.shape
        c = np.asarray(cell, np.int64)
        return c // (n_p * n_d), c // n_d % n_p, c % n_d
