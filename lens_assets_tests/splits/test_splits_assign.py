"""Splits, guard ring and roles: brute force, counts, determinism, and input that is refused."""

import io

import numpy as np
import polars as pl
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_assets.science import hashing
from lens_assets.science.columns.tables import table_of
from lens_assets.science.errors import BadInput
from lens_assets.science.sphere import cell_of
from lens_assets.science.splits.assign import make_splits
from lens_assets.science.splits.cells import neighbour_cells, split_index
from lens_assets.science.splits.roles import POSITIVE_ROLES, ROLES
from lens_assets.science.splits.settings import Settings, parity

S = Settings()


def negatives(sky, n, seed=1, **more):
    frame = sky.eligible(n, seed, **{"ra": (150, 162), "dec": (-4, 4), **more})
    return frame.with_columns(
        pool=pl.lit("N1"),
        n2_category=pl.lit(None, dtype=pl.String),
        deployment_weight=pl.lit(2.0),
        selection=pl.lit("paper-iv"),
    )


def lenses(sky, n, seed=700, use="train", **more):
    return sky.positives(sky.eligible(n, seed, **{"ra": (150, 162), "dec": (-4, 4), "type": "SER", **more}), use)


@pytest.fixture(scope="module")
def made(sky):
    found = pl.concat(
        [lenses(sky, 150), lenses(sky, 20, 701, use="evaluation").with_columns(system_id="E" + pl.col("system_id"))]
    )
    return found, negatives(sky, 4000), *make_splits(found, negatives(sky, 4000), S)


def test_a_cell_goes_where_its_hash_falls_in_the_cumulated_shares():
    cells = np.arange(196608)
    got = split_index(cells, S)
    value = hashing.uniform(cells, hashing.seed_of("splits", "cell", S.seed, 0))
    assert np.array_equal(got == 0, value < 0.70)
    assert np.array_equal(got == 1, (value >= 0.70) & (value < 0.85))
    assert np.bincount(got) / cells.size == pytest.approx([0.70, 0.15, 0.15], abs=5 * np.sqrt(0.21 / cells.size))


def test_the_order_of_the_shares_is_the_stated_one_and_not_the_alphabet():
    cells = np.arange(2000)
    other = Settings(order=("test", "train", "val"))
    value = hashing.uniform(cells, hashing.seed_of("splits", "cell", S.seed, 0))
    assert np.array_equal(split_index(cells, other) == 0, value < 0.15)
    reordered = Settings(shares={"val": 0.15, "test": 0.15, "train": 0.70})
    assert np.array_equal(split_index(cells, reordered), split_index(cells, S))


@pytest.mark.parametrize(
    "bad",
    [
        {"shares": {"train": 0.8, "val": 0.15, "test": 0.15}},
        {"order": ("train", "val")},
        {"order": ("train", "val", "val")},
        {"shares": {"train": 1.0, "val": 0.0, "test": 0.0}},
        {"shares": {"train": 0.7, "dev": 0.3}, "order": ("train", "dev")},
        {"val_roles": {"select": 0.5, "threshold": 0.3, "calibrate": 0.2}},
        {"test_roles": {"host": 1.0}},
        {"nside": 100},
        {"typo": 1},
    ],
)
def test_settings_that_make_no_sense_are_refused(bad):
    with pytest.raises(ValueError, match=r".+"):
        Settings(**bad)


@pytest.mark.parametrize("arcsec", [40.0, 3600.0])
def test_points_of_the_guard_ring_are_those_of_astropy(arcsec):
    rng = np.random.default_rng(3)
    ra, dec = rng.uniform(0, 360, 200), np.degrees(np.arcsin(rng.uniform(-1, 1, 200)))
    got = neighbour_cells(ra, dec, arcsec, 128, 8)
    for i in range(8):
        p = SkyCoord(ra, dec, unit="deg").directional_offset_by(45 * i * u.deg, arcsec * u.arcsec)
        assert (got[:, i] == cell_of(p.ra.deg, p.dec.deg)).mean() == 1


def test_the_guard_ring_is_what_brute_force_finds(made):
    found, _, table, _, facts = made
    free = table.filter(pl.col("use") == "train")
    own = split_index(free["cell"].to_numpy(), S, facts["salt"])
    border = np.zeros(free.height, bool)
    centre = SkyCoord(free["ra"].to_numpy(), free["dec"].to_numpy(), unit="deg")
    for i in range(8):
        p = centre.directional_offset_by(45 * i * u.deg, 40 * u.arcsec)
        border |= split_index(cell_of(p.ra.deg, p.dec.deg), S, facts["salt"]) != own
    judge = found.filter(pl.col("use") == "evaluation")
    lens = SkyCoord(judge["ra"].to_numpy(), judge["dec"].to_numpy(), unit="deg")
    near = (centre[:, None].separation(lens[None, :]).arcsec.min(axis=1) <= 11) & (own == 0)
    assert border.sum() == facts["guard_border"] > 20
    expected = np.where(border | near, "guard", np.array(S.order)[own])
    assert free["split"].to_list() == expected.tolist()


def test_what_comes_in_goes_out_or_is_counted(sky, made):
    found, sample, table, _, facts = made
    assert table.height == found.height + sample.height == facts["rows"]
    assert table["galaxy_id"].is_sorted()
    assert set(table["galaxy_id"]) == set(found["galaxy_id"]) | set(sample["galaxy_id"])
    assert sum(facts["counts"].values()) == sum(facts["roles"].values()) == table.height
    bad = lenses(sky, 10, 5, flux_z=[9.0] * 3 + [30.0] * 7, nobs_g=[4] * 8 + [1] * 2)
    twin = bad[5:6].with_columns(system_id=pl.lit("T"), weight=pl.lit(0.5))
    table, _, facts = make_splits(pl.concat([bad, twin]), sample, S)
    assert facts["rejected"] == {
        "positive fails the screen: mag_z": 3,
        "positive fails the screen: nobs_g": 2,
        "positive: another system has the same galaxy": 1,
    }
    assert (table["label"] == 1).sum() == 5
    assert "T" not in table["system_id"].to_list()


def test_a_galaxy_that_also_trains_is_no_independent_evaluation(sky):
    both = lenses(sky, 30, 5)
    again = both[:2].with_columns(use=pl.lit("evaluation"), system_id=pl.lit("E"), weight=pl.lit(9.0))
    table, _, _ = make_splits(pl.concat([again, both]), negatives(sky, 500), S)
    assert table.filter(pl.col("split") == "evaluation").height == 0
    assert table.filter(pl.col("label") == 1).height == 30


def test_lenses_and_others_carry_what_belongs_to_them(made):
    _, _, table, _, _ = made
    lens, other = table.filter(pl.col("label") == 1), table.filter(pl.col("label") == 0)
    assert lens.select(pl.col("system_id", "tier", "weight", "channels", "use").null_count()).sum_horizontal()[0] == 0
    assert other["weight"].unique().to_list() == [1.0]
    assert other["use"].unique().to_list() == ["train"]
    assert other["channels"].list.len().max() == 0
    assert other.select(pl.col("system_id", "tier", "theta_e").null_count()).row(0) == (other.height,) * 3
    assert other["pool"].unique().to_list() == ["N1"]
    assert table["cell"].to_list() == cell_of(table["ra"].to_numpy(), table["dec"].to_numpy()).tolist()


@pytest.mark.parametrize("shaping", ["train", "val"])
def test_evaluation_lenses_only_evaluate_and_no_stamp_that_shapes_the_detector_shares_a_pixel_with_theirs(sky, shaping):
    at_once = Settings(share_tolerance=0.5)  # salt 0, with and without the lenses that judge
    sample = negatives(sky, 1500)
    found = lenses(sky, 60)
    table, *_ = make_splits(found, sample, at_once)
    close = table.filter((pl.col("split") == shaping) & (pl.col("label") == 1))[:4]
    near = SkyCoord(close["ra"].to_numpy(), close["dec"].to_numpy(), unit="deg").directional_offset_by(
        10 * u.deg, [39.9, 40.1, 5.0, 10.0] * u.arcsec
    )
    judge = lenses(sky, 4, 33, use="evaluation", ra=near.ra.deg.tolist(), dec=near.dec.deg.tolist(),
                   flux_z=[30.0, 30.0, 30.0, 1.0])  # fmt: skip
    judge = judge.with_columns(system_id="E" + pl.col("system_id"))
    table, _, facts = make_splits(pl.concat([found, judge]), sample, at_once)
    split = dict(table.select("galaxy_id", "split").iter_rows())
    # the fourth evaluation lens fails the screen itself, and still keeps others away
    assert [split[g] for g in close["galaxy_id"]] == ["guard", shaping, "guard", "guard"]
    assert [split.get(g) for g in judge["galaxy_id"]] == ["evaluation"] * 3 + [None]
    assert facts["guard_near_evaluation"] == 3
    kept = table.filter(pl.col("split").is_in(["train", "val"]))
    mine, theirs = (SkyCoord(f["ra"].to_numpy(), f["dec"].to_numpy(), unit="deg") for f in (kept, judge))
    assert mine.match_to_catalog_sky(theirs)[1].arcsec.min() > 101 * 0.262 * 2**0.5  # the diagonal of a stamp


def test_a_test_object_near_an_evaluation_lens_stays_and_is_counted(sky):
    """Both only judge: nothing is learnt from either."""
    at_once = Settings(share_tolerance=0.5)  # salt 0, with and without the lenses that judge
    sample = negatives(sky, 1500)
    found = lenses(sky, 60)
    table, *_ = make_splits(found, sample, at_once)
    close = table.filter((pl.col("split") == "test") & (pl.col("label") == 1))[:2]
    judge = lenses(sky, 2, 33, use="evaluation", ra=close["ra"].to_list(), dec=(close["dec"] + 20 / 3600).to_list())
    judge = judge.with_columns(system_id="E" + pl.col("system_id"))
    table, _, facts = make_splits(pl.concat([found, judge]), sample, at_once)
    assert table.filter(pl.col("galaxy_id").is_in(close["galaxy_id"].to_list()))["split"].to_list() == ["test"] * 2
    assert facts["test_near_evaluation"] >= 2
    assert facts["guard_near_evaluation"] == 0


def test_roles_fit_their_split_and_lenses_never_host_or_set_thresholds(made):
    _, _, table, _, _ = made
    for split, role, label in table.select("split", "role", "label").unique().iter_rows():
        assert role in ROLES[split]
        if label:
            assert role in POSITIVE_ROLES
    lens = table.filter(pl.col("label") == 1)
    assert set(lens.filter(pl.col("split") == "test")["role"]) == {"report"}
    assert set(lens.filter(pl.col("split") == "val")["role"]) == {"select", "calibrate"}
    other = table.filter((pl.col("label") == 0) & (pl.col("split") == "val"))
    shares = dict(other["role"].value_counts(normalize=True).iter_rows())
    assert shares == pytest.approx({"select": 0.3, "calibrate": 0.2, "threshold": 0.5}, abs=0.08)


def test_objects_of_one_subcell_share_a_role(made):
    _, _, table, _, facts = made
    part = table.filter((pl.col("label") == 0) & pl.col("split").is_in(["val", "test"]))
    sub = pl.Series("sub", cell_of(part["ra"].to_numpy(), part["dec"].to_numpy(), 1024))
    several = part.with_columns(sub).group_by("split", "sub").agg(pl.len(), pl.col("role").n_unique().alias("roles"))
    assert (several["len"] > 1).any()
    assert several["roles"].max() == 1
    assert facts["overlapping_roles"] >= 0


def test_the_shares_of_a_small_survey_are_met_by_a_recorded_salt(made):
    _, _, table, _, facts = made
    part = table.filter(pl.col("split").is_in(["train", "val", "test"]))
    for label in (0, 1):
        share = dict(part.filter(pl.col("label") == label)["split"].value_counts(normalize=True).iter_rows())
        assert share == pytest.approx({"train": 0.70, "val": 0.15, "test": 0.15}, abs=0.02)
    assert facts["share_deviation"] <= 1
    assert facts["salt"] > 0


def test_a_large_survey_needs_no_salt(sky):
    wide = {"ra": (0, 360), "dec": (-30, 30)}
    table, _, facts = make_splits(lenses(sky, 6000, **wide), negatives(sky, 20000, **wide), S)
    assert facts["salt"] == 0
    assert facts["guard_border"] / table.height == pytest.approx(0.045, abs=0.015)


def test_one_cell_cannot_be_shared_out_and_says_so(sky):
    place = {"ra": (150.0, 150.1), "dec": (0.0, 0.1)}
    s = Settings(max_salt=5)
    _, _, facts = make_splits(lenses(sky, 10, **place), negatives(sky, 100, **place), s)
    assert facts["share_deviation"] > 1


def test_parity_has_no_test_split(sky):
    table, _, facts = make_splits(lenses(sky, 100), negatives(sky, 1500), parity())
    assert set(table["split"]) == {"train", "val", "guard"}
    assert facts["shares"]["positives"]["train"] == pytest.approx(0.7, abs=0.02)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_order_of_rows_does_not_matter(sky, made, shuffle):
    found, sample, table, balance, facts = made
    rng = np.random.default_rng(shuffle)
    again = make_splits(found[rng.permutation(found.height)], sample[rng.permutation(sample.height)], S)

    def stored(frame):
        stream = io.BytesIO()
        frame.rechunk().write_parquet(stream, compression="zstd")
        return stream.getvalue()

    assert stored(again[0]) == stored(table)
    assert stored(again[1]) == stored(balance)
    assert again[2] == facts


def test_a_seed_gives_other_splits_and_an_object_keeps_its_own_when_others_leave(sky):
    found, sample = lenses(sky, 100), negatives(sky, 1000)
    s = Settings(max_salt=0)
    table, *_ = make_splits(found, sample, s)
    fewer, *_ = make_splits(found, sample[::3], s)
    both = fewer.join(table.select("galaxy_id", "split", "role"), on="galaxy_id", suffix="_all")
    assert both.filter((pl.col("split") != pl.col("split_all")) | (pl.col("role") != pl.col("role_all"))).height == 0
    other, *_ = make_splits(found, sample, s.model_copy(update={"seed": 1}))
    assert (other["split"] != table["split"]).mean() > 0.2


@pytest.mark.parametrize("which", ["positives", "negatives"])
@pytest.mark.parametrize("value", [None, float("nan")])
@pytest.mark.parametrize("column", ["ra", "dec"])
def test_a_missing_position_is_refused_not_put_into_a_split(sky, which, value, column):
    found, sample = lenses(sky, 5), negatives(sky, 5)
    spoil = pl.when(pl.int_range(pl.len()) == 3).then(pl.lit(value, dtype=pl.Float64)).otherwise(pl.col(column))
    found = found.with_columns(spoil.alias(column)) if which == "positives" else found
    sample = sample.with_columns(spoil.alias(column)) if which == "negatives" else sample
    with pytest.raises(BadInput, match="must be finite") as fault:
        make_splits(found, sample, S)
    assert (fault.value.column, fault.value.row) == (column, 3)


@pytest.mark.parametrize("cell", [None, 17])
def test_a_cell_that_is_null_or_of_another_place_is_refused(sky, cell):
    found = lenses(sky, 5).with_columns(
        pl.when(pl.int_range(pl.len()) == 2).then(pl.lit(cell, dtype=pl.Int64)).otherwise(pl.col("cell")).alias("cell")
    )
    with pytest.raises(BadInput, match="not the cell") as fault:
        make_splits(found, negatives(sky, 5), S)
    assert fault.value.row == 2


def test_a_lens_among_the_negatives_and_a_negative_listed_twice_are_refused(sky):
    found, sample = lenses(sky, 5), negatives(sky, 5)
    with pytest.raises(BadInput, match="is a lens"):
        make_splits(found, sample.with_columns(galaxy_id=found["galaxy_id"]), S)
    with pytest.raises(BadInput, match="listed twice"):
        make_splits(found, pl.concat([sample, sample[:1]]), S)
    with pytest.raises(BadInput, match="neither 'train' nor 'evaluation'"):
        make_splits(found.with_columns(use=pl.lit("test")), sample, S)
    with pytest.raises(BadInput, match="2 selections"):
        make_splits(found, pl.concat([sample, negatives(sky, 1, 9).with_columns(selection=pl.lit("x"))]), S)
    with pytest.raises(BadInput) as fault:
        make_splits(found.drop("psfsize_r"), sample, S)
    assert fault.value.column == "psfsize_r"


def test_the_balance_table_shows_a_split_that_differs(sky, made):
    _, _, table, balance, _ = made
    one = balance.filter((pl.col("split") == "val") & (pl.col("label") == 0) & (pl.col("quantity") == "psfsize_r"))
    values = {
        s: table.filter((pl.col("split") == s) & (pl.col("label") == 0))["psfsize_r"].to_numpy()
        for s in ("val", "train")
    }
    grid = np.sort(np.concatenate(list(values.values())))
    cdf = {s: np.searchsorted(np.sort(v), grid, side="right") / v.size for s, v in values.items()}
    assert one["ks_train"][0] == pytest.approx(np.abs(cdf["val"] - cdf["train"]).max())
    assert one["n"][0] == values["val"].size
    assert one["p50"][0] == pytest.approx(np.median(values["val"]))
    assert balance.filter(pl.col("split") == "train")["ks_train"].max() == 0


def test_what_is_written_is_what_the_registry_describes(made):
    _, _, table, balance, _ = made
    for name, frame in (("splits", table), ("balance", balance)):
        known = table_of(name)
        assert frame.columns == known.names
        assert dict(frame.schema) == {c.name: c.dtype for c in known.columns}
        assert known.violations(frame) == []
        assert known.conform(frame).equals(frame)
