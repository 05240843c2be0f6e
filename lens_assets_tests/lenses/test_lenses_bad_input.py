"""What goes wrong with delivered catalogues: each fault is an error that says where, or a counted rejection."""

from __future__ import annotations

import gzip

import polars as pl
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import Table
from astropy.time import Time
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lens_assets.science.columns.lenses import LENS_CHANNEL
from lens_assets.science.errors import BadInput
from lens_assets.science.lenses import mapping, values
from lens_assets.science.lenses.channels import DISAGREE, REPEATED, note, read_channel, split_note
from lens_assets.science.lenses.delivered import copies
from lens_assets.science.lenses.registry import build_registry
from lens_assets.science.negatives.exclusion import near_known

HEADER = "name,RA,DEC,grade\n"
ROW = "L1,10.25,-3.5,A\n"


def channel(tmp_path, text, name="huang2020.csv", **change):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_channel(path, mapping.mapping_for_file(path).model_copy(update=change))


def refused(tmp_path, text, name="huang2020.csv", **change):
    with pytest.raises(BadInput) as caught:
        channel(tmp_path, text, name, **change)
    assert name in str(caught.value.file)
    return caught.value


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le-bom", "utf-16-be-bom", "utf-32"])
@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_a_byte_order_mark_of_any_unicode_is_read(tmp_path, encoding, ends):
    text = (HEADER + "Lé1,10.25,-3.5,A\n").replace("\n", ends)
    if encoding.endswith("-bom"):
        raw = {"le": b"\xff\xfe", "be": b"\xfe\xff"}[encoding[7:9]] + text.encode(encoding[:9])
    else:
        raw = text.encode(encoding)
    frame, _ = channel(tmp_path, raw)
    assert frame.row(0)[1:4] == ("Lé1", 10.25, -3.5)


def test_a_byte_order_mark_beats_a_stated_encoding(tmp_path):
    frame, _ = channel(tmp_path, (HEADER + ROW).encode("utf-16"), reader=mapping.Reader(encoding="latin-1"))
    assert frame["lens_id"].to_list() == ["L1"]


def test_latin_1_names_are_refused_with_their_line_until_the_mapping_says_so(tmp_path):
    raw = (HEADER + ROW + "Möller 7,11,1,B\n").encode("latin-1")
    fault = refused(tmp_path, raw)
    assert "line 3" in str(fault)
    assert "encoding: latin-1" in str(fault)
    frame, _ = channel(tmp_path, raw, reader=mapping.Reader(encoding="latin-1"))
    assert frame["lens_id"].to_list() == ["L1", "Möller 7"]
    assert "no encoding is called" in str(refused(tmp_path, raw, reader=mapping.Reader(encoding="latin-99")))


def test_a_compressed_list_reads_as_the_plain_one(tmp_path):
    frame, _ = channel(tmp_path, gzip.compress((HEADER + ROW).encode()), "huang2020.csv.gz")
    assert frame.equals(channel(tmp_path, HEADER + ROW)[0])
    assert "gzip" in str(refused(tmp_path, gzip.compress(b"x" * 200)[:-9], "huang2020.csv.gz"))


@pytest.mark.parametrize("delimiter", ["auto", ";", "\t"])
def test_a_wrong_delimiter_is_found_out_by_the_columns_that_must_be_there(tmp_path, delimiter):
    frame, _ = channel(tmp_path, HEADER + ROW, reader=mapping.Reader(delimiter=delimiter))
    assert frame.height == 1


def test_a_delimiter_that_nobody_knows_is_an_error_that_shows_the_header(tmp_path):
    fault = refused(tmp_path, (HEADER + ROW).replace(",", "^"))
    assert fault.column == "name"
    assert "name^RA^DEC^grade" in str(fault)


def test_an_empty_file_and_a_header_alone_are_told_apart(tmp_path):
    assert "empty" in str(refused(tmp_path, b""))
    assert "not one row" in str(refused(tmp_path, HEADER))
    assert "not one row" in str(refused(tmp_path, HEADER + "\n\n"))
    frame, rejections = channel(tmp_path, HEADER, reader=mapping.Reader(allow_empty=True))
    assert (frame.height, rejections.total) == (0, 0)


@pytest.mark.parametrize("form", ["fits", "ascii.ecsv", "votable"])
def test_a_table_without_rows_is_an_error_in_every_format(tmp_path, form):
    ending = {"fits": "fits", "ascii.ecsv": "ecsv", "votable": "vot"}[form]
    path = tmp_path / f"huang2020.{ending}"
    Table({"name": ["L"], "RA": [1.0], "DEC": [2.0], "grade": ["A"]})[:0].write(path, format=form)
    with pytest.raises(BadInput, match="not one row"):
        read_channel(path, mapping.mapping_for_file(path))


def test_positions_kept_as_one_column_of_an_ecsv_are_read(tmp_path):
    path = tmp_path / "mine.ecsv"
    place = SkyCoord([10.25, 11], [-3.5, 1], unit="deg").galactic
    Table({"name": ["a", "b"], "pos": place, "when": Time(["2020-01-01", "2021-01-01"])}).write(path)
    (tmp_path / "mine.yaml").write_text(
        "channel: mine\nrole: evaluation\ncolumns: {lens_id: [name], ra: [pos.ra], dec: [pos.dec]}\n"
        "labels: {default: candidate}\n"
    )
    frame, _ = read_channel(path, mapping.mapping_for_file(path))
    assert frame["ra"].to_list() == pytest.approx([10.25, 11])
    assert frame["dec"].to_list() == pytest.approx([-3.5, 1])


@pytest.mark.parametrize("cell", ["10h20m30s", "10:20:30", "10 20 30.5", "10:20", "155d07m30s"])
def test_sexagesimal_right_ascension_is_an_error_with_row_and_column_until_announced(tmp_path, cell):
    fault = refused(tmp_path, HEADER + ROW + f"L2,{cell},-3.5,A\n")
    assert (fault.row, fault.column) == (1, "RA")
    assert "units: {ra: sexagesimal}" in str(fault)
    frame, _ = channel(tmp_path, HEADER + f"L2,{cell},-3.5,A\n", units=mapping.Units(ra="sexagesimal"))
    expected = {"10:20": 155.0, "10 20 30.5": 155.127083333}.get(cell, 155.125)
    assert frame["ra"][0] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("cell", "value"), [("-00 12 30", -0.2083333333), ("-05d12.5m", -5.208333333), ("-05 12.5", -5.208333333)]
)
def test_declinations_in_degrees_and_minutes_need_to_be_announced_too(tmp_path, cell, value):
    fault = refused(tmp_path, HEADER + f"L1,10.25,{cell},A\n")
    assert (fault.row, fault.column) == (0, "DEC")
    assert "units: {dec: sexagesimal}" in str(fault)
    frame, _ = channel(tmp_path, HEADER + f"L1,10.25,{cell},A\n", units=mapping.Units(dec="sexagesimal"))
    assert frame.row(0)[2:4] == pytest.approx((10.25, value))


def test_a_decimal_number_among_sexagesimal_ones_is_an_error(tmp_path):
    fault = refused(
        tmp_path, HEADER + "L1,10:20:30,1,A\nL2,155.1,1,A\n", units=mapping.Units(ra="sexagesimal")
    )  # fmt: skip
    assert (fault.row, fault.column) == (1, "RA")


def test_an_impossible_angle_is_a_counted_row(tmp_path):
    text = HEADER + "L1,10:20:30,-03:00:00,A\nL2,10:75:00,-03:00:00,A\nL3,25:00:00,0:0:0,A\n"
    frame, rejections = channel(tmp_path, text, units=mapping.Units(ra="sexagesimal"))
    assert frame["lens_id"].to_list() == ["L1"]
    assert rejections.counts == {"position missing or not a number": 2}


@pytest.mark.parametrize(
    ("text", "value", "odd"),
    [
        ("0.3, 0.5", 0.3, values.SEVERAL), ("1.2/2.1", 1.2, values.SEVERAL), ("0.3;0.5", 0.3, values.SEVERAL),
        ("0.5 and 0.7", 0.5, values.SEVERAL), ("0.31?", 0.31, values.UNCERTAIN), ("~0.6", 0.6, values.UNCERTAIN),
        ("(0.31)", 0.31, values.UNCERTAIN), (">1", None, values.LIMIT), ("<0.4", None, values.LIMIT),
        ("0,5", None, values.UNREADABLE), ("measured", None, values.UNREADABLE), ("77", None, values.BEYOND),
        ("--", None, ""), ("n/a", None, ""), ("-99", None, ""), ("0.43+/-0.02", 0.43, ""), ("0.5 | nan", 0.5, ""),
        ("0.5|0.5", 0.5, ""), ("0.73 | 0.7300367", 0.73, ""), (">1 | 0.4", 0.4, values.LIMIT),
    ],
)  # fmt: skip
def test_mixed_redshift_cells_are_read_by_rule_and_noted(tmp_path, text, value, odd):
    cell = f'"{text}"' if "," in text else text
    frame, _ = channel(
        tmp_path, f"name,RA,DEC,grade,spec_z,photo_z\nL1,10,1,A,{cell},\n", "huang2021.csv"
    )  # fmt: skip
    assert frame["z_lens"][0] == value
    assert frame["notes"][0].to_list() == ([note("z_lens", odd, text)] if odd else [])
    if odd:
        assert split_note(frame["notes"][0][0]) == ("z_lens", odd, text)


@settings(deadline=None)
@given(st.floats(0.001, 20), st.floats(0.001, 20))
def test_every_value_of_a_cell_is_told(a, b):
    a, b = float(f"{a:.4g}"), float(f"{b:.4g}")
    for join in (" | ", "/", "; ", ", "):
        read = values.reading(f"{a!r}{join}{b!r}")
        assert read.value == a
        assert set(read.values) == {a, b}
        assert bool(read.odd) == (abs(a - b) > values.ROUNDING * (1 + a))


def test_columns_of_a_row_that_disagree_are_noted(tmp_path):
    frame, _ = channel(
        tmp_path, "name,RA,DEC,grade,spec_z,photo_z\nL1,10,1,A,0.5,0.9+/-0.1\nL2,11,1,A,0.5,0.6\n", "huang2021.csv"
    )  # fmt: skip
    assert frame["z_lens"].to_list() == [0.5, 0.5]
    assert frame["notes"].to_list() == [[note("z_lens", DISAGREE, "0.5; photo_z 0.9+/-0.1")], []]


def test_a_repeated_row_is_counted_and_what_it_says_otherwise_is_kept(tmp_path):
    frame, rejections = channel(
        tmp_path, "name,RA,DEC,grade,spec_z,photo_z\nL1,10,1,A,0.5,\nL1,10,1,A,0.7,\n", "huang2021.csv"
    )  # fmt: skip
    assert rejections.counts == {"repeated row": 1}
    assert frame["notes"][0].to_list() == [note("z_lens", REPEATED, "0.5; 0.7")]
    assert build_registry(frame, [mapping.load_mapping("huang2021")])["conflict_z"].to_list() == [True]


def rules(name, derived=("somewhere",)):
    return mapping.load_mapping("huang2020").model_copy(
        update={"channel": name, "derived_from": tuple(derived), "files": ()}
    )  # fmt: skip


def listed(tmp_path, name, places, digits=5):
    path = tmp_path / f"{name}.csv"
    path.write_text(
        HEADER + "".join(f"{name}{k},{ra:.{digits}f},{dec:.{digits}f},A\n" for k, (ra, dec) in enumerate(places))
    )
    return read_channel(path, rules(name))[0]


PLACES = [(10 + 0.37 * k, -5 + 0.21 * k) for k in range(12)]


def test_one_catalogue_delivered_twice_under_two_names_is_refused(tmp_path):
    table = pl.concat([listed(tmp_path, "one", PLACES), listed(tmp_path, "two", PLACES[::-1], digits=4)])
    assert copies(table) == [("one", "two")]
    assert copies(pl.concat([table, listed(tmp_path, "two", [*PLACES, PLACES[0]])])) == [("one", "two")]
    with pytest.raises(BadInput, match="'one' and 'two' list the same 12 places") as caught:
        build_registry(table, [rules("one"), rules("two")])
    assert "derived_from: [one]" in str(caught.value)


def test_a_list_that_declares_to_grade_another_again_is_no_copy(tmp_path):
    table = pl.concat([listed(tmp_path, "one", PLACES), listed(tmp_path, "two", PLACES)])
    found = build_registry(table, [rules("one"), rules("two", ["one"])])
    assert found["channels"].to_list() == [["one", "two"]] * 12


def test_lists_that_share_most_places_or_are_short_are_no_copies(tmp_path):
    one = listed(tmp_path, "one", PLACES)
    assert copies(pl.concat([one, listed(tmp_path, "two", PLACES[:-1])])) == []
    assert copies(pl.concat([one, listed(tmp_path, "two", [*PLACES[:-1], (50, 1)])])) == []
    assert copies(pl.concat([listed(tmp_path, "a", PLACES[:7]), listed(tmp_path, "b", PLACES[:7])])) == []


def test_an_encoding_nobody_asked_for_does_not_hide_binary_zeros(tmp_path):
    assert "binary" in str(refused(tmp_path, (HEADER + ROW).encode("utf-16-le")))


odd_cells = st.sampled_from(
    ["10.5", "-3.5", "361", "95", "", "nan", "--", "10:20:30", "-05 12.5", "ten", "1e400", "0.3, 0.5", ">1", "A", "Z", "é",
     '"', '"open', "10;11", "\t", "#", "\u2212 5", "0x10", "1_0", "\u0663.\u0664", "inf", "NaN", "a\x85b"]
)  # fmt: skip


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.lists(odd_cells, min_size=4, max_size=7), max_size=6),
    st.sampled_from(["auto", "deg", "hours", "sexagesimal"]),
)
def test_whatever_a_table_holds_it_is_read_in_balance_or_refused_with_its_name(tmp_path, rows, unit):
    path = tmp_path / "fuzzed.csv"
    path.write_text("name,RA,DEC,grade,spec_z\n" + "".join(",".join(row) + "\n" for row in rows), encoding="utf-8")
    rules = mapping.load_mapping("huang2021").model_copy(
        update={"units": mapping.Units(ra=unit), "unsure": ("z_lens",)}
    )  # fmt: skip
    fault = None
    try:
        frame, rejections = read_channel(path, rules)
    except BadInput as refusal:
        fault = refusal
    if fault is not None:
        assert fault.file == str(path)
        return
    assert frame.height > 0
    assert LENS_CHANNEL.violations(frame) == []
    assert frame["ra"].is_between(0, 360, closed="left").all()
    assert frame["dec"].is_between(-90, 90).all()
    assert frame.height + rejections.total > frame["row"].max()


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(b",", "csv")
@given(st.binary(max_size=300), st.sampled_from(["csv", "fits", "parquet", "ecsv", "vot", "csv.gz"]))
def test_bytes_that_are_no_table_are_refused_with_the_name_of_the_file(tmp_path, raw, ending):
    path = tmp_path / f"huang2020.{ending}"
    path.write_bytes(raw)
    with pytest.raises(BadInput) as caught:
        read_channel(path, mapping.load_mapping("huang2020"))
    assert caught.value.file == str(path)


def test_a_known_no_lens_is_neither_a_positive_nor_a_negative():
    table = pl.DataFrame({"system_id": ["S"], "ra": [10.0], "dec": [1.0], "label": ["not_lens"], "tier": ["none"]})
    objects = pl.DataFrame({"ra": [10.0, 10.0], "dec": [1.0 + 10 / 3600, 1.0 + 12 / 3600]})
    assert near_known(objects, table, 11.0).tolist() == [True, False]
