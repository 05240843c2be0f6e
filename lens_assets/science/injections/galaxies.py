"""Real galaxies as sources: which of a catalogue's galaxies an injection gets, at which size.

What is drawn: a galaxy of the recovery pool, by the injection's own deviate, among those that are in the sky at least
as large as the source is to be. So a stamp is shrunk, with what is left of its point-spread function and its noise, and
enlarged only where no galaxy is large enough (then one of the largest tenth; ``source_scale`` above one says so). Its
magnitude and colours are the prior's: one morphology, seen in one band of the catalogue, in all bands.

What does not belong here: reading a catalogue, and making its source planes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from lens_assets.science.errors import BadInput
from lens_assets.science.injections.draws import Draws, Values
from lens_assets.science.injections.planes import Galaxies

F64 = npt.NDArray[np.float64]
LARGEST = 0.1
"""Share of the largest galaxies that serve sources larger than all of them."""
MISSING = (
    "real galaxies are wanted as sources and there is no catalogue of them: set LENS_ASSETS_GALAXIES to the catalogue file "
    "(real_galaxy_catalog_*.fits, in GalSim's layout; `galsim_download_cosmos -s 23.5` fetches the COSMOS sample)"
)


def choose(
    rows: pl.DataFrame, family: npt.NDArray[np.str_], values: Values, u: Draws, galaxies: Galaxies | None
) -> list[pl.Series]:
    """Columns ``source_id``, ``source_scale`` and ``source_reuse`` of a plan; ``values`` get what the galaxies have.

    ``source_q`` of a real galaxy is its own, and it has no ``source_n``. Raises :class:`BadInput` where a real galaxy is
    wanted and there is no catalogue.
    """
    real = np.flatnonzero(family == "real")
    ids: list[str | None] = [None] * rows.height
    scale, reuse = np.full(rows.height, np.nan), np.zeros(rows.height, np.int32)
    if real.size:
        if galaxies is None or not galaxies.ids:
            raise BadInput(MISSING, column="family")
        order = np.argsort(galaxies.radius, kind="stable")
        n = order.size
        re = np.asarray(values["source_re"])[real]
        first = np.minimum(np.searchsorted(galaxies.radius[order], re), n - max(1, round(LARGEST * n)))
        chosen = order[first + np.floor(u("galaxy")[real] * (n - first)).astype(int)]
        for i, k in zip(real.tolist(), chosen.tolist(), strict=True):
            ids[i] = galaxies.ids[k]
        scale[real] = re / galaxies.radius[chosen]
        reuse[real] = np.bincount(chosen, minlength=n)[chosen]
        for name, own in (("source_q", galaxies.q[chosen]), ("source_n", np.nan)):
            column = np.array(values[name], dtype=np.float64)
            column[real] = own
            values[name] = column
    return [
        pl.Series("source_id", ids, dtype=pl.String),
        pl.Series("source_scale", scale).fill_nan(None),
        pl.Series("source_reuse", reuse),
    ]
