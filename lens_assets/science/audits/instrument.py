"""What the closure experiment puts to the test: a published surface with what made it, and where it claims anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from lens_assets.science.completeness.model import Surface
from lens_assets.science.detectors.score import Scorer
from lens_assets.science.injections.batch import StampSource
from lens_assets.science.injections.priors import PriorSet
from lens_assets.science.injections.psf import PsfSpec
from lens_assets.science.injections.settings import Settings as InjectionSettings
from lens_assets.science.injections.variants import Variant
from lens_assets.science.mock.footprint import plan
from lens_assets.science.mock.psf_images import write_psf_images
from lens_assets.science.mock.settings import MockSize

PLACE = ["i_psf", "i_depth"]
CELL = ["i_theta", *PLACE]


@dataclass(frozen=True)
class Instrument:
    """The published surface and what made it: everything that is put to the test.

    ``priors`` : what the variant's injections were drawn from. ``hosts`` : table ``injection_hosts`` of the variant with ``ebv``,
    ``pool`` and ``sersic``; ``ordinary`` : the same of random hosts, the sort of galaxy that thresholds are set on; ``stamps`` :
    their pixels. ``others`` : further surfaces of the same detector by variant, compared as they are. ``there`` : the variant as
    it is on the closure sky, where images of the PSF are those of other places (:func:`psf_of_sky`); the same otherwise.
    """

    surface: Surface
    scorer: Scorer
    variant: Variant
    priors: PriorSet
    hosts: pl.DataFrame
    ordinary: pl.DataFrame
    stamps: StampSource
    injections: InjectionSettings
    others: Mapping[str, Surface]
    there: Variant | None = None

    @property
    def elsewhere(self) -> Variant:
        """The variant for galaxies of the closure sky."""
        return self.there or self.variant


def psf_of_sky(variant: Variant, size: MockSize, seed: int, folder: Path) -> Variant:
    """The variant with the PSF images of a mock's own bricks, written below ``folder``, where it takes images of places.

    Those of the practice sky are of other bricks, or, worse, of bricks of the same number under another seeing.
    """
    if variant.psf.kind != "images":
        return variant
    write_psf_images(folder, size, plan(size, seed), seed)
    return variant.model_copy(update={"psf": PsfSpec(kind="images", folder=str(folder))})


def places_of(surface: Surface) -> pl.DataFrame:
    """PSF and depth cells (``i_psf, i_depth``) in which the surface supports some theta_E."""
    return supported(surface).select(PLACE).unique().sort(PLACE)


def supported(surface: Surface) -> pl.DataFrame:
    """The supported cells of a surface (``i_theta, i_psf, i_depth``)."""
    first = surface.cells.filter(pl.col("operating_point") == surface.points[0].name)
    return first.filter(pl.col("support") == "supported").select(CELL).sort(CELL)


def placed(frame: pl.DataFrame, surface: Surface) -> pl.DataFrame:
    """Rows with ``psfsize_r`` and ``depth_r`` that lie in :func:`places_of`, with ``psf_bin`` and ``depth_bin``."""
    grid = surface.grid
    index = {
        name: pl.Series(name, axis.index(frame[column].cast(pl.Float64).fill_null(np.nan).to_numpy()), dtype=pl.Int16)
        for name, axis, column in (("psf_bin", grid.psf, "psfsize_r"), ("depth_bin", grid.depth, "depth_r"))
    }
    here = places_of(surface).rename({"i_psf": "psf_bin", "i_depth": "depth_bin"})
    return frame.with_columns(**index).join(here, on=["psf_bin", "depth_bin"], how="semi")
