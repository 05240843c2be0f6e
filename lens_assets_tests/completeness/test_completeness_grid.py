"""Edges of the grid: half-open, never snapped."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lens_assets.science.completeness.grid import Grid
from lens_assets.science.completeness.settings import Settings

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
