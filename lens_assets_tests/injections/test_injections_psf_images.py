"""PSF images of each host's place: which file a host gets, what is refused, and the light against lenstronomy's PIXEL PSF."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from lens_assets.science.errors import BadInput
from lens_assets.science.injections.bench import bench_scene, errors
from lens_assets.science.injections.psf import PsfSpec
from lens_assets.science.injections.psf_images import SETTING, fine_kernel, images_of
from lens_assets.science.injections.reference import lenstronomy_models
from lens_assets.science.injections.render import TIGHT, render
from lens_assets.science.injections.scene import Scene
from lens_assets.science.injections.variants import load_variants
from lens_assets.science.mock.conditions import conditions
from lens_assets.science.mock.footprint import plan
from lens_assets.science.mock.psf_images import write_psf_images
from lens_assets.science.mock.settings import load_size
from lens_assets.science.surveys.layout import PIXEL_SCALE

SEED = 20261123


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The PSF images of the bricks of the smallest practice sky."""
    folder = tmp_path_factory.mktemp("psf")
    size = load_size("tiny")
    assert write_psf_images(folder, size, plan(size, SEED), SEED)
    return folder


def on(scene: Scene, hosts: list[str]) -> Scene:
    return Scene(**{**vars(scene), "hosts": tuple(hosts)})


def bricks(folder: Path) -> list[str]:
    return sorted(p.stem for p in folder.glob("*.fits"))


def test_the_practice_sky_serves_the_psf_it_was_made_with(served: Path) -> None:
    size = load_size("tiny")
    for made in plan(size, SEED):
        if made.missing is None:
            image = images_of(*_named(PsfSpec(kind="images", folder=str(served)).at(f"10002-{made.cell.brickid}-5")))
            for b, band in enumerate("grz"):
                c = conditions(size, made, SEED)[band]
                fwhm = float(np.median(c.psfsize[c.psfsize > 0])) / PIXEL_SCALE
                wide = ndimage.zoom(image[b], 9, order=3)
                assert np.sqrt(4 * (wide > 0.5 * wide.max()).sum() / np.pi) / 9 == pytest.approx(fwhm, rel=0.04)
                assert image[b].argmax() == 31 * 63 + 31


def _named(spec: PsfSpec) -> tuple[str, str]:
    return spec.file, spec.sha256


def test_every_host_gets_the_image_of_its_own_place(served: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(served, tmp_path / "psf"))
    first, second = bricks(folder)[:2]
    own = f"10002-{first}-77"
    shutil.copyfile(folder / f"{second}.fits", folder / f"{own}.fits")
    spec = PsfSpec(kind="images", folder=str(folder))
    hosts = [f"10002-{first}-1", f"10002-{second}-2", own, f"10002-{first}-3"]
    scene = on(bench_scene().part(57, 61), hosts)
    found = render(scene, spec)
    for i, brick in enumerate((first, second, second, first)):
        want = render(scene.part(i, i + 1), PsfSpec(kind="image", file=str(folder / f"{brick}.fits")))
        assert found.images[i].tobytes() == want.images[0].tobytes()
    batched = render(scene, spec, backend="torch")
    assert errors(batched.images, found.images)[0].max() < 2e-7
    assert not np.array_equal(found.images[0], render(scene).images[0])


def test_a_host_without_an_image_and_a_changed_folder_are_refused(
    served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, brick = Path(shutil.copytree(served, tmp_path / "psf")), bricks(served)[0]
    spec = PsfSpec(kind="images", folder=str(served))
    scene = bench_scene().part(60, 61)
    with pytest.raises(BadInput, match="no PSF image for host '10002-1-1'"):
        render(on(scene, ["10002-1-1"]), spec)
    with pytest.raises(BadInput, match="names no hosts"):
        render(scene, spec)
    with pytest.raises(BadInput, match="no radial profile"):
        render(on(scene, [f"10002-{brick}-1"]), spec.at(f"10002-{brick}-1"), backend="dense")
    before = PsfSpec(kind="images", folder=str(folder))
    assert before.sha256 == spec.sha256
    shutil.copyfile(folder / f"{bricks(folder)[1]}.fits", folder / f"{brick}.fits")
    assert PsfSpec(kind="images", folder=str(folder)).sha256 != before.sha256
    with pytest.raises(BadInput, match="others than when the variant was read"):
        before.at(f"10002-{brick}-1")
    monkeypatch.delenv(SETTING, raising=False)
    unset = load_variants()["sersic-psf-images"]
    with pytest.raises(BadInput, match=SETTING):
        unset.psf.at(f"10002-{brick}-1")
    monkeypatch.setenv(SETTING, str(served))
    assert load_variants()["sersic-psf-images"].psf.sha256 == PsfSpec(kind="images", folder=str(served)).sha256
    with pytest.raises(ValueError, match="folder belongs to"):
        PsfSpec(folder=str(served))


@pytest.mark.filterwarnings("ignore:`axes` should not be `None`:DeprecationWarning")  # inside lenstronomy
@pytest.mark.filterwarnings(
    "ignore:Input PSF model has at least one negative element"
)  # band-limited interpolation rings
def test_a_supplied_image_is_lenstronomys_pixel_psf(served: Path) -> None:
    """lenstronomy alone: its light on 15 x 15 samples a pixel, convolved there with the image's band-limited interpolation.

    What is left is their sampling: it falls from 8e-3 of the peak at 5 x 5 to 4e-4 at 21 x 21.
    """
    hosts = [f"10002-{brick}-1" for brick in bricks(served)[:2]]
    scene, spec = on(bench_scene().part(62, 64), hosts), PsfSpec(kind="images", folder=str(served))
    ours = render(scene, spec, accuracy=TIGHT).images
    for i in range(2):
        for band in (0, 2):
            model, kwargs = lenstronomy_models(scene, i, spec, band, 101, PIXEL_SCALE, 15)
            theirs = model.image(**kwargs)
            assert np.abs(ours[i, band] - theirs).max() < 3e-3 * theirs.max()
    fine = fine_kernel(*_named(spec.at(hosts[0])), 1, 9)
    assert fine.shape == (567, 567)
    coarse = fine.reshape(63, 9, 63, 9).sum((1, 3))  # the pixel's response put back
    assert np.abs(coarse - images_of(*_named(spec.at(hosts[0])))[1]).max() < 2e-3 * coarse.max()
