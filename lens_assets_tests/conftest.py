"""The simulated survey with known completeness, shared by the tests of surfaces, audits, releases and look-ups."""

import importlib.util
import os
from pathlib import Path

import pytest

from lens_assets.science.completeness.grid import Grid
from lens_assets.science.completeness.surface import build_surface


@pytest.fixture(scope="session")
def simulated():
    path = Path(__file__).parent / "completeness" / "simulated.py"
    spec = importlib.util.spec_from_file_location("simulated_survey", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def build(simulated):
    def make(injections=None, realism=None, thresholds=None, settings=None, **meta):
        settings = settings or simulated.SMALL
        injections = simulated.injections(skip=[(2, 2)], few=[(2, 0)]) if injections is None else injections
        thresholds = simulated.THRESHOLDS if thresholds is None else thresholds
        about = {"detector": "resnet", "variant": "sersic", "realism": realism, **meta}
        return build_surface(injections, thresholds, Grid.of(settings), settings, about)

    return make


@pytest.fixture(scope="session")
def surface(build, simulated):
    return build(realism=simulated.NO_GO)


@pytest.fixture(autouse=True)
def _settings_of_one_test_are_not_those_of_the_next():
    """Commands name profile and home in the environment of their process, which here is that of all tests."""
    before = {name: value for name, value in os.environ.items() if name.startswith(("LENS_ASSETS_", "DAGSTER_"))}
    yield
    for name in [n for n in os.environ if n.startswith(("LENS_ASSETS_", "DAGSTER_"))]:
        if name not in before:
            del os.environ[name]
    os.environ.update(before)
