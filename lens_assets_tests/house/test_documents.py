"""The documents say what is there."""

import re
from pathlib import Path

import pytest
import yaml

from lens_assets.science.profile import load_profile, profile_names
from lens_assets.science.provenance import CONFIG

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_every_relative_link_of_a_document_leads_somewhere(document):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_every_folder_that_the_readme_maps_exists():
    for name in re.findall(r"^\| `([^`]+)`", (ROOT / "README.md").read_text(), flags=re.M):
        assert (ROOT / name).exists(), name


def test_every_make_target_that_a_document_names_is_in_the_makefile():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    for document in DOCUMENTS:
        for name in re.findall(r"`make ([a-z-]+)", document.read_text()):
            assert name in targets, f"{document.name}: make {name}"


def test_ci_runs_the_readmes_test_command():
    assert "make test" in (ROOT / ".ci" / "run").read_text()
    assert "make test" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_loads_and_names_itself(name):
    assert load_profile(name).name == name


def test_every_configuration_file_is_yaml_without_code():
    files = sorted(CONFIG.rglob("*.yaml"))
    assert len(files) > 20
    for path in files:
        assert yaml.safe_load(path.read_text()), path


def test_the_lock_holds_every_required_package_and_no_package_of_one_machine():
    lock = (ROOT / "requirements.lock").read_text()
    pinned = {name.lower().replace("_", "-") for name in re.findall(r"^([A-Za-z0-9._-]+)==", lock, flags=re.M)}
    for source in ("requirements.in", "requirements-dev.in"):
        for line in (ROOT / source).read_text().splitlines():
            name = re.match(r"[A-Za-z0-9._-]+", line)
            if name and not line.startswith(("#", "-")):
                assert name.group(0).lower().replace("_", "-") in pinned, name.group(0)
    assert "+cpu" not in lock
    assert "nvidia-" not in lock
    assert "file:" not in lock
