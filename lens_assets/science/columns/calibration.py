"""Columns of the calibration room: fitted parameters, rounds, the judgement on unseen lenses, and who was in which half."""

from __future__ import annotations

import polars as pl

from lens_assets.science.columns.lenses import SYSTEM_ID
from lens_assets.science.columns.registry import Column, Table
from lens_assets.science.columns.surveys import GALAXY_ID

_FIT = "calibration (calibration/calibrate.py)"
_BOOTSTRAP = "calibration (calibration/bootstrap.py)"
_JUDGE = "calibration (calibration/judge.py)"


def _number(name: str, unit: str, meaning: str, source: str, *, nullable: bool = False, **more: float) -> Column:
    return Column(name, pl.Float64, unit, meaning, source, nullable=nullable, **more)  # type: ignore[arg-type]


PARAMETER = Column("parameter", pl.String, "", "name of a fitted parameter or nuisance", _FIT)
_PARAMETERS = (
    Column("parameter_meaning", pl.String, "", "what the parameter is", _FIT),
    Column("parameter_unit", pl.String, "", "its unit; values and intervals are in it", _FIT),
    _number("base_value", "", "value in the base set; null for nuisances", _FIT, nullable=True),
    _number("fitted_value", "", "fitted value", _FIT),
    _number("fitted_lo68", "", "lower end of its 68 % bootstrap interval (lenses and hosts resampled)", _FIT),
    _number("fitted_hi68", "", "upper end of its 68 % bootstrap interval", _FIT),
    _number("fitted_lo95", "", "lower end of its 95 % bootstrap interval", _FIT),
    _number("fitted_hi95", "", "upper end of its 95 % bootstrap interval", _FIT),
    _number("base_share", "", "how far it follows when the base value is moved: 0 lenses decide, 1 base set", _FIT,
            nullable=True, lo=0, hi=1),
    Column("identified", pl.Boolean, "", "base_share below one half; null for nuisances", _FIT, nullable=True),
)  # fmt: skip
DRAW = Column("draw", pl.Int64, "", "number of a draw of the fit's bootstrap, from 0", _BOOTSTRAP, lo=0)
DRAWN_VALUE = _number("drawn_value", "", "value of the parameter in this draw, in its unit", _BOOTSTRAP)
ROUND = Column("round", pl.Int64, "", "round of proposals, from 0", _FIT, lo=0)
_ROUNDS = (
    Column("n_proposals", pl.Int64, "", "injections proposed in the round", _FIT, lo=0),
    _number("fit_distance", "", "distance per lens on the lenses that are fitted in the rounds", _FIT, lo=0),
    _number("validation_distance", "", "distance per lens on the validation fold", _FIT, lo=0),
    _number("n_validation", "", "effective number of lenses of the validation fold", _FIT, lo=0),
    _number("effective_blind", "", "effective injections under the weights of lenses found without images", _FIT,
            nullable=True, lo=0),
    _number("effective_imaging", "", "effective injections under the weights of lenses found in images", _FIT,
            nullable=True, lo=0),
)  # fmt: skip
SELECTION_GROUP = Column("selection_group", pl.String, "", "how the lenses were found: blind or imaging", _JUDGE)
OBSERVABLE_NAME = Column("observable_name", pl.String, "", "observable, or all together", _JUDGE)
_JUDGEMENT = (
    Column("n_lenses", pl.Int64, "", "lenses of the judging half", _JUDGE, lo=0),
    _number("n_effective_lenses", "", "their effective number under sampling weights", _JUDGE, lo=0),
    _number("null_distance", "", "expected distance of two samples of one population: 1 / effective number", _JUDGE),
    _number("distance_before", "", "energy distance of the base set's injections, in units of the lenses' own", _JUDGE),
    _number("distance_before_lo95", "", "lower end of its 95 % interval over lenses", _JUDGE),
    _number("distance_before_hi95", "", "upper end of its 95 % interval over lenses", _JUDGE),
    _number("distance_after", "", "the same of the fitted set", _JUDGE),
    _number("distance_after_lo95", "", "lower end of its 95 % interval over lenses", _JUDGE),
    _number("distance_after_hi95", "", "upper end of its 95 % interval over lenses", _JUDGE),
    _number("effective_before", "", "effective injections under the base set", _JUDGE, lo=0),
    _number("effective_after", "", "effective injections under the fitted set", _JUDGE, lo=0),
    _number("real_median", "", "median of the real lenses, in the observable's unit", _JUDGE, nullable=True),
    _number("median_before", "", "median of the base set's injections", _JUDGE, nullable=True),
    _number("median_after", "", "median of the fitted set's injections", _JUDGE, nullable=True),
)
HALF = Column("half", pl.String, "", "fit or judge, by a stable hash of the system", "calibration/lenses.py")
_LENSES = (
    Column("blind", pl.Boolean, "", "found by a channel that did not use the survey's images", "calibration/lenses.py"),
    Column("imaging", pl.Boolean, "", "found in the survey's images, too or only", "calibration/lenses.py"),
    _number("sampling_weight", "", "inverse held-out share (1 for lenses that never train)", "calibration/lenses.py", lo=0),
)  # fmt: skip

PRIOR_CALIBRATION = Table(
    "prior_calibration", "one fitted parameter or nuisance", (PARAMETER, *_PARAMETERS), ("parameter",)
)
CALIBRATION_DRAWS = Table(
    "calibration_draws",
    "one parameter or nuisance in one draw of the fit's error",
    (DRAW, PARAMETER, DRAWN_VALUE),
    ("draw", "parameter"),
)
CALIBRATION_ROUNDS = Table("calibration_rounds", "one round of proposals", (ROUND, *_ROUNDS), ("round",))
CALIBRATION_JUDGEMENT = Table(
    "calibration_judgement",
    "one observable of one group of lenses that took no part in the fit",
    (SELECTION_GROUP, OBSERVABLE_NAME, *_JUDGEMENT),
    ("selection_group", "observable_name"),
)
CALIBRATION_LENSES = Table(
    "calibration_lenses", "one held-out lens", (GALAXY_ID, SYSTEM_ID, HALF, *_LENSES), ("galaxy_id",)
)
COLUMNS = (
    PARAMETER, *_PARAMETERS, DRAW, DRAWN_VALUE, ROUND, *_ROUNDS, SELECTION_GROUP, OBSERVABLE_NAME, *_JUDGEMENT,  HALF, *_LENSES,
)  # fmt: skip
TABLES = (PRIOR_CALIBRATION, CALIBRATION_DRAWS, CALIBRATION_ROUNDS, CALIBRATION_JUDGEMENT, CALIBRATION_LENSES)
