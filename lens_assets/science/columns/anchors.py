"""Columns of the two factors on real anchors."""

from __future__ import annotations

import polars as pl

from lens_assets.science.columns.completeness import CUT, POINT, S7, fraction
from lens_assets.science.columns.registry import Column, Table

_WILSON = "Wilson 1927, J. Am. Stat. Assoc. 22, 209"


def _n(name: str, meaning: str) -> Column:
    return Column(name, pl.Int64(), "", meaning, S7, lo=0, ucd="meta.number")


def _share(name: str, meaning: str) -> tuple[Column, ...]:
    bounds = (
        Column(f"{name}_{side}{level}", pl.Float64(), "", f"{word} {level} % bound (Wilson) of {name}", _WILSON, lo=0, hi=1,
               nullable=True, ucd=f"stat.probability;stat.{'min' if side == 'lo' else 'max'}")
        for level in (68, 95)
        for side, word in (("lo", "lower"), ("hi", "upper"))
    )  # fmt: skip
    return (fraction(name, meaning), *bounds)


SET = Column(
    "anchor_set", pl.String(), "", "set of the detector's evaluation: held-out, independent, ...", S7, ucd="meta.id"
)
TIERS = Column("anchor_tiers", pl.String(), "", "tiers that are counted", S7, ucd="meta.code.class")
COUNTS = (
    _n("n_anchors", "lenses with a gate statistic"),
    _n("n_unmeasured", "lenses without one, left out"),
    _n("n_anchors_observable", "lenses the detectability gate calls observable"),
    _n("n_anchors_found", "lenses the detector finds"),
    _n("n_anchors_found_observable", "of the observable ones, found"),
    _n("n_anchors_found_unobservable", "found although the gate calls them unobservable"),
)
SHARES = (
    *_share("observable_recall", "observable / all lenses"),
    *_share("conditional_recall", "found and observable / observable"),
    *_share("anchor_recall", "found / all lenses"),
)
GATE = (
    fraction("gate_false_alarm", "share of random galaxies the gate calls observable"),
    fraction("gate_false_alarm_lo95", "lower 95 % bound (Wilson)", _WILSON),
    fraction("gate_false_alarm_hi95", "upper 95 % bound (Wilson)", _WILSON),
    _n("n_gate_randoms", "random galaxies the rate was measured on"),
)
COLUMNS = (SET, TIERS, *COUNTS, *SHARES, *GATE)
ANCHORS = Table(
    "anchors",
    "lenses of one set and tier at one operating point: observable share x share found of these",
    (SET, TIERS, POINT, CUT, *COUNTS, *SHARES, *GATE),
    ("anchor_set", "anchor_tiers", "operating_point"),
)
TABLES = (ANCHORS,)
