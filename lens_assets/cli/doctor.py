"""``lens-assets doctor``: is this machine fit for the platform, and what is missing?"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from lens_assets.cli.home import REPOSITORY, default_home


@dataclass(frozen=True)
class Finding:
    """One thing looked at; ``level`` is ok, note (a choice is limited) or missing (something will not work)."""

    level: str
    subject: str
    text: str


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("doctor")(doctor)


def doctor(home: Annotated[Path | None, typer.Option(help="Folder of the installation.")] = None) -> None:
    """Check versions, ports, Java, GPU, browser, memory and storage, and say what is missing and how to get it."""
    findings = examine((home or default_home()).absolute())
    width = max(len(f.subject) for f in findings)
    for f in findings:
        typer.echo(f"{f.level:8s}{f.subject:{width}s}  {f.text}")
    missing = [f for f in findings if f.level == "missing"]
    typer.echo(f"{len(findings)} looked at, {len(missing)} missing")
    raise typer.Exit(1 if missing else 0)


def examine(home: Path) -> list[Finding]:
    """All findings for an installation in ``home``."""
    return [python(), *packages(), memory(), storage(home), *ports(), java(), gpu(), browser()]


def python() -> Finding:
    """The interpreter."""
    version = ".".join(map(str, sys.version_info[:3]))
    fit = sys.version_info[:2] in {(3, 11), (3, 12)}
    return Finding("ok" if fit else "missing", "Python", version if fit else f"{version}; 3.11 or 3.12 is needed")


def packages(lock: Path = REPOSITORY / "requirements.lock") -> list[Finding]:
    """Installed packages against the pinned ones."""
    if not lock.is_file():
        return [Finding("note", "packages", "no requirements.lock beside the package: versions not compared")]
    differ, absent, n = [], [], 0
    for name, pinned in re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", lock.read_text(), flags=re.M):
        n += 1
        try:
            found = importlib.metadata.version(name).split("+")[0]
        except importlib.metadata.PackageNotFoundError:
            absent.append(name)
            continue
        if found != pinned:
            differ.append(f"{name} {found} (pinned {pinned})")
    out = [Finding("ok", "packages", f"{n - len(absent) - len(differ)} of {n} as pinned")]
    if absent:
        out.append(Finding("missing", "packages", f"not installed: {', '.join(absent)}; run `make setup`"))
    if differ:
        out.append(Finding("note", "packages", f"other versions: {', '.join(differ)}"))
    return out


def memory() -> Finding:
    """Memory and cores."""
    import psutil

    total = psutil.virtual_memory().total / 2**30
    text = f"{total:.0f} GiB, {os.cpu_count()} cores"
    return Finding("ok", "memory", text) if total >= 6 else Finding("note", "memory", f"{text}; the demo needs 6 GiB")


def storage(home: Path) -> Finding:
    """Room, and whether a file can be written and renamed there."""
    place = home
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free / 2**30
    try:
        with tempfile.TemporaryDirectory(dir=place) as folder:
            (Path(folder) / "a").write_text("x")
            os.replace(Path(folder) / "a", Path(folder) / "b")
    except OSError as fault:
        return Finding("missing", "storage", f"cannot write below {place}: {fault}")
    text = f"{free:.0f} GiB free below {home}"
    return Finding("ok", "storage", text) if free >= 8 else Finding("missing", "storage", f"{text}; the demo needs 8")


def ports() -> list[Finding]:
    """The default ports of the user interfaces."""
    from lens_assets.cli.ui import port_free

    return [
        Finding("ok", f"port {p}", "free")
        if port_free("127.0.0.1", p)
        else Finding("note", f"port {p}", f"taken; use `lens-assets ui --{name}-port`")
        for name, p in (("dagster", 3000), ("mlflow", 5000))
    ]


def java() -> Finding:
    """Java, for Spark."""
    path = shutil.which("java")
    if not path:
        return Finding(
            "note",
            "Java",
            "not found: the engine `spark` will not start (17 is needed: deploy/setup-java.sh; everything else works)",
        )
    text = subprocess.run([path, "-version"], capture_output=True, text=True, timeout=20, check=False).stderr
    match = re.search(r'version "(\d+)', text)
    major = int(match.group(1)) if match else 0
    return Finding("ok" if major >= 17 else "note", "Java", f"{major}" if major >= 17 else f"{major}; Spark 4 needs 17")


def gpu() -> Finding:
    """An accelerator, and what the processor can do without one."""
    import torch

    if torch.cuda.is_available():
        return Finding("ok", "GPU", torch.cuda.get_device_name(0))
    fast = torch.cpu._is_avx512_bf16_supported() if hasattr(torch.cpu, "_is_avx512_bf16_supported") else False
    return Finding(
        "note", "GPU", f"none: training runs on the CPU ({'with' if fast else 'without'} bfloat16 instructions)"
    )


def browser() -> Finding:
    """A browser for the tests of the user interface."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return Finding("ok", "browser", path)
    return Finding("note", "browser", "no Chromium: the browser tests skip (deploy/setup-browser.sh installs one)")
