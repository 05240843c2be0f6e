"""The sets and strata a detector is evaluated on, and nothing of what is measured in them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import polars as pl

from lens_assets.science.detectors.settings import Settings

HELD_OUT, INDEPENDENT, EVALUATION = "held-out", "independent", "evaluation"
ALL = "all"
OF_ONE_CLASS = ("tier", "channel", "n2_category")
"""Axes that divide one class; the other class is whole in each of their strata."""


def sets_of(scores: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """The evaluation sets that have rows."""
    report = scores.filter(pl.col("role") == "report")
    negatives = report.filter(pl.col("label") == 0)
    lenses = scores.filter((pl.col("role") == "evaluation") & (pl.col("label") == 1))
    known = pl.col("independent").fill_null(False) if "independent" in scores.columns else pl.lit(False)
    found = {HELD_OUT: report}
    for name, part in ((INDEPENDENT, lenses.filter(known)), (EVALUATION, lenses.filter(~known))):
        if part.height:
            found[name] = pl.concat([part, negatives])
    return {name: frame for name, frame in found.items() if frame.height}


def with_strata(scores: pl.DataFrame, settings: Settings) -> pl.DataFrame:
    """Columns ``_psf``, ``_depth``, ``_nobs`` with the names of the bins."""
    columns = []
    for name, column, edges in (
        ("_psf", "psfsize_r", settings.psf_edges),
        ("_depth", "depth_r", settings.depth_edges),
        ("_nobs", "nobs_z", settings.nobs_edges),
    ):
        if column in scores.columns:
            expression = pl.lit(None, dtype=pl.String)
            for low, high in itertools.pairwise(edges):
                inside = (pl.col(column) >= low) & (pl.col(column) < high)
                expression = pl.when(inside).then(pl.lit(_span(low, high))).otherwise(expression)
            columns.append(expression.alias(name))
    return scores.with_columns(columns)


def _span(low: float, high: float) -> str:
    if isinstance(low, int):
        return f"{low}+" if high > 1000 else f"{low}-{high - 1}"
    return f">={low:g}" if high in (9.0, 99.0) else f"<{high:g}" if low == 0 else f"{low:g}-{high:g}"


def strata(frame: pl.DataFrame) -> Iterator[tuple[str, str, pl.DataFrame]]:
    """Every stratum of a set: axes that both classes have, then those of one class, with the other class whole."""
    yield ALL, ALL, frame
    for axis, column in (("type", "type"), ("psf_r", "_psf"), ("depth_r", "_depth"), ("nobs_z", "_nobs")):
        if column in frame.columns:
            for value in sorted(frame[column].drop_nulls().unique().to_list()):
                yield axis, str(value), frame.filter(pl.col(column) == value)
    lenses, others = frame.filter(pl.col("label") == 1), frame.filter(pl.col("label") == 0)
    if "tier" in frame.columns:
        for value in sorted(lenses["tier"].drop_nulls().unique().to_list()):
            yield "tier", str(value), pl.concat([lenses.filter(pl.col("tier") == value), others])
    if "channels" in frame.columns:
        for value in sorted(lenses["channels"].explode().drop_nulls().unique().to_list()):
            yield "channel", str(value), pl.concat([lenses.filter(pl.col("channels").list.contains(value)), others])
    if "n2_category" in frame.columns:
        for value in sorted(others["n2_category"].drop_nulls().unique().to_list()):
            yield "n2_category", str(value), pl.concat([lenses, others.filter(pl.col("n2_category") == value)])
