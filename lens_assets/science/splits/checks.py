"""What must hold of the split table before anything is trained on it: pure functions, one result each.

Each looks at the finished table afresh, by other means than those that made it where it can (cells from positions,
guard rings by pair distances). :func:`all_checks` runs those that need the table alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from lens_assets.science.intervals import wilson
from lens_assets.science.negatives.selection import SelectionProfile, screen
from lens_assets.science.negatives.strata import nobs_bin
from lens_assets.science.sphere import cell_of, nearest
from lens_assets.science.splits.cells import tolerances
from lens_assets.science.splits.roles import POSITIVE_ROLES, ROLES
from lens_assets.science.splits.settings import SPLITS, Settings


@dataclass(frozen=True)
class CheckResult:
    """One check: its name, what is wrong (nothing means passed) and the numbers it looked at."""

    name: str
    problems: list[str]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def _proper(sample: pl.DataFrame) -> pl.DataFrame:
    return sample.filter(pl.col("split").is_in(list(SPLITS)))


def _shared(frame: pl.DataFrame, key: str) -> list[str]:
    """Values of ``key`` that occur in more than one split."""
    several = frame.group_by(key).agg(pl.col("split").unique().sort().alias("s")).filter(pl.col("s").list.len() > 1)
    return [f"{key} {value} is in {' and '.join(splits)}" for value, splits in several.sort(key).iter_rows()]


def keys_complete(sample: pl.DataFrame) -> CheckResult:
    """No null identity, position, cell, class, split or role; only known splits and roles; roles that fit split and
    class.
    """
    problems = [
        f"{int(n)} rows have no {c}"
        for c in ("galaxy_id", "ra", "dec", "cell", "label", "split", "role")
        if (n := sample[c].null_count())
    ]
    fits = pl.lit(False)
    for split, roles in ROLES.items():
        fits = fits | ((pl.col("split") == split) & pl.col("role").is_in(list(roles)))
    wrong = sample.filter(~fits.fill_null(False))
    problems += [
        f"{g}: role {r!r} in split {s!r}" for g, s, r in wrong.select("galaxy_id", "split", "role").iter_rows()
    ]
    lens = sample.filter((pl.col("label") == 1) & ~pl.col("role").is_in(list(POSITIVE_ROLES)))
    problems += [f"{g}: a lens with role {r!r}" for g, r in lens.select("galaxy_id", "role").iter_rows()]
    return CheckResult("keys_complete", problems, {"rows": sample.height})


def ids_disjoint(sample: pl.DataFrame) -> CheckResult:
    """Each galaxy occurs once: in no two splits, roles or classes."""
    counts = sample.group_by("galaxy_id").agg(pl.len(), pl.col("split").unique().sort().alias("splits"))
    several = counts.filter(pl.col("len") > 1).sort("galaxy_id")
    return CheckResult(
        "ids_disjoint", [f"{g} occurs {n} times, in {', '.join(map(str, s))}" for g, n, s in several.iter_rows()]
    )


def cells_disjoint(sample: pl.DataFrame, nside: int = 128) -> CheckResult:
    """No sky cell is in two of train, val and test, by the stored cell and by the position."""
    part = _proper(sample)
    true = cell_of(part["ra"].to_numpy(), part["dec"].to_numpy(), nside) if part.height else np.empty(0, np.int64)
    stale = int((part["cell"].to_numpy() != true).sum())
    problems = _shared(part, "cell") + _shared(part.with_columns(cell=pl.Series(true, dtype=pl.Int64)), "cell")
    if stale:
        problems.append(f"{stale} rows carry a cell that is not that of their position")
    return CheckResult("cells_disjoint", sorted(set(problems)), {"cells": int(part["cell"].n_unique())})


def digests_disjoint(sample: pl.DataFrame, digests: pl.DataFrame) -> CheckResult:
    """No cutout (by the digest of its pixels) is in two of train, val, test and evaluation.

    ``digests`` has ``galaxy_id`` and ``digest``, for the galaxies that have a cutout.
    """
    part = sample.filter(pl.col("split") != "guard").join(digests.select("galaxy_id", "digest"), on="galaxy_id")
    problems = _shared(part.drop_nulls("digest"), "digest")
    if digests.height and not part.height:
        problems.append("none of the digests belongs to an object of the table")
    if nulls := part["digest"].null_count():
        problems.append(f"{nulls} cutouts have no digest")
    return CheckResult("digests_disjoint", problems, {"cutouts": part.height})


def train_clear_of_evaluation(sample: pl.DataFrame, arcsec: float = 11.0) -> CheckResult:
    """No training object within ``arcsec`` of a lens that evaluates: evaluation-only, or of val or test."""
    train = sample.filter(pl.col("split") == "train")
    lens = sample.filter((pl.col("label") == 1) & pl.col("split").is_in(["val", "test", "evaluation"]))
    i, sep = nearest(*(f[c].to_numpy() for f in (train, lens) for c in ("ra", "dec")))
    bad = np.flatnonzero(sep <= arcsec)
    return CheckResult(
        "train_clear_of_evaluation",
        [f"{train['galaxy_id'][int(k)]} trains {sep[k]:.2f} arcsec from {lens['galaxy_id'][int(i[k])]}" for k in bad],
        {"nearest_arcsec": float(sep.min()) if sep.size and np.isfinite(sep.min()) else None},
    )


def splits_apart(sample: pl.DataFrame, arcsec: float = 40.0) -> CheckResult:
    """Objects of different splits are farther apart than ``arcsec``, by brute distance; test and evaluation, which both only
    judge, may be nearer.
    """
    problems, closest = [], np.inf
    parts = {s: sample.filter(pl.col("split") == s) for s in (*SPLITS, "evaluation")}
    pairs = [("train", "val"), ("train", "test"), ("val", "test"), ("train", "evaluation"), ("val", "evaluation")]
    for a, b in pairs:
        i, sep = nearest(*(parts[s][c].to_numpy() for s in (a, b) for c in ("ra", "dec")))
        mine, theirs = parts[a]["galaxy_id"], parts[b]["galaxy_id"]
        closest = min(closest, float(sep.min(initial=np.inf)))
        problems += [
            f"{mine[int(k)]} ({a}) is {sep[k]:.1f} arcsec from {theirs[int(i[k])]} ({b})"
            for k in np.flatnonzero(sep <= arcsec)
        ]
    return CheckResult("splits_apart", problems, {"closest_arcsec": closest if np.isfinite(closest) else None})


def shares_achieved(sample: pl.DataFrame, settings: Settings) -> CheckResult:
    """The share of each split is the wanted one within the tolerance, for positives and for negatives, name by name."""
    problems, facts = [], {}
    for label, name in ((1, "positives"), (0, "negatives")):
        part = _proper(sample).filter(pl.col("label") == label)
        if not part.height:
            problems.append(f"there are no {name} in the splits")
            continue
        tolerance = float(tolerances(part.height, settings.share_tolerance))
        for split in SPLITS:
            want = settings.shares.get(split, 0.0)
            got = float((part["split"] == split).mean())  # type: ignore[arg-type]
            facts[f"{name}|{split}"] = got
            if abs(got - want) > tolerance + 1e-9:
                problems.append(f"{got:.3f} of the {name} are in {split}, wanted {want:.3f} +- {tolerance:.3f}")
    return CheckResult("shares_achieved", problems, facts)


def same_screen(sample: pl.DataFrame, profile: SelectionProfile) -> CheckResult:
    """Both classes pass the screen of the profile: no cut was made on one class alone."""
    seen = set(sample.columns)  # a dereddened magnitude or a further cut may need a column the table does not carry
    skipped = [cut.column for cut in profile.cuts if cut.column not in seen] + ["mag_z"] * profile.dereddened
    profile = profile.model_copy(
        update={
            "cuts": tuple(cut for cut in profile.cuts if cut.column in seen),
            "mag_z_max": None if profile.dereddened else profile.mag_z_max,
        }
    )
    problems = []
    for label, role in ((1, "positive"), (0, "negative")):
        _, table = screen(sample.filter(pl.col("label") == label), profile, role)  # type: ignore[arg-type]
        problems += [
            f"{n} {role}s do not pass {step}" for step, n in table.select("step", "removed_alone").iter_rows() if n
        ]
    return CheckResult("same_screen", problems, {"selection": profile.name, "not_checked": skipped})


def balanced(table: pl.DataFrame, max_ks: float = 0.2) -> CheckResult:
    """PSF, depth and exposures of each split resemble those of train: KS distance at most ``max_ks``, or what chance
    gives.

    ``table`` is the balance table. Meant as a warning: with few cells the sky itself differs from split to split.
    """
    looked = table.filter(
        pl.col("split").is_in(["val", "test"]) & pl.col("quantity").str.contains("^(psfsize|depth|nobs)_")
    )
    bad = looked.filter(pl.col("ks_train") > pl.max_horizontal(pl.lit(max_ks), "ks_95"))
    return CheckResult(
        "balanced",
        [
            f"{q} of {'positives' if k else 'negatives'} in {s} differs from train: KS {d:.2f}"
            for s, k, q, d in bad.select("split", "label", "quantity", "ks_train").iter_rows()
        ],
        {"largest_ks": looked["ks_train"].max()},
    )


def losses_alike(sample: pl.DataFrame, kept: pl.Series, max_difference: float = 0.05) -> CheckResult:
    """What was lost on the way (for instance cutouts that failed) is not lost by class, declination or exposures.

    ``kept`` holds the galaxy_ids that survived. A group whose kept share differs from that of all by more than
    ``max_difference``, beyond its own 95 % Wilson interval, is a problem. Facts give each group's share.
    """
    frame = sample.select(
        kept=pl.col("galaxy_id").is_in(kept.to_list()),
        label=pl.col("label").cast(pl.String),
        dec=((pl.col("dec") / 10).floor() * 10).cast(pl.Int64).cast(pl.String),
        nobs_z=nobs_bin(),
        type=pl.col("type"),
    )
    overall = float(frame["kept"].mean() or 0.0)  # type: ignore[arg-type]
    problems, facts = [], {"overall": overall}
    for axis in ("label", "dec", "nobs_z", "type"):
        for value, n, k in frame.group_by(axis).agg(pl.len(), pl.col("kept").sum()).sort(axis).iter_rows():
            share, bound = k / n, wilson(k, n, 0.95)
            facts[f"{axis}|{value}"] = share
            if abs(share - overall) > max_difference and not bound.lo <= overall <= bound.hi:
                problems.append(f"{axis} {value}: {share:.3f} of {n} kept, {overall:.3f} over all")
    return CheckResult("losses_alike", problems, facts)


def all_checks(
    sample: pl.DataFrame, settings: Settings, profile: SelectionProfile | None = None
) -> Mapping[str, CheckResult]:
    """The blocking checks that need the table alone, by name."""
    checks: list[Callable[[], CheckResult]] = [
        lambda: keys_complete(sample),
        lambda: ids_disjoint(sample),
        lambda: cells_disjoint(sample, settings.nside),
        lambda: train_clear_of_evaluation(sample, settings.exclusion_arcsec),
        lambda: splits_apart(sample, settings.guard_arcsec),
        lambda: shares_achieved(sample, settings),
    ]
    if profile is not None:
        checks.append(lambda: same_screen(sample, profile))
    return {result.name: result for result in (check() for check in checks)}
