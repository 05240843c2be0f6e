"""The realism verdict a surface carries in its header, its figures and its name: go, or no-go with the reason.

A surface whose realism was not measured is a no-go: nobody has shown that its injections look like lenses.
"""

from __future__ import annotations

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
        """From a realism report: ``verdict`` ("go" or "no-go") and ``gates`` (mappings with ``name``, ``passed``,
        ``value``).

        A gate without a value (too few lenses to measure) counts as not passed. A report that says go while one of its
        gates failed is contradictory, and taken as no-go.
        """
        if not report:
            return cls(False, "realism was not measured")
        gates = report.get("gates", [])
        if isinstance(gates, Mapping):
            gates = [{"name": name, **gate} for name, gate in gates.items()]
        failed = tuple(str(g["name"]) for g in gates if not g.get("passed", False))
        auc = next((g.get("value") for g in gates if "probe" in str(g["name"])), None)
        go = report.get("verdict") in ("go", True) and not failed
        text = "" if auc is None else f"probe AUC {auc:.3f}"
        if go:
            return cls(True, "injections pass every realism gate" + (f" ({text})" if text else ""), auc)
        if any("probe" in name for name in failed) and auc is not None:
            return cls(False, f"injections separable from real lenses, {text}", auc, failed)
        what = ", ".join(failed) if failed else "the realism report says so"
        return cls(False, f"realism failed: {what}" + (f" ({text})" if text else ""), auc, failed)
