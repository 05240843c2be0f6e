"""Profiles: what they state must fit together."""

from pathlib import Path

import pytest
import yaml

from lens_assets.science.errors import BadInput
from lens_assets.science.profile import load_profile, profile_names
from lens_assets.science.provenance import CONFIG

DEEP = [22.5, 23.0, 23.5, 24.0, 24.5, 25.0, 25.5]


def profile(folder: Path, **changes: dict) -> str:
    """The tiny profile with rooms changed, as a file."""
    content = yaml.safe_load((CONFIG / "profiles" / "tiny.yaml").read_text())
    for room, values in changes.items():
        content[room] = {**content.get(room, {}), **values}
    path = folder / "profile.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


@pytest.mark.parametrize("name", profile_names())
def test_a_packaged_profile_is_valid_and_calls_itself_by_its_name(name):
    assert load_profile(name).name == name


def test_injections_for_another_grid_than_the_surface_are_refused_and_the_setting_is_named(tmp_path):
    with pytest.raises(BadInput, match="depth_centres") as caught:
        load_profile(profile(tmp_path, completeness={"grid": "dr10"}))
    assert "profile.yaml" in str(caught.value)


def test_a_profile_that_states_the_deep_grid_for_both_is_taken(tmp_path):
    chosen = load_profile(profile(tmp_path, completeness={"grid": "dr10"}, injections={"depth_centres": DEEP}))
    assert list(chosen.injections.depth_centres) == DEEP


def test_a_setting_that_does_not_exist_is_an_error_and_not_ignored(tmp_path):
    with pytest.raises(BadInput, match="negatives_per_positiv"):
        load_profile(profile(tmp_path, negatives={"negatives_per_positiv": 3}))


def test_a_profile_that_is_not_there_lists_those_that_are():
    with pytest.raises(BadInput, match="demo, detectors, paper, realism, tiny"):
        load_profile("survey-of-everything")
