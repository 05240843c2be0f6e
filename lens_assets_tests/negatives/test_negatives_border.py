"""Neighbours across the edge of a tile: with the borders of the tiles beside it, a pool is that of the undivided sky."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_assets.science.errors import BadInput
from lens_assets.science.negatives.border import adjacent_tiles, border, reach_arcsec
from lens_assets.science.negatives.categories import NEIGHBOUR
from lens_assets.science.negatives.pool import build_pool
from lens_assets.science.negatives.selection import load_selection
from lens_assets.science.negatives.settings import N2Thresholds, Settings
from lens_assets.science.sphere import separation
from lens_assets.science.surveys.layout import tile_at, tile_of_key

T, PAPER = N2Thresholds(), load_selection("paper-iv")
CORNERS = [(155.0, 5.0), (0.0, 5.0), (90.0, -85.0), (10.0, 20.0)]


def crowd(sky, corner, seed, n=160):
    """Galaxies and stars within an arcminute of a corner of four tiles."""
    rng = np.random.default_rng(seed)
    dec = corner[1] + rng.uniform(-60, 60, n) / 3600
    ra = (corner[0] + rng.uniform(-60, 60, n) / 3600 / np.cos(np.radians(dec))) % 360
    star = rng.random(n) < 0.15
    return sky.eligible(
        n, seed % 97, ra=ra, dec=dec, type=np.where(star, "PSF", "REX").tolist(), flux_r=rng.choice([0.5, 3.0, 15.0, 200.0], n),
        ref_cat=np.where(star, rng.choice(["T2", "GE", ""], n), "").tolist(),
    )  # fmt: skip


def pools(tiles, with_borders):
    made = []
    for key, frame in tiles.items():
        beside = [border(tiles[k], k, T) for k in adjacent_tiles(key, tiles)]
        neighbours = pl.concat(beside) if with_borders and beside else None
        made.append(
            build_pool(
                frame,
                pl.DataFrame(schema={"ra": pl.Float64, "dec": pl.Float64}),
                PAPER,
                Settings(),
                neighbours=neighbours,
            )[0]
        )
    return pl.concat(made).sort("galaxy_id").select("galaxy_id", "n2_flags", "n2_category", "pool")


@settings(max_examples=20, deadline=None)
@given(corner=st.sampled_from(CORNERS), seed=st.integers(0, 10**5))
def test_pools_of_tiles_with_borders_are_the_pool_of_the_whole_sky(sky, corner, seed):
    frame = crowd(sky, corner, seed)
    tiles = {key[0]: part for key, part in frame.partition_by("tile", as_dict=True).items()}
    assert len(tiles) > 1
    whole = build_pool(frame, sky.registry([]), PAPER, Settings())[0]
    assert pools(tiles, True).equals(whole.sort("galaxy_id").select("galaxy_id", "n2_flags", "n2_category", "pool"))


def test_without_borders_a_star_across_the_edge_is_not_seen(sky):
    frame = crowd(sky, (155.0, 5.0), 3)
    tiles = {key[0]: part for key, part in frame.partition_by("tile", as_dict=True).items()}
    alone, joined = pools(tiles, False), pools(tiles, True)
    lost = [set(b) - set(a) for a, b in zip(alone["n2_flags"], joined["n2_flags"], strict=True)]
    assert any("artefact-near-star-proxy" in names for names in lost)
    assert any("merger-blend-proxy" in names for names in lost)
    assert not any(set(a) - set(b) for a, b in zip(alone["n2_flags"], joined["n2_flags"], strict=True))


def test_a_border_is_small_and_holds_all_that_lies_within_reach_of_the_edge(sky):
    frame = sky.sweeps(20_000, 5)
    strip = border(frame, "150p000", T)
    assert strip.columns == list(NEIGHBOUR)
    assert 0 < strip.height < 0.01 * frame.height
    inside = frame.filter(pl.col("flux_r") >= 1)
    ra, dec = inside["ra"].to_numpy(), inside["dec"].to_numpy()
    to_edge = np.minimum.reduce([
        (dec - 0) * 3600, (5 - dec) * 3600, separation(ra, dec, 150.0, dec), separation(ra, dec, 155.0, dec)
    ])  # fmt: skip
    within = inside.filter(pl.Series(to_edge <= reach_arcsec(T)))
    assert set(within["objid"]) == set(strip["objid"])
    wide = border(frame, "150p000", T, overhang_arcsec=900.0)
    assert wide.height > 5 * strip.height


def test_objects_outside_their_own_tile_are_always_in_its_border(sky):
    frame = sky.eligible(4, 2, ra=[149.9, 155.2, 152.0, 152.0], dec=[2.0, 2.0, -0.2, 2.0])
    assert border(frame, "150p000", T)["objid"].to_list() == [0, 1, 2]


def test_faint_objects_and_those_without_a_position_are_in_no_border(sky):
    frame = sky.eligible(3, 2, ra=[150.0, 150.0, 150.0], dec=[2.0, 2.1, 2.2], flux_r=[0.5, 5.0, 5.0])
    frame = frame.with_columns(ra=pl.when(pl.col("objid") == 2).then(float("nan")).otherwise(pl.col("ra")))
    assert border(frame, "150p000", T)["objid"].to_list() == [1]
    with pytest.raises(BadInput) as fault:
        border(frame.drop("ref_cat"), "150p000", T)
    assert fault.value.column == "ref_cat"


@pytest.mark.parametrize(
    ("tile", "n", "some"),
    [
        ("150p000", 8, {"145m005", "155p005", "150m005"}),
        ("000p000", 8, {"355p000", "355m005", "005p005"}),
        ("150m090", 71 + 3, {"330m090", "145m085"}),
    ],
)
def test_adjacent_tiles_touch_across_the_turn_of_the_sky_and_at_the_pole(tile, n, some):
    every = [tile_at(ra + 1, dec + 1).key for ra in range(0, 360, 5) for dec in range(-90, 40, 5)]
    found = adjacent_tiles(tile, every)
    assert len(found) == n
    assert some <= set(found)
    assert tile not in found
    assert all(tile in adjacent_tiles(other, every) for other in found)
    assert tile_of_key(tile)
    assert adjacent_tiles(tile, [tile]) == []
