"""Edges of the grid: half-open, never snapped."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lens_assets.science.completeness.grid import Grid
from lens_assets.science.completeness.settings import Settings
from lens_assets.science.errors import BadInput
from lens_assets.science.injections.hosts import bin_of
from lens_assets.science.injections.settings import Settings as InjectionSettings

GRID = Grid.of(Settings())


def test_the_default_grid_is_the_classic_one():
    assert GRID.shape == (11, 7, 5)
    assert GRID.size == 385
    np.testing.assert_allclose(GRID.psf.edges, [0.825, 0.975, 1.125, 1.275, 1.425, 1.575, 1.725, 1.875], atol=1e-12)
    np.testing.assert_allclose(GRID.depth.edges[[0, -1]], [22.25, 24.75])


@pytest.mark.parametrize("axis", GRID.axes, ids=lambda a: a.name)
def test_an_edge_belongs_to_the_upper_cell_and_the_last_edge_to_none(axis):
    np.testing.assert_array_equal(axis.index(axis.edges[:-1]), np.arange(len(axis)))
    assert axis.index(axis.edges[-1]) == -1
    np.testing.assert_array_equal(axis.index(np.nextafter(axis.edges[1:], -np.inf)), np.arange(len(axis)))
    np.testing.assert_array_equal(axis.index(axis.centres), np.arange(len(axis)))


@given(st.sampled_from(GRID.axes), st.floats(allow_nan=True, allow_infinity=True))
def test_a_value_is_in_the_cell_whose_half_width_interval_holds_it_or_in_none(axis, x):
    i = int(axis.index(x))
    if i < 0:
        assert not (axis.edges[0] <= x < axis.edges[-1])
    else:
        assert axis.edges[i] <= x < axis.edges[i + 1]


def test_a_field_deeper_than_the_grid_is_outside_not_in_the_last_bin():
    assert GRID.depth.index(25.15) == -1
    assert GRID.psf.index(1.9) == -1


@given(st.integers(0, GRID.size - 1))
def test_flat_numbers_and_indices_are_inverse(cell):
    assert GRID.flat(*GRID.unflat(cell)) == cell


def test_a_missing_index_has_no_cell():
    np.testing.assert_array_equal(GRID.flat([0, -1, 3], [0, 2, -1], [0, 0, 0]), [0, -1, -1])


def test_the_header_gives_the_same_grid_back():
    assert Grid.from_json(GRID.to_json()) == GRID


def test_uneven_centres_and_other_levels_are_refused():
    with pytest.raises(ValidationError, match="equally spaced"):
        Settings(psf=(0.9, 1.0, 1.3))
    with pytest.raises(ValidationError, match="named for 68"):
        Settings(levels=(0.68, 0.9))


def test_the_dr10_grid_reaches_the_second_peak_and_begins_with_the_classic_cells():
    deep, classic = (Grid.of(Settings(grid=name)) for name in ("dr10", "classic"))
    assert deep.shape == (11, 7, 7)
    assert deep.depth.edges[-1] == 25.75
    assert int(deep.depth.index(25.15)) == 5
    assert int(classic.depth.index(25.15)) == -1
    np.testing.assert_array_equal(deep.depth.edges[:6], classic.depth.edges)
    assert (deep.theta_e, deep.psf) == (classic.theta_e, classic.psf)
    assert Settings() == Settings(grid="classic")


def test_a_grid_and_axes_that_contradict_its_name_are_refused_and_own_axes_make_it_own():
    assert Settings(depth=(22.5, 23.0)).grid == "own"
    assert Settings(grid="own", depth=(22.5, 23.0)).psf == Settings().psf
    assert Settings.model_validate(Settings(grid="dr10").model_dump(mode="json")) == Settings(grid="dr10")
    with pytest.raises(ValueError, match="not that of the grid 'dr10'"):
        Settings(grid="dr10", depth=(22.5, 23.0))
    with pytest.raises(ValueError, match="grid"):
        Settings(grid="dr9")


@given(st.sampled_from(["classic", "dr10"]), st.floats(0.8, 1.9), st.floats(22.0, 26.0))
def test_hosts_are_put_into_the_cells_of_the_same_grid(name, psf, depth):
    grid = Grid.of(Settings(grid=name))
    campaign = InjectionSettings(**grid.for_injections())
    grid.check_injections(campaign)
    assert int(bin_of(psf, campaign.psf_centres, campaign.psf_step)) == int(grid.psf.index(psf))
    assert int(bin_of(depth, campaign.depth_centres, campaign.depth_step)) == int(grid.depth.index(depth))
    for axis, value in (("psf", grid.psf.edges), ("depth", grid.depth.edges)):
        centres, step = getattr(campaign, f"{axis}_centres"), getattr(campaign, f"{axis}_step")
        np.testing.assert_array_equal(bin_of(value, centres, step), getattr(grid, axis).index(value))


def test_a_campaign_for_another_grid_is_named():
    with pytest.raises(BadInput, match="depth_centres"):
        Grid.of(Settings(grid="dr10")).check_injections(InjectionSettings())
    Grid.of(Settings()).check_injections(InjectionSettings(theta_e=(1.0, 2.0)))
    with pytest.raises(BadInput, match="theta_e"):
        Grid.of(Settings()).check_injections(InjectionSettings(theta_e=(1.1,)))
