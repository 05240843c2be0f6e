"""Small installations and toy assets that are made as the real ones are."""

import importlib.util
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

from lens_assets.resources.artefacts import ArtefactIOManager
from lens_assets.resources.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """An empty installation with a folder of catalogues and the smallest profile."""
    (tmp_path / "home" / "catalogues").mkdir(parents=True)
    return Workspace(home=str(tmp_path / "home"), profile_name="tiny")


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """A Dagster instance in memory."""
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def instance_on_disk(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """A Dagster instance with a storage of its own on disk, which others can open by reference."""
    (tmp_path / "dagster").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "dagster")) as made:
        yield made


@pytest.fixture
def resources(workspace: Workspace) -> dict[str, object]:
    """The two resources every asset uses."""
    return {"workspace": workspace, "artefacts": ArtefactIOManager(workspace=workspace)}


@pytest.fixture
def settled() -> Callable[[Path, str], Path]:
    """Write a text file that looks a minute old."""

    def write(path: Path, text: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        moment = time.time() - 60
        os.utime(path, (moment, moment))
        return path

    return write


@pytest.fixture(scope="session")
def weighted_by_hand():
    """Survey-weighted completeness of one tile, computed from raw tables without the platform."""
    spec = importlib.util.spec_from_file_location("by_hand", Path(__file__).with_name("by_hand.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.weighted
