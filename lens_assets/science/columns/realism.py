"""Columns of the realism room: the gates of a report (`realism_gates`) and what was measured of each stamp."""

from __future__ import annotations

import polars as pl

from lens_assets.science.columns.registry import Column, Table
from lens_assets.science.columns.surveys import GALAXY_ID

_GATE = "realism report (realism/gates.py)"
_MEASURE = "azimuth-subtracted annulus 4-16 px (realism/measure.py)"

GATE = Column("gate", pl.String, "", "name of the gate", _GATE)
_NUMBERS = (
    Column("gate_value", pl.Float64, "", "value of the gate, in the unit of `gate_unit`", _GATE, nullable=True),
    Column("gate_lo68", pl.Float64, "", "lower end of its 68 % interval", _GATE, nullable=True),
    Column("gate_hi68", pl.Float64, "", "upper end of its 68 % interval", _GATE, nullable=True),
    Column("gate_lo95", pl.Float64, "", "lower end of its 95 % interval", _GATE, nullable=True),
    Column("gate_hi95", pl.Float64, "", "upper end of its 95 % interval", _GATE, nullable=True),
    Column("gate_bar", pl.Float64, "", "the bar; null where the gate only reports", _GATE, nullable=True),
    Column(
        "gate_passed", pl.Boolean, "", "whether it passed; null where there was nothing to pass", _GATE, nullable=True
    ),
    Column("gate_status", pl.String, "", "pass, fail, reported or insufficient", _GATE),
    Column("gate_unit", pl.String, "", "unit of the value", _GATE),
    Column("gate_n_real", pl.Int64, "", "real lenses the value rests on", _GATE, lo=0),
    Column("gate_n_injected", pl.Int64, "", "injections the value rests on", _GATE, lo=0),
    Column("gate_blocking", pl.Boolean, "", "whether the verdict depends on it", _GATE),
)

STAMP_ID = Column("id", pl.String, "", "identity of the stamp: galaxy_id, or injection_id", _MEASURE)
SIDE = Column("side", pl.String, "", "real or injected", _MEASURE)
MATCHED_CONDITIONS = Column("matched_conditions", pl.Boolean, "", "matched in PSF and depth", "realism/match.py")
MATCHED_BRIGHTNESS = Column(
    "matched_brightness", pl.Boolean, "", "matched in PSF, depth and annulus brightness", "realism/match.py"
)


def _measure(name: str, unit: str, meaning: str, **more: float) -> Column:
    return Column(name, pl.Float64, unit, meaning, _MEASURE, nullable=True, **more)  # type: ignore[arg-type]


_PER_BAND = tuple(
    _measure(f"{stem}_{b}", unit, f"{meaning} ({b})")
    for b in "grz"
    for stem, unit, meaning in (
        ("total_snr", "", "all light of the annulus over the sky noise of its sum"),
        ("annulus_flux", "nmgy", "all light of the annulus above the background"),
        ("excess_flux", "nmgy", "light of the annulus that the azimuthal model leaves"),
        ("excess_snr", "", "the same over its noise, correlation included"),
    )
)
_REST = (
    _measure("annulus_gr", "mag", "g - r of all light in the annulus"),
    _measure("excess_gr", "mag", "g - r of what the azimuthal model leaves; null at low SNR"),
    _measure("annulus_rz", "mag", "r - z of all light in the annulus"),
    _measure("excess_rz", "mag", "r - z of what the azimuthal model leaves; null at low SNR"),
    _measure("excess_mag_r", "mag", "asinh magnitude of excess_flux_r, softening 0.1 nmgy"),
    Column("arc_pixels", pl.Int32, "pixel", "coherent pixels of the annulus", _MEASURE, lo=0),
    _measure("arc_sb_r", "mag / arcsec^2", "mean surface brightness of the coherent pixels (r)"),
    _measure("arc_width", "arcsec", "2.355 x their flux-weighted radial scatter, seeing included", lo=0),
    _measure("arc_radius", "arcsec", "their flux-weighted radius", lo=0),
    _measure("arc_asymmetry", "", "length of their flux-weighted mean direction", lo=0, hi=1),
)

REALISM_GATES = Table("realism_gates", "one gate of one report", (GATE, *_NUMBERS), ("gate",))
REALISM_MEASURES = Table(
    "realism_measures",
    "one stamp of one report",
    (SIDE, STAMP_ID, GALAXY_ID, MATCHED_CONDITIONS, MATCHED_BRIGHTNESS, *_PER_BAND, *_REST),
    ("side", "id"),
)
COLUMNS = (GATE, *_NUMBERS, STAMP_ID, SIDE, MATCHED_CONDITIONS, MATCHED_BRIGHTNESS, *_PER_BAND, *_REST)
TABLES = (REALISM_GATES, REALISM_MEASURES)
