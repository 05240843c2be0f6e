"""Operating points: the thresholds a surface is published at, each with the bounds of its own sampling error.

They are set elsewhere, on negatives the detector never trained on; here they are only read and checked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from lens_assets.science.completeness.combine import SUFFIX
from lens_assets.science.errors import BadInput


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold on the score; the bounds equal ``cut`` where it is fixed and has no error."""

    name: str
    cut: float
    fpr_target: float | None = None
    lo68: float = math.nan
    hi68: float = math.nan
    lo95: float = math.nan
    hi95: float = math.nan
    n_negatives: int | None = None

    @property
    def cuts(self) -> tuple[float, float, float, float, float]:
        """The cut, and its bounds lo68, hi68, lo95, hi95."""
        return self.cut, self.lo68, self.hi68, self.lo95, self.hi95

    @property
    def has_error(self) -> bool:
        """Whether its sampling error enters the published interval."""
        return any(c != self.cut for c in self.cuts)

    def total_name(self, own: str) -> str:
        """The name of the published interval, from that of the statistical one."""
        return own + SUFFIX if self.has_error else own

    def to_json(self) -> dict[str, Any]:
        """A JSON-like form; ``OperatingPoint(**value)`` is the inverse."""
        return asdict(self)


def operating_points(
    thresholds: pl.DataFrame, wanted: Sequence[str] = ()
) -> tuple[tuple[OperatingPoint, ...], dict[str, str]]:
    """Points sorted by name, and the refused ones with their reason.

    ``wanted`` names a subset; none means all. Raises :class:`BadInput` when a wanted one is unknown, a threshold lies
    outside its own bounds, a name repeats, or nothing is left.
    """
    for column in ("name", "threshold"):
        if column not in thresholds.columns:
            raise BadInput("the thresholds table needs this column", column=column)
    names = thresholds["name"].to_list()
    if len(set(names)) != len(names):
        raise BadInput("operating points repeat", column="name")
    unknown = sorted(set(wanted) - set(names))
    if unknown:
        raise BadInput(f"no operating points {unknown}; the detector has {sorted(names)}", column="name")
    points, refused = [], {}
    for i, row in enumerate(thresholds.iter_rows(named=True)):
        if wanted and row["name"] not in wanted:
            continue
        cut = row["threshold"]
        if row.get("refused"):
            refused[row["name"]] = str(row["refused"])
            continue
        if cut is None or not math.isfinite(cut):
            raise BadInput(f"operating point {row['name']!r} has no threshold and no reason", column="threshold", row=i)
        bound = {}
        for key in ("lo68", "hi68", "lo95", "hi95"):
            value = row.get(key)
            bound[key] = float(cut) if value is None or not math.isfinite(value) else float(value)
        if not bound["lo95"] <= bound["lo68"] <= cut <= bound["hi68"] <= bound["hi95"]:
            raise BadInput(
                f"operating point {row['name']!r}: bounds {bound} do not enclose {cut}", column="threshold", row=i
            )
        points.append(
            OperatingPoint(row["name"], float(cut), row.get("fpr_target"), n_negatives=row.get("n_negatives"), **bound)
        )
    if not points:
        raise BadInput(f"no operating point is usable; refused: {refused}", column="threshold")
    return tuple(sorted(points, key=lambda p: p.name)), dict(sorted(refused.items()))


def default_point(points: Sequence[OperatingPoint], asked: str | None) -> OperatingPoint:
    """The point a look-up uses: ``asked`` if it is usable, else the FPR target nearest 1e-3 (in log), else the
    first."""
    for point in points:
        if point.name == asked:
            return point
    rated = [p for p in points if p.fpr_target]
    if rated:
        return min(rated, key=lambda p: (abs(math.log10(p.fpr_target or 1) + 3), p.name))
    return points[0]
