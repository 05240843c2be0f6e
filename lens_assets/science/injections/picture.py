"""One injection as FITS and as a picture: host, arc, injected.

What does not belong here: rendering it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.io import fits
from matplotlib.figure import Figure

from lens_assets.science.cutouts.figures import rgb
from lens_assets.science.cutouts.picture import STRETCH
from lens_assets.science.injections.batch import Chunk
from lens_assets.science.surveys.layout import BANDS, PIXEL_SCALE

F32 = npt.NDArray[np.float32]


def save_injection(chunk: Chunk, host: F32, facts: Mapping[str, Any], stem: Path) -> tuple[Path, Path]:
    """``stem``.fits and ``stem``.png of the first injection of ``chunk``; ``facts`` is its row, ``host`` (3, s, s) nmgy."""
    hdus: list[Any] = [fits.PrimaryHDU()]
    planes = (("INJECTED", chunk.images[0]), ("HOST", host), ("ARC", chunk.arcs.images[0]), ("INVVAR", chunk.invvar[0]))
    for name, image in planes:
        hdu = fits.ImageHDU(image, name=name)
        hdu.header["BANDS"] = "".join(BANDS)
        hdu.header["BUNIT"] = "nanomaggy-2" if name == "INVVAR" else "nanomaggy"
        hdu.header["PIXSCALE"] = (PIXEL_SCALE, "arcsec")
        hdus.append(hdu)
    columns = []
    for name, value in facts.items():
        if isinstance(value, (list, tuple)):
            columns.append(fits.Column(name, f"PD({len(value)})", array=np.array([np.array(value)], dtype=object)))
        elif isinstance(value, (bool, np.bool_)):
            columns.append(fits.Column(name, "L", array=[value]))
        elif isinstance(value, int):
            columns.append(fits.Column(name, "K", array=[value]))
        elif isinstance(value, float) or value is None:
            columns.append(fits.Column(name, "D", array=[np.nan if value is None else value]))
        else:
            columns.append(fits.Column(name, f"{max(len(str(value)), 1)}A", array=[str(value)]))
    hdus.append(fits.BinTableHDU.from_columns(columns, name="PARAMETERS"))
    table, picture = stem.with_name(stem.name + ".fits"), stem.with_name(stem.name + ".png")
    fits.HDUList(hdus).writeto(table, overwrite=True)
    figure = Figure(figsize=(9.6, 3.9), layout="constrained")
    extent = 0.5 * host.shape[-1] * PIXEL_SCALE
    for axes, (title, image) in zip(
        figure.subplots(1, 3),
        (("host", host), ("arc", chunk.arcs.images[0]), ("injected", chunk.images[0])),
        strict=True,
    ):
        axes.imshow(rgb(image), interpolation="nearest", origin="lower", extent=(-extent, extent, -extent, extent))
        axes.set_title(title, fontsize=9)
        axes.tick_params(labelsize=7)
        axes.set_xlabel("arcsec", fontsize=8)
    figure.suptitle(
        f"{chunk.ids[0]} on {facts['galaxy_id']}: {facts['family']}, magnification {facts['magnification']:.1f}, "
        f"arc SNR (r) {facts['arc_snr']:.1f}",
        fontsize=9,
    )
    figure.supxlabel(STRETCH.split(";")[0], fontsize=6.5, color="#444444")
    figure.savefig(picture, dpi=130)
    return table, picture
