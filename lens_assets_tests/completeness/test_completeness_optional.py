"""Optional axes: pooled raw counts along TYPE, magnitudes and offset, with honest empty and insufficient bins."""

import numpy as np
import polars as pl
import pytest

from lens_assets.science.completeness.optional import optional_axes
from lens_assets.science.errors import BadInput


def test_bins_and_classes_equal_hand_counts(surface, simulated):
    raw = simulated.injections(skip=[(2, 2)], few=[(2, 0)])
    edges = [15.0, 20.0, 22.0, 22.05, 24.0, 40.0]
    own = optional_axes(surface, {"injection_mag_r": edges}).filter(pl.col("operating_point") == "fpr_1e-3")
    by_mag = own.filter(pl.col("axis") == "injection_mag_r").sort("i_axis")
    mag, found = raw["lensed_mag_r"].to_numpy(), (raw["score"] >= 0.7).to_numpy()
    for row, lo, hi in zip(by_mag.iter_rows(named=True), edges, edges[1:], strict=False):
        mine = (mag >= lo) & (mag < hi)
        assert (row["n_injections"], row["n_found"]) == (mine.sum(), (mine & found).sum())
        assert row["support"] == ("empty" if not mine.any() else "insufficient" if mine.sum() < 100 else "supported")
        if mine.any():
            assert row["total_lo68"] <= row["completeness"] <= row["total_hi68"]
            assert row["total_hi68"] - row["total_lo68"] >= row["host_hi68"] - row["host_lo68"]
    by_type = own.filter(pl.col("axis") == "host_type").sort("i_axis")
    assert by_type["axis_class"].to_list() == ["DEV", "SER"]
    kinds = raw["type"].to_numpy()
    assert by_type["n_found"].to_list() == [int((found & (kinds == t)).sum()) for t in ("DEV", "SER")]


def test_an_axis_nobody_recorded_has_no_rows_and_an_empty_bin_no_value(surface):
    own = optional_axes(surface)
    assert "injection_beta" not in own["axis"].to_list()  # the simulated survey records no offset
    nothing = optional_axes(surface, {"injection_mag_r": [0.0, 1.0, 40.0]}).filter(pl.col("support") == "empty")
    assert nothing["completeness"].null_count() == nothing.height == len(surface.points)
    assert np.all(nothing["n_injections"].to_numpy() == 0)


@pytest.mark.parametrize("edges", [{"colour": [0, 1]}, {"injection_mag_r": [1.0, 1.0]}, {"injection_mag_r": [1.0]}])
def test_unknown_axes_and_edges_that_do_not_rise_are_refused(surface, edges):
    with pytest.raises(BadInput):
        optional_axes(surface, edges)
