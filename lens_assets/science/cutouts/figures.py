"""Pictures of stamps and of what separates the classes, as PNG files. No display, no state shared between threads.

Colours follow Lupton et al. 2004 (doi:10.1086/382245) as astropy has them; they are for eyes, never for networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
from astropy.visualization import make_lupton_rgb
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lens_assets.science.errors import BadInput

COLOURS = {"green": "#3a7d44", "yellow": "#d9a404", "red": "#b3261e", "insufficient": "#888888"}
SCALES = (6.0, 3.4, 2.2)
"""Weights of g, r, z, so that a galaxy of ordinary colour is not red all over (those of the survey's own viewer)."""


def rgb(stamp: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """(3, h, w) nanomaggies in g, r, z to (h, w, 3) colours: z red, r green, g blue; north up (first line at the
    bottom)."""
    if stamp.ndim != 3 or stamp.shape[0] != 3:
        raise BadInput(f"a colour picture needs (3, h, w), not {stamp.shape}")
    g, r, z = (np.nan_to_num(plane * scale) for plane, scale in zip(stamp, SCALES, strict=True))
    image: npt.NDArray[np.uint8] = make_lupton_rgb(z, r, g, minimum=-0.01, stretch=0.15, Q=8)
    return image


def gallery(
    images: npt.NDArray[np.float32], titles: Sequence[str], path: str | Path, columns: int = 8, inches: float = 1.6
) -> Path:
    """Write stamps (n, 3, h, w) as a sheet of colour pictures with titles."""
    if len(images) != len(titles):
        raise BadInput(f"{len(images)} stamps, {len(titles)} titles")
    columns = max(1, min(columns, len(images)))
    lines = max(1, -(-len(images) // columns))
    figure = Figure(figsize=(inches * columns, (inches + 0.25) * lines), layout="tight")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, stamp, title in zip(axes, images, titles, strict=False):
        axis.imshow(rgb(stamp), origin="lower", interpolation="nearest")
        axis.set_title(title, fontsize=6)
    return _save(figure, path)


def feature_distributions(
    features: pl.DataFrame,
    labels: npt.ArrayLike,
    report: pl.DataFrame,
    path: str | Path,
    most: int = 24,
) -> Path:
    """Write the distributions of both classes of the ``most`` separating features, framed in the colour of the
    report."""
    y = np.asarray(labels, bool)
    chosen = report.filter(pl.col("auc").is_not_null()).sort(["auc", "feature"], descending=[True, False]).head(most)
    columns, lines = 6, max(1, -(-chosen.height // 6))
    figure = Figure(figsize=(2.2 * columns, 1.7 * lines), layout="tight")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for axis in axes[chosen.height :]:
        axis.set_axis_off()
    for axis, row in zip(axes, chosen.iter_rows(named=True), strict=False):
        values = features[row["feature"]].cast(pl.Float64).fill_null(np.nan).to_numpy()
        lo, hi = np.nanpercentile(values, (1, 99))
        edges = np.linspace(lo, hi if hi > lo else lo + 1, 31)
        for chosen_class, colour, name in ((~y, "#4a6fa5", "negatives"), (y, "#d1603d", "positives")):
            part = np.clip(values[chosen_class & np.isfinite(values)], edges[0], edges[-1])
            axis.hist(part, bins=edges, density=len(part) > 0, histtype="step", color=colour, label=name)
        axis.set_title(f"{row['feature']}  AUC {row['auc']:.2f}", fontsize=7, color=COLOURS[row["colour"]])
        axis.tick_params(labelsize=5)
        axis.set_yticks([])
    if chosen.height:
        axes[0].legend(fontsize=5)
    return _save(figure, path)


def _save(figure: Figure, path: str | Path) -> Path:
    target = Path(path)
    FigureCanvasAgg(figure).print_figure(target, dpi=110, metadata={"Software": None})
    return target
