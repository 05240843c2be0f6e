"""The page on channels says what the mapping files and the code say."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from lens_assets.automation.sensors import GATHERERS
from lens_assets.science.errors import BadInput
from lens_assets.science.lenses import crossmatch, mapping, values
from lens_assets.science.lenses.registry import _LABEL_ORDER, tier_of
from lens_assets.science.lenses.settings import Label, Settings

PAGE = (Path(__file__).parents[2] / "docs" / "channels.md").read_text()
PUBLISHED = [n for n in mapping.mapping_names() if n != "generic" and not n.startswith("mock-")]


def line_of(name):
    rules = mapping.load_mapping(name)
    evidence = rules.evidence + (", HST" if rules.imaging == "hst" else "")
    verified = ("yes" if rules.verified else "no") + (f" ({', '.join(rules.unsure)})" if rules.unsure else "")
    return f"| `{name}` | {rules.role} | {', '.join(rules.derived_from)} | {evidence} | {verified} |"


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_table_of_origins_is_that_of_the_mapping_files(name):
    assert line_of(name) in PAGE, f"write into docs/channels.md:\n{line_of(name)}"


@pytest.mark.parametrize("name", [n for n in PUBLISHED if not mapping.load_mapping(n).verified])
def test_what_is_not_verified_is_on_the_page_with_the_reason_and_the_remedy(name):
    rules = mapping.load_mapping(name)
    assert f"| `{name}` | {rules.source} | {rules.to_verify} |" in PAGE


def test_a_mapping_that_is_not_verified_must_say_what_would_verify_it():
    text = PAGE.split("```yaml\n")[1].split("```")[0]
    with pytest.raises(BadInput, match="what would verify them"):
        mapping.parse_mapping(text + "verified: false\nsource: the abstract\n", "mine.yaml")


def test_no_channel_is_on_the_page_that_has_no_mapping():
    table = PAGE.split("| channel | role | derived from")[1].split("\n\n")[0]
    assert [row.split("`")[1] for row in table.splitlines() if row.startswith("| `")] == PUBLISHED


def test_the_labels_their_tiers_and_their_order_are_those_of_the_code():
    order = PAGE.split("first in this order: ")[1].split(". ")[0].replace(".", "").replace("\n", " ")
    assert [label.strip(" `") for label in order.split("**")[0].split(",")] == [str(label) for label in _LABEL_ORDER]
    assert set(_LABEL_ORDER) == set(Label)
    section = PAGE.split("## Labels")[1].split("##")[0]
    rows = [row for row in section.splitlines() if row.startswith("| `") and row.count("|") == 4]
    tiers = {}
    for row in rows:
        names, _, tier = (cell.strip() for cell in row.strip("|").split("|"))
        labels = [label.strip(" `") for label in names.split(",")]
        stated = tier.split(";")[0].split(",")
        tiers |= dict(zip(labels, [t.strip() for t in stated] * (len(labels) // len(stated)), strict=True))
    assert tiers == {str(label): tier_of(label) for label in Label}


def test_the_example_of_a_mapping_is_valid():
    text = PAGE.split("```yaml\n")[1].split("```")[0]
    assert mapping.parse_mapping(text, "docs/channels.md").channel == "my-search"
    assert yaml.safe_load(text)["labels"]["default"] == "candidate"


def test_the_tolerances_and_the_assets_on_the_page_are_those_of_the_code():
    settings = Settings()
    assert f"more than {settings.z_conflict} (1 + z), or {settings.z_conflict_spec} (1 + z)" in PAGE.replace("\n", " ")
    assert f"{settings.theta_e_conflict:.0%}".replace("%", " %") in PAGE
    for names in GATHERERS.values():
        assert all(f"`{name}`" in PAGE for name in names)


@pytest.mark.parametrize("reason", [crossmatch.OUTSIDE, crossmatch.NO_TILE, crossmatch.NO_BRICK, crossmatch.NOT_A_LENS])
def test_the_reasons_of_the_page_are_those_of_the_code(reason):
    assert reason in PAGE.replace("\n", " ")


@pytest.mark.parametrize("cell", ["0.3, 0.5", "1.2/2.1", "0.31?", "~0.6", "(0.31)", ">1", "measured", "0,5"])
def test_the_cells_of_the_page_are_read_as_it_says(cell):
    line = next(row for row in PAGE.splitlines() if f"`{cell}`" in row)
    odd = values.reading(cell).odd
    assert ("first value" in line) == (odd == values.SEVERAL)
    assert ("not used" in line) == (odd in (values.LIMIT, values.UNREADABLE))
