"""Columns of the way back from one cell of a release."""

from __future__ import annotations

import polars as pl

from lens_assets.science.columns.completeness import HOST_ID, INJECTION, SCORE
from lens_assets.science.columns.cutouts import CUTOUTS
from lens_assets.science.columns.registry import Column, Table
from lens_assets.science.columns.surveys import TILE

_INDEX = {c.name: c for c in CUTOUTS.columns}
BATCH = Column(
    "batch", pl.String(), "", "artefact asset[partition] that holds the injection's parameters", "release lineage"
)
SWEEP = Column("sweep_digest", pl.String(), "", "SHA-256 of the sweep file that lists the host", "release lineage")
FILES = tuple(
    Column(f"{kind}_digest_{b}", pl.String, "", f"{_INDEX[f'{kind}_digest_{b}'].meaning}; null for a stamp of the viewer",
           _INDEX[f"{kind}_digest_{b}"].source, nullable=True, variant="of a cell")
    for kind in ("image", "invvar")
    for b in "grz"
)  # fmt: skip
CELL_LINEAGE = Table(
    "cell_lineage",
    "one injection of a cell, with its host, stamp, brick files and sweep file",
    (
        INJECTION,
        HOST_ID,
        SCORE,
        BATCH,
        TILE,
        _INDEX["brickname"],
        _INDEX["source"],
        _INDEX["stamp_digest"],
        *FILES,
        SWEEP,
    ),
    ("injection",),
)
COLUMNS = (BATCH, SWEEP, *FILES)
TABLES = (CELL_LINEAGE,)
