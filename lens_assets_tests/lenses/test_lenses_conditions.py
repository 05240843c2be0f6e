"""Survey conditions: exact counts, tiles that add up, and the share outside a grid kept as such."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_assets.science.columns.surveys import CONDITIONS
from lens_assets.science.completeness.grid import Grid
from lens_assets.science.completeness.settings import Settings as GridSettings
from lens_assets.science.errors import BadInput
from lens_assets.science.surveys.conditions import DEPTH_EDGES, check_bins, merge, occupancy, shares, with_depth
from lens_assets.science.surveys.settings import MISSING_BIN, Settings

TYPES = ["SER", "DEV", "REX", "EXP", "PSF", "DUP"]
objects = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.7, 0.825, 0.9, 1.3, 1.874, 1.875, 2.5]),
        st.sampled_from([None, 21.0, 22.25, 23.0, 24.749, 24.75, 25.2, 25.75, 27.0]),
        st.integers(0, 14), st.sampled_from(TYPES),
    ),
    max_size=60,
)  # fmt: skip


def sweeps(found):
    psf, depth, nobs, kind = zip(*found, strict=True) if found else ((), (), (), ())
    return pl.DataFrame(
        {"psfsize_r": psf, "depth_r": depth, "nobs_z": nobs, "type": kind},
        schema={"psfsize_r": pl.Float32, "depth_r": pl.Float32, "nobs_z": pl.Int16, "type": pl.String},
    )


@settings(deadline=None)
@given(objects, objects, st.sampled_from(list(DEPTH_EDGES)))
def test_tiles_add_up_to_the_footprint_in_any_order(one, other, depth):
    bins = with_depth(Settings(), depth)
    parts = [occupancy(sweeps(found), bins) for found in (one, other)]
    whole = occupancy(sweeps([*one, *other]), bins)
    assert merge(parts).equals(whole)
    assert merge(parts[::-1]).equals(whole)
    assert whole["n"].sum() == len(one) + len(other)
    assert not CONDITIONS.violations(whole)


def test_no_tile_is_an_empty_survey():
    assert merge([]).columns == CONDITIONS.names
    assert np.isnan(shares(merge([]), 7, 5)["share_outside"])


@settings(deadline=None)
@given(objects)
def test_what_is_outside_a_grid_is_counted_as_a_direct_count_of_the_objects(found):
    grid = Grid.of(GridSettings())
    table = sweeps(found)
    psf = table["psfsize_r"].to_numpy().astype(float)
    depth = table["depth_r"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
    inside = (grid.psf.index(psf) >= 0) & (grid.depth.index(depth) >= 0)
    for name in DEPTH_EDGES:
        got = shares(occupancy(table, with_depth(Settings(), name)), len(grid.psf), len(grid.depth))
        assert (got["n"], got["inside"], got["outside"]) == (len(found), inside.sum(), (~inside).sum())
        assert got["psf missing"] == (psf == 0).sum()
        assert got["depth missing"] == np.isnan(depth).sum()
        assert got["depth above"] == (depth >= 24.75).sum()
        assert got["psf below"] == ((psf > 0) & (psf < 0.825)).sum()


def test_the_deeper_range_holds_the_classic_one_and_tells_des_depths_apart():
    found = sweeps([(1.2, 22.5, 3, "SER"), (1.2, 24.6, 3, "SER"), (1.2, 25.15, 3, "SER"), (1.2, 26.2, 3, "SER")])
    classic, dr10 = (occupancy(found, with_depth(Settings(), name)) for name in ("classic", "dr10"))
    assert classic["depth_bin"].to_list() == [0, 4, 5]
    assert dr10["depth_bin"].to_list() == [0, 4, 5, 7]
    assert shares(classic, 7, 5)["share_outside"] == shares(dr10, 7, 5)["share_outside"] == 0.5
    assert shares(dr10, 7, 7)["share_outside"] == 0.25
    assert Settings().depth_edges[:6] == DEPTH_EDGES["classic"]


def test_a_grid_that_reaches_farther_than_the_bins_is_refused():
    classic = Grid.of(GridSettings())
    deep = Grid.of(GridSettings(depth=tuple(22.5 + 0.5 * k for k in range(7))))
    check_bins(Settings(), classic.psf.edges, classic.depth.edges)
    check_bins(with_depth(Settings(), "dr10"), classic.psf.edges, classic.depth.edges)
    check_bins(with_depth(Settings(), "dr10"), deep.psf.edges, deep.depth.edges)
    with pytest.raises(BadInput, match="or farther") as caught:
        check_bins(with_depth(Settings(), "classic"), deep.psf.edges, deep.depth.edges)
    assert caught.value.column == "depth_edges"
    with pytest.raises(BadInput, match="psf_edges"):
        check_bins(Settings(), [0.9, 1.1], classic.depth.edges)


def test_the_joint_counts_of_the_simulated_release_are_those_of_a_loop_over_its_sweeps(tmp_path):
    from lens_assets.science.mock.settings import MockSize
    from lens_assets.science.mock.writer import write_release
    from lens_assets.science.surveys.release import DataRelease

    size = MockSize.model_validate(
        {"name": "test", "tiles": ("000m005", "030m030"), "deep_tiles": ("030m030",), "bricks_per_tile": 1,
         "brick_pixels": 320, "galaxies": 12, "lenses": 1, "faint": 30, "stars": 10}
    )  # fmt: skip
    folders = [tmp_path / name for name in ("release", "truth", "catalogues")]
    write_release(*folders, size, 5)
    release = DataRelease(str(folders[0]))
    bins = with_depth(Settings(), "dr10")
    tables, direct = [], {}
    for tile in release.tiles():
        frame, _ = release.sweep(tile)
        tables.append(occupancy(frame, bins))
        for psf, depth, nobs, kind in frame.select("psfsize_r", "depth_r", "nobs_z", "type").iter_rows():
            key = (cell(psf if psf > 0 else None, bins.psf_edges), cell(depth, bins.depth_edges))
            key += (sum(nobs >= edge for edge in bins.nobs_edges) - 1, kind)
            direct[key] = direct.get(key, 0) + 1
    whole = merge(tables)
    assert {row[:4]: row[4] for row in whole.iter_rows()} == direct
    assert whole["n"].sum() == sum(direct.values()) > 50


def cell(value, edges):
    """Bin of one value, by counting the edges at or below it."""
    return MISSING_BIN if value is None else sum(value >= edge for edge in edges) - 1
