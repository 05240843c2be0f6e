"""The maker of invented survey rows, for the tests of this folder."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def sky() -> ModuleType:
    path = Path(__file__).parents[1] / "negatives" / "make_sweeps.py"
    spec = importlib.util.spec_from_file_location("negatives_make_sweeps", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
