"""The closure experiment under images of the PSF."""

from dataclasses import replace

import numpy as np
import pytest

from lens_assets.science.audits.instrument import Instrument, psf_of_sky
from lens_assets.science.injections.psf_check import fwhm_of
from lens_assets.science.injections.psf_images import images_of
from lens_assets.science.injections.variants import load_variants
from lens_assets.science.mock.conditions import conditions
from lens_assets.science.mock.footprint import plan
from lens_assets.science.mock.settings import load_size
from lens_assets.science.surveys.layout import PIXEL_SCALE


def test_arcs_on_the_closure_sky_have_the_psf_images_of_its_own_bricks(tmp_path):
    size, variants = load_size("tiny"), load_variants()
    assert psf_of_sky(variants["sersic-population"], size, 71, tmp_path) is variants["sersic-population"]
    assert not list(tmp_path.iterdir())
    there = psf_of_sky(variants["sersic-psf-images"], size, 71, tmp_path)
    for made in plan(size, 71):
        if made.missing is None:
            c = conditions(size, made, 71)["r"]
            spec = there.psf.at(f"10000-{made.cell.brickid}-1")
            seen = fwhm_of(images_of(spec.file, spec.sha256)[1]) * PIXEL_SCALE
            assert seen == pytest.approx(np.median(c.psfsize[c.psfsize > 0]), rel=0.06)
    instrument = Instrument(None, None, variants["sersic-psf-images"], None, None, None, None, None, {})
    assert instrument.elsewhere is instrument.variant
    assert replace(instrument, there=there).elsewhere is there
    assert there.digest != instrument.variant.digest
