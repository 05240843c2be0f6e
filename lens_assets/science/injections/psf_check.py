"""Whether a folder of PSF images fits the hosts: is there one for each, can it be read, is it as wide as the catalogue says.

An image of another pixel scale or another place is a valid image; only its width tells. PSFSIZE is the weighted mean of the
exposures' FWHM and an image of the coadd is no Gaussian, so ``FACTOR`` is wide: it is there for blunders, not for seeing.

What does not belong here: reading and using an image (``psf_images``, ``psf``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy import ndimage

from lens_assets.science.errors import BadInput
from lens_assets.science.injections import psf_images
from lens_assets.science.injections.psf import PsfSpec
from lens_assets.science.surveys.layout import BANDS, PIXEL_SCALE

F64 = npt.NDArray[np.float64]
FACTOR = 1.5
"""An image that is so many times wider or narrower than PSFSIZE is not that of its hosts: of a space telescope, binned, of
pixels of 0.396". A neighbouring brick's is not told from the right one: 105 bricks of DR10 have 1.22" to 1.48" in r."""
_ZOOM = 5
_CORE = 31
"""Side of the middle that is looked at, pixels: 8", wider than the half maximum of any seeing."""


def fwhm_of(image: F64) -> float:
    """FWHM (pixels): diameter of the circle of the area above half of the maximum, on a cubic spline 5 times finer."""
    cut = max((image.shape[0] - _CORE) // 2, 0)
    core = image[cut : image.shape[0] - cut, cut : image.shape[1] - cut]
    fine = ndimage.zoom(core, _ZOOM, order=3, grid_mode=True, mode="nearest")
    return float(np.sqrt(4.0 * (fine > 0.5 * fine.max()).sum() / np.pi) / _ZOOM)


@lru_cache(maxsize=65536)
def widths(file: str, sha256: str) -> tuple[float, ...]:
    """FWHM (arcsec) of each band (g, r, z) of a file. Raises :class:`BadInput` for a file that is no PSF."""
    return tuple(fwhm_of(image) * PIXEL_SCALE for image in psf_images.images_of(file, sha256))


@dataclass(frozen=True)
class Examined:
    """What a folder holds for some hosts.

    ``own`` and ``brick``: hosts with an image of their own, or their brick's; ``missing``: ids of those without one;
    ``refused``: why a file cannot be used, by name; ``ratio``: per used file ``file, hosts`` and, a band, FWHM over the
    median PSFSIZE of its hosts; ``unused``: files that no host asks for.
    """

    hosts: int
    own: int
    brick: int
    missing: list[str]
    refused: dict[str, str]
    ratio: pl.DataFrame
    unused: int

    @property
    def off(self) -> pl.DataFrame:
        """Files whose width in some band differs from PSFSIZE by more than ``FACTOR``."""
        bad = [~pl.col(f"ratio_{b}").is_between(1 / FACTOR, FACTOR) for b in BANDS]
        return self.ratio.filter(pl.any_horizontal(*bad))

    @property
    def problems(self) -> list[str]:
        """What would stop a batch, in words; empty where nothing does."""
        out = []
        if self.missing:
            out.append(
                f"{len(self.missing)} of {self.hosts} hosts have no PSF image, neither their own nor their brick's"
                f" ({_first(self.missing)})"
            )
        if self.refused:
            name, why = next(iter(self.refused.items()))
            out.append(f"{len(self.refused)} files cannot be used ({name}: {why})")
        if self.off.height:
            row = self.off.row(0, named=True)
            worst = max(BANDS, key=lambda b: abs(np.log(row[f"ratio_{b}"])))
            out.append(
                f"{self.off.height} images are not as wide as their hosts' PSFSIZE within a factor {FACTOR} "
                f"({row['file']}: {row[f'ratio_{worst}']:.2f} times in {worst}): another place or another pixel scale?"
            )
        return out


def _first(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def examine(spec: PsfSpec, hosts: pl.DataFrame) -> Examined:
    """Hold a folder against hosts: ``galaxy_id`` and ``psfsize_{g,r,z}`` (arcsec), a host as often as it likes.

    Raises :class:`BadInput` where there is no folder, or its files are others than when ``spec`` was read.
    """
    files = psf_images.files_of(spec.folder, spec.sha256)
    sizes = [f"psfsize_{b}" for b in BANDS]
    each = hosts.group_by("galaxy_id").agg(pl.col(sizes).first()).sort("galaxy_id")
    ids = each["galaxy_id"].to_list()
    names = [psf_images.name_for(name, files) for name in ids]
    used = each.with_columns(pl.Series("file", names, dtype=pl.String)).drop_nulls("file")
    by_file = used.group_by("file").agg(pl.len().alias("hosts"), pl.col(sizes).cast(pl.Float64).median()).sort("file")
    refused: dict[str, str] = {}
    rows = []
    for row in by_file.iter_rows(named=True):
        name = row["file"]
        try:
            found = widths(str(Path(spec.folder).absolute() / name), files[name])
        except BadInput as fault:
            refused[name] = str(fault)
            continue
        ratio = {f"ratio_{b}": w / row[f"psfsize_{b}"] for b, w in zip(BANDS, found, strict=True)}
        rows.append({"file": name, "hosts": row["hosts"], **ratio})
    schema = {"file": pl.String, "hosts": pl.UInt32, **{f"ratio_{b}": pl.Float64 for b in BANDS}}
    own = sum(name == f"{one}.fits" for name, one in zip(names, ids, strict=True))
    return Examined(
        hosts=len(ids), own=own, brick=used.height - own,
        missing=[one for name, one in zip(names, ids, strict=True) if name is None],
        refused=refused, ratio=pl.DataFrame(rows, schema=schema, orient="row"), unused=len(files) - by_file.height,
    )  # fmt: skip


def require(spec: PsfSpec, hosts: pl.DataFrame) -> None:
    """Before anything is rendered: raise :class:`BadInput` with all that is wrong, where ``spec`` asks for images."""
    if spec.kind == "images" and hosts.height and (problems := examine(spec, hosts).problems):
        raise BadInput("; ".join([*problems, "`lens-assets psf` tells more"]), file=spec.folder)
