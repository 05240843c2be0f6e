"""What MLflow is told of a detector, under names that are the same for every detector, so that two runs can be compared.

A metric is called ``<set>.<metric>[.<threshold>][.<axis>.<stratum>]``, for instance ``held-out.auc``,
``held-out.auc.type.SER`` or ``held-out.recall.fpr1e-03.psf_r.1.2-1.35``, its 95 % bounds the same with ``.lo95`` and
``.hi95``, and its lenses ``.n_pos``. Of strata of the held-out and independent lenses the AUC, the calibration error, and
recall and false-positive rate at the measured thresholds are told; all the rest is in the tables. Signs that MLflow refuses
are written out: ``<1.05`` as ``lt1.05``, ``>=1.65`` as ``ge1.65``, ``11+`` as ``11plus``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import polars as pl

from lens_assets.science.detectors.strata import ALL, HELD_OUT, INDEPENDENT

_OF_STRATA = ("auc", "ece", "recall", "fpr")
_WORDS = ((">=", "ge"), ("<", "lt"), ("+", "plus"))
_LOUD = ("auc", "average_precision", "recall", "fpr")
"""Metrics whose lenses are told too."""


def metric_name(row: Mapping[str, Any]) -> str:
    """The name of a row of ``detector_metrics``."""
    parts = [row["set"], row["metric"], row["threshold_name"]]
    if row["stratum_axis"] != ALL:
        parts += [row["stratum_axis"], row["stratum"]]
    return plain(".".join(p for p in parts if p))


def plain(name: str) -> str:
    """A name MLflow accepts."""
    for sign, word in _WORDS:
        name = name.replace(sign, word)
    return re.sub(r"[^A-Za-z0-9_./-]", "_", name)


def metrics_of(metrics: pl.DataFrame) -> dict[str, float]:
    """Values and bounds by name. Where a recall has two intervals, that with the threshold's own error is told."""
    out: dict[str, float] = {}
    for row in metrics.sort("interval", descending=True).iter_rows(named=True):  # wilson, then bootstrap-with-threshold
        stratified = row["stratum_axis"] != ALL
        if row["value"] is None or (stratified and not _told(row)):
            continue
        name = metric_name(row)
        out[name] = row["value"]
        for bound in ("lo95", "hi95"):
            if row[bound] is not None:
                out[f"{name}.{bound}"] = row[bound]
        if row["metric"] in _LOUD and not row["threshold_name"]:
            out[f"{name}.n_pos"] = float(row["n_pos"])
    return out


def _told(row: Mapping[str, Any]) -> bool:
    measured = not row["threshold_name"] or row["threshold_name"].startswith("fpr")
    return row["metric"] in _OF_STRATA and measured and row["set"] in (HELD_OUT, INDEPENDENT)


def gates_of(gates: pl.DataFrame) -> dict[str, float]:
    """``gate.<name>`` and its 68 % bounds."""
    out: dict[str, float] = {}
    for row in gates.iter_rows(named=True):
        for suffix, column in (("", "gate_value"), (".lo68", "gate_lo68"), (".hi68", "gate_hi68")):
            if row[column] is not None:
                out[f"gate.{row['gate']}{suffix}"] = row[column]
    return out


def differences_of(table: pl.DataFrame) -> dict[str, float]:
    """``versus-champion.<name>`` with bounds and the p that counts (Holm's over strata), of rows of one detector."""
    out: dict[str, float] = {}
    for row in table.filter(pl.col("metric_difference").is_not_null()).iter_rows(named=True):
        name = f"versus-champion.{metric_name(row)}"
        out |= {name: row["metric_difference"], f"{name}.p": row["p_holm"]}
        if row["lo95"] is not None:
            out |= {f"{name}.lo95": row["lo95"], f"{name}.hi95": row["hi95"]}
    return out


def against_itself(table: pl.DataFrame) -> dict[str, float]:
    """The same names for the champion: no difference. Without them a plot over runs puts it anywhere, and a detector that
    became champion would keep what it was told as a challenger."""
    zero = pl.lit(0.0)
    same = table.with_columns(metric_difference=zero, lo95=zero, hi95=zero, p_holm=pl.lit(1.0))
    return differences_of(same)


def params_of(specification: Mapping[str, Any]) -> dict[str, Any]:
    """A detector's specification as flat parameters, with the mixture as it was realised."""
    out = flat(specification)
    training = specification.get("training", {})
    counts = [training.get(f"epoch_{name}") for name in ("positives", "n1", "n2")]
    if all(isinstance(c, int) for c in counts) and counts[1] + counts[2]:
        out["realised.positive_fraction"] = f"{counts[0] / sum(counts):.5f}"
        out["realised.n2_share"] = f"{counts[2] / (counts[1] + counts[2]):.5f}"
    return out


def flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings with dotted names; texts that are prose are left out."""
    out: dict[str, Any] = {}
    for name, item in value.items():
        if isinstance(item, Mapping) and item:
            out |= flat(item, f"{prefix}{name}.")
        elif name != "about":
            out[f"{prefix}{name}"] = item
    return out
