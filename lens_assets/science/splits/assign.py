"""The split table: positives and negatives through one function, each object with its split and its role.

Order of the rules, first match wins: a lens kept for evaluation is ``evaluation``; a position near a border between
splits is ``guard``; a training or validation object within the guard ring (40", at least 11") of an evaluation lens is
``guard``, so that no pixel of a lens that judges independently has shaped the detector; everything else follows its cell.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from lens_assets.science.errors import BadInput, Rejections
from lens_assets.science.negatives.selection import SelectionProfile, load_selection, screen
from lens_assets.science.negatives.strata import need
from lens_assets.science.sphere import SPLIT_NSIDE, cell_of, within
from lens_assets.science.splits.balance import balance
from lens_assets.science.splits.cells import choose_salt, guarded, neighbour_cells, split_index, tolerances
from lens_assets.science.splits.roles import overlapping_roles, roles
from lens_assets.science.splits.settings import Settings

BANDS = ("g", "r", "z")


def _banded(*stems: str) -> list[str]:
    return [f"{stem}_{b}" for stem in stems for b in BANDS]


SHARED = [
    "galaxy_id", "tile", "brickname", "brickid", "ra", "dec", "type",
    *_banded("nobs", "psfsize", "depth", "psfdepth", "galdepth"), "ebv", "maskbits", *_banded("flux", "mag"), "gr",
    "rz", "shape_r", "sersic", "ellipticity", "shape_e1", "shape_e2",
]  # fmt: skip
"""Catalogue columns of both classes."""
LENS_COLUMNS: dict[str, Any] = {
    "weight": pl.Float64, "tier": pl.String, "system_id": pl.String, "channels": pl.List(pl.String), "use": pl.String,
    "theta_e": pl.Float64,
}  # fmt: skip
NEGATIVE_COLUMNS: dict[str, Any] = {"pool": pl.String, "n2_category": pl.String, "deployment_weight": pl.Float64}
COLUMNS = [
    "galaxy_id", "tile", "brickname", "brickid", "ra", "dec", "cell", "label", "weight", "tier", "system_id",
    "channels", "use", "pool", "n2_category", "deployment_weight", *SHARED[6:], "theta_e", "split", "role",
]  # fmt: skip
STAMP_DIAGONAL = 101 * 0.262 * 2**0.5
"""arcsec: objects farther apart share no pixel of their stamps."""


def make_splits(
    positives: pl.DataFrame,
    sample: pl.DataFrame,
    settings: Settings,
    *,
    profile: SelectionProfile | None = None,
) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, Any]]:
    """Assign splits and roles.

    Parameters
    ----------
    positives : the ``positives`` table, with ``use`` ``"train"`` or ``"evaluation"``.
    sample : the ``negative_sample`` table.
    profile : the screen the negatives passed, which the positives must pass too; by default the one named in the
        sample's ``selection`` column.

    Returns
    -------
    (table sorted by ``galaxy_id``, balance table, facts). Negatives have ``use = "train"`` (their split decides),
    weight 1, an empty list of channels, and null where a column is about lenses. Facts hold what came in, what was
    rejected and why (in = out + rejected), the salt, the achieved shares, and counts of guards and roles.

    Raises :class:`BadInput` for a missing column, a position that is null or not finite, a ``cell`` that contradicts
    the position, a repeated negative, or a negative that is a lens.
    """
    profile = profile or _profile_of(sample)
    rejected = Rejections()
    need(positives, [*SHARED, *LENS_COLUMNS], "positives")
    need(sample, [*SHARED, *NEGATIVE_COLUMNS], "negative sample")
    unknown = set(positives["use"].unique().to_list()) - {"train", "evaluation"}
    if unknown:
        raise BadInput(f"neither 'train' nor 'evaluation': {sorted(map(str, unknown))}", column="use")
    for frame, name in ((positives, "positives"), (sample, "negative sample")):
        _positions(frame, name)
    everywhere = positives.filter(pl.col("use") == "evaluation")
    screened, attrition = screen(positives, profile, "positive")
    for step, n in attrition.filter(pl.col("removed") > 0).select("step", "removed").iter_rows():
        rejected.add(f"positive fails the screen: {step}", n)
    lenses = screened.sort(
        pl.col("use") == "train", "weight", "system_id", descending=[True, True, False], nulls_last=True
    ).unique("galaxy_id", keep="first", maintain_order=True)
    rejected.add("positive: another system has the same galaxy", screened.height - lenses.height)
    _no_clash(positives, sample)
    table = pl.concat([_as_sample(lenses, 1), _as_sample(sample, 0)]).sort("galaxy_id")
    table = table.with_columns(cell=pl.Series(cell_of(table["ra"].to_numpy(), table["dec"].to_numpy(), settings.nside)))
    split, chosen = _split(table, everywhere, settings)
    table = table.with_columns(split=split)
    table = table.with_columns(roles(table["split"], table["label"], table["ra"], table["dec"], settings)).select(
        COLUMNS
    )
    rejected.check(positives.height + sample.height, table.height)
    return table, balance(table), _facts(table, positives, sample, rejected, chosen, settings, profile)


def _profile_of(sample: pl.DataFrame) -> SelectionProfile:
    need(sample, ["selection"], "negative sample")
    names = sample["selection"].unique().to_list()
    if len(names) != 1 or names[0] is None:
        raise BadInput(f"the negatives passed {len(names)} selections, not one: {names}", column="selection")
    return load_selection(names[0])


def _positions(frame: pl.DataFrame, name: str) -> None:
    """A null split key once sent all positives of a published run into one split."""
    for column in ("ra", "dec"):
        bad = ~frame[column].cast(pl.Float64).is_finite().fill_null(False)
        if bad.any():
            raise BadInput(f"{name}: a position must be finite", column=column, row=int(bad.arg_true()[0]))
    if "cell" in frame.columns and frame.height:
        right = pl.Series(cell_of(frame["ra"].to_numpy(), frame["dec"].to_numpy(), SPLIT_NSIDE))
        wrong = (frame["cell"].cast(pl.Int64) != right).fill_null(True)
        if wrong.any():
            raise BadInput(f"{name}: not the cell of this position", column="cell", row=int(wrong.arg_true()[0]))


def _no_clash(positives: pl.DataFrame, sample: pl.DataFrame) -> None:
    doubled = sample["galaxy_id"].is_duplicated()
    if doubled.any():
        row = int(doubled.arg_true()[0])
        raise BadInput(f"negative {sample['galaxy_id'][row]} is listed twice", column="galaxy_id", row=row)
    both = sample["galaxy_id"].is_in(positives["galaxy_id"].unique().to_list())
    if both.any():
        row = int(both.arg_true()[0])
        raise BadInput(f"negative {sample['galaxy_id'][row]} is a lens", column="galaxy_id", row=row)


def _as_sample(frame: pl.DataFrame, label: int) -> pl.DataFrame:
    """The shared columns of one class, with what the class does not have filled in."""
    if label:
        other = [pl.lit(None, dtype=dtype).alias(name) for name, dtype in NEGATIVE_COLUMNS.items()]
        own = [pl.col(name).cast(dtype) for name, dtype in LENS_COLUMNS.items()]
    else:
        own = [pl.col(name).cast(dtype) for name, dtype in NEGATIVE_COLUMNS.items()]
        given: dict[str, Any] = {"weight": 1.0, "use": "train", "channels": []}
        other = [pl.lit(given.get(name), dtype=dtype).alias(name) for name, dtype in LENS_COLUMNS.items()]
    return frame.select(
        *SHARED,
        *sorted([*own, *other], key=lambda e: e.meta.output_name()),
        pl.lit(label, dtype=pl.Int8).alias("label"),
    )


def _split(table: pl.DataFrame, evaluation: pl.DataFrame, settings: Settings) -> tuple[pl.Series, dict[str, Any]]:
    """The split of every row, and how it came about; ``evaluation`` holds all evaluation lenses, screened or not."""
    kept = (table["use"] == "evaluation").to_numpy()
    free = np.flatnonzero(~kept)
    ra, dec = (table[c].to_numpy() for c in ("ra", "dec"))
    around = neighbour_cells(ra[free], dec[free], settings.guard_arcsec, settings.nside, settings.guard_angles)
    lens_ra, lens_dec = (evaluation[c].to_numpy() for c in ("ra", "dec"))
    reach = max(settings.exclusion_arcsec, settings.guard_arcsec)
    near = within(ra[free], dec[free], lens_ra, lens_dec, reach)
    got = choose_salt(
        table["cell"].to_numpy()[free], around, table["label"].to_numpy()[free], settings, near_evaluation=near
    )
    names = np.array([*settings.order, "guard", "evaluation"])
    index = np.full(table.height, len(names) - 1)
    index[free] = np.where(got.guard, len(names) - 2, got.split)
    border = guarded(
        split_index(table["cell"].to_numpy()[free], settings, got.salt), split_index(around, settings, got.salt)
    )
    facts = {
        "salt": got.salt,
        "share_deviation": got.deviation if np.isfinite(got.deviation) else None,
        "guard_border": int(border.sum()),
        "guard_near_evaluation": int((got.guard & ~border).sum()),
        "test_near_evaluation": int((near & ~got.guard).sum()),
    }
    return pl.Series("split", names[index].tolist(), dtype=pl.String), facts


def _facts(
    table: pl.DataFrame,
    positives: pl.DataFrame,
    sample: pl.DataFrame,
    rejected: Rejections,
    chosen: dict[str, Any],
    settings: Settings,
    profile: SelectionProfile,
) -> dict[str, Any]:
    counts = table.group_by("split", "label").len().sort("split", "label")
    role_counts = table.group_by("split", "role", "label").len().sort("split", "role", "label")
    by_class = {}
    for label, name in ((1, "positives"), (0, "negatives")):
        part = {s: n for s, k, n in counts.iter_rows() if k == label}
        total = sum(part.get(s, 0) for s in settings.order)
        by_class[name] = {s: (part.get(s, 0) / total if total else None) for s in settings.order}
        by_class[name]["n"] = total
        by_class[name]["tolerance"] = float(tolerances(total, settings.share_tolerance))
    return {
        **chosen,
        "selection": profile.name,
        "n_positives_in": positives.height,
        "n_negatives_in": sample.height,
        "rows": table.height,
        "rejected": dict(sorted(rejected.counts.items())),
        "shares": by_class,
        "counts": {f"{s}|{'positive' if k else 'negative'}": n for s, k, n in counts.iter_rows()},
        "roles": {f"{s}|{r}|{'positive' if k else 'negative'}": n for s, r, k, n in role_counts.iter_rows()},
        "cells": int(table["cell"].n_unique()),
        "overlapping_roles": overlapping_roles(table, STAMP_DIAGONAL),
    }
