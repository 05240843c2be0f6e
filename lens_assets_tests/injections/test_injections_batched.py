"""The batched renderer in torch against the compiled one, whose error is known, and against a converged truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from astropy.io import fits

from lens_assets.science.injections import batched, tensors
from lens_assets.science.injections.batched import render_batched
from lens_assets.science.injections.bench import TRUTH, bench_scene, errors
from lens_assets.science.injections.evaluate import bounds
from lens_assets.science.injections.psf import PsfSpec, kernel
from lens_assets.science.injections.render import TIGHT, Accuracy, grid_side, image_of, render
from lens_assets.science.injections.scene import Scene, scene_of

SAME = 2e-7
"""Largest difference of the two renderers, relative, above 1 % of the peak: rounding to float32, which is 6e-8 on either side."""


DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")
    ),
]


def mixed() -> Scene:
    """One of each: isothermal, steep, shallow, clumpy, on a cusp, without inner image, no mass, no light, a quasar."""
    n = 9
    column = {
        "theta_e": [1.3, 1.0, 1.5, 1.2, 1.0, 1.2, 0.0, 1.0, 1.1], "q_lens": [0.7, 0.8, 0.6, 0.75, 1.0, 0.7, 0.9, 0.7, 0.8],
        "lens_slope": [2.0, 2.3, 1.8, 2.1, 2.0, 2.0, 2.2, 2.0, 2.0], "phi_lens": np.linspace(0.1, 3.0, n),
        "lens_x": np.linspace(-0.05, 0.05, n), "lens_y": np.zeros(n), "gamma1": np.full(n, 0.03), "gamma2": np.full(n, -0.04),
        "source_x": [0.25, 0.1, 0.3, 0.2, 0.0, 0.4, 0.3, 0.2, 0.3], "source_y": [-0.1, 0.1, 0.0, 0.1, 0.0, -0.1, 0.1, 0.0, 0.0],
        "source_q": np.full(n, 0.6), "source_phi": np.full(n, 1.1), "source_re": [0.3, 0.2, 0.4, 0.3, 0.05, 0.3, 0.3, 0.2, 0.2],
        "source_n": [1.0, 1.5, 0.7, 1.0, 4.0, 1.0, 1.0, 1.0, 1.0], "inner_image": [True] * 5 + [False] + [True] * 3,
        "source_mag_g": np.full(n, 23.5), "source_mag_r": np.full(n, 23.0), "source_mag_z": np.full(n, 22.5),
        "psfsize_g": np.full(n, 1.4), "psfsize_r": np.full(n, 1.25), "psfsize_z": np.full(n, 1.1),
        "family": ["sersic", "sersic", "sersic", "clumpy", "sersic", "sersic", "sersic", "sersic", "point"],
        "clump_fraction": [0.0, 0.0, 0.0, 0.5, *[0.0] * 5],
    }  # fmt: skip
    clump = {"clump_x": [0.1, -0.2], "clump_y": [0.05, 0.1], "clump_re": [0.05, 0.08], "clump_share": [1.0, 0.5]}
    column |= {name: [values if i == 3 else [] for i in range(n)] for name, values in clump.items()}
    for band in "grz":
        column[f"source_mag_{band}"][7] = np.inf
    return scene_of(column)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("accuracy", [Accuracy(), TIGHT], ids=["default", "tight"])
def test_the_batched_renderer_is_the_compiled_one_to_rounding(accuracy: Accuracy, device: str) -> None:
    scene = mixed()
    want, found = render(scene, accuracy=accuracy), render(scene, accuracy=accuracy, backend="torch", device=device)
    assert found.images.dtype == np.float32
    assert errors(found.images[:7], want.images[:7])[0].max() < SAME
    np.testing.assert_allclose(found.lensed_flux[:7], want.lensed_flux[:7], rtol=SAME)
    assert not found.images[7].any()
    assert not found.lensed_flux[7].any()
    assert found.images[8].tobytes() == want.images[8].tobytes()  # a quasar goes through the compiled code


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("psf", [PsfSpec(beta=2.5, pixel="included"), PsfSpec(kind="gaussian")])
def test_it_takes_the_same_point_spread_functions(psf: PsfSpec, device: str) -> None:
    scene = bench_scene().part(57, 61)
    assert errors(render(scene, psf, backend="torch", device=device).images, render(scene, psf).images)[0].max() < SAME


@pytest.mark.parametrize("device", DEVICES)
def test_it_takes_supplied_images_of_the_point_spread_function(tmp_path: Path, device: str) -> None:
    planes = [
        fits.ImageHDU(kernel(PsfSpec(), w, 0.262, 63), name=b) for b, w in zip("grz", (1.4, 1.2, 1.1), strict=True)
    ]
    fits.HDUList([fits.PrimaryHDU(), *planes]).writeto(tmp_path / "psf.fits")
    psf, scene = PsfSpec(kind="image", file=str(tmp_path / "psf.fits")), bench_scene().part(57, 61)
    assert errors(render(scene, psf, backend="torch", device=device).images, render(scene, psf).images)[0].max() < SAME


@pytest.mark.parametrize("device", DEVICES)
def test_its_stated_accuracy_holds_against_a_converged_truth(device: str) -> None:
    scene = bench_scene().part(48, 72)
    truth = render(scene, accuracy=TRUTH).images
    relative, _ = errors(render(scene, backend="torch", device=device).images, truth)
    assert relative.max() < 1e-2
    assert errors(render(scene, accuracy=TIGHT, backend="torch", device=device).images, truth)[1].max() < 1e-3
    coarse = errors(render(scene, accuracy=Accuracy(0, 2.0), backend="torch").images, truth)[0]
    assert np.median(coarse) > 5 * np.median(relative)  # the measure can tell


@pytest.mark.parametrize("device", DEVICES)
def test_a_row_does_not_depend_on_its_neighbours_and_a_repeat_is_the_same_bytes(device: str) -> None:
    scene = mixed()
    batch = render(scene, backend="torch", device=device).images
    assert render(scene, backend="torch", device=device).images.tobytes() == batch.tobytes()
    for i in (0, 2, 3, 4):
        alone = render(scene.part(i, i + 1), backend="torch", device=device).images
        assert errors(alone, batch[i : i + 1])[1].max() < 3e-7
    backwards = [np.empty(0)] * 7
    for chunk in (1, 3):
        for rows, images, _ in render_batched(
            scene, [6, 5, 4, 3, 2, 1, 0], PsfSpec(), 101, grid_side(101), 0.262, 4, 0.6, device, chunk
        ):
            for i, image in zip(rows, images.cpu().numpy(), strict=True):
                backwards[i] = image
        assert errors(np.stack(backwards), batch[:7])[1].max() < 3e-7


def test_where_memory_is_not_enough_fewer_are_rendered_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    scene, deposit, seen = bench_scene().part(60, 67), batched._deposit, []
    want = render(scene, backend="torch").images

    def small(batch: tensors.Batch, *rest: object) -> torch.Tensor:
        seen.append(batch.lens.shape[1])
        if seen[-1] > 3:
            raise torch.OutOfMemoryError("out of memory")
        return deposit(batch, *rest)

    monkeypatch.setattr(batched, "_deposit", small)
    assert errors(render(scene, backend="torch").images, want)[1].max() < 3e-7
    assert seen == [7, 3, 3, 1]
    monkeypatch.setattr(batched, "_deposit", lambda *_: small(tensors.batch_of(scene, list(range(7)), "cpu")))
    with pytest.raises(torch.OutOfMemoryError):
        render(scene.part(0, 1), backend="torch")


@pytest.mark.parametrize("h", [0.262, 0.0655])
def test_bounds_in_torch_are_the_compiled_ones(h: float) -> None:
    scene = mixed()
    g = np.random.default_rng(3)
    for i in (0, 1, 2, 3, 4, 5):
        x, y = g.uniform(-2, 2, 400), g.uniform(-2, 2, 400)
        x[:50], y[:50] = g.uniform(-0.3, 0.3, 50), g.uniform(-0.3, 0.3, 50)
        want = [np.empty(400) for _ in range(4)]
        parts = scene.parts[scene.offsets[i] : scene.offsets[i + 1]]
        bounds(x, y, h, tuple(scene.lens[i].tolist()), parts, *image_of(None), bool(scene.inner[i]), *want)
        batch = tensors.batch_of(scene, [i], "cpu")
        found = tensors.bounds(batch, torch.zeros(400, dtype=torch.int64), torch.tensor(x), torch.tensor(y), h)
        for ours, theirs in zip(found, want, strict=True):
            np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-7, atol=1e-8 * theirs.max())
