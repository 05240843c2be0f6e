"""The folder of an installation and its environment, prepared the same way for every command. Imports nothing heavy."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def default_home() -> Path:
    """``LENS_ASSETS_HOME``, else ``.lens_assets`` in the working directory."""
    return Path(os.environ.get("LENS_ASSETS_HOME", ".lens_assets")).absolute()


def prepare_home(home: Path) -> Path:
    """Create ``home`` with its Dagster folder (a copy of ``dagster.yaml``) and export both; returns DAGSTER_HOME."""
    dagster_home = home / "dagster"
    dagster_home.mkdir(parents=True, exist_ok=True)
    source = REPOSITORY / "dagster.yaml"
    if source.is_file():
        shutil.copyfile(source, dagster_home / "dagster.yaml")
    os.environ["LENS_ASSETS_HOME"] = str(home)
    os.environ["DAGSTER_HOME"] = str(dagster_home)
    os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "1")
    return dagster_home
