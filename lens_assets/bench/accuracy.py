"""How exact the arc renderer is: every error measured, and the tables of ``docs/injections.md`` made from them.

``python -m lens_assets.bench.accuracy`` (``make accuracy``; ten minutes) measures, keeps the errors of every draw in
``docs/benchmarks/arcs-accuracy.json`` and writes the tables; ``--page`` writes the tables from the kept errors alone. Two
truths: lenstronomy's light at converged sampling (``injections.parity``; few draws, for they cost seconds), and our own
converged quadrature (``injections.bench.TRUTH``; many draws). The tests hold page and file together and measure the first
draws of each row again, so that a changed renderer is noticed.

What does not belong here: how errors are measured (``injections.parity``, ``injections.bench``), rates.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import binom

from lens_assets.science.injections.bench import TRUTH, bench_scene, errors
from lens_assets.science.injections.parity import corner_scene, differences, prior_scene
from lens_assets.science.injections.psf import PsfSpec
from lens_assets.science.injections.render import TIGHT, Accuracy, render
from lens_assets.science.injections.scene import Scene
from lens_assets.science.intervals import jeffreys

F64 = npt.NDArray[np.float64]
DOCS = Path(__file__).resolve().parents[2] / "docs"
KEPT, PAGE = DOCS / "benchmarks" / "arcs-accuracy.json", DOCS / "injections.md"
SETTINGS = {"default": Accuracy(), "tight": TIGHT}
BARS = {"default": ("relative", 1e-2), "tight": ("of_peak", 1e-3)}
"""The target of each setting: of which error, and what is too large."""
N_THEIRS, N_OURS = 40, 300
Row = dict[str, Any]
"""``draws``, ``setting``, and the errors of each draw: ``relative``, ``of_peak`` and, beside lenstronomy, ``magnification``."""


def scenes_beside_lenstronomy(n: int = N_THEIRS) -> dict[str, Scene]:
    """The draws that lenstronomy renders too, by name."""
    return {"`population`": prior_scene("population", n), "`published`": prior_scene("published", n),
            "the corner": corner_scene(n)}  # fmt: skip


def scenes_beside_truth(n: int = N_OURS, first: int | None = None) -> dict[str, Scene]:
    """The draws that are compared with our own converged quadrature, by name: other ones than lenstronomy's.

    ``first`` : so many of each alone.
    """
    some = n if first is None else min(first, n)
    return {"benchmark": bench_scene().part(0, 200 if first is None else first),
            "`population`": prior_scene("population", some, 7), "`published`": prior_scene("published", some, 7),
            "the corner": corner_scene(n, 11, first)}  # fmt: skip


def beside_truth(scene: Scene) -> dict[str, dict[str, F64]]:
    """Errors (n,) of both settings against ``TRUTH``: ``relative`` and ``of_peak``, worst pixel of the worst band."""
    truth = render(scene, PsfSpec(), accuracy=TRUTH).images
    found = {}
    for name, accuracy in SETTINGS.items():
        relative, of_peak = errors(render(scene, PsfSpec(), accuracy=accuracy).images, truth)
        found[name] = {"relative": relative, "of_peak": of_peak}
    return found


def measure(n_theirs: int = N_THEIRS, n_ours: int = N_OURS) -> dict[str, list[Row]]:
    """The rows of both tables: ``lenstronomy`` and ``truth``."""

    def rows(draws: str, found: dict[str, dict[str, F64]]) -> list[Row]:
        return [
            {"draws": draws, "setting": name, **{k: [float(f"{x:.3g}") for x in v] for k, v in measured.items()}}
            for name, measured in found.items()
        ]

    theirs, ours = scenes_beside_lenstronomy(n_theirs), scenes_beside_truth(n_ours)
    return {
        "lenstronomy": [row for name, scene in theirs.items() for row in rows(name, differences(scene))],
        "truth": [row for name, scene in ours.items() for row in rows(name, beside_truth(scene))],
    }


def order_interval(values: Sequence[float], q: float, level: float = 0.68) -> tuple[float, float]:
    """Interval of a quantile whatever the distribution: between order statistics, of binomial rank (David & Nagaraja 2003,
    Order Statistics, 7.1). At least ``level``, except that no rank goes beyond the smallest or the largest value.
    """
    ordered, n = sorted(values), len(values)
    lo = int(binom.ppf((1 - level) / 2, n, q)) - 1
    hi = int(binom.ppf((1 + level) / 2, n, q))
    return ordered[max(lo, 0)], ordered[min(hi, n - 1)]


def _number(x: float) -> str:
    return f"{x:.1e}".replace("e-0", "e-")


def _quantile(values: Sequence[float], q: float) -> str:
    lo, hi = order_interval(values, q)
    return f"{_number(float(np.quantile(values, q)))} [{_number(lo)}, {_number(hi)}]"


def _above(row: Row) -> str:
    """How many draws exceed the setting's bar, and the share with its 95 % interval (Jeffreys)."""
    error, bar = BARS[row["setting"]]
    k, n = sum(v > bar for v in row[error]), len(row[error])
    found = jeffreys(k, n, 0.95)
    return f"{k} [{100 * float(found.lo):.1f}, {100 * float(found.hi):.1f} %]"


def tables(kept: dict[str, list[Row]]) -> dict[str, str]:
    """Both tables in Markdown. Brackets: 68 % of a percentile, 95 % of the share above the bar; *largest* has none."""
    name = {"default": "default", "tight": "`TIGHT`"}
    theirs = [
        "| draws | n | setting | median | 90 % | largest | of the peak, largest | above its bar | magnification, largest |",
        "|" + "---|" * 9,
    ]
    for row in kept["lenstronomy"]:
        e = row["relative"]
        theirs.append(
            f"| {row['draws']} | {len(e)} | {name[row['setting']]} | {_quantile(e, 0.5)} | {_quantile(e, 0.9)} | {_number(max(e))} "
            f"| {_number(max(row['of_peak']))} | {_above(row)} | {_number(max(row['magnification']))} |"
        )
    ours = ["| draws | n | setting | error | median | 99 % | largest | above its bar |", "|" + "---|" * 8]
    for row in kept["truth"]:
        for key, what in (("relative", "relative"), ("of_peak", "of the peak")):
            e = row[key]
            ours.append(
                f"| {row['draws']} | {len(e)} | {name[row['setting']]} | {what} | {_quantile(e, 0.5)} | {_quantile(e, 0.99)} "
                f"| {_number(max(e))} | {_above(row) if key == BARS[row['setting']][0] else ''} |"
            )
    return {"lenstronomy": "\n".join(theirs), "truth": "\n".join(ours)}


def written(page: str, kept: dict[str, list[Row]]) -> str:
    """The page with its tables, which stand between comments ``accuracy: NAME`` and ``end``."""
    for name, table in tables(kept).items():
        before, rest = page.split(f"<!-- accuracy: {name} -->\n", 1)
        _, after = rest.split("<!-- end -->", 1)
        page = f"{before}<!-- accuracy: {name} -->\n{table}\n<!-- end -->{after}"
    return page


def main() -> None:
    """Measure, keep, and write the tables into the page."""
    parser = argparse.ArgumentParser(
        description="Accuracy of the arc renderer: measured errors and the tables of the page."
    )
    parser.add_argument("--page", action="store_true", help="the tables alone, from the errors that are kept")
    if not parser.parse_args().page:
        KEPT.write_text(json.dumps(measure(), indent=None).replace('{"draws"', '\n{"draws"') + "\n")
    PAGE.write_text(written(PAGE.read_text(), json.loads(KEPT.read_text())))


if __name__ == "__main__":
    main()
