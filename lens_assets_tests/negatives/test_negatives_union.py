"""The sample from pieces of the tiles is the sample of the whole, or is refused."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from lens_assets.science.errors import BadInput
from lens_assets.science.negatives.sample import candidates_needed, pool_counts, stratified_sample, tile_candidates
from lens_assets.science.negatives.settings import Settings
from lens_assets.science.negatives.union import candidate_limits, sample_from_pools, sample_from_tiles

S = Settings(negatives_per_positive=7, n2_share=0.3)


@pytest.fixture(scope="module")
def pool(sky):
    frame = sky.sweeps(1500, 11)
    mixed = pl.when(pl.col("objid") % 4 == 0).then(pl.lit("N2")).otherwise(pl.lit("N1"))
    return frame.filter(pl.col("type").is_in(["SER", "DEV", "REX"])).with_columns(pool=mixed)


@pytest.fixture(scope="module")
def positives(sky):
    return sky.positives(sky.eligible(12, 5, type="SER", first=10**6, nobs_z=[3, 4, 5, 6, 7, 8, 11, 12, 13, 14, 3, 9]))


def parts_of(pool, n, seed):
    where = np.random.default_rng(seed).integers(0, n, pool.height)
    return [pool.filter(pl.Series(where == i)).sample(fraction=1, shuffle=True, seed=seed) for i in range(n)]


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 9), seed=st.integers(0, 10**6), reach=st.integers(0, 2), extra=st.sampled_from([0, 1, 500]))
def test_the_sample_of_the_tiles_is_that_of_the_whole(pool, positives, n, seed, reach, extra):
    some = S.model_copy(update={"fill_reach": reach})
    whole = stratified_sample(pool, positives, some)
    parts = parts_of(pool, n, seed)
    k = int(candidate_limits(positives, some)["k"].max()) + extra
    joined = sample_from_tiles(
        [tile_candidates(p, k, some) for p in parts], [pool_counts(p) for p in parts], positives, some
    )
    streamed = sample_from_pools(iter(parts), positives, some)
    for a, b, c in zip(whole, joined, streamed, strict=True):
        assert_frame_equal(a, b, check_exact=True)
        assert_frame_equal(a, c, check_exact=True)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 6), k=st.integers(0, 60), seed=st.integers(0, 10**6))
def test_too_few_candidates_are_refused_and_never_drawn_from(pool, positives, n, k, seed):
    parts = parts_of(pool, n, seed)
    pieces, counts = [tile_candidates(p, k, S) for p in parts], [pool_counts(p) for p in parts]
    whole = stratified_sample(pool, positives, S)
    try:
        sample, strata = sample_from_tiles(pieces, counts, positives, S)
    except BadInput:
        return
    assert_frame_equal(sample, whole[0], check_exact=True)
    assert_frame_equal(strata, whole[1], check_exact=True)


def test_the_refusal_names_the_tile_and_the_stratum(pool, positives):
    parts = parts_of(pool, 2, 1)
    pieces = [tile_candidates(parts[0], 10**6, S), tile_candidates(parts[1], 3, S)]
    with pytest.raises(BadInput, match=r"3 candidates of SER\|.* N[12] in tile 1 are too few"):
        sample_from_tiles(pieces, [pool_counts(p) for p in parts], positives, S)


def test_candidates_that_are_more_than_their_counts_are_refused(pool, positives):
    with pytest.raises(BadInput, match="candidates where it counted"):
        sample_from_tiles([pool], [pool_counts(pool[:100])], positives, S)
    with pytest.raises(ValueError, match=r"longer|shorter"):
        sample_from_tiles([pool], [], positives, S)
    with pytest.raises(BadInput, match="no tiles"):
        sample_from_tiles([], [], positives, S)


def test_a_galaxy_in_two_tiles_is_refused_however_small_the_pieces(pool, positives):
    with pytest.raises(BadInput, match="more than once"):
        sample_from_pools([pool, pool], positives, S)


def test_the_limits_are_the_targets_within_reach_and_enough_for_any_pool(positives):
    limits = {(t, b): k for t, b, k in candidate_limits(positives, S).iter_rows()}
    assert limits == {("SER", "0"): 0, ("SER", "1-2"): 28, ("SER", "3-5"): 56, ("SER", "6-10"): 84, ("SER", "11+"): 56}
    assert max(limits.values()) <= candidates_needed(positives, S)


def test_the_union_is_thinned_while_it_grows(pool, positives, monkeypatch):
    from lens_assets.science.negatives import union

    sizes = []
    thinned = union._thinned

    def watched(pieces, limits):
        sizes.append(sum(p.height for p in pieces))
        return thinned(pieces, limits)

    monkeypatch.setattr(union, "_thinned", watched)
    few = positives[:2]
    parts = parts_of(pool, 40, 3)
    sample, _ = sample_from_pools(parts, few, S)
    room = 2 * int(candidate_limits(few, S)["k"].sum())
    assert len(sizes) > 3
    assert max(sizes) <= 2 * room + max(p.height for p in parts)
    assert_frame_equal(sample, stratified_sample(pool, few, S)[0], check_exact=True)
