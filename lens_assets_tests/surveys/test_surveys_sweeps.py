"""Reading sweeps: values are those of the file, bad rows are counted, bad files are named."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_assets.science.columns.surveys import SWEEPS
from lens_assets.science.errors import BadInput
from lens_assets.science.surveys import schema
from lens_assets.science.surveys.conditions import bin_of, occupancy
from lens_assets.science.surveys.settings import BELOW_BIN, MISSING_BIN, Settings
from lens_assets.science.surveys.sweeps import depths, magnitudes, read_sweep

TILE = "010m005"


def refused(path, tile=TILE, settings=None):
    with pytest.raises(BadInput) as caught:
        read_sweep(path, tile, settings)
    assert caught.value.file == str(path)
    return caught.value


def test_every_value_is_the_one_astropy_reads(tmp_path, sweep_builder):
    columns, write = sweep_builder
    path = write(tmp_path, columns(9000))  # more than two blocks of rows
    frame, rejections = read_sweep(path, TILE)
    truth = fits.getdata(path, 1)
    assert frame.height == 9000
    assert rejections.total == 0
    order = frame["row"].to_numpy()
    for name in schema.NEEDED:
        got, want = frame[name.lower()].to_numpy(), np.asarray(truth[name])[order]
        want = np.char.strip(want) if want.dtype.kind == "U" else want
        assert (got == want).all(), name
    assert frame["galaxy_id"].is_sorted()
    assert not SWEEPS.violations(frame.filter(pl.col("release") > 0))


def test_magnitudes_and_depths_follow_the_definitions(tmp_path, sweep_builder):
    columns, write = sweep_builder
    values = columns(50)
    values["FLUX_G"][:5] = [10, 0, -3, 1, 100]
    values["PSFDEPTH_R"][:2] = [254, 0]
    frame = read_sweep(write(tmp_path, values), TILE)[0].sort("row")
    assert frame["mag_g"][:5].to_list() == [20.0, None, None, 22.5, 17.5]
    assert frame["gr"][1] is None
    assert frame["depth_r"][0] == pytest.approx(23.76, abs=0.005)
    assert frame["depth_r"][1] is None
    assert magnitudes([1.0])[0] == 22.5
    assert np.isnan(depths([0.0])[0])


def test_the_result_does_not_depend_on_the_order_of_rows(tmp_path, sweep_builder):
    columns, write = sweep_builder
    values = columns(300)
    a, _ = read_sweep(write(tmp_path / "a", values), TILE)
    shuffle = np.random.default_rng(0).permutation(300)
    b, _ = read_sweep(write(tmp_path / "b", {k: v[shuffle] for k, v in values.items()}), TILE)
    assert a.drop("row").equals(b.drop("row"))


def test_unusable_rows_are_counted_by_reason_and_balance(tmp_path, sweep_builder):
    columns, write = sweep_builder
    values = columns(1000)
    values["RA"][0], values["DEC"][1] = np.nan, np.inf
    values["DEC"][2] = -91
    values["TYPE"][3:6] = b"DUP"
    values["FLUX_Z"][6] = np.nan
    values["DEC"][7] = 12.0
    for name in values:
        values[name][9] = values[name][8]
    frame, rejections = read_sweep(write(tmp_path, values), TILE)
    assert rejections.counts == {
        "coordinates not finite": 2, "coordinates not on the sky": 1, "TYPE DUP": 3, "FLUX_Z not finite": 1,
        "repeated row": 1, "outside the tile": 1,
    }  # fmt: skip
    assert frame.height == 991
    assert set(frame["row"]) & {0, 1, 2, 3, 4, 5, 6, 7, 9} == set()


def test_an_empty_sweep_gives_an_empty_table(tmp_path, sweep_builder):
    columns, write = sweep_builder
    frame, rejections = read_sweep(write(tmp_path, columns(0)), TILE)
    assert frame.height == 0
    assert frame.columns == SWEEPS.names
    assert rejections.total == 0
    assert occupancy(frame).height == 0


@pytest.mark.parametrize("cut", [1, 700, 20_000, 45_000])
def test_a_truncated_sweep_is_named_in_the_error(tmp_path, sweep_builder, cut):
    columns, write = sweep_builder
    path = write(tmp_path, columns(300))
    content = path.read_bytes()
    path.write_bytes(content[:-cut])
    assert "truncated" in str(refused(path)) or "corrupt" in str(refused(path))


@settings(deadline=None)
@given(share=st.floats(0.0, 0.999))
def test_no_prefix_of_a_sweep_is_ever_taken_for_one(tmp_path_factory, sweep_builder, share):
    columns, write = sweep_builder
    path = write(tmp_path_factory.mktemp("cut"), columns(20))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refused(path)


def test_flipped_bytes_are_found_by_the_datasum(tmp_path, sweep_builder):
    columns, write = sweep_builder
    path = write(tmp_path, columns(300))
    with fits.open(path) as hdus:
        hdus.writeto(path, checksum=True, overwrite=True)
    read_sweep(path, TILE)
    content = bytearray(path.read_bytes())
    content[-9000] ^= 0xFF
    path.write_bytes(content)
    assert "DATASUM" in str(refused(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"<html>504</html>", "web page"),
        (b"\x1f\x8b\x08abc", "gunzip"),
        (b"RA,DEC\n1,2\n", "not a FITS"),
    ],
)
def test_what_is_not_fits_is_called_what_it_is(tmp_path, content, message):
    path = tmp_path / "sweep-010m005-015p000.fits"
    path.write_bytes(content)
    assert message in str(refused(path))


def test_an_absent_file_is_an_error_that_names_it(tmp_path):
    assert "no such file" in str(refused(tmp_path / "sweep-010m005-015p000.fits"))


def test_a_fits_without_a_table_is_no_sweep(tmp_path):
    path = tmp_path / "image.fits"
    fits.PrimaryHDU(np.zeros((3, 3))).writeto(path)
    assert "not a sweep" in str(refused(path))


@pytest.mark.parametrize("name", ["RA", "MASKBITS", "PSFDEPTH_Z", "FITBITS", "FLUX_W1"])
def test_a_missing_column_is_named(tmp_path, sweep_builder, name):
    columns, write = sweep_builder
    values = columns(10)
    del values[name]
    assert refused(write(tmp_path, values)).column == name


def test_a_dr8_sweep_is_recognised(tmp_path, sweep_builder):
    columns, write = sweep_builder
    values = columns(10)
    for name in ("SHAPE_R", "SHAPE_E1", "SHAPE_E2", "SERSIC", "FITBITS"):
        del values[name]
    values |= {name: np.zeros(10) for name in ("FRACDEV", "SHAPEDEV_R", "SHAPEEXP_R")}
    fault = refused(write(tmp_path, values, extra=False, formats={"MASKBITS": "I"}))
    assert fault.column == "SHAPE_R"
    assert "DR8" in str(fault)


def test_sixteen_bit_maskbits_are_refused_as_dr9(tmp_path, sweep_builder):
    columns, write = sweep_builder
    values = columns(10)
    values["MASKBITS"] %= 4096
    fault = refused(write(tmp_path, values, formats={"MASKBITS": "I"}, extra=False))
    assert fault.column == "MASKBITS"
    assert "SUB_BLOB" in str(fault)
    assert "DR9" in str(fault)


def test_another_release_number_is_refused(tmp_path, sweep_builder):
    columns, write = sweep_builder
    values = columns(10)
    values["RELEASE"][4] = 9010
    fault = refused(write(tmp_path, values))
    assert (fault.column, fault.row) == ("RELEASE", 4)
    assert "DR9" in str(fault)


def test_a_wrong_format_is_named(tmp_path, sweep_builder):
    columns, write = sweep_builder
    fault = refused(write(tmp_path, columns(10), formats={"RA": "E"}))
    assert fault.column == "RA"
    assert "'E'" in str(fault)


def test_depths_in_magnitudes_are_refused(tmp_path, sweep_builder):
    columns, write = sweep_builder
    values = columns(100)
    for band, depth in zip("GRZ", (24.7, 24.2, 23.3), strict=True):
        values[f"PSFDEPTH_{band}"] = np.random.default_rng(1).normal(depth, 0.3, 100)
    assert refused(write(tmp_path, values)).column == "PSFDEPTH_R"


def test_a_unit_of_magnitudes_in_the_header_is_refused(tmp_path, sweep_builder):
    columns, write = sweep_builder
    assert refused(write(tmp_path, columns(10), units={"GALDEPTH_G": "mag"})).column == "GALDEPTH_G"
    read_sweep(write(tmp_path / "ok", columns(10), units={"GALDEPTH_G": "1/nanomaggy^2"}), TILE)


def test_right_ascension_in_hours_is_suspected_aloud(tmp_path, sweep_builder):
    columns, write = sweep_builder
    values = columns(100, "200m005")
    values["RA"] /= 15
    fault = refused(write(tmp_path, values, "200m005"), "200m005")
    assert fault.column == "RA"
    assert "hours" in str(fault)


def test_a_sweep_of_another_tile_is_refused(tmp_path, sweep_builder):
    columns, write = sweep_builder
    fault = refused(write(tmp_path, columns(100, "020m005")))
    assert fault.column == "RA"
    assert "outside tile 010m005" in str(fault)


def test_one_identity_on_two_objects_is_refused_with_its_row(tmp_path, sweep_builder):
    columns, write = sweep_builder
    values = columns(100)
    for name in ("RELEASE", "BRICKID", "OBJID", "BRICKNAME"):
        values[name][60] = values[name][20]
    fault = refused(write(tmp_path, values))
    assert (fault.column, fault.row) == ("OBJID", 60)


def test_a_brick_name_that_is_not_its_bricks_is_refused(tmp_path, sweep_builder):
    columns, write = sweep_builder
    values = columns(20)
    values["BRICKNAME"][7] = b"0959p805"
    fault = refused(write(tmp_path, values))
    assert (fault.column, fault.row) == ("BRICKNAME", 7)


def test_an_unknown_type_is_refused_with_its_row(tmp_path, sweep_builder):
    columns, write = sweep_builder
    values = columns(20)
    values["TYPE"] = values["TYPE"].astype("S4")
    values["TYPE"][7] = b"QSO"
    fault = refused(write(tmp_path, values))
    assert (fault.column, fault.row) == ("TYPE", 7)


def test_occupancy_counts_every_object_once_and_outside_values_in_their_own_bins(tmp_path, sweep_builder):
    columns, write = sweep_builder
    values = columns(500)
    values["PSFSIZE_R"][:3] = [0.0, 0.5, 1.875]
    values["PSFDEPTH_R"][:3] = [0.0, 1e-3, 1e6]
    frame = read_sweep(write(tmp_path, values), TILE)[0]
    table = occupancy(frame)
    assert table["n"].sum() == 500
    assert {MISSING_BIN, BELOW_BIN, 7} <= set(table["psf_bin"])
    assert {MISSING_BIN, BELOW_BIN, 7} <= set(table["depth_bin"])


@settings(deadline=None)
@given(st.floats(-5, 5))
def test_a_bin_holds_its_lower_edge_and_not_its_upper(value):
    edges = [0.0, 1.0, 2.0]
    index = int(bin_of([value], edges)[0])
    lower = -np.inf if index == BELOW_BIN else edges[index]
    upper = edges[0] if index == BELOW_BIN else [*edges, np.inf][index + 1]
    assert lower <= value < upper


def test_edges_that_do_not_rise_are_refused():
    with pytest.raises(ValueError, match="strictly rising"):
        Settings(psf_edges=(1.0, 1.0))
