"""The stratified sample: known answers, order and partition independence, fills, shortfalls, mixture, coverage."""

import io

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_assets.science.columns.tables import table_of
from lens_assets.science.errors import BadInput
from lens_assets.science.negatives.coverage import (
    coverage,
    coverage_problems,
    known_lens_problems,
    mix_problems,
    parent_counts,
    strata_problems,
)
from lens_assets.science.negatives.mixture import mixture, spread
from lens_assets.science.negatives.pool import build_pool
from lens_assets.science.negatives.sample import (
    candidates_needed,
    pool_counts,
    stratified_sample,
    tile_candidates,
)
from lens_assets.science.negatives.selection import load_selection
from lens_assets.science.negatives.settings import Settings
from lens_assets.science.negatives.strata import nobs_bin, rank_hash

PROFILE = load_selection("paper-iv")


def bytes_of(frame):
    """As the store writes it."""
    stream = io.BytesIO()
    frame.rechunk().write_parquet(stream, compression="zstd")
    return stream.getvalue()


def pool_of(sky, n_by_bin, kind="REX", n2=0.0, seed=1):
    """A pool with so many eligible objects at nobs_z 4, 8 and 12, a share of them N2."""
    nobs = [z for z, n in zip((4, 8, 12), n_by_bin, strict=True) for _ in range(n)]
    n = len(nobs)
    large = np.where(np.arange(n) % 100 < 100 * n2, 2.5, 0.7)
    frame = sky.eligible(n, seed, type=kind, nobs_z=nobs, shape_r=large)
    return build_pool(frame, sky.registry([]), PROFILE, Settings(), neighbours=frame[:0])[0]


def lenses(sky, n_by_bin, kind="REX", **more):
    nobs = [z for z, n in zip((4, 8, 12), n_by_bin, strict=True) for _ in range(n)]
    return sky.positives(sky.eligible(len(nobs), 900, type=kind, nobs_z=nobs, ra=(200, 201), **more))


def strata_of(table, *columns):
    return {r["stratum_nobs"]: tuple(r[c] for c in columns) for r in table.iter_rows(named=True)}


def test_bins_are_those_of_the_contract():
    frame = pl.DataFrame({"nobs_z": [None, -1, 0, 1, 2, 3, 5, 6, 10, 11, 99]})
    got = frame.select(nobs_bin().alias("b"))["b"].to_list()
    assert got == [None, "0", "0", "1-2", "1-2", "3-5", "3-5", "6-10", "6-10", "11+", "11+"]


def test_the_smallest_hashes_of_each_stratum_are_drawn(sky):
    pool = pool_of(sky, (200, 200, 200))
    s = Settings(negatives_per_positive=10, n2_share=0)
    sample, strata = stratified_sample(pool, lenses(sky, (2, 3, 0)), s)
    assert strata_of(strata, "n_positive", "target", "available", "drawn", "filled", "given", "shortfall") == {
        "1-2": (0, 0, 0, 0, 0, 0, 0),
        "3-5": (2, 20, 200, 20, 0, 0, 0),
        "6-10": (3, 30, 200, 30, 0, 0, 0),
        "11+": (0, 0, 200, 0, 0, 0, 0),
    }
    ranked = pool.with_columns(h=pl.Series(rank_hash(pool, s.seed)))
    for nobs, n in ((4, 20), (8, 30)):
        expected = set(ranked.filter(pl.col("nobs_z") == nobs).sort("h").head(n)["galaxy_id"])
        assert set(sample.filter(pl.col("nobs_z") == nobs)["galaxy_id"]) == expected
    assert (sample["drawn_from"] == "REX|" + sample["stratum_nobs"]).all()
    other = stratified_sample(pool, lenses(sky, (2, 3, 0)), s.model_copy(update={"seed": 5}))[0]
    assert set(other["galaxy_id"]) != set(sample["galaxy_id"])


def test_a_shortfall_is_filled_from_the_neighbouring_bin_and_what_is_left_is_reported(sky):
    pool = pool_of(sky, (5, 40, 300))
    sample, strata = stratified_sample(pool, lenses(sky, (4, 3, 2)), Settings(negatives_per_positive=10, n2_share=0))
    assert strata_of(strata, "target", "available", "drawn", "filled", "given", "shortfall") == {
        "1-2": (0, 0, 0, 0, 0, 0),
        "3-5": (40, 5, 5, 10, 0, 25),  # 6-10 has ten to spare; 11+ is not a neighbour
        "6-10": (30, 40, 30, 0, 10, 0),
        "11+": (20, 300, 20, 0, 0, 0),
    }
    fills = sample.filter(pl.concat_str("stratum_type", "stratum_nobs", separator="|") != pl.col("drawn_from"))
    assert fills.select("stratum_nobs", "drawn_from").unique().rows() == [("3-5", "REX|6-10")]
    assert fills.height == 10
    own = sample.filter((pl.col("nobs_z") == 8) & (pl.col("stratum_nobs") == "6-10"))
    assert own["rank_hash"].max() < fills["rank_hash"].min()
    assert strata_problems(strata) == ["REX: 25 of 90 negatives are missing"]
    assert strata_problems(strata, max_shortfall=0.3) == []


def test_a_longer_reach_fills_from_farther_and_never_from_another_type(sky):
    pool = pl.concat([pool_of(sky, (5, 40, 300)), pool_of(sky, (100, 0, 0), kind="SER", seed=2)])
    s = Settings(negatives_per_positive=10, n2_share=0, fill_reach=2)
    sample, strata = stratified_sample(pool, lenses(sky, (4, 3, 2)), s)
    rex = strata.filter(pl.col("type") == "REX")
    assert strata_of(rex, "filled", "shortfall")["3-5"] == (35, 0)
    assert sample["type"].unique().to_list() == ["REX"]
    assert strata_problems(strata) == []


def test_a_type_the_profile_keeps_from_negatives_is_reported_as_missing(sky):
    pool = pool_of(sky, (50, 0, 0))
    _, strata = stratified_sample(pool, lenses(sky, (2, 0, 0), kind="EXP"), Settings(negatives_per_positive=10))
    assert strata_problems(strata) == ["EXP: 20 of 20 negatives are missing"]


def test_lenses_that_fail_the_screen_or_only_evaluate_set_no_target(sky):
    found = lenses(sky, (4, 0, 0), flux_z=[30.0, 30.0, 9.0, 30.0]).with_columns(
        use=pl.Series(["train", "evaluation", "train", "train"])
    )
    found = found.with_columns(
        galaxy_id=pl.when(pl.col("objid") == 3).then(pl.lit(found["galaxy_id"][0])).otherwise(pl.col("galaxy_id"))
    )
    _, strata = stratified_sample(pool_of(sky, (90, 0, 0)), found, Settings(negatives_per_positive=10))
    assert strata["n_positive"].sum() == 1


@pytest.mark.parametrize("share", [0.0, 0.15, 0.5, 1.0])
def test_the_mixture_is_held_over_the_whole_set(sky, share):
    pool = pl.concat([pool_of(sky, (400, 300, 0), n2=0.5), pool_of(sky, (300, 0, 0), kind="SER", n2=1.0, seed=2)])
    s = Settings(negatives_per_positive=10, n2_share=share)
    found = pl.concat([lenses(sky, (10, 5, 0)), lenses(sky, (2, 0, 0), kind="SER").with_columns(galaxy_id="system_id")])
    sample, strata = stratified_sample(pool, found, s)
    total = 170 if share else 150  # without confusers the SER stratum, which has nothing else, stays empty
    assert sample.height == total
    assert (sample["pool"] == "N2").sum() == round(share * total)
    assert mix_problems(sample, s) == []
    assert strata["taken_n2"].sum() == (sample["pool"] == "N2").sum()


def test_a_mixture_that_cannot_be_held_is_reported_not_hidden(sky):
    pool = pool_of(sky, (100, 0, 0), n2=0.9)  # 90 confusers, 10 others
    s = Settings(negatives_per_positive=50, n2_share=0.15)
    sample, strata = stratified_sample(pool, lenses(sky, (2, 0, 0)), s)
    assert sample.height == 100  # holding it would cost 88 of 100: nothing is given up
    assert mix_problems(sample, s) == ["N2 is 0.900 of the sample, wanted 0.15 +- 0.010"]
    generous = s.model_copy(update={"max_mix_trim": 1.0})
    sample, strata = stratified_sample(pool, lenses(sky, (2, 0, 0)), generous)
    assert (sample["pool"].value_counts(sort=True).rows(), strata["shortfall"].sum()) == ([("N1", 10), ("N2", 2)], 88)
    assert mix_problems(sample, generous) == ["N2 is 0.167 of the sample, wanted 0.15 +- 0.083"][:0]
    assert mix_problems(sample[:0], s) == ["the sample is empty"]


def test_no_confusers_at_all_is_found(sky):
    s = Settings(negatives_per_positive=50)
    sample, _ = stratified_sample(pool_of(sky, (200, 0, 0), n2=0), lenses(sky, (2, 0, 0)), s)
    assert sample.height == 100
    assert mix_problems(sample, s) == ["N2 is 0.000 of the sample, wanted 0.15 +- 0.010"]


INTS = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50), st.floats(0, 1)), min_size=1, max_size=8)


@given(INTS, st.floats(0, 1), st.floats(0, 1))
def test_a_mixture_never_takes_more_than_there_is(rows, share, max_trim):
    n1, n2 = (np.array([r[i] for r in rows]) for i in (0, 1))
    want = np.array([int(f * (a + b)) for a, b, f in rows])
    t1, t2, trimmed = mixture(want, n1, n2, share, max_trim)
    assert ((t1 >= 0) & (t1 <= n1) & (t2 >= 0) & (t2 <= n2) & (t1 + t2 <= want)).all()
    assert (t1 + t2).sum() + trimmed == want.sum()
    assert trimmed <= max_trim * want.sum() + 1e-9
    lo, hi = np.maximum(want - n1, 0).sum(), np.minimum(want, n2).sum()
    if lo <= round(share * want.sum()) <= hi:
        assert trimmed == 0
        assert t2.sum() == round(share * want.sum())
    elif trimmed:
        assert abs(t2.sum() - share * (t1 + t2).sum()) <= 1


@given(INTS, st.floats(0, 1))
def test_spreading_is_proportional_inside_the_bounds(rows, where):
    weight = np.array([r[0] + 1 for r in rows])
    lo = np.array([min(r[:2]) for r in rows]) // 2
    hi = lo + np.array([r[1] for r in rows])
    total = int(lo.sum() + where * (hi.sum() - lo.sum()))
    got = spread(total, weight, lo, hi)
    assert got.sum() == total
    assert ((lo <= got) & (got <= hi)).all()
    free = (got > lo) & (got < hi)
    if free.sum() > 1:
        level = got[free] / weight[free]
        assert (np.abs(level - level.mean()) <= (1 + 1e-9) / weight[free].min()).all()
    with pytest.raises(ValueError, match="outside"):
        spread(int(hi.sum()) + 1, weight, lo, hi)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(0, 100))
def test_the_sample_does_not_depend_on_order_or_partitions(sky, shuffle, parts, mixed):
    tile = sky.sweeps(1500, 21)
    found = sky.positives(
        sky.eligible(6, 900, type=["SER", "REX", "DEV"] * 2, nobs_z=[4, 8, 12, 4, 8, 12], ra=(200, 201))
    )
    s = Settings(negatives_per_positive=40, n2_share=mixed / 100, fill_reach=2)
    registry = sky.registry(list(tile.head(9).select("ra", "dec").iter_rows()))
    pool, table = build_pool(tile, registry, PROFILE, s)
    sample, strata = stratified_sample(pool, found, s)
    rng = np.random.default_rng(shuffle)
    mixed_rows = tile[rng.permutation(tile.height)]
    again, table2 = build_pool(mixed_rows, registry[rng.permutation(registry.height)], PROFILE, s)
    assert bytes_of(again) == bytes_of(pool)
    assert table2.equals(table)
    to = rng.integers(0, parts, pool.height)
    pieces = [pool.filter(pl.Series(to == i)) for i in range(parts)]
    k = candidates_needed(found, s)
    union = pl.concat([tile_candidates(p, k, s) for p in pieces])
    counts = pl.concat([pool_counts(p) for p in pieces])
    drawn, strata2 = stratified_sample(union, found[rng.permutation(found.height)], s, counts=counts)
    assert bytes_of(drawn) == bytes_of(sample)
    assert strata2.equals(strata)


def test_candidates_are_bounded_and_enough(sky):
    pool = pool_of(sky, (300, 300, 300), n2=0.5)
    got = tile_candidates(pool, 7, Settings())
    assert pool_counts(got)["n"].to_list() == [7] * 6
    assert candidates_needed(lenses(sky, (2, 3, 0)), Settings(negatives_per_positive=10)) == 50
    with pytest.raises(BadInput, match="not those of these pools"):
        stratified_sample(got, lenses(sky, (2, 0, 0)), Settings(negatives_per_positive=50), counts=pool_counts(pool))


def test_deployment_weights_restore_the_parent(sky):
    pool = pool_of(sky, (400, 300, 200), n2=0.6)
    s = Settings(negatives_per_positive=10)
    sample, _ = stratified_sample(pool, lenses(sky, (3, 4, 5)), s)
    assert sample["deployment_weight"].sum() == pytest.approx(900)
    back = sample.group_by("pool", "nobs_z").agg(pl.col("deployment_weight").sum()).sort("pool", "nobs_z")
    truth = pool.group_by("pool", "nobs_z").len().sort("pool", "nobs_z")
    assert back["deployment_weight"].to_numpy() == pytest.approx(truth["len"].to_numpy())


def test_a_galaxy_in_two_tiles_is_refused(sky):
    pool = pool_of(sky, (20, 0, 0))
    with pytest.raises(BadInput, match="more than once"):
        stratified_sample(pl.concat([pool, pool[3:4]]), lenses(sky, (1, 0, 0)), Settings())


def test_an_even_sample_covers_its_parent_and_a_strip_does_not(sky):
    parent = build_pool(sky.eligible(6000, 3, ra=(100, 200), dec=(-30, 30)), sky.registry([]), PROFILE, Settings())[0]
    s = Settings(negatives_per_positive=400, n2_share=0)
    counts = pl.concat([parent_counts(parent[:2000]), parent_counts(parent[2000:])])
    sample = stratified_sample(parent, lenses(sky, (3, 0, 0)), s)[0]
    table = coverage(sample, counts)
    assert coverage_problems(table) == []
    assert table.filter(pl.col("axis") == "type").row(0)[1:4] == ("REX", 1200, parent.height)
    strip = parent.filter(pl.col("ra").is_between(160, 170))
    sample = stratified_sample(strip, lenses(sky, (1, 0, 0)), s)[0]
    problems = coverage_problems(coverage(sample, counts))
    assert any("total variation" in p for p in problems)


def test_a_hole_in_the_sky_is_named(sky):
    parent = sky.eligible(4000, 3, ra=(100, 200), dec=(-30, 30))
    parent = build_pool(parent, sky.registry([]), PROFILE, Settings())[0]
    part = parent.filter(~((pl.col("ra") < 115) & (pl.col("dec") < 0)))
    sample = stratified_sample(part, lenses(sky, (30, 0, 0)), Settings(n2_share=0))[0]
    problems = coverage_problems(coverage(sample, parent_counts(parent)), min_expected=15)
    assert any("no object in sky cell" in p for p in problems)


def test_a_known_lens_among_the_negatives_is_found(sky):
    sample = sky.eligible(50, 3)
    at = sample.row(7, named=True)
    assert known_lens_problems(sample, sky.registry([(at["ra"], at["dec"] + 20 / 3600)]), 11.0) == []
    problems = known_lens_problems(sample, sky.registry([(at["ra"], at["dec"] + 10 / 3600)]), 11.0)
    assert problems == [f"negative {at['galaxy_id']} lies 10.00 arcsec from a known system"]


def test_what_is_written_is_what_the_registry_describes(sky):
    tile = sky.sweeps(1500, 21)
    pool, table = build_pool(tile, sky.registry([]), PROFILE, Settings())
    sample, strata = stratified_sample(pool, lenses(sky, (1, 1, 1)), Settings(negatives_per_positive=5))
    for name, frame in (
        ("negative_pool", pool), ("attrition", table), ("negative_sample", sample), ("strata", strata),
    ):  # fmt: skip
        known = table_of(name)
        assert frame.columns == known.names
        assert dict(frame.schema) == {c.name: c.dtype for c in known.columns}
        assert known.violations(frame) == []
        assert known.conform(frame).height == frame.height


def test_of_two_neighbouring_bins_the_one_with_more_to_spare_fills(sky):
    s = Settings(negatives_per_positive=10, n2_share=0)
    for spare, givers in (((5, 100), {"REX|11+": 20}), ((100, 5), {"REX|3-5": 20}), ((50, 50), {"REX|3-5": 20})):
        pool = pool_of(sky, (spare[0], 10, spare[1]))
        sample, _ = stratified_sample(pool, lenses(sky, (0, 3, 0)), s)
        fills = sample.filter(pl.col("drawn_from") != "REX|6-10")
        assert dict(fills["drawn_from"].value_counts().iter_rows()) == givers
