"""From a table of injection parameters to the arrays a renderer needs, and the names of those parameters.

What does not belong here: where the parameters come from (``batch``), how they are rendered (``render``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from lens_assets.science.errors import BadInput
from lens_assets.science.injections.planes import Galaxies, Plane
from lens_assets.science.injections.sources import components, with_clumps
from lens_assets.science.surveys.layout import BANDS, ZERO_POINT

F64 = npt.NDArray[np.float64]

LENS_COLUMNS = ("lens_x", "lens_y", "q_lens", "phi_lens", "theta_e", "gamma1", "gamma2")
SOURCE_COLUMNS = ("source_x", "source_y", "source_q", "source_phi", "source_re", "source_n")
CLUMP_COLUMNS = ("clump_x", "clump_y", "clump_re", "clump_share")
SLOPE = "lens_slope"
SLOPES = (1.2, 2.8)
"""Slopes of the density that the renderer is tested for."""
FLUX_COLUMNS = tuple(f"source_mag_{b}" for b in BANDS)
FWHM_COLUMNS = tuple(f"psfsize_{b}" for b in BANDS)


@dataclass(frozen=True)
class Placed:
    """A real galaxy in the source plane: position (arcsec from the lens), cosine and sine of its turn, arcsec per
    pixel."""

    plane: Plane
    x: float
    y: float
    cos: float
    sin: float
    scale: float


@dataclass(frozen=True)
class Scene:
    """Injections as arrays: lenses (n, 9), components (m, 10) with offsets (n + 1,), fluxes and FWHM (n, 3).

    Fluxes are unlensed, in nanomaggies; FWHM in arcsec; ``point`` and ``inner`` are booleans (n,). An injection without
    flux in any band is a host without an arc. ``images`` are real galaxies, ``None`` where a source has components; ``hosts``
    the galaxies they are put on, empty where a table names none.
    """

    lens: F64
    parts: F64
    offsets: npt.NDArray[np.int64]
    source: F64
    flux: F64
    fwhm: F64
    point: npt.NDArray[np.bool_]
    inner: npt.NDArray[np.bool_]
    images: tuple[Placed | None, ...]
    hosts: tuple[str, ...] = ()

    def __len__(self) -> int:
        return int(self.lens.shape[0])

    def part(self, start: int, stop: int) -> Scene:
        """Injections ``start:stop``."""
        first, last = self.offsets[start], self.offsets[stop]
        return Scene(
            lens=self.lens[start:stop], parts=self.parts[first:last], offsets=self.offsets[start : stop + 1] - first,
            source=self.source[start:stop], flux=self.flux[start:stop], fwhm=self.fwhm[start:stop],
            point=self.point[start:stop], inner=self.inner[start:stop], images=self.images[start:stop],
            hosts=self.hosts[start:stop],
        )  # fmt: skip


def flux_of_mag(mag: npt.ArrayLike) -> F64:
    """Nanomaggies of AB magnitudes; +inf (no source) is 0."""
    return np.asarray(10.0 ** (0.4 * (ZERO_POINT - np.asarray(mag, dtype=np.float64))))


def scene_of(params: pl.DataFrame | dict[str, Any], galaxies: Galaxies | None = None) -> Scene:
    """The scene of a table of parameters (columns: ``columns.injections.PARAMETERS``).

    A table without ``lens_slope`` is of isothermal lenses, one without ``family`` of smooth Sersic sources; ``galaxies``
    are needed where the family is ``real``. Raises
    :class:`BadInput` naming the column and row of a value that is missing, not finite or out of its domain.
    """
    frame = params if isinstance(params, pl.DataFrame) else pl.DataFrame(params)
    n = frame.height
    family = frame["family"].to_numpy() if "family" in frame.columns else np.full(n, "sersic")
    real = family == "real"
    columns = {}
    for name in (*LENS_COLUMNS, *SOURCE_COLUMNS, *FLUX_COLUMNS, *FWHM_COLUMNS):
        if name not in frame.columns:
            raise BadInput("the renderer needs this column", column=name)
        columns[name] = frame[name].cast(pl.Float64).to_numpy()
    slope = frame[SLOPE].cast(pl.Float64).to_numpy() if SLOPE in frame.columns else np.full(n, 2.0)
    columns[SLOPE] = slope
    columns["source_n"] = np.where(real, 1.0, columns["source_n"])  # a real galaxy has none
    for name, values in columns.items():
        good = ~np.isnan(values) if name in FLUX_COLUMNS else np.isfinite(values)
        if name in ("q_lens", "source_q"):
            good &= (values > 0) & (values <= 1)
        if name in ("theta_e", "source_re", "source_n", *FWHM_COLUMNS):
            good &= values > 0 if name != "theta_e" else values >= 0
        if name == SLOPE:
            good &= (values >= SLOPES[0]) & (values <= SLOPES[1])
        if not good.all():
            row = int(np.flatnonzero(~good)[0])
            raise BadInput(f"not usable: {values[row]}", column=name, row=row)
    lx, ly, q, phi, te, g1, g2 = (columns[c] for c in LENS_COLUMNS)
    lens = np.stack([lx, ly, q, np.cos(phi), np.sin(phi), te, g1, g2, slope], axis=1)
    sx, sy, source_q, source_phi, re, index = (columns[c] for c in SOURCE_COLUMNS)
    smooth = components(sx, sy, source_q, source_phi, re, index, 1.0)
    parts, offsets = _parts(frame, smooth, family)
    inner = frame["inner_image"].to_numpy().astype(bool) if "inner_image" in frame.columns else np.ones(len(lens), bool)
    return Scene(
        lens=np.ascontiguousarray(lens), parts=parts, offsets=offsets,
        source=np.ascontiguousarray(smooth[:, :2]),
        flux=flux_of_mag(np.stack([columns[c] for c in FLUX_COLUMNS], axis=1)),
        fwhm=np.ascontiguousarray(np.stack([columns[c] for c in FWHM_COLUMNS], axis=1)),
        point=family == "point", inner=inner, images=_images(frame, smooth, real, galaxies),
        hosts=tuple(frame["galaxy_id"].cast(pl.String).to_list()) if "galaxy_id" in frame.columns else (),
    )  # fmt: skip


def _images(
    frame: pl.DataFrame, smooth: F64, real: npt.NDArray[np.bool_], galaxies: Galaxies | None
) -> tuple[Placed | None, ...]:
    """Real galaxies where the rows have them: turned by ``source_phi`` and scaled to ``source_re``."""
    found: list[Placed | None] = [None] * len(smooth)
    if not real.any():
        return tuple(found)
    if galaxies is None:
        raise BadInput("rows of real galaxies, and no galaxies given to render them", column="source_id")
    place = {name: i for i, name in enumerate(galaxies.ids)}
    for i, name in zip(np.flatnonzero(real).tolist(), frame["source_id"].filter(pl.Series(real)), strict=True):
        if name not in place:
            raise BadInput(f"no real galaxy {name!r} in the catalogue", column="source_id", row=i)
        x, y, _, c, s, inv_re = smooth[i, :6]
        plane = galaxies.plane(name)
        scale = plane.scale / (inv_re * galaxies.radius[place[name]])
        found[i] = Placed(plane, float(x), float(y), float(c), float(s), float(scale))
    return tuple(found)


def _parts(frame: pl.DataFrame, smooth: F64, family: npt.NDArray[Any]) -> tuple[F64, npt.NDArray[np.int64]]:
    if not np.isin(family, ("clumpy", "real")).any():
        return smooth, np.arange(len(smooth) + 1)
    clumpy = (family == "clumpy").any()
    lists = {name: frame[name].to_list() for name in CLUMP_COLUMNS} if clumpy else {}
    fraction = frame["clump_fraction"].to_numpy() if clumpy else np.zeros(len(smooth))
    blocks = []
    for i, name in enumerate(family.tolist()):
        if name == "clumpy":
            clumps = (np.asarray(lists[c][i], dtype=np.float64) for c in CLUMP_COLUMNS)
            blocks.append(with_clumps(smooth[i], float(fraction[i]), *clumps))
        else:
            blocks.append(smooth[i:i] if name == "real" else smooth[i : i + 1])
    offsets = np.concatenate([[0], np.cumsum([len(b) for b in blocks])])
    return np.ascontiguousarray(np.concatenate(blocks)), offsets.astype(np.int64)
