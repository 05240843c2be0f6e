"""How visible the true arcs of a lens are in its images: the truth behind human grades and behind `observable`.

This is not the pipeline's detectability gate, which must do without truth; it uses the noise-free arcs that only the
mock knows.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lens_assets.science.surveys.layout import BANDS

F32 = npt.NDArray[np.float32]

HOST_RESIDUAL = 0.08
"""Share of the host's light that no eye or model removes. Assumption."""
SNR_SCALE = 40.0
"""Arc signal-to-noise (matched, g, r and z together) at which a well-resolved lens is just seen (cf. Rojas et al.
2023). Assumption."""
RESOLVED = 0.85
"""theta_E over FWHM (r) below which blending hides a lens. Assumption (cf. Rojas et al. 2023: 1.2 times the seeing)."""


def visibility(
    arcs: list[F32 | None],
    host: list[F32 | None],
    sigma: list[float],
    sky: list[float],
    theta_e: float,
    fwhm: float,
    mu: float,
) -> dict[str, float | bool]:
    """Arc SNR a band, the visibility (dex; 0 is the threshold of sight) and whether it is observable.

    ``arcs`` and ``host`` are noise-free stamps (nanomaggies a pixel, concentric), ``sigma`` the white sky noise a
    pixel, ``sky`` the sky brightness a pixel; ``fwhm`` in arcsec (r band).
    """
    squares, out = 0.0, {}
    for k, b in enumerate(BANDS):
        arc, light = arcs[k], host[k]
        out[f"arc_snr_{b}"] = 0.0
        if arc is None or light is None or not np.isfinite(sigma[k]):
            continue
        behind = _same_size(light, arc.shape[0])
        photons = sigma[k] ** 2 * (1 + (np.maximum(behind, 0) + np.maximum(arc, 0)) / sky[k])
        out[f"arc_snr_{b}"] = float(np.sqrt(np.sum(arc.astype(float) ** 2 / photons)))
        squares += float(np.sum(arc.astype(float) ** 2 / (photons + (HOST_RESIDUAL * behind) ** 2)))
    seen = np.log10(max(np.sqrt(squares), 1e-3) / SNR_SCALE)
    if fwhm > 0:
        seen += min(0.0, 2 * np.log10(theta_e / (RESOLVED * fwhm)))
    seen += min(0.0, np.log10(max(mu, 0.1) / 3.0))
    return {**out, "visibility": float(seen), "observable": bool(seen > 0)}


def _same_size(image: F32, n: int) -> npt.NDArray[np.float64]:
    """``image`` cropped or padded to n x n about its central pixel."""
    m = image.shape[0]
    out = np.zeros((n, n))
    half = min(m, n) // 2
    out[n // 2 - half : n // 2 + half, n // 2 - half : n // 2 + half] = image[
        m // 2 - half : m // 2 + half, m // 2 - half : m // 2 + half
    ]
    return out
