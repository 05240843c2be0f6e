"""The realism verdict a surface carries in its header, its figures and its name: go, or no-go with the reason.

A surface whose realism was not measured is a no-go: nobody has shown that its injections look like lenses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Verdict:
    """``go`` or not, why, and the area under the curve of the feature-space probe where it was measured."""

    go: bool
    reason: str
    probe_auc: float | None = None
    failed: tuple[str, ...] = field(default=())

    @property
    def tag(self) -> str:
        """What file and table names carry: empty under go, ``-no-go`` otherwise."""
        return "" if self.go else "-no-go"

    @property
    def title(self) -> str:
        """One line for figures and look-ups."""
        return f"{'GO' if self.go else 'NO-GO'}: {self.reason}"

    def to_json(self) -> dict[str, Any]:
        """A JSON-like form."""
        return {"go": self.go, "reason": self.reason, "probe_auc": self.probe_auc, "failed": list(self.failed)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Verdict:
        """The inverse of :meth:`to_json`."""
        return cls(bool(value["go"]), str(value["reason"]), value.get("probe_auc"), tuple(value.get("failed", ())))

    @classmethod
    def of_report(cls, report: Mapping[str, Any] | None) -> Verdict:
        """From a realism report: ``verdict`` ("go" or "no-go"), ``gates`` (``name``, ``passed``, ``value``, perhaps
        ``status``) and the names of the blocking ones in ``facts.blocking`` (all of them where it does not say).

        A blocking gate that was not measured counts as not passed. A report that says go while one of its blocking
        gates did not pass contradicts itself, and is taken as no-go.
        """
        if not report:
            return cls(False, "realism was not measured")
        gates = report.get("gates", [])
        if isinstance(gates, Mapping):
            gates = [{"name": name, **gate} for name, gate in gates.items()]
        blocking = report.get("facts", {}).get("blocking", [g["name"] for g in gates])
        failed = [g for g in gates if g["name"] in blocking and g.get("passed") is not True]
        missing = sorted(set(blocking) - {g["name"] for g in gates})
        names = (*(str(g["name"]) for g in failed), *missing)
        probe = next((g for g in gates if "probe" in str(g["name"]) and _number(g.get("value"))), None)
        auc = None if probe is None else float(probe["value"])
        text = "" if probe is None else f" ({_probe_words(probe)})"
        if report.get("verdict") in ("go", True) and not names:
            return cls(True, f"injections pass every blocking realism gate{text}", auc)
        if probe is not None and probe in failed and probe.get("status", "fail") == "fail":
            return cls(False, f"injections separable from real lenses, {_probe_words(probe)}", auc, names)
        wrong = [str(g["name"]) for g in failed if _number(g.get("value")) and g.get("status") != "insufficient"]
        unknown = [name for name in names if name not in wrong]
        parts = [f"failed: {', '.join(wrong)}"] if wrong else []
        parts += [f"not measured: {', '.join(unknown)}"] if unknown else []
        return cls(False, f"realism {'; '.join(parts) or 'report says no-go'}{text}", auc, names)


def _probe_words(gate: Mapping[str, Any]) -> str:
    """The probe's area under the curve with its 68 % interval and the stamps it rests on, where the report has them."""
    words = f"probe AUC {gate['value']:.3f}"
    if _number(gate.get("lo68")) and _number(gate.get("hi68")):
        words += f" [{gate['lo68']:.3f}, {gate['hi68']:.3f}]"
    if _number(gate.get("n_real")) and _number(gate.get("n_injected")):
        words += f", n {gate['n_real']} real + {gate['n_injected']} injected"
    return words


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
