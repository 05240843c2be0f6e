"""The batched reference on a GPU: caustics (Stone et al. 2024, arXiv:2406.15542), its simulator under ``torch.vmap``, in float32.

The same SIE + shear and elliptical Sersic source, 4 x 4 Gauss-Legendre points a pixel (``quad_level=4``, the sampling of
lenstronomy's default), each host's own PSF as a kernel of native pixels, as its documentation shows. Simulator and kernels
are made beforehand and not timed. caustics is no dependency of the platform: without it a benchmark says so and goes on.
"""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
import torch

from lens_assets.science.injections.psf import PsfSpec, kernel
from lens_assets.science.injections.reference import KERNEL_SIZE
from lens_assets.science.injections.render import SIZE
from lens_assets.science.injections.scene import Scene
from lens_assets.science.surveys.layout import PIXEL_SCALE

F32 = npt.NDArray[np.float32]
QUADRATURE = 4


class Caustics:
    """caustics for a scene of isothermal lenses, each with one Sersic source."""

    def __init__(self, scene: Scene, psf: PsfSpec, device: torch.device, size: int = SIZE) -> None:
        import caustics  # type: ignore[import-not-found]

        if (scene.lens[:, 8] != 2.0).any() or (np.diff(scene.offsets) != 1).any():
            raise ValueError("the reference draws isothermal lenses with one component a source")
        cosmology = caustics.FlatLambdaCDM()
        cosmology.to_static()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # redshifts of the parts are those of the plane
            deflector = caustics.SIE(cosmology=cosmology, name="sie")
            shear = caustics.ExternalShear(cosmology=cosmology, name="shear")
            lens = caustics.SinglePlane(cosmology=cosmology, name="lens", lenses=[deflector, shear], z_l=0.5, z_s=1.5)
        source = caustics.Sersic(name="source")
        self.simulator = caustics.LensSource(
            lens=lens, source=source, pixelscale=PIXEL_SCALE, pixels_x=size, quad_level=QUADRATURE, psf=None,
            psf_shape=(KERNEL_SIZE, KERNEL_SIZE), name="sim",
        ).to(dtype=torch.float32, device=device)  # fmt: skip
        self.device, self.version = device, str(caustics.__version__)
        lx, ly, q, c, s, te, g1, g2, _ = scene.lens.T
        px, py, sq, sc, ss, inv_re, inv_n, _, amplitude, _ = scene.parts.T
        zero, n = np.zeros(len(scene)), len(scene)
        self.values = {
            "sie": {"x0": lx, "y0": ly, "q": np.minimum(q, 0.9999), "phi": np.arctan2(s, c), "Rein": te},
            "shear": {"x0": lx, "y0": ly, "gamma_1": g1, "gamma_2": g2},
            "source": {
                "x0": lx + px, "y0": ly + py, "q": sq, "phi": np.arctan2(ss, sc), "n": 1.0 / inv_n,
                "Re": 1.0 / (inv_re * np.sqrt(sq)),  # of the major axis
                "Ie": amplitude * PIXEL_SCALE**2,
            },
            "sim": {"x0": zero, "y0": zero},
        }  # fmt: skip
        kernels = [[kernel(psf, f, PIXEL_SCALE, KERNEL_SIZE) for f in fwhm] for fwhm in scene.fwhm]
        self.bands = [self._columns([k[b] for k in kernels], scene.flux[:, b], n) for b in range(3)]
        self.run = torch.vmap(self.simulator)

    def _columns(self, kernels: list[npt.NDArray[np.float64]], flux: npt.NDArray[np.float64], n: int) -> torch.Tensor:
        """The parameters of a band as the simulator takes them, (n, parameters) float32 on the device."""
        parts = []
        for parameter in self.simulator.dynamic_params:
            name = next(iter(parameter.parents)).name
            if parameter.name == "psf":
                parts.append(np.stack(kernels).reshape(n, -1))
            elif name == "source" and parameter.name == "Ie":
                parts.append((self.values[name]["Ie"] * flux)[:, None])
            else:
                parts.append(self.values[name][parameter.name][:, None])
        return torch.tensor(np.concatenate(parts, axis=1), dtype=torch.float32, device=self.device)

    def images(self, batch: int, bands: tuple[int, ...] = (0, 1, 2)) -> torch.Tensor:
        """Images (n, bands, size, size) float32 on the device, ``batch`` injections a call."""
        with torch.no_grad():
            made = [torch.cat([self.run(part) for part in torch.split(self.bands[b], batch)]) for b in bands]
        return torch.stack(made, 1)
