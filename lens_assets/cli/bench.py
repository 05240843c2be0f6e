"""``lens-assets bench NAME --json``: ours against a named reference in the same run, one JSON line."""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

PACKAGES = ("numpy", "torch", "polars", "pyarrow", "astropy", "lenstronomy", "dagster", "lightning", "pyspark")
GPU = "-gpu"
"""Ending of benchmarks that need a GPU: `all` leaves them out where there is none."""
# glibc's malloc gives large blocks back at once, which costs the references more than us: the same setting for both sides.
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "1073741824", "MALLOC_TRIM_THRESHOLD_": "1073741824"}


def benches() -> dict[str, Callable[[int], dict[str, Any]]]:
    """Name -> function of the number of repeats that returns the line's fields. Imports happen when one is run."""

    def of(module: str, function: str, **fixed: Any) -> Callable[[int], dict[str, Any]]:
        def run(repeats: int) -> dict[str, Any]:
            import importlib

            return dict(getattr(importlib.import_module(f"lens_assets.{module}"), function)(repeats, **fixed))

        return run

    return {
        "arcs": of("science.injections.bench", "bench_arcs"),
        "arcs-tight": of("science.injections.bench", "bench_arcs", tight=True),
        "scoring": of("bench.scoring", "bench_scoring"),
        "injection": of("bench.injection", "bench_injection"),
        "stamps-read": of("bench.shards", "bench_stamps_read"),
        "stamps-cut": of("bench.stamps", "bench_stamps_cut"),
        "catalogue": of("bench.catalogue", "bench_catalogue"),
        "spark": of("bench.spark", "bench_spark"),
        "partition": of("bench.partition", "bench_partition"),
        "lookup": of("science.completeness.bench", "bench_lookup"),
        **{
            f"{name}{GPU}": of(f"bench.gpu_{name}", f"bench_gpu_{name}")
            for name in ("arcs", "scoring", "injection", "training")
        },
    }


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("bench")(bench)


def bench(
    name: Annotated[str, typer.Argument(help="Name of a benchmark, or `all`.")] = "all",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line on standard output.")] = False,
    repeats: Annotated[int, typer.Option(help="Interleaved repeats.")] = 5,
    out: Annotated[Path, typer.Option(help="Folder the lines are kept in.")] = Path("bench"),
) -> None:
    """Measure against the named reference in the same run: medians, spread, ratio, threads and versions."""
    if any(os.environ.get(key) != value for key, value in _MALLOC.items()):  # read by glibc when a process starts
        os.execve(sys.executable, [sys.executable, "-m", "lens_assets.cli", *sys.argv[1:]], {**os.environ, **_MALLOC})
    known = benches()
    chosen = possible(list(known)) if name == "all" else [name]
    if unknown := [n for n in chosen if n not in known]:
        typer.echo(f"no benchmark {unknown[0]!r}; there are {', '.join(known)}", err=True)
        raise typer.Exit(2)
    failed = False
    for one in chosen:
        try:
            with contextlib.redirect_stdout(sys.stderr):  # standard output is for the line alone
                measured = known[one](repeats)
            line = {"name": one, **measured, "versions": versions(), "machine": machine()}
            check(line)
        except Exception as fault:
            typer.echo(f"{one}: could not measure: {fault}", err=True)
            failed = True
            continue
        text = json.dumps(line, sort_keys=False, default=float)
        out.mkdir(parents=True, exist_ok=True)
        (out / f"{one}.json").write_text(text + "\n")
        typer.echo(text if as_json else _readable(line))
    if failed:
        raise typer.Exit(1)


def possible(names: list[str]) -> list[str]:
    """The benchmarks that this machine can do; what is left out is said on standard error."""
    import torch

    left_out = [] if torch.cuda.is_available() else [name for name in names if name.endswith(GPU)]
    if left_out:
        typer.echo(f"no CUDA device here, left out: {', '.join(left_out)}", err=True)
    return [name for name in names if name not in left_out]


def check(line: dict[str, Any]) -> None:
    """Raise ``ValueError`` unless the line holds what a line must: a ratio with both sides, or a value; finite numbers."""
    numbers = ("ours", "theirs", "ratio") if "ratio" in line else ("value",)
    if missing := [key for key in ("spread", "threads", *numbers) if key not in line]:
        raise ValueError(f"the line lacks {', '.join(missing)}")
    if wrong := [key for key in numbers if not (math.isfinite(line[key]) and line[key] > 0)]:
        raise ValueError(f"{wrong[0]} is {line[wrong[0]]}")


def machine() -> dict[str, Any]:
    """What the numbers were measured on: architecture, processors, and the load of a minute (others may have been busy)."""
    return {"arch": platform.machine(), "cpus": os.cpu_count(), "load": round(os.getloadavg()[0], 2)}


def versions() -> dict[str, str]:
    """Versions of what is measured."""
    from lens_assets.science.provenance import versions as installed

    return {"python": platform.python_version(), **installed(*PACKAGES)}


def _readable(line: dict[str, Any]) -> str:
    if "ratio" in line:
        return f"{line['name']}: {line['ratio']:.1f} x {line['reference']} (spread {line['spread']})"
    return f"{line['name']}: {line['value']:.4g} (spread {line['spread']})"
