"""The real catalogues through the same code, where they are at hand: counts pinned to the published ones."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import polars as pl
import pytest

from lens_assets.science.lenses import lenscat, mapping
from lens_assets.science.lenses.channels import read_channel
from lens_assets.science.lenses.conflicts import conflicts
from lens_assets.science.lenses.overlap import overlap_matrix, summary, tier_b
from lens_assets.science.lenses.registry import build_registry
from lens_assets.science.lenses.settings import Settings
from lens_assets.science.storage import sha256_file

ROOT = Path(__file__).resolve().parents[2]
REAL = Path(os.environ.get("LENS_ASSETS_REAL_DATA", ROOT / "../shared/data")) / "catalogs"


def real(name):
    path = REAL / name
    if not path.is_file():
        pytest.skip(f"{path} is absent: set LENS_ASSETS_REAL_DATA to the folder of real data")
    return path


def lenscat_file():
    if "LENS_ASSETS_LENSCAT_CSV" in os.environ:
        return Path(os.environ["LENS_ASSETS_LENSCAT_CSV"])
    try:
        return lenscat.lenscat_csv()
    except FileNotFoundError as fault:
        pytest.skip(str(fault))


def read(path):
    rules = mapping.mapping_for_file(path)
    frame, rejections = read_channel(path, rules)
    return frame, rejections, rules


PUBLISHED = {
    "huang2020_published_catalog.csv": ("huang2020", {"visual_A": 60, "visual_B": 106, "visual_C": 176}),
    "huang2021_published_catalog.csv": ("huang2021", {"visual_A": 216, "visual_B": 199, "visual_C": 897}),
    "storfer2024_published_catalog.csv": ("storfer2024", {"visual_A": 115, "visual_B": 526, "visual_C": 1254}),
    "inchausti2025_published_catalog.csv": ("inchausti2025", {"visual_A": 90, "visual_B": 104, "visual_C": 617}),
    "positives_literature.parquet": ("literature", {"candidate": 6302}),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_table_has_its_published_counts(name):
    frame, rejections, rules = read(real(name))
    channel, counts = PUBLISHED[name]
    assert rules.channel == channel
    assert dict(frame["label"].value_counts().iter_rows()) == counts
    assert rejections.total == 0


def test_lenscat_has_435_confident_and_4669_probable_desi_rows():
    path = lenscat_file()
    assert sha256_file(path) == lenscat.CSV_SHA256
    frame, rejections, rules = read(path)
    assert rules.channel == "lenscat"
    assert dict(frame["label"].value_counts().iter_rows()) == {
        "visual_A": lenscat.DESI_CONFIDENT,
        "visual_B": lenscat.DESI_PROBABLE,
    }
    assert rejections.counts == {"name without DESI-": 32_838 - 5_104}
    assert dict(frame["kind"].value_counts().iter_rows()) == {"galaxy": 5095, "cluster": 7, "group": 2}
    assert "ligo" not in sys.modules


def united(paths):
    """Channels, mappings, registry and report of some files; the counts are printed (pytest -s)."""
    read_all = [(*read(path), path) for path in paths]
    rules = [mapping_ for _, _, mapping_, _ in read_all]
    channels = pl.concat([frame for frame, _, _, _ in read_all])
    registry = build_registry(channels, rules)
    report = conflicts(channels, registry, rules)
    for frame, rejections, _, path in read_all:
        sys.stdout.write(f"{path.name}: {frame.height} rows, rejected {rejections.counts}\n")
    sys.stdout.write(f"{summary(registry, report)}\n{overlap_matrix(registry)}\n")
    return channels, rules, registry, report


def test_the_published_tables_unite_into_one_registry_with_these_counts():
    channels, rules, registry, report = united([real(name) for name in PUBLISHED])
    counts = summary(registry, report)
    assert (counts["systems"], counts["rows"]) == (10_147, 342 + 1312 + 1895 + 811 + 6302)
    assert counts["by_tier"] == {"A": 481, "B": 933, "none": 8733}
    assert counts["by_channels"] == {"1": 9730, "2": 415, "3": 2}
    assert (counts["trains"], counts["independent"]) == (4354, 0)
    assert counts["conflicts"] == {"grade": 3, "twice": 81}
    names = ("huang2020", "huang2021", "inchausti2025", "literature", "storfer2024")
    assert overlap_matrix(registry).rows() == [
        ("huang2020", 342, 0, 0, 41, 4), ("huang2021", 0, 1312, 0, 118, 1), ("inchausti2025", 0, 0, 811, 63, 0),
        ("literature", 41, 118, 63, 6207, 194), ("storfer2024", 4, 1, 0, 194, 1894),
    ]  # fmt: skip
    assert overlap_matrix(registry).columns == ["channel", *names]
    assert build_registry(channels.sample(fraction=1, shuffle=True, seed=1), rules[::-1]).equals(registry)


def test_lenscat_repeats_the_papers_and_51_systems_of_the_fourth():
    channels, rules, registry, report = united([*(real(name) for name in PUBLISHED), lenscat_file()])
    counts = summary(registry, report)
    assert (counts["systems"], counts["rows"]) == (11_837, 10_662 + 5104)
    assert counts["by_tier"] == {"A": 608, "B": 4823, "none": 6406}
    row = overlap_matrix(registry).filter(pl.col("channel") == "lenscat").row(0)
    assert row == ("lenscat", 300, 1223, 51, 5104, 246, 1781)
    assert counts["conflicts"]["z_lens"] == int(registry["conflict_z"].sum()) == 119
    assert counts["conflicts"]["grade"] == 2332  # grade C of a paper, "probable" in the compilation
    assert not registry["independent"].any()
    made_of = tier_b(channels, registry, rules)
    assert [made_of[k] for k in ("graded_A", "graded_B", "graded_C", "ungraded")] == [0, 882, 2225, 1716]
    assert made_of["ungraded_share"]["value"] == pytest.approx(0.356, abs=5e-4)
    strict = build_registry(channels, rules, Settings(compilations_lift=False))
    assert summary(strict)["by_tier"] == {"A": 519, "B": 2649, "none": 8669}


def test_where_lenscat_is_absent_the_error_says_how_to_get_it(monkeypatch):
    def absent(_):
        raise lenscat.importlib.metadata.PackageNotFoundError

    monkeypatch.setattr(lenscat.importlib.metadata, "distribution", absent)
    with pytest.raises(FileNotFoundError, match="pip install --no-deps lenscat"):
        lenscat.lenscat_csv()
