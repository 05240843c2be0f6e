"""From a practice release to shards: what the sweep, the coadds and the stamps say of one object must agree."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from astropy.io import fits

from lens_assets.science.columns.cutouts import CUTOUTS
from lens_assets.science.cutouts.features import noise_lags
from lens_assets.science.cutouts.fits import to_fits
from lens_assets.science.cutouts.report import quality_report
from lens_assets.science.cutouts.settings import Settings
from lens_assets.science.cutouts.shard import Shard, ShardSet, write_shard
from lens_assets.science.mock.settings import MockSize
from lens_assets.science.mock.writer import write_release
from lens_assets.science.storage import Store
from lens_assets.science.surveys.release import DataRelease

SETTINGS = Settings(bootstrap_draws=100)


@pytest.fixture(scope="module")
def survey(tmp_path_factory) -> tuple[pl.DataFrame, list[Shard], dict]:
    """Objects of a practice tile with z < 20.5 that are no stars, and their shard made through the store."""
    base = tmp_path_factory.mktemp("mock")
    size = MockSize(
        name="cutouts", n_tiles=1, bricks_per_tile=3, brick_pixels=500, galaxies=16, lenses=2, faint=30, stars=8
    )
    write_release(base / "release", base / "truth", base / "catalogues", size, seed=4)
    release = DataRelease(str(base / "release"))
    rows = pl.concat([release.sweep(tile)[0] for tile in release.tiles()])
    rows = rows.filter((pl.col("type") != "PSF") & (pl.col("mag_z") < 20.5))
    store = Store(base / "store")
    with store.draft("cutouts", "all") as draft:
        facts = write_shard(draft, release, rows, SETTINGS)
    return rows, [Shard.open(store.get("cutouts").folder)], facts


def test_every_object_has_a_stamp_or_a_reason(survey):
    rows, shards, facts = survey
    assert facts["rows_in"] == rows.height == len(shards[0]) + shards[0].rejected.height
    assert len(shards[0]) > 25
    assert CUTOUTS.violations(shards[0].index) == []


def test_conditions_and_fluxes_of_the_stamp_are_those_of_the_sweep(survey):
    rows, shards, _ = survey
    both = shards[0].index.join(rows, on="galaxy_id", suffix="_sweep", maintain_order="left")
    for band in "grz":
        np.testing.assert_allclose(both[f"psfsize_{band}"], both[f"psfsize_{band}_sweep"], rtol=0.05)
    stamps = np.asarray(shards[0].images())
    sky = np.median(stamps, axis=(2, 3), keepdims=True)
    aperture = (stamps - sky)[:, 1, 42:59, 42:59].sum(axis=(1, 2))
    assert 0.6 < np.median(aperture / both["flux_r"].to_numpy()) < 1.1
    brightest = (stamps - sky)[:, 1].reshape(len(stamps), -1)
    centre = (stamps - sky)[:, 1, 48:53, 48:53].mean(axis=(1, 2))
    assert (centre > np.percentile(brightest, 95, axis=1)).mean() > 0.8


def test_depths_and_reddening_of_the_place_travel_with_the_shard(survey, tmp_path):
    """And are in the FITS file of an object without any other table."""
    rows, shards, _ = survey
    names = ["ebv", *(f"{stem}_{band}" for stem in ("psfdepth", "galdepth") for band in "grz")]
    index = shards[0].index
    assert index.select(names).null_count().sum_horizontal()[0] == 0
    assert index.select("galaxy_id", *names).equals(
        rows.filter(pl.col("galaxy_id").is_in(index["galaxy_id"].to_list()))
        .sort("galaxy_id")
        .select("galaxy_id", *names)
    )
    header = fits.getheader(to_fits(shards[0], index["galaxy_id"][3], tmp_path / "one.fits"), "IMAGE")
    assert header["EBV"] == pytest.approx(index["ebv"][3])
    assert header["DEPTH_R"] == pytest.approx(22.5 - 2.5 * np.log10(5 / np.sqrt(index["psfdepth_r"][3])))
    assert header["GDEP_Z"] < header["DEPTH_Z"]


def test_the_noise_of_brick_stamps_was_resampled_once(survey):
    stamps = ShardSet(survey[1])
    everything = np.arange(len(stamps))
    lags = noise_lags(stamps.images(everything), stamps.invvar(everything)).median().row(0, named=True)
    for band in "grz":
        assert lags[f"noise_lag1_{band}"] == pytest.approx(0.112, abs=0.03)
        assert lags[f"noise_lag2_{band}"] == pytest.approx(-0.076, abs=0.03)


def test_every_stamp_that_passed_can_be_normalised(survey):
    stamps = ShardSet(survey[1])
    out = stamps.normalised(np.arange(len(stamps)), SETTINGS.normalisation)
    assert np.isfinite(out).all()
    assert np.abs(out).max() == SETTINGS.normalisation.clip


def test_classes_drawn_at_random_show_hardly_a_red_feature_and_workers_change_nothing(survey, monkeypatch):
    from lens_assets.science.cutouts import report

    rows, shards, _ = survey
    ids = rows["galaxy_id"].sort()
    sample = pl.DataFrame(
        {"galaxy_id": ids, "label": np.arange(len(ids)) % 2, "split": "train", "cell": range(len(ids))}
    )
    alone = quality_report(shards, sample, SETTINGS)
    assert alone.shortcuts.filter(pl.col("auc").is_not_null()).height == 74
    assert len(alone.facts["red"]) <= 2  # 37 stamps and 74 features: chance alone may colour one or two
    assert alone.facts["duplicates"]["kinds"]["alike"] == 0
    monkeypatch.setattr(report, "_CHUNK", 20)
    several = quality_report(shards, sample, SETTINGS, workers=2)
    assert several.features.equals(alone.features)
    assert several.shortcuts.equals(alone.shortcuts)
