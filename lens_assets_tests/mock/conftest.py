"""One small release for all tests of the mock sky, written once a session."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from lens_assets.science.mock.settings import MockSize
from lens_assets.science.mock.writer import ReleaseSummary, write_release

SEED = 20261123


class Written(NamedTuple):
    size: MockSize
    release: Path
    truth: Path
    catalogues: Path
    summary: ReleaseSummary


def make_size(**changes: object) -> MockSize:
    values: dict[str, object] = {
        "name": "test", "tiles": ("000m005", "030m030"), "deep_tiles": ("030m030",), "bricks_per_tile": 2,
        "brick_pixels": 500, "galaxies": 18, "lenses": 4, "faint": 25, "stars": 10, "missing_band": 1, "survey_edge": 1,
    }  # fmt: skip
    return MockSize.model_validate(values | changes)


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    root = tmp_path_factory.mktemp("mock")
    size = make_size()
    folders = root / "release", root / "truth", root / "catalogues"
    return Written(size, *folders, write_release(*folders, size, SEED))


@pytest.fixture(scope="session")
def make() -> object:
    return make_size
