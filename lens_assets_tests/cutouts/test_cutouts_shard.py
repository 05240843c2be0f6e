"""Shards on disk, from a release on disk: the same bytes whatever happened on the way, and reading them back."""

from __future__ import annotations

import hashlib
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from lens_assets.science.cutouts.cut import OFF_EDGE
from lens_assets.science.cutouts.fits import to_fits
from lens_assets.science.cutouts.normalise import NormalisationSpec, normalise
from lens_assets.science.cutouts.settings import Settings
from lens_assets.science.cutouts.shard import Shard, ShardSet, epoch_order, write_shard
from lens_assets.science.errors import BadInput
from lens_assets.science.storage import Draft, Store
from lens_assets.science.surveys.release import DataRelease

SETTINGS = Settings()
FILES = ("image.npy", "invvar.npy", "index.parquet", "rejected.parquet")


def draft_in(folder: Path) -> Draft:
    (folder / ".draft-1").mkdir(parents=True)
    return Draft(folder / ".draft-1")


def checksums(folder: Path) -> dict[str, str]:
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in FILES}


@pytest.fixture(scope="module")
def reference(practice, tmp_path_factory) -> tuple[Path, dict]:
    """The shard of the practice release made in one go: (folder, facts)."""
    root, rows = practice
    draft = draft_in(tmp_path_factory.mktemp("reference"))
    return draft.folder, write_shard(draft, DataRelease(str(root)), rows, SETTINGS)


def test_counts_reconcile_and_reasons_are_kept(reference, practice):
    folder, facts = reference
    shard = Shard.open(folder)
    assert facts["rows_in"] == 24 == len(shard) + shard.rejected.height
    assert facts["rejected"] == {"band z missing": 6, OFF_EDGE: 3}
    assert facts["rows"] == len(shard) == 15
    assert sorted([*shard.index["galaxy_id"], *shard.rejected["galaxy_id"]]) == sorted(practice[1]["galaxy_id"])
    assert shard.index["row"].to_list() == list(range(15))
    assert shard.index["galaxy_id"].is_sorted()


def test_stamps_are_the_pixels_of_the_coadd_at_the_place_of_the_object(reference, practice):
    root, rows = practice
    shard = Shard.open(reference[0])
    truth = dict(zip(rows["galaxy_id"], zip(rows["x_true"], rows["y_true"], strict=True), strict=True))
    for row in shard.index.iter_rows(named=True):
        x, y = truth[row["galaxy_id"]]
        assert (row["x"], row["y"]) == pytest.approx((x, y), abs=1e-5)
        left, top = round(x) - 50, round(y) - 50
        for k, band in enumerate("grz"):
            for product, stamps in (("image", shard.images()), ("invvar", shard.invvar())):
                name = f"legacysurvey-{row['brickname']}-{product}-{band}.fits.fz"
                file = root / "south/coadd" / row["brickname"][:3] / row["brickname"] / name
                with fits.open(file) as hdus:
                    expected = hdus[1].data[top : top + 101, left : left + 101]
                np.testing.assert_array_equal(stamps[row["row"], k], expected)
                assert row[f"{product}_digest_{band}"] == hashlib.sha256(file.read_bytes()).hexdigest()


def test_two_workers_and_another_order_of_rows_give_the_same_bytes(reference, practice, tmp_path):
    root, rows = practice
    draft = draft_in(tmp_path)
    facts = write_shard(draft, DataRelease(str(root)), rows.reverse(), SETTINGS, workers=2)
    assert checksums(draft.folder) == checksums(reference[0])
    assert facts == reference[1]


SCRIPT = """
import os, signal, sys
from pathlib import Path
import polars as pl
from lens_assets.science.cutouts import write
from lens_assets.science.cutouts.settings import Settings
from lens_assets.science.storage import Store
from lens_assets.science.surveys.release import DataRelease

def die(*_): os.kill(os.getpid(), signal.SIGKILL)
where = sys.argv[4]
def progress(done, total):
    if where == "after two bricks" and done == 2: die()
if where == "while renaming":
    replace, calls = os.replace, []
    def counting(a, b):
        calls.append(a)
        if len(calls) == 2: die()
        replace(a, b)
    write.os.replace = counting
if where == "while assembling":
    write.assemble = die
with Store(sys.argv[3]).draft("cutouts", "150p000") as draft:
    write.write_shard(draft, DataRelease(sys.argv[1]), pl.read_parquet(sys.argv[2]), Settings(), progress=progress)
"""


@pytest.mark.parametrize(
    ("where", "finished"), [("after two bricks", 2), ("while renaming", 1), ("while assembling", 4)]
)
def test_a_run_killed_with_signal_9_resumes_without_redoing_bricks_and_gives_the_same_bytes(
    reference, practice, tmp_path, monkeypatch, where, finished
):
    root, rows = practice
    rows.write_parquet(tmp_path / "rows.parquet")
    arguments = [str(root), str(tmp_path / "rows.parquet"), str(tmp_path / "store"), where]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], env=environment, capture_output=True, timeout=120
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    store = Store(tmp_path / "store")
    assert store.find("cutouts", "150p000") is None

    from lens_assets.science.cutouts import write

    cut = []
    original = write.cut_brick
    monkeypatch.setattr(write, "cut_brick", lambda brick, *rest: cut.append(brick.cell.name) or original(brick, *rest))
    with store.draft("cutouts", "150p000") as draft:
        write_shard(draft, DataRelease(str(root)), rows, SETTINGS)
    made = store.get("cutouts", "150p000")
    assert len(cut) == 4 - finished
    assert checksums(made.folder) == checksums(reference[0])
    left = {path.name for path in made.folder.parent.iterdir()} - {".lock"}
    assert left == {"manifest.json", made.folder.name}


def test_parts_of_other_settings_or_other_pixels_are_not_reused(practice, tmp_path):
    root, rows = practice
    one = rows.filter(pl.col("brickname") == rows["brickname"].min())
    work = tmp_path / "work"

    class StopError(Exception):
        pass

    def stop(*_):
        raise StopError

    release = DataRelease(str(root))
    with pytest.raises(StopError):
        write_shard(draft_in(tmp_path / "a"), release, one, SETTINGS, progress=stop, work=work)
    small = Settings(size=65)
    draft = draft_in(tmp_path / "b")
    write_shard(draft, release, one, small, work=work)
    assert Shard.open(draft.folder).shape == (3, 65, 65)
    assert not work.exists()

    from lens_assets.science.cutouts.write import make_part

    class Changed:
        def __init__(self, brick, files):
            self.brick, self.files = brick, files

        def __getattr__(self, name):
            return getattr(self.brick, name)

    class OtherRelease:
        def brick(self, name):
            brick = release.brick(name)
            return Changed(brick, {**brick.files, "x": "y"})

    work.mkdir()
    name = one["brickname"][0]
    first = make_part(work, release, name, one, SETTINGS)
    assert make_part(work, release, name, one, SETTINGS) == first
    assert make_part(work, OtherRelease(), name, one, SETTINGS) != first
    assert make_part(work, release, name, one[1:], SETTINGS) != first


def test_an_object_asked_for_twice_and_a_null_are_errors(practice, tmp_path):
    root, rows = practice
    with pytest.raises(BadInput, match="twice"):
        write_shard(draft_in(tmp_path / "a"), DataRelease(str(root)), pl.concat([rows, rows[:1]]), SETTINGS)
    broken = rows.with_columns(ra=pl.when(pl.int_range(pl.len()) != 2).then("ra"))
    with pytest.raises(BadInput, match="column 'ra', row 2: null"):
        write_shard(draft_in(tmp_path / "b"), DataRelease(str(root)), broken, SETTINGS)


def test_a_tile_without_objects_is_an_empty_shard(practice, tmp_path):
    root, rows = practice
    draft = draft_in(tmp_path)
    facts = write_shard(draft, DataRelease(str(root)), rows.clear(), SETTINGS, workers=2)
    shard = Shard.open(draft.folder)
    assert (len(shard), shard.rejected.height, facts["rows"]) == (0, 0, 0)
    assert shard.images().shape == (0, 3, 101, 101)
    assert len(ShardSet([shard])) == 0


@pytest.fixture(scope="module")
def two_shards(practice, tmp_path_factory) -> ShardSet:
    """The practice objects in two shards, with half of the bricks each."""
    root, rows = practice
    names = sorted(rows["brickname"].unique())
    folders = []
    for part in (names[:1], names[1:]):
        draft = draft_in(tmp_path_factory.mktemp("half"))
        write_shard(draft, DataRelease(str(root)), rows.filter(pl.col("brickname").is_in(part)), SETTINGS)
        folders.append(draft.folder)
    return ShardSet(folders)


def test_stamps_come_in_the_order_asked_across_shards(two_shards, reference):
    whole = Shard.open(reference[0])
    ids = whole.index["galaxy_id"].to_list()
    asked = [ids[k] for k in (14, 0, 7, 7, 3, 11, 1)]
    np.testing.assert_array_equal(two_shards.images(asked), whole.images()[[14, 0, 7, 7, 3, 11, 1]])
    np.testing.assert_array_equal(two_shards.invvar(pl.Series(asked)), whole.invvar(asked))
    positions = two_shards.locate(asked)
    np.testing.assert_array_equal(two_shards.images(positions), two_shards.images(asked))
    np.testing.assert_array_equal(whole.images(np.array([2, 1])), whole.images()[[2, 1]])
    assert two_shards.has([ids[3], "10000-1-1"]).tolist() == [True, False]
    assert len(two_shards) == 15
    assert two_shards.images([]).shape == (0, 3, 101, 101)


def test_a_galaxy_without_a_stamp_is_named(two_shards):
    with pytest.raises(BadInput, match="1 galaxies have no stamp, first 10000-1-1"):
        two_shards.images([two_shards.index["galaxy_id"][0], "10000-1-1"])
    with pytest.raises(BadInput, match="positions"):
        two_shards.images(np.array([15]))


def test_a_galaxy_in_two_shards_is_refused(two_shards):
    with pytest.raises(BadInput, match="several shards"):
        _ = ShardSet([two_shards.shards[0], two_shards.shards[0]]).index


def test_stamps_survive_pickling_as_paths(two_shards):
    data = pickle.dumps(two_shards)
    assert len(data) < 2000
    ids = two_shards.index["galaxy_id"][::-1]
    np.testing.assert_array_equal(pickle.loads(data).images(ids), two_shards.images(ids))  # noqa: S301 - our own bytes


def test_stamps_read_are_copies_and_the_map_is_read_only(two_shards):
    stamps = two_shards.images(np.array([0]))
    stamps[:] = 0
    assert two_shards.images(np.array([0])).std() > 0
    with pytest.raises(ValueError, match="read-only"):
        two_shards.shards[0].images()[0] = 0


def test_a_shard_cut_short_or_at_odds_with_its_index_is_named(reference, tmp_path):
    for name in FILES:
        (tmp_path / name).write_bytes((reference[0] / name).read_bytes())
    with open(tmp_path / "invvar.npy", "r+b") as stream:
        stream.truncate(1_000_000)
    with pytest.raises(BadInput, match=r"invvar\.npy"):
        Shard.open(tmp_path)
    np.save(tmp_path / "invvar.npy", np.zeros((3, 3, 101, 101), np.float32))
    with pytest.raises(BadInput, match=r"invvar\.npy.*the index 15 stamps"):
        Shard.open(tmp_path)
    with pytest.raises(BadInput, match="not a shard"):
        Shard.open(tmp_path / "nowhere")


def test_normalised_stamps_use_the_inverse_variance_where_it_matters(reference, tmp_path):
    for name in FILES:
        (tmp_path / name).write_bytes((reference[0] / name).read_bytes())
    invvar = np.load(tmp_path / "invvar.npy")
    image = np.load(tmp_path / "image.npy")
    invvar[4, 1, 90:, 20:80] = 0
    image[4, 1, 90:, 20:80] = 777.0
    np.save(tmp_path / "invvar.npy", invvar)
    np.save(tmp_path / "image.npy", image)
    index = pl.read_parquet(tmp_path / "index.parquet")
    share = np.where(np.arange(15) == 4, 660 / 101**2, index["invalid_fraction_r"])
    index.with_columns(invalid_fraction_r=pl.Series(share, dtype=pl.Float32)).write_parquet(tmp_path / "index.parquet")
    spec = NormalisationSpec()
    got = ShardSet([tmp_path]).normalised(np.arange(15), spec)
    np.testing.assert_array_equal(got, normalise(image, spec, invvar > 0))
    assert (got[4, 1, 90:, 20:80] == 0).all()


def test_an_epoch_visits_everything_once_in_an_order_that_only_identity_and_seed_decide():
    ids = pl.Series([f"10000-{320000 + i // 9}-{i}" for i in range(500)])
    order = epoch_order(ids, seed=7, epoch=3)
    assert sorted(order) == list(range(500))
    visited = ids.gather(order).to_list()
    shuffled = ids.sample(fraction=1.0, shuffle=True, seed=1)
    assert shuffled.gather(epoch_order(shuffled, 7, 3)).to_list() == visited
    assert [i for i in visited if i in set(ids[:200])] == ids[:200].gather(epoch_order(ids[:200], 7, 3)).to_list()
    assert ids.gather(epoch_order(ids, 7, 4)).to_list() != visited
    assert ids.gather(epoch_order(ids, 8, 3)).to_list() != visited
    assert abs(np.corrcoef(order, np.arange(500))[0, 1]) < 0.15


def test_a_stamp_as_fits_has_the_sky_of_its_brick(two_shards, tmp_path, practice):
    root, _ = practice
    row = two_shards.index.row(9, named=True)
    path = to_fits(two_shards, row["galaxy_id"], tmp_path / "stamp.fits")
    with fits.open(path, checksum=True) as hdus:
        np.testing.assert_array_equal(hdus["IMAGE"].data, two_shards.images([row["galaxy_id"]])[0])
        np.testing.assert_array_equal(hdus["INVVAR"].data, two_shards.invvar([row["galaxy_id"]])[0])
        header = hdus["IMAGE"].header
        stamp = WCS(header).celestial
        assert header["BANDS"] == "grz"
        assert header["BRICK"] == row["brickname"]
        assert header["PSF_R"] == pytest.approx(1.3)
        assert header["STAMPSHA"] == row["stamp_digest"]
        assert header["IMGSHA_Z"] == row["image_digest_z"]
        assert header["INVSHA_G"] == row["invvar_digest_g"]
    brick = DataRelease(str(root)).brick(row["brickname"])
    left, top = round(row["x"]) - 50, round(row["y"]) - 50
    corners = np.array([[0, 0], [100, 0], [0, 100], [100, 100], [50, 50]], float)
    expected = brick.wcs.all_pix2world(corners + np.array([left, top]), 0)
    np.testing.assert_allclose(stamp.all_pix2world(corners, 0), expected, atol=1e-4 / 3600)
