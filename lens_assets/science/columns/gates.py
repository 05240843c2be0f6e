"""Columns of a detector's gates: shortcuts in what it learnt from, and probes of the frozen detector itself."""

from __future__ import annotations

import polars as pl

from lens_assets.science.columns.cutouts import COLUMNS as _CUTOUT_COLUMNS
from lens_assets.science.columns.detectors import COLUMNS as _DETECTOR_COLUMNS
from lens_assets.science.columns.realism import COLUMNS as _REALISM_COLUMNS
from lens_assets.science.columns.registry import Column, Table
from lens_assets.science.columns.surveys import N

_REALISM = {column.name: column for column in _REALISM_COLUMNS}
_CUTOUTS = {column.name: column for column in _CUTOUT_COLUMNS}
_SOURCE = "detectors/shortcuts.py"
_VALUES = tuple(_REALISM[f"gate_{stem}"] for stem in ("value", "lo68", "hi68", "lo95", "hi95", "bar"))
_OWN = (
    Column("gate_red_bar", pl.Float64, "", "beyond it (by the 68 % bound on the near side) the gate is red", _SOURCE,
           nullable=True),
    Column("gate_better", pl.String, "", "low or high: which side of the bar is good", _SOURCE),
    Column("gate_colour", pl.String, "", "green, yellow, red, or insufficient", _SOURCE),
    Column("gate_decides", pl.Boolean, "", "whether red forbids promotion; the others are reported beside it", _SOURCE),
    Column("gate_null95", pl.Float64, "", "95th percentile of the permutation null; null where there is none", _SOURCE,
           nullable=True),
    Column("gate_p", pl.Float64, "", "p of the permutation null", _SOURCE, 0, 1, True),
    Column("gate_note", pl.String, "", "what was compared, and why there is no value", _SOURCE),
)  # fmt: skip
DETECTOR_GATES = Table(
    "detector_gates",
    "one gate of one detector",
    (_REALISM["gate"], *_VALUES, _OWN[0], _REALISM["gate_unit"], *_OWN[1:6], N, _CUTOUTS["n_pos"], _OWN[6]),
    ("gate",),
)
_PROMOTION = "detectors/promotion.py"
_DETECTORS = {column.registered: column for column in _DETECTOR_COLUMNS}
_FREE = tuple(_DETECTORS[f"{side}{level} (of any metric)"] for level in (68, 95) for side in ("lo", "hi"))
_STANDING = (
    Column("detector", pl.String, "", "key of the detector", _PROMOTION, variant="that may be champion"),
    Column("champion", pl.Boolean, "", "whether it is the champion of its profile", _PROMOTION),
    Column("n_candidates", pl.Int64, "", "detectors among which the champion was chosen", _PROMOTION, lo=1),
    Column("standing_reason", pl.String, "", "why it is champion, or is not", _PROMOTION),
)
STANDING = Table(
    "detector_standing",
    "one detector before the rule of promotion; value and bounds are of its held-out AUC, the difference from detector_b",
    (
        _STANDING[0], _OWN[2], _STANDING[1], _DETECTORS["value"], *_FREE, N, _CUTOUTS["n_pos"],
        _DETECTORS["detector_b"], _DETECTORS["metric_difference"], _DETECTORS["p_paired"], *_STANDING[2:],
    ),
    ("detector",),
)  # fmt: skip
COLUMNS = (*_OWN, *_STANDING)
TABLES = (DETECTOR_GATES, STANDING)
