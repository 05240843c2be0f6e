"""How alike the splits are in what the network must not learn: PSF, depth, exposures, extinction, declination."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.stats import ks_2samp

QUANTITIES = (
    *(f"{stem}_{b}" for stem in ("psfsize", "depth", "nobs") for b in "grz"),
    "ebv",
    "dec",
)
SCHEMA: dict[str, type[pl.DataType]] = {
    "split": pl.String, "label": pl.Int8, "quantity": pl.String, "n": pl.Int64, "n_null": pl.Int64, "p16": pl.Float64,
    "p50": pl.Float64, "p84": pl.Float64, "ks_train": pl.Float64, "ks_95": pl.Float64, "ks_classes": pl.Float64,
}  # fmt: skip


def ks(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    """Kolmogorov-Smirnov distance; ``nan`` when a side is empty."""
    return float(ks_2samp(a, b, method="asymp").statistic) if a.size and b.size else float("nan")


def balance(sample: pl.DataFrame) -> pl.DataFrame:
    """One row a (split, label, quantity): size, 16/50/84 percentiles and three distances, sorted.

    ``ks_train`` is the distance from the same class in train, ``ks_95`` what independent objects of these numbers would
    exceed in 5 % of cases (1.358 sqrt((n + m) / (n m))), ``ks_classes`` the distance between the classes of the
    split. Null and NaN values are counted in ``n_null`` and left out. Objects of one cell are not independent, so
    ``ks_train`` above ``ks_95`` is no alarm by itself; a large distance is.
    """
    rows = []
    held: dict[tuple[str, int, str], npt.NDArray[np.float64]] = {}
    size: dict[tuple[str, int], int] = {}
    for (split, label), part in sample.group_by("split", "label"):
        size[str(split), int(label)] = part.height
        for q in QUANTITIES:
            values = part[q].cast(pl.Float64).drop_nulls().to_numpy()
            held[str(split), int(label), q] = np.sort(values[np.isfinite(values)])
    none = np.empty(0)
    for (split, label, q), values in sorted(held.items()):
        reference = held.get(("train", label, q), none)
        n, m = values.size, reference.size
        p16, p50, p84 = np.quantile(values, [0.16, 0.5, 0.84]) if n else (None, None, None)
        expected = 1.358 * float(np.sqrt((n + m) / (n * m))) if n and m else None
        rows.append(
            (split, label, q, n, size[split, label] - n, p16, p50, p84, _null(ks(values, reference)), expected,
             _null(ks(values, held.get((split, 1 - label, q), none))))
        )  # fmt: skip
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def _null(value: float) -> float | None:
    return None if np.isnan(value) else value
