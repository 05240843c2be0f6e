"""Files as they come: in any order, padded, widened, with a heap, with copies, and damaged in ways that must be named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_assets.science.columns.surveys import SWEEPS
from lens_assets.science.errors import BadInput
from lens_assets.science.sieve import Sieve
from lens_assets.science.surveys import fitsfile, kernel, lanes, passing, prove, scan, schema
from lens_assets.science.surveys.derive import galaxy_ids, id_order
from lens_assets.science.surveys.judging import Cuts
from lens_assets.science.surveys.settings import Settings
from lens_assets.science.surveys.sweeps import open_sweep, read_sweep

TILE = "010m005"
LIGHT = ("ra", "dec", "type", "nobs_z", "flux_r", "ref_cat")


def refused(path, tile=TILE, settings=None):
    with pytest.raises(BadInput) as caught:
        read_sweep(path, tile, settings)
    with pytest.raises(BadInput) as light:
        open_sweep(path, tile, settings, columns=LIGHT)
    assert str(light.value) == str(caught.value)
    assert caught.value.file == str(path)
    return caught.value


def promised(path):
    """The file again, with a DATASUM in every HDU."""
    with fits.open(path, mode="update") as hdus:
        for hdu in hdus:
            hdu.add_datasum()
    return path


def in_bricks(values):
    """The rows as a survey writes them: brick after brick, rising OBJID."""
    order = np.lexsort((values["OBJID"], values["BRICKID"]))
    return {k: v[order] for k, v in values.items()}


# --- order, copies, parts --------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), copies=st.integers(0, 5), block=st.integers(1, 64), threads=st.integers(1, 3))
def test_copies_are_found_wherever_they_stand(tmp_path_factory, sweep_builder, seed, copies, block, threads):
    columns, write = sweep_builder
    rng = np.random.default_rng(seed)
    values = in_bricks(columns(120))
    clean, _ = read_sweep(write(tmp_path_factory.mktemp("a"), values), TILE)
    twice = np.sort(np.concatenate([np.arange(120), rng.integers(0, 120, copies)]))
    if seed % 3:
        twice = rng.permutation(twice)
    path = promised(write(tmp_path_factory.mktemp("b"), {k: v[twice] for k, v in values.items()}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan, "_BLOCK_BYTES", block * 400)
        patch.setattr(scan, "_threads", lambda: threads)
        frame, rejections = read_sweep(path, TILE)
    assert rejections.counts == ({"repeated row": copies} if copies else {})
    assert frame.drop("row").equals(clean.drop("row"))
    first = {}
    for row, original in enumerate(twice):
        first.setdefault(int(values["OBJID"][original]), row)
    assert dict(frame.select("objid", "row").iter_rows()) == first


def test_files_in_order_are_proven_free_of_copies_without_sorting(tmp_path, sweep_builder, monkeypatch):
    columns, write = sweep_builder
    values = in_bricks(columns(500))
    monkeypatch.setattr(prove, "_repeats", lambda *a: pytest.fail("sorted the identities of a file that is in order"))
    monkeypatch.setattr(scan, "_BLOCK_BYTES", 400 * 60)
    assert read_sweep(write(tmp_path, values), TILE)[0].height == 500


@pytest.mark.parametrize("move", ["swap in a brick", "brick in two parts", "equal objids"])
def test_files_not_in_order_are_looked_at_closely(tmp_path, sweep_builder, move):
    columns, write = sweep_builder
    values = in_bricks(columns(60))
    values["BRICKID"][:], values["BRICKNAME"][:] = values["BRICKID"][0], values["BRICKNAME"][0]
    values["OBJID"] = np.arange(60)
    if move == "swap in a brick":
        values = {k: v[[1, 0, *range(2, 60)]] for k, v in values.items()}
    elif move == "brick in two parts":
        values = {k: v[[*range(30, 60), *range(30)]] for k, v in values.items()}
    else:
        for name in values:
            values[name][31] = values[name][30]
    frame, rejections = read_sweep(write(tmp_path, values), TILE)
    assert frame.height + rejections.total == 60
    assert rejections.total == (move == "equal objids")


def test_only_what_is_asked_for_is_made_and_it_is_the_same(tmp_path, sweep_builder):
    columns, write = sweep_builder
    values = columns(400)
    values["RA"][3], values["FLUX_R"][7] = np.nan, np.inf
    path = write(tmp_path, values)
    whole, lost = read_sweep(path, TILE)
    rows = open_sweep(path, TILE, columns=LIGHT)
    assert rows.names == SWEEPS.names
    assert rows.height == 398
    assert rows.rejections.counts == lost.counts
    by_row = whole.sort("row")
    for names in (LIGHT, ("psfdepth_z", "gr", "tile", "galaxy_id", "brickname", "cell", "row")):
        made = rows.columns(names).with_columns(pl.col(pl.Enum).cast(pl.String))
        assert made.equals(by_row.select(names))
    some = np.array([300, 5, 44])
    assert rows.rows(some).sort("row").equals(by_row[np.sort(some)])
    assert rows.rows(some)["galaxy_id"].is_sorted()
    assert rows.rows(np.empty(0, np.int64)).height == 0
    assert rows.frame().equals(whole)


@pytest.mark.parametrize("threads", [1, 3])
def test_cuts_made_while_the_file_goes_by_are_those_of_the_table(tmp_path, sweep_builder, monkeypatch, threads):
    columns, write = sweep_builder
    monkeypatch.setattr(scan, "_threads", lambda: threads)
    monkeypatch.setattr(scan, "_BLOCK_BYTES", 400 * 16)
    values = in_bricks(columns(300))
    values["MASKBITS"][::7] = 1 << 16
    values["RA"][5], values["TYPE"][9], values["FLUX_Z"][11] = np.nan, b"DUP", np.inf
    values["REF_CAT"][20:40:2], values["TYPE"][20:40] = b"T2", b"PSF"
    path = write(tmp_path, values)
    frame = read_sweep(path, TILE)[0].sort("row")
    bound = float(frame["flux_z"].median())
    cuts = Cuts(
        4, Sieve(frame["ra"][:2], frame["dec"][:2], 5.0), float(frame["flux_r"].quantile(0.9)), {"T2": -np.inf},
        (0, ("REX", "PSF")), ((1, "FLUX_Z", bound, 1e9), (2, "NOBS_Z", 2, 9)), ((3, "MASKBITS", 1 << 16),),
    )  # fmt: skip
    rows = open_sweep(path, TILE, cuts=cuts)
    steps = frame.select(
        ~pl.col("type").is_in(["REX", "PSF"]),
        ~((pl.col("flux_z") >= bound) & (pl.col("flux_z") < 1e9)),
        ~pl.col("nobs_z").is_between(2, 8),
        (pl.col("maskbits") & 1 << 16) != 0,
    )
    pattern = steps.to_numpy() @ (1 << np.arange(4))
    assert len(rows.odd) == 0
    assert rows.judged.failed.tolist() == np.bincount(pattern, minlength=16).tolist()
    assert rows.held.tolist() == frame["row"].to_numpy()[pattern == 0].tolist()
    assert 0 < len(rows.held) < 150
    assert rows.judged.strata.sum() == frame.height == 297
    assert {int(frame["row"][0]), int(frame["row"][1])} <= {*rows.judged.doubtful[:, 0].tolist()}
    matters = frame.filter(
        (pl.col("flux_r") >= cuts.bright) | ((pl.col("type") == "PSF") & (pl.col("ref_cat") == "T2"))
    )
    beside = rows.judged.beside.with_columns(pl.col(pl.Enum).cast(pl.String))
    assert beside.equals(matters.select(beside.columns))
    assert rows.rows_of_file(rows.held).sort("row").equals(frame.filter(pl.Series(pattern == 0)))
    assert rows.rows(np.arange(297)).sort("row").equals(frame)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3.4e38, -1.0, 1e-45])
def test_a_value_that_is_not_finite_is_seen_in_every_column_that_counts_and_no_other(value):
    offsets = [65, 69, 81, 133, 297, 301, 497]
    table = lanes.windows(offsets)
    for at in [*offsets, 73, 77, 141, 305]:
        raw = np.full(8 * 505 + 72, 7, np.uint8)
        raw[3 * 505 + at :][:4] = np.frombuffer(np.array(value, ">f4").tobytes(), np.uint8)
        assert lanes.any_not_finite(raw, 8, 505, *table) == (at in offsets and not np.isfinite(value))


def test_compiled_code_is_made_anew_when_a_module_that_it_calls_changes():
    stamps = passing.through._cache._cache_file._source_stamp
    assert len(stamps) == 4
    assert stamps[1][1] == Path(kernel.__file__).stat().st_size


@given(
    st.lists(st.tuples(st.integers(10000, 10003), st.integers(1, 662174), st.integers(0, 2**31 - 1)), max_size=60),
    st.sampled_from([1, 10, 1000, 2**31]),
)
def test_the_order_of_identities_is_that_of_their_text(parts, below):
    r, b, o = (np.array([p[i] for p in parts], np.int64) for i in range(3))
    b, o = b % 2000 + 1 if below == 10 else b, o % below
    ids = galaxy_ids(r, b, o)
    assert ids[id_order(r, b, o)].to_list() == sorted(ids.to_list())
    assert ids.to_list() == [f"{x}-{y}-{z}" for x, y, z in zip(r, b, o, strict=True)]


# --- coordinates -----------------------------------------------------------------------------------------------------


def test_right_ascension_360_is_0_and_beyond_is_no_place(tmp_path, sweep_builder):
    columns, write = sweep_builder
    values = columns(50, "000m005")
    values["RA"][:4] = [360.0, 360.0001, -1e-9, 0.0]
    path = write(tmp_path, values, "000m005")
    frame, rejections = read_sweep(path, "000m005")
    assert rejections.counts == {"coordinates not on the sky": 2}
    assert frame.sort("row")["ra"][:2].to_list() == [0.0, 0.0]
    light = open_sweep(path, "000m005", columns=("dec",)).columns(("ra", "row"))
    assert light.filter(pl.col("row") == 0)["ra"].to_list() == [0.0]
    assert frame["ra"].max() < 360


def test_the_last_tile_before_the_turn_takes_objects_on_both_sides(tmp_path, sweep_builder):
    columns, write = sweep_builder
    values = columns(300, "355m005")
    values["RA"][:3] = [0.01, 359.999999, 360.0]
    frame, rejections = read_sweep(write(tmp_path, values, "355m005"), "355m005", Settings(max_outside_fraction=0.1))
    assert rejections.total == 0
    assert frame.height == 300


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["RA", "DEC", *schema.FINITE])
def test_a_value_that_is_not_finite_costs_its_row_wherever_it_is(tmp_path, sweep_builder, name, bad):
    columns, write = sweep_builder
    values = columns(30)
    values[name][[4, 29]] = bad
    frame, rejections = read_sweep(write(tmp_path, values), TILE)
    assert rejections.counts == {"coordinates not finite" if name in ("RA", "DEC") else f"{name} not finite": 2}
    assert not {4, 29} & set(frame["row"])


def test_the_largest_finite_values_are_finite(tmp_path, sweep_builder):
    columns, write = sweep_builder
    values = columns(10)
    top = float(np.finfo(np.float32).max)
    for k, name in enumerate(schema.FINITE):
        values[name][k % 10] = top if k % 2 else -top
    frame, rejections = read_sweep(write(tmp_path, values), TILE)
    assert frame.height == 10
    assert rejections.total == 0


# --- columns and texts -----------------------------------------------------------------------------------------------


def test_texts_may_be_padded_with_blanks_or_nul_and_columns_wider(tmp_path, sweep_builder):
    columns, write = sweep_builder
    path = write(tmp_path, columns(40))
    reference = read_sweep(path, TILE)[0]
    with fits.open(path) as hdus:
        rows = hdus[1].data
        made = []
        for column in rows.columns:
            array, form = rows[column.name], column.format
            if column.name in ("TYPE", "REF_CAT"):
                array, form = np.char.ljust(np.char.strip(array), 6), "6A"
            made.append(fits.Column(column.name, form, array=array))
        fits.BinTableHDU.from_columns(made).writeto(path, overwrite=True)
    raw = path.read_bytes()
    assert b"PSF   " in raw or b"PSF\0\0\0" in raw
    assert read_sweep(path, TILE)[0].equals(reference)
    path.write_bytes(
        raw.replace(b"PSF\0\0\0", b"PSF   ").replace(b"REX   ", b" REX  ").replace(b"REX\0\0\0", b" REX\0\0")
    )
    assert read_sweep(path, TILE)[0].equals(reference)


def test_an_unknown_reference_catalogue_is_kept_as_it_is(tmp_path, sweep_builder):
    columns, write = sweep_builder
    values = columns(40)
    values["REF_CAT"][5], values["REF_CAT"][9] = b"R1", b"X"
    frame = read_sweep(write(tmp_path, values), TILE)[0].sort("row")
    assert (frame["ref_cat"][5], frame["ref_cat"][9], frame["ref_cat"][1]) == ("R1", "X", "GE")
    assert (
        open_sweep(write(tmp_path, values), TILE, columns=LIGHT).columns(["ref_cat"])["ref_cat"].to_list()
        == frame["ref_cat"].to_list()
    )


@pytest.mark.parametrize(
    ("name", "form"),
    [("TYPE", "9A"), ("NOBS_Z", "2I"), ("OBJID", "K"), ("FLUX_R", "D"), ("MASKBITS", "K"), ("EBV", "J")],
)
def test_a_column_of_another_shape_is_named(tmp_path, sweep_builder, name, form):
    columns, write = sweep_builder
    path = write(tmp_path, columns(8))
    with fits.open(path) as hdus:
        rows, made = hdus[1].data, []
        for column in rows.columns:
            array = rows[column.name]
            if column.name == name and form == "2I":
                array = np.stack([array, array], axis=1)
            made.append(fits.Column(column.name, form if column.name == name else column.format, array=array))
        fits.BinTableHDU.from_columns(made).writeto(path, overwrite=True)
    fault = refused(path)
    assert fault.column == name
    assert f"'{form}'" in str(fault)


def edited(path, *changes):
    """The file with header texts replaced, byte for byte (same length)."""
    raw = path.read_bytes()
    for old, new in changes:
        assert len(old) == len(new)
        assert old in raw
        raw = raw.replace(old, new, 1)
    path.write_bytes(raw)
    return path


def test_damaged_headers_are_named_with_their_column(tmp_path, sweep_builder):
    columns, write = sweep_builder
    path = write(tmp_path, columns(8))
    header = fits.getheader(path, 1)
    keys = {header[f"TTYPE{i}"]: i for i in range(1, header["TFIELDS"] + 1)}
    card = f"TTYPE{keys['FLUX_G']}".ljust(8).encode()
    for old, new, column in (
        (b"'FLUX_G  '", b"'flux_g  '", "FLUX_G"),
        (b"'FLUX_G  '", b"'FLUX_R  '", "FLUX_R"),
        (b"'FLUX_G  '", b"'FLUX_Q  '", "FLUX_G"),
    ):
        assert refused(edited(write(tmp_path, columns(8)), (card + b"= " + old, card + b"= " + new))).column == column
    form = f"TFORM{keys['FLUX_G']}".ljust(8).encode()
    fault = refused(edited(write(tmp_path, columns(8)), (form + b"= 'E       '", form + b"= 'Y       '")))
    assert "format" in str(fault) or "corrupt" in str(fault)
    fault = refused(edited(write(tmp_path, columns(8)), (form + b"= 'E       '", form + b"= '3E      '")))
    assert "bytes but columns of" in str(fault)


def test_scaled_columns_are_refused(tmp_path, sweep_builder):
    columns, write = sweep_builder
    path = write(tmp_path, columns(8))
    with fits.open(path) as hdus:
        hdus[1].header["TZERO5"] = 1.0
        name = hdus[1].header["TTYPE5"]
        hdus.writeto(tmp_path / "scaled.fits", output_verify="ignore")
    fault = refused(tmp_path / "scaled.fits")
    assert fault.column == name
    assert "TZERO" in str(fault)


# --- bytes -----------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), block=st.integers(1, 40))
def test_any_flipped_bit_of_the_data_is_found(tmp_path_factory, sweep_builder, at, bit, block):
    columns, write = sweep_builder
    path = promised(write(tmp_path_factory.mktemp("flip"), columns(37)))
    with fits.open(path) as hdus:
        offset, span = hdus[1].fileinfo()["datLoc"], hdus[1].fileinfo()["datSpan"]
    content = bytearray(path.read_bytes())
    content[offset + int(at * span)] ^= 1 << bit
    path.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan, "_BLOCK_BYTES", block * 400)
        assert "DATASUM" in str(refused(path))


@pytest.mark.parametrize("n", [0, 1, 3, 64])
def test_the_sum_of_a_sound_file_is_the_one_astropy_wrote(tmp_path, sweep_builder, n):
    columns, write = sweep_builder
    path = promised(write(tmp_path, columns(n)))
    assert read_sweep(path, TILE)[0].height == n


def test_a_heap_behind_the_rows_is_summed_too(tmp_path, sweep_builder):
    columns, write = sweep_builder
    path = write(tmp_path, columns(21))
    reference = read_sweep(path, TILE)[0]
    with fits.open(path) as hdus:
        rows = hdus[1].data
        ragged = np.empty(21, object)
        ragged[:] = [np.arange(i % 4, dtype=np.int32) for i in range(21)]
        made = [fits.Column(c.name, c.format, array=rows[c.name]) for c in rows.columns]
        made.append(fits.Column("RAGGED", "PJ()", array=ragged))
        fits.BinTableHDU.from_columns(made).writeto(path, overwrite=True)
    promised(path)
    assert fits.getheader(path, 1)["PCOUNT"] > 0
    assert read_sweep(path, TILE)[0].equals(reference)
    with fits.open(path) as hdus:
        info, header = hdus[1].fileinfo(), hdus[1].header
        heap = info["datLoc"] + header["NAXIS1"] * header["NAXIS2"]
    content = bytearray(path.read_bytes())
    content[heap + 3] ^= 1
    path.write_bytes(content)
    assert "DATASUM" in str(refused(path))


def test_without_the_check_a_flipped_bit_is_read_as_it_is(tmp_path, sweep_builder):
    columns, write = sweep_builder
    path = promised(write(tmp_path, columns(37)))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # padding after the last row
    path.write_bytes(content)
    assert read_sweep(path, TILE, Settings(verify_datasum=False))[0].height == 37
    refused(path)


def test_another_hdu_with_a_wrong_sum_is_found_too(tmp_path, sweep_builder):
    columns, write = sweep_builder
    path = promised(write(tmp_path, columns(9)))
    with fits.open(path) as hdus:
        extra = fits.ImageHDU(np.arange(400, dtype=np.int16))
        extra.add_datasum()
        hdus.append(extra)
        hdus.writeto(path, overwrite=True)
    assert read_sweep(path, TILE)[0].height == 9
    content = bytearray(path.read_bytes())
    content[-2000] ^= 4
    path.write_bytes(content)
    assert "HDU 2" in str(refused(path))


def test_a_sum_that_is_no_number_is_named(tmp_path, sweep_builder):
    columns, write = sweep_builder
    path = write(tmp_path, columns(9))
    with fits.open(path, mode="update") as hdus:
        hdus[1].header["DATASUM"] = "lots"
    assert "'lots'" in str(refused(path))


def test_carries_are_folded_until_none_is_left():
    assert fitsfile.folded(0xFFFFFFFF) == 0xFFFFFFFF
    assert fitsfile.folded(0x1_0000_0000) == 1
    assert fitsfile.folded(0xFFFF_FFFF_FFFF_FFFF) == 0xFFFFFFFF
    assert fitsfile.folded(0x1_FFFF_FFFF) == 1


def test_a_file_that_shrinks_while_it_is_read_is_named(tmp_path, sweep_builder, monkeypatch):
    columns, write = sweep_builder
    path = write(tmp_path, columns(400))
    check = schema.check_columns

    def shrink(fields, where):
        check(fields, where)
        path.write_bytes(path.read_bytes()[:-9000])

    monkeypatch.setattr(schema, "check_columns", shrink)
    with pytest.raises(BadInput, match="truncated: the file ended") as caught:
        read_sweep(path, TILE)
    assert caught.value.file == str(path)
