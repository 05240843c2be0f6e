"""The survey-weighted completeness of one tile from its raw sweep file and the raw injections, with numpy and astropy alone.

Nothing of the platform is used but its numbers: grid edges, operating point and the least injections of a stratum.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.io import fits


def weighted(sweep: Path, injections: dict[str, np.ndarray], edges: dict[str, np.ndarray], theta_e: float, cut: float,
             least: int, types: tuple[str, ...]) -> dict[str, float]:  # fmt: skip
    """Value for the supported share, and the shares supported, empty, insufficient and outside the grid.

    ``injections`` : ``theta_e``, ``psf``, ``depth`` and ``type`` of the host, ``score``. Every (PSF cell, depth cell, TYPE) counts
    by its number of objects in the sweep; it is supported with at least ``least`` injections of that Einstein radius.
    """
    with fits.open(sweep) as hdus:
        rows = hdus[1].data
        kind = np.char.strip(np.asarray(rows["TYPE"]).astype(str))
        psf, inverse = np.asarray(rows["PSFSIZE_R"], float), np.asarray(rows["PSFDEPTH_R"], float)
    mine = np.isin(kind, types)
    kind, psf, inverse = kind[mine], psf[mine], inverse[mine]
    with np.errstate(divide="ignore"):
        depth = 22.5 - 2.5 * np.log10(5 / np.sqrt(inverse))

    def cell(values: np.ndarray, at: np.ndarray) -> np.ndarray:
        out = np.full(values.size, -1)
        for i in range(at.size - 1):
            out[(values >= at[i]) & (values < at[i + 1])] = i
        return out

    i, j = cell(psf, edges["psf"]), cell(depth, edges["depth"])
    a, b = cell(injections["psf"], edges["psf"]), cell(injections["depth"], edges["depth"])
    total = dict.fromkeys(("value", "supported", "empty", "insufficient", "outside"), 0.0)
    for p, d, t in sorted(set(zip(i.tolist(), j.tolist(), kind.tolist(), strict=True))):
        share = float(np.mean((i == p) & (j == d) & (kind == t)))
        if p < 0 or d < 0:
            total["outside"] += share
            continue
        used = (a == p) & (b == d) & (injections["type"] == t) & np.isclose(injections["theta_e"], theta_e)
        n = int(used.sum())
        if n == 0:
            total["empty"] += share
        elif n < least:
            total["insufficient"] += share
        else:
            total["supported"] += share
            total["value"] += share * float(np.mean(injections["score"][used] >= cut))
    if total["supported"]:
        total["value"] /= total["supported"]
    return total
