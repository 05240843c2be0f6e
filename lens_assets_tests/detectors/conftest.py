import importlib.util
import sys
from pathlib import Path

import pytest
import torch

_spec = importlib.util.spec_from_file_location("detectors_rings", Path(__file__).with_name("rings.py"))
rings = importlib.util.module_from_spec(_spec)
sys.modules["detectors_rings"] = rings
_spec.loader.exec_module(rings)


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Small networks are slower with threads that wait for each other, and far slower on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def sample():
    return rings.make_sample()


@pytest.fixture(scope="session")
def stamps(sample):
    return rings.Rings(rings.lenses_of(sample))


@pytest.fixture(scope="session")
def recipe():
    from lens_assets.science.detectors.recipes import parse_detector

    return parse_detector("tiny-s1", overrides={"tiny": {"input_size": 33, "schedule": {"epochs": 6}}})


@pytest.fixture(scope="session")
def settings():
    from lens_assets.science.detectors.settings import Settings

    return Settings(threads=1, score_batch=16, draws=200)


@pytest.fixture(scope="session")
def trained(recipe, sample, stamps, settings, tmp_path_factory):
    from lens_assets.science.detectors.train import train

    return train(recipe, sample, stamps, tmp_path_factory.mktemp("trained"), settings=settings)
