"""Which PSF images are to be fetched for hosts, under which name, and from where. Nothing is fetched here."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import polars as pl

from lens_assets.science.cutouts.settings import ViewerSettings


def positions(
    missing: Collection[str], sample: pl.DataFrame, viewer: ViewerSettings, per: Literal["brick", "host"]
) -> pl.DataFrame:
    """Columns ``file, ra, dec, url`` (degrees), sorted by file: an image a host, or one a brick at the host in its middle.

    ``sample`` holds ``galaxy_id, ra, dec``. In the middle: the host nearest to the median position of its brick's hosts,
    which has exposures where a brick's own centre may have none.
    """
    rows = sample.filter(pl.col("galaxy_id").is_in(list(missing))).select("galaxy_id", "ra", "dec").unique("galaxy_id")
    if per == "host":
        rows = rows.with_columns((pl.col("galaxy_id") + ".fits").alias("file"))
    else:
        turn = (pl.col("ra") - pl.col("ra").first().over("brick") + 180) % 360 - 180  # a brick may lie across RA 0
        off = [(pl.col(x) - pl.col(x).median().over("brick")) for x in ("turn", "dec")]
        scale = (pl.col("dec").radians()).cos()
        rows = (
            rows.with_columns(pl.col("galaxy_id").str.split("-").list.get(1).alias("brick"))
            .sort("galaxy_id")
            .with_columns(turn.alias("turn"))
            .with_columns(((off[0] * scale) ** 2 + off[1] ** 2).alias("away"))
            .sort("away", "galaxy_id")
            .unique("brick", keep="first", maintain_order=True)
            .with_columns((pl.col("brick") + ".fits").alias("file"))
        )
    place = pl.format(
        f"{viewer.base_url}/coadd-psf/?ra={{}}&dec={{}}&layer={viewer.layer}&bands=grz",
        pl.col("ra").round(6), pl.col("dec").round(6),
    )  # fmt: skip
    return rows.with_columns(place.alias("url")).select("file", "ra", "dec", "url").sort("file")
