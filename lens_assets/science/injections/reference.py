"""Independent renderers: torch on a dense grid (any device) and lenstronomy. Slow, simple, and what ours is held
against.

What does not belong here: anything the pipeline needs by default.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from lens_assets.science.injections import lens as equations
from lens_assets.science.injections.psf import PsfSpec, kernel, transfer
from lens_assets.science.injections.psf_images import fine_kernel
from lens_assets.science.injections.scene import Placed, Scene
from lens_assets.science.injections.sources import brightness, point_images

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
KERNEL_SIZE = 63
"""Pixels on a side of lenstronomy's kernel, as PSFEx stamps have; smaller than a stamp."""
SMOOTHING = 1e-9
"""Radius (arcsec) inside which lenstronomy's Sersic profiles are flat. Its default of 1e-4 takes half a percent off an n = 4
source of Re 0.05" whose centre is on a caustic."""


def dense(scene: Scene, psf: PsfSpec, size: int, scale: float, m: int, device: str = "cpu") -> tuple[F32, F64]:
    """Uniform m x m samples a pixel, convolved on the fine grid. Extended sources only; float64."""
    if scene.point.any():
        raise ValueError("the dense backend renders extended sources only")
    side = size * m
    n = side + 28 * m
    axis = (torch.arange(side, dtype=torch.float64, device=device) - 0.5 * (side - 1)) * (scale / m)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    ky, kx = 2 * np.pi * np.fft.fftfreq(n), 2 * np.pi * np.fft.rfftfreq(n)
    k = np.hypot(ky[:, None], kx[None, :]) * (m / scale)
    box = (
        np.sinc(ky * m / (2 * np.pi))[:, None] * np.sinc(kx * m / (2 * np.pi))[None, :]
        if psf.pixel == "integrate"
        else 1.0
    )
    shift = 0.5 * (m - 1)  # from the centre of the first sample to the centre of its pixel
    phase = np.exp(1j * (ky[:, None] + kx[None, :]) * shift)
    images = np.empty((len(scene), 3, size, size), dtype=np.float32)
    mu = np.empty(len(scene))
    for i in range(len(scene)):
        lx, ly, q, c, s, te, g1, g2, slope = (
            torch.tensor(v, dtype=torch.float64, device=device) for v in scene.lens[i]
        )
        pos = (x - lx, y - ly)
        bx, by = equations.shoot(*pos, te, q, torch.atan2(s, c), g1, g2, slope)
        placed = scene.images[i]
        if placed is None:
            parts = torch.tensor(scene.parts[scene.offsets[i] : scene.offsets[i + 1]], device=device)
            sb = brightness(bx, by, parts)
        else:
            sb = image_brightness(bx, by, placed)
        if not scene.inner[i]:
            a11, a12, a22 = equations.jacobian(*pos, te, q, torch.atan2(s, c), g1, g2, slope)
            sb = torch.where(a11 * a22 - a12 * a12 < 0, torch.zeros_like(sb), sb)
        flux = sb * (scale / m) ** 2
        mu[i] = float(flux.sum())
        spectrum = torch.fft.rfft2(flux, s=(n, n))
        for b in range(3):
            factor = torch.tensor(transfer(psf, scene.fwhm[i, b], k) * box * phase, device=device)
            image = torch.fft.irfft2(spectrum * factor, s=(n, n))[:side:m, :side:m]
            images[i, b] = (image * (m * m * scene.flux[i, b])).clamp(min=0).cpu().numpy()
    return images, mu


def image_brightness(bx: torch.Tensor, by: torch.Tensor, placed: Placed) -> torch.Tensor:
    """Surface brightness (per arcsec^2) of a real galaxy at source positions: the readable statement (scipy's spline)."""
    dx, dy = bx.cpu().numpy() - placed.x, by.cpu().numpy() - placed.y
    u = (placed.cos * dx + placed.sin * dy) / placed.scale + placed.plane.centre[0]
    v = (placed.cos * dy - placed.sin * dx) / placed.scale + placed.plane.centre[1]
    found = ndimage.map_coordinates(placed.plane.pixels, [v, u], order=3, mode="constant", prefilter=False)
    return torch.tensor(found / placed.scale**2, device=bx.device)


def lenstronomy_models(
    scene: Scene,
    i: int,
    psf: PsfSpec,
    band: int,
    size: int,
    scale: float,
    m: int,
    *,
    kernel_on: Literal["fine", "native"] | None = "fine",
) -> tuple[Any, dict[str, Any]]:
    """lenstronomy's ``ImageModel`` of one injection and band, and its keyword arguments, ready for ``image(**kwargs)``.

    ``kernel_on``: convolution on the supersampled grid (accurate), on the native one (the default of that code), or
    none. On the supersampled grid the whole kernel is used: ``supersampling_kernel_size=5``, the default, truncates it.
    Its b_n is linear in n (3 % low for a Gaussian), so that its Re is not the half-light radius: it gets the
    radius and amplitude with which the profile is the same function of position.
    """
    from lenstronomy.Data.imaging_data import ImageData
    from lenstronomy.Data.psf import PSF
    from lenstronomy.ImSim.image_model import ImageModel
    from lenstronomy.LensModel.lens_model import LensModel
    from lenstronomy.LensModel.Profiles.sersic_utils import SersicUtil
    from lenstronomy.LightModel.light_model import LightModel
    from lenstronomy.PointSource.point_source import PointSource
    from lenstronomy.Util.param_util import phi_q2_ellipticity

    lx, ly, q, c, s, te, g1, g2, slope = scene.lens[i]
    e1, e2 = phi_q2_ellipticity(np.arctan2(s, c), q)
    mass = {} if slope == 2 else {"gamma": slope}
    kwargs_lens: list[dict[str, float]] = [
        {"theta_E": te, "e1": e1, "e2": e2, "center_x": lx, "center_y": ly, **mass},
        {"gamma1": g1, "gamma2": g2, "ra_0": lx, "dec_0": ly},
    ]
    half = 0.5 * (size - 1) * scale
    data = ImageData(
        image_data=np.zeros((size, size)), ra_at_xy_0=-half, dec_at_xy_0=-half,
        transform_pix2angle=np.array([[scale, 0.0], [0.0, scale]]),
    )  # fmt: skip
    psf = psf.at(scene.hosts[i]) if psf.kind == "images" else psf
    if kernel_on is None:
        psf_class = PSF(psf_type="NONE")
    elif psf.kind == "image" and kernel_on == "fine":
        fine = fine_kernel(psf.file, psf.sha256, band, m)
        psf_class = PSF(psf_type="PIXEL", kernel_point_source=fine, point_source_supersampling_factor=m)
    elif kernel_on == "native":
        psf_class = PSF(psf_type="PIXEL", kernel_point_source=kernel(psf, scene.fwhm[i, band], scale, KERNEL_SIZE))
    else:
        fine = kernel(psf.model_copy(update={"pixel": "included"}), scene.fwhm[i, band], scale / m, KERNEL_SIZE * m | 1)
        psf_class = PSF(psf_type="PIXEL", kernel_point_source=fine, point_source_supersampling_factor=m)
    if scene.images[i] is not None:
        raise ValueError("lenstronomy's spline of an image is another one: hold real galaxies against `dense`")
    point = bool(scene.point[i])
    kwargs: dict[str, Any] = {"kwargs_lens": kwargs_lens}
    models: dict[str, Any] = {"lens_model_class": LensModel(["EPL" if mass else "SIE", "SHEAR"])}
    if point:
        images = point_images(tuple(scene.lens[i].tolist()), *map(float, scene.source[i]))
        images = images if scene.inner[i] else images[images[:, 2] > 0]
        models["point_source_class"] = PointSource(["UNLENSED"])
        kwargs["kwargs_ps"] = [
            {
                "ra_image": images[:, 0],
                "dec_image": images[:, 1],
                "point_amp": scene.flux[i, band] * np.abs(images[:, 2]),
            }
        ]
    else:
        light, kwargs_light = [], []
        for p in scene.parts[scene.offsets[i] : scene.offsets[i + 1]]:
            pe1, pe2 = phi_q2_ellipticity(np.arctan2(p[4], p[3]), p[2])
            light.append("SERSIC_ELLIPSE")
            index, theirs = 1 / p[6], float(SersicUtil.b_n(1 / p[6]))
            kwargs_light.append({
                "amp": p[8] * np.exp(p[7] - theirs) * scene.flux[i, band], "R_sersic": (theirs / p[7]) ** index / p[5],
                "n_sersic": index, "e1": pe1, "e2": pe2,
                "center_x": p[0] + lx, "center_y": p[1] + ly,
            })  # fmt: skip
        models["source_model_class"] = LightModel(light, profile_kwargs_list=[{"smoothing": SMOOTHING}] * len(light))
        kwargs["kwargs_source"] = kwargs_light
    numerics = {
        "supersampling_factor": m,
        "supersampling_convolution": kernel_on == "fine",
        "supersampling_kernel_size": None,
    }
    return ImageModel(data, psf_class, kwargs_numerics=numerics, **models), kwargs


def lenstronomy(scene: Scene, psf: PsfSpec, size: int, scale: float, m: int) -> tuple[F32, F64]:
    """lenstronomy's images and the magnification of its unconvolved source (``inner=False``: point sources only)."""
    if (~scene.inner & ~scene.point).any():
        raise ValueError("lenstronomy cannot suppress the inner image of an extended source")
    images = np.zeros((len(scene), 3, size, size), dtype=np.float32)
    mu = np.zeros(len(scene))
    for i in range(len(scene)):
        if not scene.flux[i].any():
            continue
        for b in range(3):
            model, kwargs = lenstronomy_models(scene, i, psf, b, size, scale, m)
            images[i, b] = model.image(**kwargs)
        b = int(np.argmax(scene.flux[i]))
        bare = (
            images[i, b]
            if scene.point[i]
            else model.image(**kwargs, unconvolved=True) * scene.flux[i, b] / scene.flux[i, 2]
        )
        mu[i] = float(np.sum(bare)) / scene.flux[i, b]
    return images, mu
