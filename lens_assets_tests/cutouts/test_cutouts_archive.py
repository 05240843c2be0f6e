"""Archives of shards: what is lost is what is stated, what is valid stays valid, and what would not fit is refused."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from lens_assets.cli import shard as command
from lens_assets.science.cutouts import archive as archives
from lens_assets.science.cutouts.archive import archive_shard, restore_shard
from lens_assets.science.cutouts.fingerprint import stamp_digests
from lens_assets.science.cutouts.normalise import NormalisationSpec, background, normalise
from lens_assets.science.cutouts.quality import valid_pixels
from lens_assets.science.cutouts.quantise import loss, noise_of, restore, scale
from lens_assets.science.cutouts.settings import Settings
from lens_assets.science.cutouts.shard import Shard, write_shard
from lens_assets.science.errors import BadInput
from lens_assets.science.hashing import generator
from lens_assets.science.storage import Draft, Store
from lens_assets.science.surveys.release import DataRelease

SPEC = NormalisationSpec()


def sky(n: int, sigma: float = 2e-3, side: int = 101, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noise of ``sigma``, a galaxy in the middle, and the inverse variance that says so."""
    draw = generator("archive", n, seed)
    y, x = np.ogrid[:side, :side]
    r = np.hypot(x - side // 2, y - side // 2)
    scale = np.array([0.5, 1.0, 4.0])[None, :, None, None]
    image = draw.normal(0, 1, (n, 3, side, side)) * sigma * scale + 0.5 * np.exp(-r / 3)
    return image.astype("<f4"), np.broadcast_to((sigma * scale) ** -2, image.shape).astype("<f4").copy()


def round_trip(image: np.ndarray, invvar: np.ndarray, levels: float = 16) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Through the file format and back."""
    kept = scale(image, invvar, SPEC, levels)
    raw = archives._block(kept, [f"10000-1-{i}" for i in range(len(image))], 1, levels)
    with fits.open(io.BytesIO(fits.PrimaryHDU().header.tostring().encode() + raw)) as hdus:
        return *restore(archives._read(hdus, 1)[0]), kept.noise


@pytest.mark.parametrize("levels", [10, 16, 40])
def test_the_error_is_that_of_rounding_to_the_stated_quantum(levels):
    image, invvar = sky(4)
    back, _, noise = round_trip(image, invvar, levels)
    error = (back.astype(float) - image) / noise[..., None, None]
    assert np.abs(error).max() <= 0.5 / levels * 1.001
    assert error.std() == pytest.approx(1 / levels / 12**0.5, rel=0.01)
    assert abs(error.mean()) < 5 * error.std() / error.size**0.5  # no bias
    found = loss((image, invvar), (back, invvar), noise)
    np.testing.assert_allclose(found.rms, error.std(axis=(0, 2, 3)), rtol=1e-2)


def test_the_quantum_follows_the_noise_of_each_stamp_and_band_and_never_the_light():
    image, invvar = sky(3)
    image[1] *= 7
    invvar[1] /= 49
    noise = noise_of(image, invvar, SPEC)
    np.testing.assert_allclose(noise, np.array([[1], [7], [1]]) * 2e-3 * np.array([[0.5, 1, 4]]) * 0.829, rtol=0.02)
    bright = image.copy()
    bright[0, 1] += 0.02 * generator("halo").exponential(size=(101, 101)).astype(
        "f4"
    )  # a neighbour fills the background
    assert noise_of(bright, invvar, SPEC)[0, 1] == pytest.approx(noise[0, 1], rel=1e-6)


def test_without_a_useful_inverse_variance_the_measured_noise_counts():
    image, invvar = sky(2)
    assert noise_of(image, np.full_like(invvar, 1e-3), SPEC)[:, 1] == pytest.approx(2e-3, rel=0.05)


def test_a_pixel_deeper_than_the_rest_decides():
    """The quantum holds for every pixel of a plane, the best one included."""
    image, invvar = sky(1)
    invvar[0, 1, :10, :10] *= 25
    assert noise_of(image, invvar, SPEC)[0, 1] == pytest.approx(2e-3 / 5 * 0.829, rel=1e-5)


@hypothesis_settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 2),
            st.integers(0, 100),
            st.integers(0, 100),
            st.sampled_from([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e30, -1e30, 300.0, 1e-30]),
            st.sampled_from([0.0, 1e-38, 1e-45, 1.0, 2.5e5]),
        ),
        max_size=30,
    )
)
def test_validity_and_zeros_are_kept_pixel_by_pixel(holes):
    image, invvar = sky(1)
    for band, y, x, value, weight in holes:
        image[0, band, y, x], invvar[0, band, y, x] = value, weight if abs(value) < 1e20 else 0.0
    back, weights, _ = round_trip(image, invvar)
    np.testing.assert_array_equal(valid_pixels(back, weights), valid_pixels(image, invvar))
    np.testing.assert_array_equal(np.isfinite(back), np.isfinite(image))
    np.testing.assert_array_equal(weights > 0, invvar > 0)
    assert (back[image == 0] == 0).all()
    good = invvar > 1e-37
    np.testing.assert_allclose(weights[good], invvar[good], rtol=1.4e-3)


def test_a_valid_pixel_that_would_saturate_is_refused_with_its_object_and_band():
    image, invvar = sky(2)
    image[1, 2, 50, 50] = 1e7
    with pytest.raises(BadInput, match=r"10000-1-2, band z: .*saturate"):
        scale(image, invvar, SPEC, names=["10000-1-1", "10000-1-2"])
    invvar[1, 2, 50, 50] = 0  # what has no weight may hold anything
    assert np.isfinite(round_trip(image, invvar)[0]).all()


@pytest.mark.parametrize(
    ("levels", "weight", "message"),
    [
        (9.9, 1.0, "faint arcs"),
        (np.nan, 1.0, "faint arcs"),
        (16, -1.0, "negative"),
        (16, np.inf, "not finite"),
        (16, np.nan, "finite"),
    ],
)
def test_what_cannot_be_stated_is_refused(levels, weight, message):
    image, invvar = sky(1)
    invvar[0, 0, 3, 3] = weight
    with pytest.raises(BadInput, match=message):
        scale(image, invvar, SPEC, levels)


def test_a_plane_without_noise_is_refused():
    image, invvar = sky(1)
    image[0, 1], invvar[0, 1] = 0.25, 0
    with pytest.raises(BadInput, match="band r: no noise"):
        scale(image, invvar, SPEC)


def test_float16_loses_what_the_integers_keep():
    """A 1 sigma arc on a bright halo: half precision steps by 2^-11 of the value, ten times the noise here."""
    image, invvar = sky(1, sigma=1e-4)
    image[0] += 2.0
    back, _, noise = round_trip(image, invvar)
    half = np.abs(image.astype(np.float16).astype(float) - image).max(axis=(2, 3)) / noise
    whole = np.abs(back.astype(float) - image).max(axis=(2, 3)) / noise
    assert (whole <= 0.5 / 16 + 2.6 * 2**-22 / noise).all()  # float32 itself leaves 1e-7 of the value open
    assert half.min() > 0.5


@pytest.fixture
def shard(practice, tmp_path) -> Path:
    """The shard of the practice release, as the asset makes it."""
    (tmp_path / ".draft").mkdir()
    draft = Draft(tmp_path / ".draft")
    write_shard(draft, DataRelease(str(practice[0])), practice[1], Settings())
    return draft.folder


def test_a_shard_comes_back_from_its_archive_within_the_loss_stated_there(shard, tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "BLOCK", 4)  # several blocks
    facts = archive_shard(shard, tmp_path / "archive", SPEC)
    assert facts["stamps"] == 15
    assert restore_shard(tmp_path / "archive", tmp_path / "back") == facts
    one, other = Shard.open(shard), Shard.open(tmp_path / "back")
    noise = noise_of(np.array(one.images()), np.array(one.invvar()), SPEC)[..., None, None]
    good = valid_pixels(one.images(), one.invvar())
    np.testing.assert_array_equal(valid_pixels(other.images(), other.invvar()), good)
    error = np.where(good, (other.images().astype(float) - one.images()) / noise, 0)
    np.testing.assert_allclose(
        facts["rms_sigma"], (error**2).sum((0, 2, 3)) ** 0.5 / good.sum((0, 2, 3)) ** 0.5, rtol=1e-9
    )
    np.testing.assert_allclose(facts["largest_sigma"], np.abs(error).max(axis=(0, 2, 3)), rtol=1e-9)
    assert max(facts["rms_sigma"]) < 0.0185
    assert facts["ratio"] < 0.25
    assert other.index.drop("stamp_digest").equals(one.index.drop("stamp_digest"))
    assert other.index["stamp_digest"].to_list() == stamp_digests(np.array(other.images()))
    assert other.rejected.equals(one.rejected)
    assert other.refused[0] == one.refused[0]


def test_median_and_mad_of_the_background_are_kept_because_steps_are_dithered():
    """On a grid of 13 steps a MAD the normalisation would be wrong by up to 4 %."""
    image, invvar = sky(12)
    back, weights, noise = round_trip(image, invvar)
    (m, s, _), (m2, s2, _) = (background(v, SPEC) for v in (image, back))
    assert np.abs(s2 / s - 1).max() < 0.01
    assert (np.abs(m2 - m) / noise).max() < 0.02
    grid = np.rint(image / noise[..., None, None] * 16) * noise[..., None, None] / 16
    assert np.abs(background(grid.astype("f4"), SPEC)[1] / s - 1).max() > 0.02
    before, after = normalise(image, SPEC, invvar > 0), normalise(back, SPEC, weights > 0)
    assert (after - before).std() < 0.035  # of a raw MAD: 0.018 sigma and the MAD's own change


def test_the_same_shard_gives_the_same_archive_bytes(shard, tmp_path):
    first, second = (archive_shard(shard, tmp_path / name, SPEC, origin="x") for name in "ab")
    assert first == second
    assert (tmp_path / "a" / "stamps.fits").read_bytes() == (tmp_path / "b" / "stamps.fits").read_bytes()


def test_any_fits_reader_can_do_without_this_package(shard, tmp_path):
    """By the words of the header alone."""
    archive_shard(shard, tmp_path / "archive", SPEC)
    with fits.open(tmp_path / "archive" / "stamps.fits") as hdus:
        assert hdus[0].header["NSTAMPS"] == 15
        words = " ".join(str(hdus[0].header["COMMENT"]).split())
        assert "IMAGE * NOISE" in words
        assert "2**((integer - 1 + BASE) / 256)" in words
        row = 7
        table = hdus["SCALE", 1].data[row]
        pixels = hdus["IMAGE", 1].data[row] * table["NOISE"][:, None, None]
        weight = hdus["INVVAR", 1].data[row]
        weight = np.where(weight > 0, 2.0 ** ((weight - 1 + table["BASE"][:, None, None]) / 256), 0)
    stamps = Shard.open(shard)
    assert stamps.index["galaxy_id"][row] == table["GALAXY_ID"]
    assert np.abs(pixels - stamps.images()[row]).max() < table["NOISE"].max() / 32 * 1.01
    np.testing.assert_allclose(weight, stamps.invvar()[row], rtol=1.4e-3)


def test_an_empty_shard_is_an_empty_archive(practice, tmp_path):
    (tmp_path / ".draft").mkdir()
    draft = Draft(tmp_path / ".draft")
    write_shard(draft, DataRelease(str(practice[0])), practice[1].head(0), Settings())
    assert archive_shard(draft.folder, tmp_path / "archive", SPEC)["stamps"] == 0
    restore_shard(tmp_path / "archive", tmp_path / "back")
    assert len(Shard.open(tmp_path / "back")) == 0


@pytest.mark.parametrize("name", ["stamps.fits", "index.parquet"])
def test_a_damaged_archive_is_refused_and_leaves_nothing(shard, tmp_path, name):
    archive_shard(shard, tmp_path / "archive", SPEC)
    content = bytearray((tmp_path / "archive" / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "archive" / name).write_bytes(content)
    with pytest.raises(BadInput, match="damaged") as caught:
        restore_shard(tmp_path / "archive", tmp_path / "back")
    assert caught.value.file.endswith(name)
    assert not (tmp_path / "back").exists()


def test_another_version_and_a_folder_that_is_none_are_refused(shard, tmp_path):
    archive_shard(shard, tmp_path / "archive", SPEC)
    told = json.loads((tmp_path / "archive" / "archive.json").read_text())
    (tmp_path / "archive" / "archive.json").write_text(json.dumps(told | {"version": 2}))
    with pytest.raises(BadInput, match="version 2"):
        restore_shard(tmp_path / "archive", tmp_path / "back")
    with pytest.raises(BadInput, match="no archive"):
        restore_shard(shard, tmp_path / "back")


def test_an_archive_that_fails_half_way_leaves_nothing_and_one_that_is_there_is_kept(shard, tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "BLOCK", 4)
    bad = tmp_path / "bad"
    shutil.copytree(shard, bad)
    image = np.load(bad / "image.npy", mmap_mode="r+")
    image[13, 0, 50, 50] = 3e8
    image.flush()
    with pytest.raises(BadInput, match="saturate"):
        archive_shard(bad, tmp_path / "out" / "archive", SPEC)
    assert list((tmp_path / "out").iterdir()) == []
    archive_shard(shard, tmp_path / "out" / "archive", SPEC)
    with pytest.raises(BadInput, match="exists"):
        archive_shard(shard, tmp_path / "out" / "archive", SPEC)


def test_the_commands_go_both_ways_and_say_what_was_lost(shard, tmp_path):
    store = Store(tmp_path / "home" / "store")
    with store.draft("cutouts", "150p000") as draft:
        for path in shard.iterdir():
            shutil.copyfile(path, draft.path(path.name))
    run = CliRunner().invoke
    done = run(command.app, ["archive", "all", "--home", str(tmp_path / "home"), "--out", str(tmp_path / "a")])
    assert done.exit_code == 0, done.output
    text = " ".join(done.output.split())
    assert "15 stamps" in text
    assert "rms error in sigma of the noise g 0.01" in text
    assert "valid pixels the same" in text
    done = run(command.app, ["restore", str(tmp_path / "a" / "cutouts-150p000"), "--out", str(tmp_path / "b")])
    assert done.exit_code == 0, done.output
    assert len(Shard.open(tmp_path / "b" / "cutouts-150p000")) == 15
    assert store.partitions("cutouts") == ["150p000"]
    for asked, words in ((["1p1"], "no shard '1p1'; there are 150p000"), (["all", "--levels", "4"], "faint arcs")):
        done = run(command.app, ["archive", *asked, "--home", str(tmp_path / "home"), "--out", str(tmp_path / "c")])
        assert done.exit_code == 1
        assert words in done.output
    done = run(command.app, ["archive", "all", "--home", str(tmp_path / "nothing")])
    assert done.exit_code == 1
    assert "no stamps" in done.output


def test_real_stamps_keep_their_features(real_stamps):
    """Real viewer stamps: with an inverse variance from their own background, loss as stated."""
    image = np.stack([np.moveaxis(s["cutout"], -1, 0) for s in real_stamps]).astype("<f4")
    invvar = np.full_like(image, 1e5)
    back, _, noise = round_trip(image, invvar)
    found = loss((image, invvar), (back, invvar), noise)
    assert (found.rms < 0.0185).all()
    assert pl.Series(noise[:, 1]).is_between(1e-3, 5e-3).all()  # r, dr10.md 4.4: 0.00233 (0.00215 to 0.00407)
