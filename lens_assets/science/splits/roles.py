"""Roles inside a split: separate sets for choosing the epoch, calibrating, setting thresholds, hosting and reporting.

The rule, in full:

* ``train`` and ``guard`` objects have the role of that name; evaluation-only lenses have ``evaluation``.
* ``val``: the hash of the object's nside-1024 cell decides between select, calibrate and threshold by ``val_roles``.
  Thresholds are set on negatives alone, so a *positive* that falls to threshold goes to select or calibrate instead,
  by a second hash in their proportion. Select and calibrate therefore hold both classes, threshold only negatives.
* ``test``: the same hash decides between host and report by ``test_roles``, for negatives. Injection hosts are
non-lenses,
  so every positive reports.

Objects of one sub-cell share a role (but for those positives), so stamps that overlap rarely differ in it; how many
do is counted by :func:`overlapping_roles` and reported.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from lens_assets.science.hashing import seed_of, uniform
from lens_assets.science.sphere import cell_of, chord, tree
from lens_assets.science.splits.settings import Settings

ROLES = {
    "train": ("train",),
    "val": ("select", "calibrate", "threshold"),
    "test": ("host", "report"),
    "guard": ("guard",),
    "evaluation": ("evaluation",),
}
"""Which roles a split may hold."""
POSITIVE_ROLES = ("train", "select", "calibrate", "report", "guard", "evaluation")
"""Roles a lens may have."""


def _draw(cells: npt.NDArray[np.int64], shares: dict[str, float], seed: int) -> npt.NDArray[np.str_]:
    upper = np.cumsum(list(shares.values()))
    upper[-1] = 1.0
    return np.asarray(list(shares))[np.searchsorted(upper, uniform(cells, seed), side="right")]


def roles(split: pl.Series, label: pl.Series, ra: pl.Series, dec: pl.Series, settings: Settings) -> pl.Series:
    """The role of each object, from its split, class (1 lens, 0 not) and position (degrees)."""
    out = split.to_numpy().astype("U16")
    lens = label.to_numpy() == 1
    cells = cell_of(ra.to_numpy(), dec.to_numpy(), settings.role_nside)
    val, test = out == "val", out == "test"
    drawn = _draw(cells, settings.val_roles, seed_of("splits", "val role", settings.seed))
    both = {name: settings.val_roles[name] for name in ("select", "calibrate")}
    total = sum(both.values())
    again = _draw(cells, {k: v / total for k, v in both.items()}, seed_of("splits", "val positives", settings.seed))
    drawn = np.where(lens & (drawn == "threshold"), again, drawn)
    hosts = _draw(cells, settings.test_roles, seed_of("splits", "test role", settings.seed))
    out[val] = drawn[val]
    out[test] = np.where(lens, "report", hosts)[test]
    return pl.Series("role", out.tolist(), dtype=pl.String)


def overlapping_roles(sample: pl.DataFrame, arcsec: float) -> int:
    """Pairs of objects of one split, closer than ``arcsec``, that play different roles."""
    pairs = 0
    for name in ("val", "test"):
        part = sample.filter(pl.col("split") == name)
        if part.height < 2:
            continue
        found = tree(part["ra"].to_numpy(), part["dec"].to_numpy()).query_pairs(chord(arcsec), output_type="ndarray")
        role = part["role"].to_numpy()
        pairs += int((role[found[:, 0]] != role[found[:, 1]]).sum()) if len(found) else 0
    return pairs
