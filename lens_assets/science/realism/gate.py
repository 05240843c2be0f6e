"""One gate: a value with its interval against a bar.

A gate passes on its value; its interval says how far that may be trusted, and ``detail["decisive"]`` whether the
whole 95 % interval lies on one side of the bar. A gate that could not be measured is *insufficient*, which is not a
pass.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from lens_assets.science.realism.settings import Status

NAN = float("nan")


@dataclass(frozen=True)
class GateResult:
    """One gate. ``passed`` is None where there is nothing to pass or it was not measured; ``better`` says which side
    of the bar passes. ``n_*`` are the stamps the value rests on. ``detail`` holds plain numbers, lists and
    strings."""

    name: str
    value: float
    lo68: float
    hi68: float
    lo95: float
    hi95: float
    bar: float | None
    passed: bool | None
    n_real: int
    n_injected: int
    status: Status
    unit: str = ""
    better: str = "low"
    detail: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """As a dictionary; nan stays nan."""
        return asdict(self)


def decided(
    name: str,
    value: float,
    interval: tuple[float, float, float, float],
    bar: float | None,
    n_real: int,
    n_injected: int,
    *,
    unit: str = "",
    better: str = "low",
    detail: dict[str, Any] | None = None,
    insufficient: str = "",
) -> GateResult:
    """Build a result: compare with the bar, or say why not (``insufficient``)."""
    detail = dict(detail or {})
    passed: bool | None = None
    status: Status
    if insufficient or not np.isfinite(value):
        status = "insufficient"
        detail["reason"] = insufficient or "could not be measured"
    elif bar is None:
        status = "reported"
    else:
        passed = bool(value <= bar) if better == "low" else bool(value > bar)
        status = "pass" if passed else "fail"
        lo, hi = interval[2], interval[3]
        if np.isfinite(lo) and np.isfinite(hi):
            detail["decisive"] = bool(hi <= bar or lo > bar)
    lo68, hi68, lo95, hi95 = (float(v) for v in interval)
    return GateResult(
        name=name,
        value=float(value),
        lo68=lo68,
        hi68=hi68,
        lo95=lo95,
        hi95=hi95,
        bar=bar,
        passed=passed,
        n_real=int(n_real),
        n_injected=int(n_injected),
        status=status,
        unit=unit,
        better=better,
        detail=detail,
    )
