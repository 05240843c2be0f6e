"""Columns of detectors: scores, training curves, metrics, thresholds and evaluation curves."""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from lens_assets.science.columns import cutouts, splits
from lens_assets.science.columns.registry import Column, Table
from lens_assets.science.columns.surveys import GALAXY_ID, N

_S4 = "science contract, detectors"
_CUTOUTS = {column.name: column for column in cutouts.COLUMNS}
N_POS = _CUTOUTS["n_pos"]


def _number(name: str, meaning: str, source: str = _S4, lo: float | None = None, hi: float | None = None) -> Column:
    return Column(name, pl.Float64, "", meaning, source, lo=lo, hi=hi, nullable=True)


def _word(name: str, meaning: str, source: str = _S4, nullable: bool = False) -> Column:
    return Column(name, pl.String, "", meaning, source, nullable=nullable)


LOGIT = Column("logit", pl.Float32, "", "log-odds the detector gives, at the training sample's ratio of classes", _S4)
SCORE = Column("score", pl.Float32, "", "1 / (1 + exp(-logit))", _S4, lo=0, hi=1, ucd="stat.probability")
SCORES = Table("detector_scores", "one scored galaxy", (GALAXY_ID, LOGIT, SCORE), ("galaxy_id",))

EPOCH = Column("epoch", pl.Int32, "", "number of the epoch, from 0", _S4, lo=0)
_CURVE = (
    Column("steps", pl.Int32, "", "optimiser steps so far", _S4, lo=0),
    Column("lr", pl.Float64, "", "learning rate at the epoch's end", _S4, lo=0),
    Column("train_loss", pl.Float64, "", "weighted cross-entropy over the epoch's draws", _S4, lo=0),
    Column("select_loss", pl.Float64, "", "unweighted cross-entropy of the select rows", _S4, lo=0),
    Column("select_auc", pl.Float64, "", "ROC AUC of the select rows", _S4, lo=0, hi=1),
    Column("best", pl.Boolean, "", "the epoch whose weights are kept", _S4),
)
HISTORY = Table("detector_history", "one epoch of training", (EPOCH, *_CURVE), ("epoch",))

NETWORK_ROWS = Table(
    "network_rows", "one galaxy a network was trained or selected on", (GALAXY_ID, splits.ROLE), ("galaxy_id",)
)
_MEMBER = (
    Column("position", pl.Int32, "", "place of the member in the ensemble, from 0", "configuration", lo=0),
    Column("member", pl.String, "", "key of a network", "configuration"),
    Column("recipe", pl.String, "", "its recipe", "configuration"),
    Column("seed", pl.Int64, "", "its seed", "configuration", lo=0, variant="of a network"),
    Column("parameters", pl.Int64, "", "trainable parameters", _S4, lo=1),
)
_MEMBER_MADE = (
    _number("member_weight", "d(combined logit) / d(its logit); null where that depends on the logit", lo=0),
    Column("network_digest", pl.String, "", "digest of the network's artefact", "derived"),
)
MEMBERS = Table("detector_members", "one network of a detector", (*_MEMBER, _CURVE[-2], *_MEMBER_MADE), ("position",))
MEMBER_SCORES = Table(
    "member_scores", "one galaxy scored by one member of an ensemble", (GALAXY_ID, _MEMBER[1], LOGIT),
    ("galaxy_id", "member"),
)  # fmt: skip
_OOF = (
    Column("fold", pl.Int32, "", "fold of its sky cell; a row's fold did not fit what combined it", _S4, lo=0),
    Column("oof_logit", pl.Float64, "", "combined logit, out of fold", _S4),
    Column("oof_mean_logit", pl.Float64, "", "the same of the calibrated mean of the logits", _S4),
)
ENSEMBLE_FIT = Table(
    "ensemble_fit", "one galaxy of the role calibrate", (GALAXY_ID, splits.LABEL, *_OOF), ("galaxy_id",)
)

SET = _word("set", "held-out (channels that train), independent, or evaluation (independence not known)")
AXIS, STRATUM = _word("stratum_axis", "what the rows are divided by; all"), _word("stratum", "which part")
METRIC = _word(
    "metric",
    "auc, average_precision, recall, fpr, precision, lens_count_ratio, and ece and mce: plain, _balanced, _positive, "
    "_top<fraction>, _mapped, _change (detectors/calibration.py)",
)
POINT = _word("threshold_name", "the operating point of a recall, fpr or precision; empty for the others")
VALUE = _number("value", "the metric; null with a reason")
BOUNDS = tuple(_CUTOUTS[f"{side}{level}"] for level in (68, 95) for side in ("lo", "hi"))  # `interval` names the method
FREE_BOUNDS = tuple(
    replace(b, lo=None, hi=None, variant="of any metric", meaning=b.meaning + ", of a metric that may leave 0 to 1")
    for b in BOUNDS
)
INTERVAL = _word(
    "interval",
    "method of the bounds: wilson, class-bootstrap, class-bootstrap-recentred, bootstrap-with-threshold, paired-group-bootstrap; "
    "empty without",
)
WHY = _word("why_not", "why there is no value", nullable=True)
METRICS = Table(
    "detector_metrics",
    "one metric of one stratum of one set",
    (SET, AXIS, STRATUM, METRIC, POINT, VALUE, *FREE_BOUNDS, N, N_POS, INTERVAL, WHY),
    ("set", "stratum_axis", "stratum", "metric", "threshold_name", "interval"),
)

NAME = _word("name", "p<score> for a fixed score, fpr<rate> for a false-positive rate")
FPR = _number("fpr_target", "the false-positive rate asked for; null for fixed scores", lo=0, hi=1)
CUT = _number("threshold", "a score at or above it is a detection; null when refused")
CUT_LOGIT = _number("threshold_logit", "the same as a logit")
N_NEG = Column("n_negatives", pl.Int64, "", "negatives of the threshold role", _S4, lo=0)
N_INDEPENDENT = _number(
    "n_independent", "independent negatives that these are worth to the interval: those of one brick are alike", lo=0
)
N_ABOVE = Column("n_above", pl.Int64, "", "of these, at or above the threshold", _S4, lo=0, nullable=True)
REFUSED = _word("refused", "why there is no threshold", nullable=True)
THRESHOLDS = Table(
    "detector_thresholds",
    "one operating point",
    (NAME, FPR, CUT, *BOUNDS, CUT_LOGIT, N_NEG, N_INDEPENDENT, N_ABOVE, REFUSED),
    ("name",),
)

_XY = (
    _word("curve", "roc, pr, reliability, scores or scores_by_stratum"),
    _word("series", "which line of the curve; of a stratum: axis|stratum|class"),
    Column("point", pl.Int32, "", "number of the point along the line", _S4, lo=0),
    _number("abscissa", "false-positive rate, recall, mean score, or logit"),
    _number("ordinate", "recall, precision, fraction of lenses, or count"),
)
N_POINT = Column(
    "n_point", pl.Int64, "", "rows behind the point of a reliability curve or histogram", _S4, lo=0, nullable=True
)
CURVES = Table(
    "detector_curves",
    "one point of one curve",
    (SET, *_XY, BOUNDS[0], BOUNDS[1], N_POINT),
    ("set", "curve", "series", "point"),
)

_COMPARE = "detectors/compare.py"
DETECTOR_A = _word("detector_a", "key of the first detector", _COMPARE)
_DIFFERENCE = (
    _word("detector_b", "key of the second detector", _COMPARE),
    _number("value_a", "the metric of the first detector", _COMPARE),
    _number("value_b", "the metric of the second detector", _COMPARE),
    _number("metric_difference", "value_a - value_b; the bounds are of this", _COMPARE),
    _word("paired_test", "delong-clustered, paired-bootstrap or mcnemar-clustered", _COMPARE, nullable=True),
    _number(
        "p_paired",
        "two-sided p of no difference, by `paired_test`: of systems and of bricks the larger",
        _COMPARE,
        0,
        1,
    ),
    _number("p_rows", "what DeLong's or McNemar's test says of rows taken as independent", _COMPARE, 0, 1),
    _number("p_bootstrap", "the same by the paired bootstrap over systems, or over bricks: the larger", _COMPARE, 0, 1),
    Column(
        "p_holm",
        pl.Float64,
        "",
        "p_paired after Holm's adjustment over the strata of the set; all: as it is",
        _COMPARE,
        0,
        1,
        True,
        variant="of two detectors",
    ),
)
DIFFERENCES = Table(
    "detector_differences",
    "one metric of two detectors on the same rows of one stratum of one set",
    (DETECTOR_A, _DIFFERENCE[0], SET, AXIS, STRATUM, METRIC, POINT, *_DIFFERENCE[1:4], *FREE_BOUNDS, *_DIFFERENCE[4:], N,
     N_POS, INTERVAL, WHY),
    ("detector_a", "detector_b", "set", "stratum_axis", "stratum", "metric", "threshold_name"),
)  # fmt: skip

REGIME = _word("regime", "lenses, non-lenses, a category of confusers, near <threshold> (within a logit of 1), or all")
_DIVERSE = (
    REGIME,
    _word("measure", "pearson, spearman, disagreement, double_fault, spread, risk, aurc_<order>, aurc_gain_spread"),
    _word("member_a", "one member; all where the measure is of all"),
    _word("member_b", "another member"),
)
DIVERSITY = Table(
    "ensemble_diversity",
    "one measure of two members, or of all, in one regime of one set",
    (SET, *_DIVERSE, POINT, VALUE, *FREE_BOUNDS, N, N_POS, INTERVAL, WHY),
    ("set", "regime", "measure", "threshold_name", "member_a", "member_b"),
)
_COVERED = (
    _number("coverage", "share of the rows accepted, both classes counted as equally many", lo=0, hi=1),
    _number("risk", "share of errors among them, counted so", lo=0, hi=1),
)
RISK_COVERAGE = Table(
    "risk_coverage",
    "one point of one risk-coverage curve; series: spread, margin (distance to the threshold), perfect",
    (SET, POINT, _XY[1], _XY[2], *_COVERED, N_POINT),
    ("set", "threshold_name", "series", "point"),
)

COLUMNS = (
    LOGIT,
    SCORE,
    EPOCH,
    *_CURVE,
    *_MEMBER,
    *_MEMBER_MADE,
    *_OOF,
    *_DIVERSE,
    *_COVERED,
    SET,
    AXIS,
    STRATUM,
    METRIC,
    POINT,
    VALUE,
    *FREE_BOUNDS,
    INTERVAL,
    WHY,
    NAME,
    FPR,
    CUT,
    CUT_LOGIT,
    N_NEG,
    N_ABOVE,
    N_INDEPENDENT,
    REFUSED,
    *_XY,
    N_POINT,
    DETECTOR_A,
    *_DIFFERENCE,
)
TABLES = (
    SCORES,
    HISTORY,
    NETWORK_ROWS,
    MEMBERS,
    MEMBER_SCORES,
    ENSEMBLE_FIT,
    METRICS,
    THRESHOLDS,
    CURVES,
    DIFFERENCES,
    DIVERSITY,
    RISK_COVERAGE,
)
