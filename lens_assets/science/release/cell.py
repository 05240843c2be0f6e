"""From one cell of a release back to what its number was counted from: injections, hosts, stamps, bricks and sweep files.

The injections are in the release itself; the rest is found in the store that made it, by the digests that the release's
LINEAGE.json states. An artefact that has since been replaced is an error that names it: another stamp under the same name is
not the one that was counted.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from lens_assets.lookup import load
from lens_assets.science.columns.lineage import CELL_LINEAGE
from lens_assets.science.completeness.grid import Grid
from lens_assets.science.errors import BadInput
from lens_assets.science.storage import Artefact, Store


@dataclass(frozen=True)
class CellLineage:
    """``injections`` : table ``cell_lineage``, one row an injection. ``cell`` : its indices, centres, counts and interval at the
    default threshold. ``artefacts`` : name -> digest of the artefacts on the way."""

    injections: pl.DataFrame
    cell: dict[str, Any]
    artefacts: dict[str, str]


def cell_lineage(
    release: Path, store: Store, *, theta_e: float, psf: float, depth: float, surface: str | None = None
) -> CellLineage:
    """The way back from the cell that holds ``theta_e`` (arcsec), ``psf`` (FWHM, arcsec) and ``depth`` (AB mag).

    Parameters
    ----------
    release : folder of the release; ``surface`` picks one of its surfaces, by default the primary one.
    store : the artefact store that made it.

    Raises :class:`BadInput` for conditions outside the grid, a cell without injections, and artefacts that the store no
    longer has in the form that was used.
    """
    asked = load(release, surface)
    grid = Grid.from_json(asked.header["grid"])
    index = [int(a.index([x])[0]) for a, x in zip(grid.axes, (theta_e, psf, depth), strict=True)]
    if min(index) < 0:
        raise BadInput(f"theta_E {theta_e}, PSF {psf}, depth {depth} lie outside the grid of {asked.name}")
    members = pl.read_parquet(next(release.glob("injections*.parquet"))).filter(
        (pl.col("surface") == asked.surface)
        & (pl.col("i_theta") == index[0]) & (pl.col("i_psf") == index[1]) & (pl.col("i_depth") == index[2])
    )  # fmt: skip
    if not members.height:
        raise BadInput("the cell is empty: nothing was injected there", file=str(release))
    stated = json.loads((release / "LINEAGE.json").read_text())
    way = _Way(store, stated)
    ids = members["injection"].to_list()
    named = members["injection"].str.split("|")  # variant|theta_E|psf bin|depth bin|number
    partitions = sorted({f"{parts[1]}+{parts[0]}" for parts in named.to_list()})
    batches = [way.one("injection_batch", partition) for partition in partitions]
    rows = pl.concat(
        a.scan().filter(pl.col("injection_id").is_in(ids))
        .select("injection_id", "galaxy_id", "tile").with_columns(pl.lit(f"{a.asset}[{a.partition}]").alias("batch"))
        .collect()
        for a in batches
    )  # fmt: skip
    hosts = rows["galaxy_id"].unique().to_list()
    tiles = rows["tile"].unique().sort().to_list()
    stamps = pl.concat(
        (_stamps(way.one("cutouts", tile), hosts).with_columns(tile=pl.lit(tile)) for tile in tiles), how="diagonal"
    )
    sweeps = [way.one("sweeps", tile) for tile in tiles]
    files = pl.DataFrame({"tile": tiles, "sweep_digest": [str(a.manifest["made_from"]["sweep"]) for a in sweeps]})
    found = (
        members.select("injection", "host", "injection_score")
        .join(rows, left_on=["injection", "host"], right_on=["injection_id", "galaxy_id"], how="inner", validate="1:1")
        .join(stamps, left_on=["host", "tile"], right_on=["galaxy_id", "tile"], how="inner", validate="m:1")
        .join(files, on="tile", how="left")
    )
    if found.height != members.height:
        raise BadInput(f"of {members.height} injections only {found.height} lead to a batch, a stamp and a sweep file")
    answer = asked.completeness(theta_e=theta_e, psf=psf, depth=depth)
    cell = {
        "release": f"{asked.name} {asked.version}", "surface": asked.surface, "i_theta": index[0], "i_psf": index[1],
        "i_depth": index[2], "theta_e": grid.theta_e.centres[index[0]], "psf": grid.psf.centres[index[1]],
        "depth": grid.depth.centres[index[2]], "completeness": float(answer.value), "lo68": float(answer.lo),
        "hi68": float(answer.hi), "n": int(answer.n), "flag": answer.flag, "hosts": len(hosts),
        "bricks": int(found["brickname"].n_unique()), "tiles": tiles,
    }  # fmt: skip
    return CellLineage(CELL_LINEAGE.conform(found), cell, dict(sorted(way.used.items())))


def _stamps(shard: Artefact, hosts: list[str]) -> pl.DataFrame:
    """Stamp and the files it was cut from; a stamp of the viewer has no brick files."""
    index = shard.read("index").filter(pl.col("galaxy_id").is_in(hosts))
    files = [f"{kind}_digest_{b}" for kind in ("image", "invvar") for b in "grz"]
    missing = [pl.lit(None, pl.String).alias(c) for c in files if c not in index.columns]
    return index.with_columns(missing).select("galaxy_id", "brickname", "source", "stamp_digest", *files)


class _Way:
    """The artefacts a release was made from, checked against the digests it states."""

    def __init__(self, store: Store, stated: dict[str, Any]) -> None:
        self._store, self._stated = store, stated
        self.used: dict[str, str] = {}

    def one(self, asset: str, partition: str) -> Artefact:
        name = f"{asset}[{partition}]"
        if name not in self._stated:
            raise BadInput(f"the release does not state what {name} it was made from", file="LINEAGE.json")
        digest = str(self._stated[name]["digest"])
        found = self._store.find(asset, partition)
        if found is None or found.digest != digest:
            state = "is gone" if found is None else "has been made again with other content"
            raise BadInput(f"{name} {state}: the release was made from {digest[:16]}", file=str(self._store.root))
        self.used[name] = digest
        return found
