"""The detectability gate on the platform's tables: calibrated on lenses and random galaxies, applied to injections.

Random galaxies are negatives of the representative pool (N1) as they come. Galaxies that host injections are left
out, so that the gate is not set on the very pixels it later judges.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from lens_assets.science.columns.scoring import GATE_STATISTICS
from lens_assets.science.completeness.detectability import GateSpec, calibrate_gate, gate_statistic, observable
from lens_assets.science.injections.batch import StampSource

CHUNK = 512


def calibrate(
    sample: pl.DataFrame, stamps: Any, false_alarm_rate: float, min_false_alarms: int = 100
) -> tuple[pl.DataFrame, GateSpec]:
    """Measure the statistic of lenses and random galaxies that have a stamp, and set the threshold.

    Returns
    -------
    the ``gate_statistics`` table, and the calibrated gate.
    """
    lens = (pl.col("label") == 1) & pl.col("tier").is_in(["confirmed", "A"])
    random = (pl.col("label") == 0) & (pl.col("pool") == "N1") & (pl.col("role") != "host")
    rows = sample.filter((lens | random) & (pl.col("split") != "guard")).sort("galaxy_id")
    rows = rows.filter(pl.Series(stamps.has(rows["galaxy_id"]), dtype=pl.Boolean))
    values = statistics(rows["galaxy_id"].to_list(), stamps)
    is_lens = (rows["label"] == 1).to_numpy()
    table = rows.select("galaxy_id", pl.Series("is_lens", is_lens), pl.Series("gate_statistic", values).fill_nan(None))
    return GATE_STATISTICS.conform(table), calibrate_gate(
        values[is_lens], values[~is_lens], false_alarm_rate, min_expected=min_false_alarms
    )


def statistics(ids: list[str], stamps: StampSource) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The gate's statistic (n,) of catalogue objects, nan where it cannot be measured."""
    parts = [ids[i : i + CHUNK] for i in range(0, len(ids), CHUNK)]
    found = [gate_statistic(stamps.images(part), stamps.invvar(part)).total for part in parts]
    return np.concatenate([np.empty(0), *found])


def with_observable(batches: pl.DataFrame, gates: pl.DataFrame, scores: pl.DataFrame, spec: GateSpec) -> pl.DataFrame:
    """Injections with their score and the gate's word (null where the gate could not be measured), one row each."""
    seen = gates.with_columns(
        observable=pl.when(pl.col("gate_statistic").is_not_null()).then(
            pl.Series(observable(gates["gate_statistic"].fill_null(float("nan")).to_numpy(), spec))
        )
    )
    return (
        batches.join(scores, on="injection_id", how="inner", validate="1:1")
        .join(seen, on="injection_id", how="left", validate="1:1")
        .sort("injection_id")
    )


def summary(spec: GateSpec) -> dict[str, Any]:
    """The gate in a few numbers, each with its interval and n."""
    return {
        "false_alarm": [spec.false_alarm, spec.false_alarm_lo68, spec.false_alarm_hi68, spec.n_randoms],
        "lenses_passed": [spec.lens_fraction, spec.lens_lo68, spec.lens_hi68, spec.n_lenses],
        "interval": spec.interval,
        "threshold": spec.threshold,
    }
