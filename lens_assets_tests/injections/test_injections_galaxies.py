"""Real galaxies as sources: the catalogue, the source planes against their truth, and arcs against a dense grid."""

from __future__ import annotations

import os
from pathlib import Path

import galsim
import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from astropy.io import fits
from astropy.table import Table
from scipy import ndimage

from lens_assets.science.errors import BadInput
from lens_assets.science.injections.batch import inject, one, plan_batch
from lens_assets.science.injections.bench import errors
from lens_assets.science.injections.cosmos import GalaxySet, pool_of, read_galaxies
from lens_assets.science.injections.deconvolve import half_light_radius, starlet
from lens_assets.science.injections.hosts import choose_hosts
from lens_assets.science.injections.planes import Plane
from lens_assets.science.injections.render import TIGHT, render
from lens_assets.science.injections.scene import scene_of
from lens_assets.science.injections.settings import GalaxySettings, Settings
from lens_assets.science.injections.variants import load_variants
from lens_assets_tests.injections.test_injections_batch import SMALL, Stamps, sample

SCALE, SIDE, SIGMA = 0.03, 161, 2.5e-3
REAL = Path(os.environ.get("LENS_ASSETS_REAL_DATA", "../shared/data")) / "galaxies" / "real_galaxy_catalog_23.5.fits"
EVERYTHING = GalaxySettings(recovery_share=1.0)


def truth(k: int) -> galsim.GSObject:
    """A disc with knots; flux 100."""
    disc = galsim.Sersic(n=1, half_light_radius=0.3 + 0.03 * k, flux=80).shear(q=0.6, beta=k * galsim.radians)
    knots = galsim.RandomKnots(6, half_light_radius=0.25, flux=20, rng=galsim.BaseDeviate(k + 1))
    return disc + galsim.Convolve([knots, galsim.Gaussian(sigma=0.03)])


def draw(profile: galsim.GSObject) -> npt.NDArray[np.float64]:
    return np.asarray(profile.drawImage(nx=SIDE, ny=SIDE, scale=SCALE, method="no_pixel", dtype=float).array)


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_catalogue(tmp_path_factory.mktemp("cosmos"))


def write_catalogue(folder: Path) -> Path:
    """Twelve galaxies seen through a round 0.11" Moffat, with correlated noise, in GalSim's layout."""
    psf = galsim.Moffat(beta=3.0, fwhm=0.11)
    stamps = [fits.PrimaryHDU()]
    for k in range(12):
        white = np.random.default_rng(k).normal(size=(SIDE, SIDE))
        noise = ndimage.gaussian_filter(white, 0.5)
        image = draw(galsim.Convolve([truth(k), psf])) + noise * (SIGMA / noise.std())
        stamps.append(fits.ImageHDU(image.astype("f4")))
    fits.HDUList(stamps).writeto(folder / "images.fits")
    kernel = psf.drawImage(nx=63, ny=63, scale=SCALE, method="no_pixel", dtype=float).array
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(kernel)]).writeto(folder / "psfs.fits")
    Table({
        "IDENT": np.arange(12, dtype="i4") + 100, "GAL_FILENAME": ["images.fits"] * 12, "GAL_HDU": np.arange(12) + 1,
        "PSF_FILENAME": ["psfs.fits"] * 12, "PSF_HDU": np.ones(12, int), "PIXEL_SCALE": np.full(12, SCALE),
    }).write(folder / "catalog.fits")  # fmt: skip
    return folder / "catalog.fits"


@pytest.fixture(scope="module")
def galaxies(catalogue: Path) -> GalaxySet:
    return read_galaxies(catalogue, EVERYTHING)


def padded(plane: Plane) -> npt.NDArray[np.float64]:
    """The plane on the stamp's own pixels."""
    out = np.zeros((SIDE, SIDE))
    shift = [round(80 - c) for c in plane.centre[::-1]]
    out[: plane.pixels.shape[0], : plane.pixels.shape[1]] = plane.pixels
    return np.roll(out, shift, (0, 1))


def test_a_source_plane_is_the_galaxy_without_its_psf_and_noise(galaxies: GalaxySet) -> None:
    """Against the known profile under the target PSF: residual below the noise of the stamp, peak and size right."""
    target = galsim.Gaussian(fwhm=EVERYTHING.target_fwhm)
    assert len(galaxies.ids) == 12
    for k in range(0, 12, 3):
        want = draw(galsim.Convolve([truth(k), target]))
        middle = (
            float((want * np.arange(SIDE)).sum() / want.sum()),
            float((want.T * np.arange(SIDE)).sum() / want.sum()),
        )
        radius = half_light_radius(want, middle) * SCALE
        mine = galaxies.radius[galaxies.ids.index(str(100 + k))]
        assert mine == pytest.approx(radius, rel=0.15)  # the outskirts of the largest are lost in the noise
        plane = galaxies.plane(str(100 + k))
        assert plane.pixels.sum() == pytest.approx(1.0)
        assert plane.pixels.min() == 0.0
        assert 0.9 < galaxies.kept[galaxies.ids.index(str(100 + k))] < 1.1
        shown = padded(plane)
        at = [float((a * np.arange(SIDE)).sum()) for a in (shown.sum(1), shown.sum(0))]
        moved = ndimage.shift(want, [at[0] - middle[1], at[1] - middle[0]], order=5)
        residual = shown * moved.sum() - moved
        assert residual.std() < 0.8 * SIGMA  # below the stamp's own noise, though sharpening makes that larger
        assert np.abs(residual).max() < 0.12 * moved.max()


def test_deconvolution_brings_back_what_the_psf_has_blurred(catalogue: Path, galaxies: GalaxySet) -> None:
    blurred = read_galaxies(catalogue, EVERYTHING.model_copy(update={"deconvolve": False}))
    narrow = read_galaxies(catalogue, EVERYTHING.model_copy(update={"target_fwhm": 0.08}))
    for name in ("100", "106"):
        sharp, dull = narrow.plane(name).pixels, blurred.plane(name).pixels
        assert sharp.max() > 1.1 * dull.max()
    assert (narrow.radius < blurred.radius).all()
    assert galaxies.digest != blurred.digest


def test_the_starlet_transform_adds_up_and_has_no_mean() -> None:
    image = np.random.default_rng(0).normal(size=(64, 60))
    parts = starlet(image, 4)
    np.testing.assert_allclose(sum(parts), image, atol=1e-12)
    assert all(abs(p.mean()) < 0.02 for p in parts[:-1])


def test_pools_are_disjoint_and_depend_on_identity_alone(catalogue: Path) -> None:
    ids = np.arange(100, 112)
    member = pool_of(ids, 0.5)
    assert 0 < member.sum() < 12
    np.testing.assert_array_equal(pool_of(ids[::-1], 0.5)[::-1], member)
    half = GalaxySettings(recovery_share=0.5)
    recovery, training = (read_galaxies(catalogue, half, pool) for pool in ("recovery", "training"))
    assert not set(recovery.ids) & set(training.ids)
    assert set(recovery.ids) | set(training.ids) == {str(i) for i in ids}
    assert set(recovery.ids) == {str(i) for i in ids[member]}


def test_an_image_under_two_identities_is_used_once(catalogue: Path, tmp_path: Path) -> None:
    table = Table.read(catalogue)
    table["GAL_HDU"][5] = table["GAL_HDU"][2]
    for name in ("images.fits", "psfs.fits"):
        (tmp_path / name).symlink_to(catalogue.parent / name)
    table.write(tmp_path / "catalog.fits")
    found = read_galaxies(tmp_path / "catalog.fits", EVERYTHING)
    assert "102" in found.ids
    assert "105" not in found.ids
    assert found.rejections.counts == {"another galaxy's image": 1}


def test_what_is_missing_is_named(catalogue: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="LENS_ASSETS_GALAXIES"):
        read_galaxies(tmp_path / "none.fits", EVERYTHING)
    (tmp_path / "catalog.fits").write_bytes(catalogue.read_bytes())
    with pytest.raises(
        BadInput, match=r"images of the galaxies: images\.fits; images of the PSF: psfs\.fits.*the whole sample"
    ):
        read_galaxies(tmp_path / "catalog.fits", EVERYTHING)
    (tmp_path / "images.fits").symlink_to(catalogue.parent / "images.fits")
    with pytest.raises(BadInput, match=r"missing images of the PSF: psfs\.fits.*deconvolve: false"):
        read_galaxies(tmp_path / "catalog.fits", EVERYTHING)
    with pytest.raises(BadInput, match="not a FITS table"):
        read_galaxies(tmp_path / "images.fits", EVERYTHING)
    table = Table.read(catalogue)
    table["PSF_HDU"] = 7
    (tmp_path / "psfs.fits").symlink_to(catalogue.parent / "psfs.fits")
    table.write(tmp_path / "catalog.fits", overwrite=True)
    with pytest.raises(BadInput, match=r"psfs\.fits.*HDU 7.*is no image"):
        read_galaxies(tmp_path / "catalog.fits", EVERYTHING)
    table.remove_column("GAL_HDU")
    table.write(tmp_path / "catalog.fits", overwrite=True)
    with pytest.raises(BadInput, match=r"GAL_HDU.*real_galaxy_catalog"):
        read_galaxies(tmp_path / "catalog.fits", EVERYTHING)
    rows = plan_batch(choose_hosts(sample(), SMALL).hosts, load_variants()["sersic-population"], 1.0, SMALL)
    with pytest.raises(BadInput, match="LENS_ASSETS_GALAXIES"):
        plan_batch(choose_hosts(sample(), SMALL).hosts, load_variants()["real-population"], 1.0, SMALL)
    with pytest.raises(BadInput, match="no galaxies given"):
        scene_of(rows.with_columns(family=pl.lit("real"), source_id=pl.lit("100")))


def test_a_set_is_stored_and_read_without_change(galaxies: GalaxySet, tmp_path: Path) -> None:
    galaxies.save(tmp_path / "set.npz")
    back = GalaxySet.load(tmp_path / "set.npz")
    assert back.digest == galaxies.digest
    assert (back.ids, back.pool, back.rejections) == (galaxies.ids, galaxies.pool, galaxies.rejections)


# --- drawn, and rendered ---------------------------------------------------------------------------------------------


def plan(galaxies: GalaxySet, name: str = "real-population", settings: Settings = SMALL) -> pl.DataFrame:
    return plan_batch(
        choose_hosts(sample(), settings).hosts, load_variants()[name], 1.5, settings, None, None, galaxies
    )


def test_real_galaxies_change_the_source_alone_and_count_their_use(galaxies: GalaxySet) -> None:
    many = SMALL.model_copy(update={"per_cell": 30, "max_host_reuse": 30})
    rows, base = plan(galaxies, settings=many), plan(galaxies, "sersic-population", many)
    own = ("injection_id", "variant", "family", "source_q", "source_n", "source_id", "source_scale", "source_reuse")
    assert rows.drop(own).equals(base.drop(own))
    used = rows.group_by("source_id").agg(pl.len(), pl.col("source_reuse").unique())
    assert all([n] == reuse for n, reuse in used.select("len", "source_reuse").iter_rows())
    assert rows["source_n"].null_count() == rows.height
    assert (base["source_reuse"] == 0).all()
    assert base["source_id"].null_count() == base.height
    radius = dict(zip(galaxies.ids, galaxies.radius, strict=True))
    sizes = np.array([radius[i] for i in rows["source_id"]])
    np.testing.assert_allclose(rows["source_scale"] * sizes, rows["source_re"], rtol=1e-12)
    enlarged = rows.filter(pl.col("source_scale") > 1)
    assert (enlarged["source_re"] > galaxies.radius.max() * 0.9).all()  # only where no galaxy is large enough


def params(galaxies: GalaxySet, **changes: object) -> dict[str, object]:
    base: dict[str, object] = {
        "theta_e": 1.3, "q_lens": 0.7, "phi_lens": 0.6, "lens_x": 0.04, "lens_y": -0.03, "gamma1": 0.03, "gamma2": -0.04,
        "source_x": 0.15, "source_y": -0.1, "source_q": 0.6, "source_phi": 1.1, "source_re": 0.3, "source_n": 1.0,
        "source_mag_g": 23.5, "source_mag_r": 23.0, "source_mag_z": 22.5, "psfsize_g": 1.4, "psfsize_r": 1.25,
        "psfsize_z": 1.1, "family": "real", "source_id": galaxies.ids[-1],
    }  # fmt: skip
    return {k: [v] for k, v in (base | changes).items()}


@pytest.mark.parametrize("size", [0.12, 0.4])
def test_arcs_of_real_galaxies_agree_with_a_dense_grid(galaxies: GalaxySet, size: float) -> None:
    scene = scene_of(params(galaxies, source_re=size), galaxies)
    dense = render(scene, backend="dense", supersampling=24)
    for accuracy, bar in ((None, 1e-2), (TIGHT, 2e-3)):
        ours = render(scene) if accuracy is None else render(scene, accuracy=accuracy)
        assert errors(ours.images, dense.images)[0].max() < bar
        np.testing.assert_allclose(ours.lensed_flux, dense.lensed_flux, rtol=3e-3)


def test_an_unlensed_real_galaxy_keeps_its_flux_size_and_orientation(galaxies: GalaxySet) -> None:
    still = {
        "theta_e": 0.0,
        "gamma1": 0.0,
        "gamma2": 0.0,
        "source_x": 0.0,
        "source_y": 0.0,
        "lens_x": 0.0,
        "lens_y": 0.0,
    }
    out = render(scene_of(params(galaxies, **still, source_re=0.8), galaxies))
    np.testing.assert_allclose(out.lensed_flux, out.unlensed_flux, rtol=2e-3)
    turned = render(scene_of(params(galaxies, **still, source_re=0.8, source_phi=1.1 + np.pi / 2), galaxies))
    quarter = np.rot90(out.images[0, 1], -1)  # rows grow upwards: a turn from +x to +y
    assert np.abs(turned.images[0, 1] - quarter).max() < 5e-3 * quarter.max()


def test_one_real_injection_by_its_id_is_the_batch_bit_for_bit(galaxies: GalaxySet) -> None:
    rows = plan(galaxies)
    batch = np.concatenate([c.images for c in inject(rows, Stamps(), SMALL, None, galaxies)])
    hosts = choose_hosts(sample(), SMALL).hosts
    chunk = one(rows["injection_id"][7], hosts, Stamps(), SMALL, None, galaxies)
    assert chunk.images[0].tobytes() == batch[7].tobytes()


def test_the_two_cosmos_galaxies_are_read_and_lensed() -> None:
    if not REAL.exists():
        pytest.skip(f"no COSMOS galaxies at {REAL} (LENS_ASSETS_REAL_DATA names the folder of real data)")
    with pytest.raises(
        BadInput, match=r"real_galaxy_PSF_images_23\.5_n4\.fits.*galsim_download_cosmos.*deconvolve: false"
    ):
        read_galaxies(REAL, EVERYTHING)  # the extract has no PSF images
    found = read_galaxies(REAL, EVERYTHING.model_copy(update={"deconvolve": False}))
    assert len(found.ids) == 1  # both rows of this extract name the same image
    assert found.rejections.total == 1
    assert 0.3 < found.radius[0] < 2.0
    scene = scene_of(params(found, source_id=found.ids[0]), found)
    dense = render(scene, backend="dense", supersampling=24)
    assert errors(render(scene).images, dense.images)[0].max() < 1e-2
