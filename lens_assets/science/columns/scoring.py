"""Columns of what is measured on injections and galaxies by a frozen instrument: the detector's score, the gate's statistic."""

from __future__ import annotations

import polars as pl

from lens_assets.science.columns.detectors import LOGIT, SCORE
from lens_assets.science.columns.injections import INJECTION_ID
from lens_assets.science.columns.registry import Column, Table
from lens_assets.science.columns.surveys import GALAXY_ID

GATE_STATISTIC = Column(
    "gate_statistic",
    pl.Float64,
    "sigma",
    "energy of the arc annulus above the azimuthal model, coherent in two bands; null where the background is not measurable",
    "completeness.detectability",
    lo=0,
    nullable=True,
)
IS_LENS = Column("is_lens", pl.Boolean, "", "a confirmed or tier-A lens (else a random galaxy)", "science contract, 7")
INJECTION_SCORES = Table("injection_scores", "one scored injection", (INJECTION_ID, LOGIT, SCORE), ("injection_id",))
INJECTION_GATES = Table(
    "injection_gates", "one injection before the gate", (INJECTION_ID, GATE_STATISTIC), ("injection_id",)
)
GATE_STATISTICS = Table(
    "gate_statistics", "one galaxy before the gate", (GALAXY_ID, IS_LENS, GATE_STATISTIC), ("galaxy_id",)
)
COLUMNS = (GATE_STATISTIC, IS_LENS)
TABLES = (INJECTION_SCORES, INJECTION_GATES, GATE_STATISTICS)
