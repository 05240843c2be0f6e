"""Features against profiles whose answers are known, planted shortcuts against their colours, and real stamps."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy.ndimage import convolve1d
from sklearn.metrics import roc_auc_score

from lens_assets.science.columns.cutouts import SHORTCUTS
from lens_assets.science.cutouts.features import (
    RESAMPLED_SIGMA,
    annulus_snr,
    noise_lags,
    shortcut_features,
    sky_invvar,
)
from lens_assets.science.cutouts.figures import feature_distributions, gallery, rgb
from lens_assets.science.cutouts.normalise import NormalisationSpec, normalise
from lens_assets.science.cutouts.quality import quality
from lens_assets.science.cutouts.report import quality_report
from lens_assets.science.cutouts.settings import Settings
from lens_assets.science.cutouts.shard import Shard, write_shard
from lens_assets.science.cutouts.shortcut import _weighted_auc, shortcut_report
from lens_assets.science.errors import BadInput
from lens_assets.science.hashing import generator
from lens_assets.science.storage import Draft
from lens_assets.science.surveys.release import DataRelease

SPEC = NormalisationSpec()
Y, X = np.mgrid[-50:51, -50:51]
R = np.hypot(X, Y)


def stack(*planes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One stamp of three bands with unit inverse variance."""
    images = np.stack(planes if len(planes) == 3 else planes * 3)[None].astype(np.float32)
    return images, np.ones_like(images)


def sky(n: int, seed: object, sigma: float = 2e-3) -> tuple[np.ndarray, np.ndarray]:
    images = generator("features", seed).normal(0, sigma, (n, 3, 101, 101)).astype(np.float32)
    return images, np.full_like(images, sigma**-2)


def test_apertures_and_annuli_are_means_over_their_pixels():
    images, invvar = stack(R)
    f = shortcut_features(images, invvar).row(0, named=True)
    for radius in (4, 8, 12):
        assert f[f"core_{radius}_g"] == pytest.approx(R[radius > R].mean(), rel=1e-6)
    assert f["annulus_r"] == pytest.approx(R[(R >= 4) & (R < 16)].mean(), rel=1e-6)
    assert f["outer_z"] == pytest.approx(R[(R >= 16) & (R < 28)].mean(), rel=1e-6)
    ring = R[(R >= 32.5) & (R < 45)].astype(np.float32)
    assert f["background_g"] == pytest.approx(np.median(ring))
    assert f["background_mad_g"] == pytest.approx(np.median(np.abs(ring - np.median(ring))))
    assert f["p25_g"] == pytest.approx(np.percentile(R, 25), rel=1e-6)
    assert f["p99_g"] == pytest.approx(np.percentile(R, 99), rel=1e-6)
    assert f["median_g"] == pytest.approx(np.median(R), rel=1e-6)


def test_the_radial_gradient_of_a_cone_is_its_slope_and_a_plane_has_none():
    cone = shortcut_features(*stack(3.0 - 0.02 * R)).row(0, named=True)
    assert cone["radial_gradient_r"] == pytest.approx(-0.02, rel=1e-5)
    plane = shortcut_features(*stack(3.0 + 0.5 * X)).row(0, named=True)
    assert plane["radial_gradient_r"] == pytest.approx(0, abs=1e-7)


def test_the_laplacian_of_a_paraboloid_is_four_a_and_a_plane_has_none():
    bowl = shortcut_features(*stack(0.25 * (X**2 + Y**2))).row(0, named=True)
    assert bowl["laplacian_core_r"] == pytest.approx(1.0, rel=1e-5)
    assert bowl["laplacian_annulus_r"] == pytest.approx(1.0, rel=1e-5)
    plane = shortcut_features(*stack(X + 2.0 * Y)).row(0, named=True)
    assert plane["laplacian_core_g"] == pytest.approx(0, abs=1e-8)


def test_asymmetry_is_blind_to_round_light_one_for_noise_and_large_for_an_arc():
    noise, invvar = sky(40, "asymmetry")
    plain = shortcut_features(noise, invvar)["asymmetry_r"].to_numpy()
    assert plain.mean() == pytest.approx(1.0, abs=0.02)
    ring_light = (0.05 / (1 + np.floor(R)) * (R < 20)).astype(np.float32)  # constant within each ring
    round_ = shortcut_features(noise + ring_light, invvar)["asymmetry_r"].to_numpy()
    np.testing.assert_allclose(round_, plain, rtol=1e-3)
    arc = 0.01 * ((R > 6) & (R < 9) & (X > 0))
    assert (shortcut_features(noise + arc.astype(np.float32), invvar)["asymmetry_r"].to_numpy() > 1.3).all()


def test_colour_is_annulus_minus_core_in_magnitudes():
    core, arc = 1.0 * (R < 4), 0.5 * ((R >= 4) & (R < 16))
    flicker = 1e-6 * ((X + Y) % 2)
    images, invvar = stack(core * 1 + arc * 4 + flicker, core * 2 + arc * 2 + flicker, core * 2 + arc * 2 + flicker)
    f = shortcut_features(images, invvar).row(0, named=True)
    assert f["colour_gr"] == pytest.approx(-2.5 * np.log10((4 / 2) / (1 / 2)), abs=1e-4)
    assert f["colour_rz"] == pytest.approx(0, abs=1e-4)
    images[:, 0] -= 10 * (R < 4)
    assert shortcut_features(images, invvar)["colour_gr"][0] is None


def test_the_saturated_share_is_what_the_normalisation_clips():
    images, invvar = sky(6, "saturation")
    images += (0.2 * np.exp(-R / 3)).astype(np.float32)
    clipped = (np.abs(normalise(images, SPEC)) >= SPEC.clip).mean(axis=(2, 3))
    f = shortcut_features(images, invvar)
    np.testing.assert_allclose(
        f.select("saturated_g", "saturated_r", "saturated_z").to_numpy(), clipped, atol=2 / 101**2
    )
    assert clipped.min() > 0


def test_the_edge_score_sees_a_frame_and_not_the_middle():
    images, invvar = sky(1, "edge")
    base = shortcut_features(images, invvar)["edge_r"][0]
    framed = images.copy()
    framed[:, :, :3] += 0.01
    framed[:, :, -3:] += 0.01
    framed[:, :, :, :3] += 0.01
    framed[:, :, :, -3:] += 0.01
    mad = shortcut_features(images, invvar)["background_mad_r"][0]
    assert shortcut_features(framed, invvar)["edge_r"][0] == pytest.approx(base + 0.01 / mad, rel=0.02)
    assert abs(base) < 0.3


def test_junk_in_invalid_pixels_changes_no_feature_and_a_stamp_without_valid_core_has_null():
    images, invvar = sky(3, "junk")
    invvar[:, :, 40:44, 60:64] = 0
    clean = shortcut_features(images, invvar)
    dirty = images.copy()
    dirty[:, :, 40:44, 60:64] = np.array([1e20, np.nan, np.inf, -5.0], np.float32)
    assert shortcut_features(dirty, invvar).equals(clean)
    invvar[0, 1, 40:61, 40:61] = 0
    f = shortcut_features(images, invvar)
    assert f["core_8_r"].to_list()[0] is None
    assert f["core_8_r"].null_count() == 1
    assert f["annulus_g"].null_count() == 0


def test_features_of_a_stamp_do_not_feel_the_batch():
    images, invvar = sky(70, "batch")
    whole = shortcut_features(images, invvar)
    assert shortcut_features(images[66:67], invvar[66:67]).equals(whole[66:67])


def lanczos_noise(n: int, passes: int, seed: object, sigma: float = 2e-3) -> np.ndarray:
    """White noise resampled with Lanczos-3 at a random phase per stamp, ``passes`` times; each kernel sums to one."""
    draw = generator("lanczos", seed)
    out = draw.normal(0, sigma, (n, 3, 113, 113))
    for _ in range(passes):
        for i in range(n):
            for axis in (1, 2):
                t = np.arange(-3, 4) - draw.uniform(-0.5, 0.5)
                kernel = np.where(np.abs(t) < 3, np.sinc(t) * np.sinc(t / 3), 0)
                out[i] = convolve1d(out[i], kernel / kernel.sum(), axis=axis)
    return out[:, :, 6:-6, 6:-6].astype(np.float32)


@pytest.mark.parametrize("passes", [0, 1, 2])
def test_the_annulus_snr_of_pure_sky_has_unit_scatter_whatever_the_resampling(passes):
    """The inverse variance states the noise before resampling; the sum over the annulus must then scatter by one."""
    images = lanczos_noise(400, passes, "snr")
    snr = annulus_snr(images, np.full_like(images, 2e-3**-2))
    background = 1.2533 * np.sqrt(
        760 / 3036
    )  # the median of the annulus is subtracted from 760 pixels, and is noisy too
    assert snr.std() == pytest.approx(np.hypot(1, background), rel=0.06)
    assert abs(snr.mean()) < 0.12


def test_the_annulus_snr_is_linear_in_the_flux_of_an_arc():
    images, invvar = sky(30, "arc")
    arc = (np.abs(R - 8) < 1.5) & (X > 2)
    faint = annulus_snr(images + (1e-3 * arc).astype(np.float32), invvar) - annulus_snr(images, invvar)
    count = ((R >= 4) & (R < 16)).sum()
    assert faint.mean() == pytest.approx(1e-3 * arc.sum() / (2e-3 * np.sqrt(count)), rel=1e-3)


@pytest.mark.parametrize(("passes", "lag1", "lag2"), [(0, 0.0, 0.0), (1, 0.112, -0.076), (2, 0.196, -0.128)])
def test_the_noise_lags_tell_how_often_pixels_were_resampled(passes, lag1, lag2):
    images = lanczos_noise(60, passes, "lags")
    lags = noise_lags(images, np.ones_like(images)).mean().row(0, named=True)
    for band in "grz":
        assert lags[f"noise_lag1_{band}"] == pytest.approx(lag1, abs=0.025)
        assert lags[f"noise_lag2_{band}"] == pytest.approx(lag2, abs=0.025)


def test_one_resampling_against_two_is_red_and_one_against_one_is_not():
    once, again, twice = (lanczos_noise(40, p, ("reader", k)) for k, p in enumerate((1, 1, 2)))
    y = np.repeat([0, 1], 40)
    for other, expected in ((twice, {"red"}), (again, {"green"})):
        images = np.concatenate([once, other])
        report = shortcut_report(noise_lags(images, np.ones_like(images)), y)
        assert set(report.filter(pl.col("feature").str.starts_with("noise_lag1"))["colour"]) == expected


def test_sky_invvar_means_the_same_as_a_coadds():
    for source, passes in (("brick", 1), ("viewer", 2)):
        images = lanczos_noise(60, passes, ("invvar", passes))
        level = sky_invvar(images, source)[:, 0, 0, 0]
        assert np.median(level) ** -0.5 == pytest.approx(2e-3, rel=0.03)
        assert RESAMPLED_SIGMA[source] < 1


@hypothesis_settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 60), st.integers(1, 8))
def test_the_auc_is_sklearns_with_ties_and_weights(seed, n, levels):
    draw = generator("auc", seed)
    y = draw.integers(0, 2, n).astype(bool)
    y[:2] = (True, False)
    x = np.sort(draw.integers(0, levels, n).astype(float))
    weights = draw.integers(0, 4, (3, n)).astype(float)
    weights[:, :2] += 1
    ties = np.flatnonzero(np.diff(x, prepend=np.nan) != 0)
    got = _weighted_auc(weights, y, ties)
    for value, weight in zip(got, weights, strict=True):
        assert value == pytest.approx(roc_auc_score(y, x, sample_weight=weight))


def planted(strength: float, n: int = 600) -> tuple[pl.DataFrame, np.ndarray]:
    draw = generator("planted", strength)
    y = draw.integers(0, 2, n)
    values = draw.normal(size=(n, 3))
    values[:, 0] += strength * y
    values[:, 1] -= strength * y
    return pl.DataFrame(values, schema=["up", "down", "none"]).with_columns(galaxy_id=pl.lit("x")), y


@pytest.mark.parametrize(("strength", "colour"), [(0.0, "green"), (0.55, "yellow"), (1.2, "red")])
def test_planted_shortcuts_get_their_colour_in_both_directions(strength, colour):
    """Unit normals a distance d apart have AUC = Phi(d / sqrt 2): 0.50, 0.65 and 0.80."""
    report = shortcut_report(*planted(strength))
    rows = {row["feature"]: row for row in report.iter_rows(named=True)}
    assert list(rows) == ["down", "none", "up"]
    assert rows["up"]["colour"] == rows["down"]["colour"] == colour
    assert rows["none"]["colour"] == "green"
    if strength:
        assert (rows["up"]["direction"], rows["down"]["direction"]) == ("higher", "lower")
        assert rows["up"]["lo95"] < rows["up"]["lo68"] < rows["up"]["auc"] < rows["up"]["hi68"] < rows["up"]["hi95"]
    assert SHORTCUTS.violations(report) == []


def test_the_interval_covers_the_true_auc():
    hits = 0
    for k in range(60):
        draw = generator("coverage", k)
        y = np.repeat([0, 1], 100)
        x = draw.normal(size=200) + 0.742 * y  # AUC 0.70
        row = shortcut_report(pl.DataFrame({"x": x}), y, identity=(k,), draws=200).row(0, named=True)
        hits += row["lo68"] <= 0.7001 <= row["hi68"]
    assert 30 <= hits <= 52  # 68 % of 60 is 41 +- 3.6


def test_groups_that_share_their_value_widen_the_interval():
    draw = generator("groups")
    cell = np.repeat(np.arange(40), 25)
    y = np.repeat(draw.integers(0, 2, 40), 25)
    x = np.repeat(draw.normal(size=40), 25) + 0.01 * draw.normal(size=1000)
    frame = pl.DataFrame({"x": x})
    alone = shortcut_report(frame, y).row(0, named=True)
    grouped = shortcut_report(frame, y, cell).row(0, named=True)
    assert grouped["hi68"] - grouped["lo68"] > 3 * (alone["hi68"] - alone["lo68"])
    assert grouped["auc"] == alone["auc"]


def test_the_report_does_not_depend_on_the_order_of_rows_or_columns():
    frame, y = planted(0.5)
    cell = np.arange(len(y)) % 97
    order = generator("order").permutation(len(y))
    a = shortcut_report(frame, y, cell)
    b = shortcut_report(frame.select("none", "down", "up")[order], y[order], cell[order])
    assert a.equals(b)


def test_nulls_are_left_out_and_too_few_stamps_are_not_judged():
    frame = pl.DataFrame(
        {"gappy": [None, 1.0, 2.0, float("nan")] * 10, "empty": [None] * 40},
        schema={"gappy": pl.Float64, "empty": pl.Float64},
    )
    report = {r["feature"]: r for r in shortcut_report(frame, np.arange(40) // 2 % 2).iter_rows(named=True)}
    assert (report["gappy"]["n"], report["gappy"]["n_pos"]) == (20, 10)
    assert report["empty"]["colour"] == "insufficient"
    assert report["empty"]["auc"] is None
    with pytest.raises(BadInput, match="zeros and ones"):
        shortcut_report(frame, np.full(40, 2))


@pytest.fixture(scope="module")
def shards(practice, tmp_path_factory):
    root, rows = practice
    (tmp_path_factory.getbasetemp() / "report").mkdir()
    draft = Draft(tmp_path_factory.getbasetemp() / "report")
    write_shard(draft, DataRelease(str(root)), rows, Settings(), work=tmp_path_factory.mktemp("work"))
    return [Shard.open(draft.folder)], rows


def test_the_report_joins_stamps_to_the_sample_and_counts_what_each_class_lost(shards, tmp_path):
    opened, rows = shards
    ids = rows["galaxy_id"].sort()
    sample = pl.DataFrame(
        {"galaxy_id": ids, "label": [0, 1] * 12, "split": ["train", "val", "guard"] * 8, "cell": range(24)}
    )
    report = quality_report(opened, sample, Settings(bootstrap_draws=50))
    assert report.facts["stamps"] == 15 == report.features.height
    assert report.facts["without_stamp"] == 9 == report.rejected["n"].sum()
    assert sum(report.facts["sources"].values()) == 15
    assert report.facts["duplicates"]["kinds"]["identical"] == 0
    assert report.features["core_8_r"].null_count() == 0
    assert "noise_lag1_z" in report.shortcuts["feature"].to_list()
    assert report.shortcuts["n"].max() == report.features.filter(pl.col("split") != "guard").height
    written = report.save_figures(tmp_path)
    assert sorted(p.name for p in written) == ["features.png", "negatives.png", "positives.png"]
    first = {p.name: p.read_bytes() for p in written}
    assert {p.name: p.read_bytes() for p in report.save_figures(tmp_path)} == first


def test_the_same_sky_under_two_names_in_two_splits_is_found(shards, tmp_path):
    opened, _ = shards
    folder = tmp_path / "copy"
    folder.mkdir()
    pick = [0, 1, 2, 3]
    for name in ("image.npy", "invvar.npy"):
        np.save(folder / name, np.load(opened[0].folder / name)[pick])
    index = (
        opened[0]
        .index[pick]
        .with_columns(galaxy_id="1" + pl.col("galaxy_id").str.slice(1), row=pl.int_range(4, dtype=pl.Int64))
    )
    index = index.with_columns(galaxy_id=pl.col("galaxy_id").str.replace("10000-", "10002-"))
    index.write_parquet(folder / "index.parquet")
    opened[0].rejected.clear().write_parquet(folder / "rejected.parquet")
    both = [opened[0], Shard.open(folder)]
    ids = pl.concat([opened[0].index["galaxy_id"], index["galaxy_id"]])
    sample = pl.DataFrame({"galaxy_id": ids, "label": 0, "split": ["train"] * 15 + ["test"] * 4, "cell": range(19)})
    report = quality_report(both, sample, Settings(bootstrap_draws=50))
    assert report.facts["duplicates"]["with_train_or_val"]["identical"] == 4
    pairs = report.duplicates.filter(pl.col("kind") == "identical")
    assert pairs["second"].to_list() == index["galaxy_id"].to_list()
    assert pairs["separation_arcsec"].max() == pytest.approx(0.0, abs=1e-6)


def test_a_report_on_nothing_is_empty_not_an_error():
    sample = pl.DataFrame(schema={"galaxy_id": pl.String, "label": pl.Int8, "split": pl.String, "cell": pl.Int64})
    report = quality_report([], sample, Settings())
    assert report.facts["stamps"] == 0
    assert report.shortcuts.height == report.duplicates.height == 0


def test_a_gallery_is_a_picture_of_the_right_size_and_north_is_up(tmp_path):
    images, _ = sky(5, "gallery")
    path = gallery(images, [f"stamp {i}" for i in range(5)], tmp_path / "gallery.png", columns=3)
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    red = np.zeros((3, 101, 101), np.float32)
    red[2, 80:, :] = 0.5
    picture = rgb(red)
    assert picture[90, 50].argmax() == 0
    assert picture[90, 50].max() > picture[10, 50].max()
    with pytest.raises(BadInput, match="titles"):
        gallery(images, ["one"], tmp_path / "x.png")
    frame, y = planted(1.0)
    assert feature_distributions(frame, y, shortcut_report(frame, y), tmp_path / "f.png").stat().st_size > 5000


def test_real_stamps_pass_quality_and_their_measures_agree_with_those_of_their_makers(real_stamps):
    images = np.stack([s["cutout"].transpose(2, 0, 1) for s in real_stamps]).astype(np.float32)
    invvar = sky_invvar(images, "viewer")
    judged = quality(images, invvar, Settings())
    assert judged["reason"].null_count() == len(images)
    f = shortcut_features(images, invvar)
    for name, theirs in (
        ("median_r", "meta_median_r"),
        ("mad_r", "meta_mad_r"),
        ("p01_r", "meta_percentile_1_r"),
        ("p99_r", "meta_percentile_99_r"),
    ):
        np.testing.assert_allclose(f[name], [float(s[theirs]) for s in real_stamps], rtol=2e-4, err_msg=name)
    out = normalise(images, SPEC, invvar > 0)
    assert np.abs(out).max() == SPEC.clip
    sky_part = out[:, :, (R >= 32.5) & (R < 45)]
    np.testing.assert_allclose(np.median(sky_part, axis=2), 0, atol=1e-3)
    np.testing.assert_allclose(np.median(np.abs(sky_part), axis=2), 1, atol=1e-3)
    lags = noise_lags(images, invvar)
    measured = lags.select(pl.mean_horizontal([f"noise_lag1_{b}" for b in "grz"])).to_series()
    assert (measured > 0.12).all()  # two Lanczos resamplings: 0.11 to 0.29, by the phase of the second
    assert (measured < 0.29).all()
