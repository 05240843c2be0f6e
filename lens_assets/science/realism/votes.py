"""Votes of the blinded panel: files that graders export, their score, and the gate they feed.

A vote file is what the page exports: JSON ``{panel, grader, grades: {number: 0..3}}`` or CSV with the columns
``panel, grader, number, grade``. A grade k is a vote of k/3 for an injection.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lens_assets.science.errors import BadInput
from lens_assets.science.hashing import generator
from lens_assets.science.realism.gate import GateResult, decided
from lens_assets.science.realism.panel import score_votes
from lens_assets.science.realism.probe import auc

TOP = 3
"""The highest grade."""
Votes = dict[str, dict[int, float]]


def vote_files(folder: Path) -> list[Path]:
    """The vote files under ``folder``, sorted; none where there is no folder."""
    return sorted(p for p in folder.rglob("*") if p.suffix in (".json", ".csv")) if folder.is_dir() else []


def read_votes(paths: Iterable[Path]) -> tuple[str, Votes]:
    """The panel's digest and every grader's votes (number to probability of an injection).

    Raises :class:`BadInput` naming the file for another form, an unknown grade, two panels, or one grader twice.
    """
    panel, votes = "", Votes()
    for path in sorted(paths):
        for named, grader, grades in _read(path):
            if panel and named != panel:
                raise BadInput(f"votes for panel {named}, others are for {panel}", file=str(path))
            if grader in votes:
                raise BadInput(f"grader {grader!r} is there twice", file=str(path))
            panel = named
            votes[grader] = {n: k / TOP for n, k in grades.items()}
    if not votes:
        raise BadInput("no votes were given")
    return panel, votes


def _read(path: Path) -> list[tuple[str, str, dict[int, int]]]:
    try:
        if path.suffix == ".json":
            body = json.loads(path.read_text())
            rows = [(str(body["panel"]), str(body["grader"]), k, v) for k, v in body["grades"].items()]
        else:
            with path.open(newline="") as stream:
                rows = [(r["panel"], r["grader"], r["number"], r["grade"]) for r in csv.DictReader(stream)]
        found: dict[tuple[str, str], dict[int, int]] = {}
        for panel, grader, number, grade in rows:
            value = int(grade)
            if not 0 <= value <= TOP:
                raise BadInput(f"grade {grade} of stamp {number}: grades are 0 to {TOP}", file=str(path))
            found.setdefault((panel, grader), {})[int(number)] = value
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as fault:
        if isinstance(fault, BadInput):
            raise
        raise BadInput(f"not a vote file: {fault!r}", file=str(path)) from fault
    return [(panel, grader, grades) for (panel, grader), grades in sorted(found.items())]


def score(key: Mapping[str, Any], paths: Iterable[Path], draws: int = 2000) -> dict[str, Any]:
    """Per grader and pooled: accuracy with Wilson intervals, and the AUC with a bootstrap interval over stamps."""
    panel, votes = read_votes(paths)
    out = score_votes(key, votes, panel)
    truth = {int(a["number"]): a["kind"] == "injected" for a in key["answers"]}
    for grader, given in votes.items():
        out["graders"][grader] |= _interval(given, truth, (panel, grader), draws)
    numbers = sorted({n for given in votes.values() for n in given})
    mean = {n: float(np.mean([g[n] for g in votes.values() if n in g])) for n in numbers}
    pooled = _interval(mean, truth, (panel, "pooled"), draws)
    out["pooled"] |= {"auc_lo95": pooled["auc_lo95"], "auc_hi95": pooled["auc_hi95"], "stamps": len(numbers)}
    out["pooled"] |= {"auc_lo68": pooled["auc_lo68"], "auc_hi68": pooled["auc_hi68"]}
    return out


def _interval(
    given: Mapping[int, float], truth: Mapping[int, bool], key: tuple[str, ...], draws: int
) -> dict[str, float]:
    """Stamps of either kind are drawn with replacement; nan where only one kind was graded."""
    numbers = sorted(given)
    p, y = np.array([given[n] for n in numbers]), np.array([truth[n] for n in numbers], bool)
    sides = [np.flatnonzero(y == kind) for kind in (True, False)]
    if min(len(s) for s in sides) == 0:
        return dict.fromkeys(("auc_lo68", "auc_hi68", "auc_lo95", "auc_hi95"), float("nan"))
    rng = generator("panel votes", *key)
    values = []
    for _ in range(draws):
        i = np.concatenate([s[rng.integers(0, len(s), len(s))] for s in sides])
        values.append(auc(p[i], y[i]))
    q = np.quantile(values, [0.16, 0.84, 0.025, 0.975])
    return dict(zip(("auc_lo68", "auc_hi68", "auc_lo95", "auc_hi95"), map(float, q), strict=True))


def panel_gate(key: Mapping[str, Any] | None, paths: Iterable[Path]) -> GateResult:
    """Gate 6: AUC of the mean vote per stamp, reported; insufficient without a panel or without votes for it."""
    files = list(paths)
    nan4 = (float("nan"),) * 4
    if key is None or not files:
        why = "no votes were given" if key is not None else "too few matched stamps of either kind for a panel"
        return decided("blinded_panel", float("nan"), nan4, None, 0, 0, unit="AUC", insufficient=why)
    scored = score(key, files)
    pooled = scored["pooled"]
    kinds = [a["kind"] for a in key["answers"]]
    interval = tuple(pooled[f"auc_{end}"] for end in ("lo68", "hi68", "lo95", "hi95"))
    return decided(
        "blinded_panel", pooled["auc_of_mean_vote"], interval, None, kinds.count("real"), kinds.count("injected"),
        unit="AUC", detail={"graders": scored["graders"], "pooled": pooled, "panel": scored["panel"]},
    )  # fmt: skip
