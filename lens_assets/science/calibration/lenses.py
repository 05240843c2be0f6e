"""Which real lenses calibrate and which judge, how each was found, and what it therefore stands for.

Two groups, by what found them:

``blind``    found by a channel that never looked at the survey's images (two redshifts in one fibre): a fair sample of
             lenses whatever the brightness of their arcs, invisible ones included. It alone fixes the faint end.
``imaging``  found, or also found, in images: bright arcs are preferred by a rule that nobody knows. It enters with an
             unknown ramp in visibility (``fit``), and says more about colours and shapes than about how many are faint.

A system of both kinds is in both. Of the systems that train too, only the held-out share is here, while a system known
to blind channels alone is always held out: the former count by the inverse of their held-out share (Horvitz & Thompson
1952), so that the blind group stays a fair sample.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from lens_assets.science.calibration.settings import Settings
from lens_assets.science.errors import BadInput, Rejections
from lens_assets.science.hashing import mix64, seed_of
from lens_assets.science.realism.assemble import held_out_lenses

F64 = npt.NDArray[np.float64]
FIT, JUDGE = "fit", "judge"
GROUPS = ("blind", "imaging")


@dataclass(frozen=True)
class Lenses:
    """Held-out lenses, sorted by ``galaxy_id``: ``half`` (fit, judge), ``blind`` and ``imaging`` (which groups),
    ``sampling_weight`` (of the blind group), ``fold`` (validation fold of the fitting half, boolean)."""

    rows: pl.DataFrame
    rejected: Rejections

    def half(self, name: str) -> pl.DataFrame:
        """The lenses of one half."""
        return self.rows.filter(pl.col("half") == name)


def half_of(system_ids: pl.Series, settings: Settings) -> pl.Series:
    """``fit`` or ``judge`` for every system, by a stable hash of its id: a system never changes sides when others come."""
    fit = _draw(system_ids, "half", settings.seed) < settings.fit_share
    return pl.Series("half", np.where(fit, FIT, JUDGE).tolist(), dtype=pl.String)


def _draw(ids: pl.Series, kind: str, seed: int) -> F64:
    keys = np.array([seed_of("calibration", kind, seed, str(i)) for i in ids.to_list()], dtype=np.uint64)
    return np.asarray((mix64(keys) >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def calibration_lenses(sample: pl.DataFrame, positives: pl.DataFrame, blind: set[str], settings: Settings) -> Lenses:
    """The held-out galaxy-scale lenses with galaxies behind them, by half and group.

    Parameters
    ----------
    sample : the table ``splits`` with ``galaxy_id``, ``system_id``, ``label``, ``tier``, ``split``, ``channels`` (a list).
    positives : ``galaxy_id`` and ``kind`` of the matched systems.
    blind : channels that found their lenses without the survey's images.
    """
    rejected = Rejections()
    kinds = positives.select("galaxy_id", "kind").unique("galaxy_id")
    lenses = sample.filter(pl.col("label") == 1).join(kinds, on="galaxy_id", how="left")
    lenses = lenses.with_columns(
        blind=pl.col("channels").list.eval(pl.element().is_in(sorted(blind))).list.any(),
        imaging=pl.col("channels").list.eval(~pl.element().is_in(sorted(blind))).list.any(),
    )
    tiers = lenses.filter(pl.col("tier").is_in(list(settings.tiers)) & (pl.col("kind") == "galaxy"))
    both = tiers.filter(pl.col("blind") & pl.col("imaging"))
    held = held_out_lenses(lenses)
    n_in = held.height
    share = held_out_lenses(both).height / both.height if both.height else 1.0
    for reason, keep in (
        ("tier is not used", pl.col("tier").is_in(list(settings.tiers))),
        ("not a lensed galaxy", pl.col("kind") == "galaxy"),
        ("no system", pl.col("system_id").is_not_null()),
    ):
        kept = held.filter(keep.fill_null(False))
        rejected.add(reason, held.height - kept.height)
        held = kept
    once = held.sort("galaxy_id").unique("system_id", keep="first", maintain_order=True)
    rejected.add("the same system again", held.height - once.height)
    rejected.check(n_in, once.height)
    once = once.with_columns(
        half_of(once["system_id"], settings),
        sampling_weight=pl.when(pl.col("imaging")).then(1.0 / max(share, 1e-6)).otherwise(1.0),
        fold=pl.Series(_draw(once["system_id"], "fold", settings.seed) < settings.validation_share),
    )
    return Lenses(once.sort("galaxy_id"), rejected)


def overlap_of_halves(fit: pl.DataFrame, judge: pl.DataFrame) -> dict[str, int]:
    """How many galaxies and systems are in both."""
    return {
        column: len(set(fit[column].drop_nulls().to_list()) & set(judge[column].drop_nulls().to_list()))
        for column in ("galaxy_id", "system_id")
    }


def check_halves(fit: pl.DataFrame, judge: pl.DataFrame) -> None:
    """Raise :class:`BadInput` when a lens (by galaxy or system) calibrates and judges."""
    for column, shared in overlap_of_halves(fit, judge).items():
        if shared:
            raise BadInput(f"{shared} lenses calibrate and judge", column=column)


def group_weights(rows: pl.DataFrame) -> dict[str, F64]:
    """Per group the weight (n,) of each lens, zero for those not of it; not normalised."""
    blind = np.where(rows["blind"].to_numpy(), rows["sampling_weight"].to_numpy(), 0.0)
    return {"blind": blind, "imaging": rows["imaging"].to_numpy().astype(np.float64)}
