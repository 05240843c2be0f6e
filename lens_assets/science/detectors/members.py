"""What a detector consists of, as a table, and the detector that is one network by itself."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from lens_assets.science.columns.detectors import MEMBER_SCORES, MEMBERS, NETWORK_ROWS
from lens_assets.science.detectors.checkpoint import DetectorSpec, read_spec

MEMBERS_FILE, ROWS_FILE, SCORES_FILE = "members", "rows", "member-scores"


def rows_table(rows: pl.DataFrame) -> pl.DataFrame:
    """Which galaxies a network has seen: galaxy_id and role of its training and selection rows."""
    return NETWORK_ROWS.conform(rows)


def members_table(
    networks: Mapping[str, tuple[str, DetectorSpec]], order: Sequence[str], weights: Sequence[float | None]
) -> pl.DataFrame:
    """One row a member: key -> (digest of its artefact, specification), in the ensemble's order, and its weight."""
    specs = [networks[key] for key in order]
    return MEMBERS.conform(
        pl.DataFrame(
            {
                "position": list(range(len(order))),
                "member": list(order),
                "recipe": [spec.recipe.name for _, spec in specs],
                "seed": [spec.recipe.seed for _, spec in specs],
                "parameters": [spec.parameters for _, spec in specs],
                "member_weight": pl.Series(list(weights), dtype=pl.Float64),
                "select_auc": [spec.select_auc for _, spec in specs],
                "network_digest": [digest for digest, _ in specs],
            }
        )
    )


def scores_table(scored: pl.DataFrame, members: Sequence[str]) -> pl.DataFrame:
    """The members' logits, one row a galaxy and member, of a frame with galaxy_id and one column a member."""
    long = scored.select("galaxy_id", *members).unpivot(
        list(members), index="galaxy_id", variable_name="member", value_name="logit"
    )
    return MEMBER_SCORES.conform(long)


def pass_through(network: Path, digest: str, folder: Path) -> pl.DataFrame:
    """Make a detector of one network: its files, but for the list of rows it saw; returns the table of its one member.

    Copies, so that the detector stays whole when the network is made again or deleted.
    """
    for path in sorted(network.iterdir()):
        if path.name != f"{ROWS_FILE}.parquet":
            shutil.copyfile(path, folder / path.name)
    spec = read_spec(folder)
    return members_table({spec.key: (digest, spec)}, [spec.key], [1.0])
