"""The real catalogues through the same code, where they are at hand: counts pinned to the published ones."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import polars as pl
import pytest

from lens_assets.science.lenses import lenscat, mapping
from lens_assets.science.lenses.channels import read_channel
from lens_assets.science.lenses.registry import build_registry
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


def test_the_imaging_papers_are_one_family_and_unite_without_loss():
    read_all = [read(real(name)) for name in PUBLISHED]
    united = pl.concat([frame for frame, _, _ in read_all])
    registry = build_registry(united, [rules for _, _, rules in read_all])
    assert registry["n_members"].sum() == 342 + 1312 + 1895 + 811 + 6302
    assert not registry["independent"].any()
    assert registry.filter(pl.col("n_members") > 1).height > 100


def test_where_lenscat_is_absent_the_error_says_how_to_get_it(monkeypatch):
    def absent(_):
        raise lenscat.importlib.metadata.PackageNotFoundError

    monkeypatch.setattr(lenscat.importlib.metadata, "distribution", absent)
    with pytest.raises(FileNotFoundError, match="pip install --no-deps lenscat"):
        lenscat.lenscat_csv()
