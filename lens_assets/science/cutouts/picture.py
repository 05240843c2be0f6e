"""One object as a picture: colours, the three bands and the inverse variance, with the stretch written on it.

For eyes: a stretch changes what one believes to see, so it is stated in the picture and in the file's metadata.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lens_assets.science.cutouts.figures import SCALES, rgb
from lens_assets.science.cutouts.quality import valid_pixels
from lens_assets.science.surveys.layout import PIXEL_SCALE

F32 = npt.NDArray[np.float32]
STRETCH = (
    f"colour: Lupton et al. 2004, blue/green/red = g x {SCALES[0]}, r x {SCALES[1]}, z x {SCALES[2]}, minimum -0.01, stretch "
    "0.15 nanomaggies per pixel, Q 8; bands: asinh from median - 3 to the 99.7 % quantile, softened at 3 times the "
    "scatter of the sky; inverse variance: linear from 0"
)


def grey(plane: F32) -> tuple[npt.NDArray[np.float64], float, float]:
    """A plane for display: ``asinh((v - median) / (3 sigma))``, and its limits; sigma is 1.4826 MAD."""
    values = plane[np.isfinite(plane)].astype(np.float64)
    if not values.size:
        return np.zeros(plane.shape), 0.0, 1.0
    middle = float(np.median(values))
    sigma = 1.4826 * float(np.median(np.abs(values - middle))) or 1.0
    shown = np.arcsinh((np.nan_to_num(plane.astype(np.float64), nan=middle) - middle) / (3 * sigma))
    top = float(np.arcsinh((np.quantile(values, 0.997) - middle) / (3 * sigma)))
    return shown, float(np.arcsinh(-1.0)), max(top, 0.5)


def save_picture(image: F32, invvar: F32, facts: Mapping[str, Any], path: str | Path, bands: str = "grz") -> Path:
    """Write a stamp (bands, h, w) as PNG: colours (three bands only), each band, and the inverse variance of the middle
    band. ``facts``: the stamp's row of the index, for the captions."""
    colour = len(bands) == 3
    n = len(bands) + 1 + colour
    figure = Figure(figsize=(2.5 * n, 3.1), facecolor="white")
    axes = figure.subplots(1, n, squeeze=False)[0]
    figure.subplots_adjust(left=0.008, right=0.992, bottom=0.14, top=0.83, wspace=0.04)
    panels = list(axes)
    if colour:
        axis = panels.pop(0)
        axis.imshow(rgb(image), origin="lower", interpolation="nearest")
        axis.set_title("g, r, z", fontsize=9)
        _orientation(axis, image.shape[-1])
    for axis, band, plane in zip(panels, bands, image, strict=False):
        shown, low, high = grey(plane)
        axis.imshow(shown, origin="lower", interpolation="nearest", cmap="gray", vmin=low, vmax=high)
        seeing = facts.get(f"psfsize_{band}")
        axis.set_title(f"{band}   FWHM {seeing:.2f}″" if seeing is not None else band, fontsize=9)
    k = len(bands) // 2
    top = float(np.nanmax(invvar[k])) if np.isfinite(invvar[k]).any() else 0.0
    weight = panels[-1]
    weight.imshow(
        np.nan_to_num(invvar[k]), origin="lower", interpolation="nearest", cmap="viridis", vmin=0, vmax=top or 1
    )
    invalid = ~valid_pixels(image, invvar).all(axis=0)
    mark = np.zeros((*invalid.shape, 4))
    mark[invalid] = (0.9, 0.1, 0.1, 1.0)
    weight.imshow(mark, origin="lower", interpolation="nearest")
    weight.set_title(f"inverse variance, {bands[k]} (max {top:.3g})", fontsize=9)
    weight.set_xlabel(f"red: invalid in a band ({invalid.mean():.1%})", fontsize=7)
    for axis in axes:
        axis.set_xticks([])
        axis.set_yticks([])
    name = facts.get("galaxy_id", "")
    where = f"RA {facts['ra']:.6f}  Dec {facts['dec']:+.6f}   brick {facts['brickname']}   source {facts['source']}"
    figure.text(0.008, 0.93, f"{name}    {where}", fontsize=9, va="center")
    half = len(STRETCH) // 2
    cut = STRETCH.index(" ", half)
    figure.text(0.008, 0.065, STRETCH[:cut] + "\n" + STRETCH[cut + 1 :], fontsize=6.5, va="center", color="#444444")
    target = Path(path)
    FigureCanvasAgg(figure).print_figure(
        target, dpi=140, format="png", metadata={"Software": None, "Title": str(name), "Description": STRETCH}
    )
    return target


def _orientation(axis: Any, size: int) -> None:
    """A bar of 5 arcsec, and north (up) and east (left)."""
    length, left, low = 5 / PIXEL_SCALE, size * 0.06, size * 0.06
    axis.plot([left, left + length], [low, low], color="white", lw=1.5)
    axis.text(left + length / 2, low + size * 0.02, "5″", color="white", fontsize=7, ha="center")
    x, y, arm = size * 0.93, size * 0.80, size * 0.12
    for dx, dy, text in ((0, arm, "N"), (-arm, 0, "E")):
        axis.annotate("", (x + dx, y + dy), (x, y), arrowprops={"arrowstyle": "-", "color": "white", "lw": 1})
        axis.text(x + dx * 1.3, y + dy * 1.3, text, color="white", fontsize=7, ha="center", va="center")
