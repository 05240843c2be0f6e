"""A pool straight from the sweep file: the same bytes as by way of the whole table, whatever is in the file."""

import io

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from lens_assets.science.errors import BadInput
from lens_assets.science.negatives.attrition import reconcile
from lens_assets.science.negatives.pool import build_pool, pool_of_sweep
from lens_assets.science.negatives.rows import FrameRows
from lens_assets.science.negatives.selection import Cut, load_selection
from lens_assets.science.negatives.settings import Settings
from lens_assets.science.surveys import scan
from lens_assets.science.surveys.settings import Settings as SurveySettings
from lens_assets.science.surveys.sweeps import read_sweep

TILE = "150p000"
PAPER = load_selection("paper-iv")


def written(frame):
    """The bytes of a table as an artefact holds them."""
    stream = io.BytesIO()
    frame.rechunk().write_parquet(stream, compression="zstd")
    return stream.getvalue()


def both(path, registry, profile, **more):
    """The pool, attrition and rejections by either way; they must agree to the bit."""
    frame, lost = read_sweep(path, TILE)
    slow = (*build_pool(frame, registry, profile, Settings(), **more), lost)
    fast = pool_of_sweep(path, TILE, registry, profile, Settings(), **more)
    for a, b in zip(fast[:2], slow[:2], strict=True):
        assert_frame_equal(a, b, check_exact=True)
        assert written(a) == written(b)
    assert fast[2].counts == slow[2].counts
    assert frame.height + lost.total == fast[1].filter(pl.col("order") == 0)["n_in"][0] + fast[2].total
    return fast


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(0, 400),
    profile=st.sampled_from(["paper-iv", "decals-strip", "deployment", "dereddened", "own cuts"]),
    shuffle=st.booleans(),
    harm=st.lists(st.sampled_from(["nan", "turn", "copy", "dup", "away", "star", "inf"]), max_size=4),
)
def test_both_ways_give_the_same_bytes(tmp_path_factory, sky, seed, n, profile, shuffle, harm):
    rng = np.random.default_rng(seed)
    frame = sky.sweeps(n, 3, ra=(150.0, 150.2), dec=(0.0, 0.2)).sort("objid")
    frame = frame.with_columns(ref_cat=pl.Series(rng.choice(["", "T2", "GE", "L3", "XX"], n), dtype=pl.String))
    if n and (half := n // 2):  # galaxies above the cut, close together
        frame = frame.with_columns(
            pl.when(pl.col("objid") < half).then(40.0).otherwise(pl.col("flux_z")).alias("flux_z")
        )
    for what in harm if n else ():
        at = pl.col("objid") == int(rng.integers(0, n))
        frame = frame.with_columns(
            pl.when(at & (what == "nan")).then(float("nan")).otherwise(pl.col("flux_r")).alias("flux_r"),
            pl.when(at & (what == "inf")).then(float("inf")).otherwise(pl.col("ebv")).alias("ebv"),
            pl.when(at & (what == "dup")).then(pl.lit("DUP")).otherwise(pl.col("type")).alias("type"),
            pl.when(at & (what == "turn")).then(360.0).otherwise(pl.col("ra")).alias("ra"),
            pl.when(at & (what == "away")).then(-7.0).otherwise(pl.col("dec")).alias("dec"),
        )
        frame = pl.concat([frame, frame.filter(at)]) if what == "copy" else frame
    if shuffle:
        frame = frame[rng.permutation(frame.height)]
    chosen = load_selection(profile) if profile in ("paper-iv", "decals-strip", "deployment") else PAPER
    if profile == "dereddened":
        chosen = PAPER.model_copy(update={"dereddened": True})
    if profile == "own cuts":
        chosen = PAPER.model_copy(
            update={"cuts": (Cut(column="depth_r", min=23.0), Cut(column="gr", max=1.5)), "mag_z_max": None}
        )
    registry = sky.registry([(float(a), float(d)) for a, d in frame.head(3).select("ra", "dec").iter_rows() if a < 151])
    lenient = SurveySettings(max_outside_fraction=1.0)
    path = sky.write(tmp_path_factory.mktemp("sweep") / "sweep-150p000-155p005.fits", frame)
    table, lost = read_sweep(path, TILE, lenient)
    slow = build_pool(table, registry, chosen, Settings())
    fast = pool_of_sweep(path, TILE, registry, chosen, Settings(), surveys=lenient)
    assert fast[2].counts == lost.counts
    assert table.height + lost.total == frame.height
    for a, b in zip(fast[:2], slow, strict=True):
        assert_frame_equal(a, b, check_exact=True)
        assert written(a) == written(b)
    reconcile(fast[1])


@pytest.mark.parametrize("threads", [1, 3])
def test_neither_blocks_nor_threads_change_a_byte(tmp_path, sky, monkeypatch, threads):
    frame = sky.sweeps(3000, 3, ra=(150.0, 150.5), dec=(0.0, 0.5)).sort("objid")
    path = sky.write(tmp_path / "sweep-150p000-155p005.fits", frame)
    whole = both(path, sky.registry([(150.1, 0.1)]), PAPER)
    monkeypatch.setattr(scan, "_BLOCK_BYTES", 505 * 52)
    monkeypatch.setattr(scan, "_threads", lambda: threads)
    parts = both(path, sky.registry([(150.1, 0.1)]), PAPER)
    assert [written(t) for t in whole[:2]] == [written(t) for t in parts[:2]]


def test_an_empty_sweep_gives_an_empty_pool_that_adds_up(tmp_path, sky):
    path = sky.write(tmp_path / "sweep-150p000-155p005.fits", sky.sweeps(0))
    pool, attrition, lost = both(path, sky.registry([(150.1, 0.1)]), PAPER)
    assert pool.height == lost.total == 0
    assert attrition.filter(pl.col("stage") == "filter")["n_in"].to_list() == [0] * 8
    assert "galaxy_id" in pool.columns


def test_errors_of_the_file_are_those_of_the_table(tmp_path, sky):
    path = sky.write(tmp_path / "sweep-150p000-155p005.fits", sky.sweeps(50, 3))
    content = bytearray(path.read_bytes())
    content[-9000] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(BadInput, match="DATASUM") as fault:
        pool_of_sweep(path, TILE, sky.registry([]), PAPER, Settings())
    assert fault.value.file == str(path)


def test_a_cut_on_a_column_that_does_not_exist_is_named_by_either_way(tmp_path, sky):
    frame = sky.sweeps(20, 3)
    path = sky.write(tmp_path / "sweep-150p000-155p005.fits", frame)
    profile = PAPER.model_copy(update={"cuts": (Cut(column="colour", min=1.0),)})
    for make in (
        lambda: build_pool(frame, sky.registry([]), profile, Settings()),
        lambda: pool_of_sweep(path, TILE, sky.registry([]), profile, Settings()),
    ):
        with pytest.raises(BadInput) as fault:
            make()
        assert fault.value.column == "colour"


def test_rows_of_a_table_are_checked_once_for_an_object_that_is_there_twice(sky):
    frame = sky.sweeps(9, 3)
    assert FrameRows(frame[::-1]).height == 9
    with pytest.raises(BadInput, match="more than once"):
        FrameRows(pl.concat([frame, frame[:1]]))


def _published(sky):
    """Objects that fail the published cuts in known numbers: (expected steps, table).

    100 pass; of the rest each group fails one cut, or two. Paper: TYPE SER, DEV or REX among negatives, at least 3 exposures
    in g, r and z, z < 20, Dec < +32 (which no object of this tile can fail), and no known lens within 11 arcsec.
    """
    groups = [
        (100, {}), (40, {"type": "PSF"}), (30, {"type": "EXP"}), (20, {"nobs_g": 2}), (15, {"nobs_r": 0}), (12, {"nobs_z": 1}),
        (50, {"flux_z": 9.99}), (5, {"flux_z": -1.0}), (8, {"type": "PSF", "nobs_z": 2}), (6, {"nobs_g": 1, "flux_z": 0.0}),
    ]  # fmt: skip
    parts, first = [], 0
    for n, fixed in groups:
        parts.append(sky.eligible(n, 3, first=first, ra=(150.0, 154.9), dec=(0.0, 4.9), **fixed))
        first += n
    steps = [  # step, n_in, removed, n_left, removed_alone
        ("finite_position", 286, 0, 286, 0), ("dec_max", 286, 0, 286, 0), ("type", 286, 78, 208, 78),
        ("nobs_g", 208, 26, 182, 26), ("nobs_r", 182, 15, 167, 15), ("nobs_z", 167, 12, 155, 20), ("mag_z", 155, 55, 100, 61),
        ("known_lens", 100, 4, 96, 5),
    ]  # fmt: skip
    return pl.concat(parts), steps


def test_the_cuts_of_the_published_search_give_the_known_attrition(tmp_path, sky):
    frame, steps = _published(sky)
    lenses = [
        *frame.filter(pl.col("objid") < 4).select("ra", "dec").iter_rows()
    ]  # four that pass, and one that does not
    lenses += [*frame.filter(pl.col("objid") == 105).select("ra", "dec").iter_rows()]
    path = sky.write(tmp_path / "sweep-150p000-155p005.fits", frame)
    pool, attrition, lost = both(path, sky.registry(lenses), PAPER)
    found = attrition.filter(pl.col("stage") == "filter").select("step", "n_in", "removed", "n_left", "removed_alone")
    assert found.rows() == steps
    assert pool.height == 96
    assert lost.total == 0
    strata = {
        row["step"]: (row["n_in"], row["n_left"]) for row in attrition.filter(pl.col("stage") == "stratum").to_dicts()
    }
    assert strata["REX|3-5"] == (196, 96)
    assert strata["PSF|3-5"] == (40, 0)
    assert strata["PSF|1-2"] == (8, 0)
    assert strata["EXP|3-5"] == (30, 0)
    assert strata["REX|1-2"] == (12, 0)
    strip = build_pool(read_sweep(path, TILE)[0], sky.registry(lenses), load_selection("decals-strip"), Settings())[0]
    assert strip["galaxy_id"].to_list() == pool["galaxy_id"].to_list()


def test_the_southern_sky_is_in_the_published_selection_and_not_in_the_strip(tmp_path, sky):
    south = sky.eligible(10, 3, ra=(150.0, 154.0), dec=(-34.9, -30.1))
    path = sky.write(tmp_path / "sweep-150m035-155m030.fits", south)
    sizes = {
        name: pool_of_sweep(path, "150m035", sky.registry([]), load_selection(name), Settings())[0].height
        for name in ("paper-iv", "decals-strip", "deployment")
    }
    assert sizes == {"paper-iv": 10, "decals-strip": 0, "deployment": 10}
