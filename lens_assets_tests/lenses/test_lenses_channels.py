"""Published lists as they come: odd cells, odd files, odd names. Every row comes out or is counted."""

from __future__ import annotations

import math

import polars as pl
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import Table
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_assets.science.errors import BadInput
from lens_assets.science.lenses import mapping, values
from lens_assets.science.lenses.channels import read_channel
from lens_assets.science.lenses.positions import position_name
from lens_assets.science.lenses.settings import Label
from lens_assets.science.surveys.layout import tile_of_key

IMAGING = "name,RA,DEC,grade,probability,tractor_type,z_lens\n"


def channel(tmp_path, text, name="mock-imaging.csv", **more):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_channel(path, mapping.mapping_for_file(path), **more)


def refused(tmp_path, text, name="mock-imaging.csv", **more):
    with pytest.raises(BadInput) as caught:
        channel(tmp_path, text, name, **more)
    assert caught.value.file is None or name in caught.value.file
    return caught.value


def test_a_list_comes_out_on_the_common_schema(tmp_path):
    frame, rejections = channel(tmp_path, IMAGING + "L2,150.5,2.25,B,0.9,SER,0.51\nL1,10.25,-3.5,A,0.99,DEV,\n")
    assert frame["lens_id"].to_list() == ["L1", "L2"]
    row = frame.row(1, named=True)
    assert row["channel"] == "mock-imaging"
    assert (row["ra"], row["dec"], row["z_lens"], row["label"], row["row"]) == (150.5, 2.25, 0.51, "visual_B", 0)
    assert frame["z_lens"][0] is None
    assert row["kind"] == "galaxy"
    assert rejections.total == 0


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.5", 0.5), ("0.5 | nan", 0.5), ("nan | 0.7", 0.7), ("- | 0.3", 0.3), ("0.431+/-0.017", 0.431), ("0.3?", 0.3),
        ("0.61*", 0.61), ("0.4 |0.5", 0.4), (" 0.52 | nan", 0.52), ("0.6? measured", 0.6),
    ],
)  # fmt: skip
def test_redshift_cells_of_the_public_lists_are_read(text, value):
    assert values.redshift(text) == value


@pytest.mark.parametrize(
    "text", ["", "-", "nan", "not measured", "measured", "observed", "L", "-99", "0", "1e9", "0,5"]
)
def test_a_cell_without_a_usable_redshift_is_no_number(text):
    assert math.isnan(values.redshift(text))


@settings(deadline=None)
@given(
    st.floats(0, 359.999), st.floats(-89.9, 89.9), st.sampled_from([("hmsdms", None), ("hmsdms", ":"), ("dms", None)])
)
def test_sexagesimal_positions_are_those_astropy_writes(ra, dec, style):
    form, separator = style
    place = SkyCoord(ra, dec, unit="deg")
    text = place.to_string(form, sep=separator, precision=6) if separator else place.to_string(form, precision=6)
    left, right = text.split()
    got_ra, got_dec = values.angle(left, hours=True), values.angle(right, hours=False)
    assert abs((got_ra - ra + 180) % 360 - 180) < 1e-7
    assert got_dec == pytest.approx(dec, abs=1e-7)


@pytest.mark.parametrize("text", ["12:60:00", "25:10:10", "12:xx:01", "north", "1.5:10:10"])
def test_what_is_no_angle_is_not_guessed(text):
    assert math.isnan(values.angle(text, hours=True))


def test_a_negative_zero_degree_declination_keeps_its_sign():
    assert values.angle("-00:30:00", hours=False) == -0.5
    assert values.angle("\u221200d30m", hours=False) == -0.5


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_a_byte_order_mark_and_any_usual_delimiter_are_survived(tmp_path, delimiter):
    text = (IMAGING + "L1,10.25,-3.5,A,0.99,DEV,0.4\n").replace(",", delimiter)
    frame, _ = channel(tmp_path, b"\xef\xbb\xbf" + text.encode())
    assert frame.row(0, named=True)["ra"] == 10.25


def test_lists_in_other_formats_read_as_the_csv(tmp_path):
    frame, _ = channel(tmp_path, IMAGING + "L1,10.25,-3.5,A,0.99,DEV,0.4\n")
    table = Table({"name": ["L1"], "RA": [10.25], "DEC": [-3.5], "grade": ["A"], "z_lens": [0.4]})
    for ending, form in (("fits", "fits"), ("ecsv", "ascii.ecsv"), ("vot", "votable")):
        path = tmp_path / f"mock-imaging.{ending}"
        table.write(path, format=form)
        assert read_channel(path, mapping.mapping_for_file(path))[0].equals(frame)
    pl.DataFrame({n: list(table[n]) for n in table.colnames}).write_parquet(tmp_path / "mock-imaging.parquet")
    path = tmp_path / "mock-imaging.parquet"
    assert read_channel(path, mapping.mapping_for_file(path))[0].equals(frame)


def test_bad_rows_are_counted_by_reason_and_balance(tmp_path):
    body = (
        "L1,10.25,-3.5,A,.9,DEV,\nL2,nan,-3.5,A,.9,DEV,\nL3,10,,B,.9,DEV,\nL4,10,95,B,.9,DEV,\nL5,400,1,B,.9,DEV,\n"
        "L1,10.25,-3.5,A,.9,DEV,\nL6,10,1,A\nL7,ten,1,A,.9,DEV,\n\nL8,360,1,A,.9,DEV,\nL9,-5,1,A,.9,DEV,\n"
    )
    frame, rejections = channel(tmp_path, IMAGING + body)
    assert rejections.counts == {
        "wrong number of fields": 1, "position missing or not a number": 3, "position not on the sky": 2,
        "repeated row": 1,
    }  # fmt: skip
    assert dict(zip(frame["lens_id"], frame["ra"], strict=True)) == {"L1": 10.25, "L8": 0.0, "L9": 355.0}


def test_a_quote_that_never_closes_swallows_nothing(tmp_path):
    fault = refused(tmp_path, IMAGING + 'L1,10,1,A,,,\n"L2,11,1,A,,,\nL3,12,1,A,,,\nL4,13,1,A,,,\n')
    assert fault.row == 1
    assert "quote" in str(fault)
    frame, _ = channel(tmp_path, IMAGING + '"L 1\n(west)",10,1,A,,,\nL"2,11,1,A,,,\n')
    assert frame["lens_id"].to_list() == ["L 1 (west)", 'L"2']


def test_one_identity_at_two_positions_becomes_two_identities(tmp_path):
    frame, rejections = channel(tmp_path, IMAGING + "L1,10,1,A,,,\nL1,11,1,A,,,\nL1,11.0001,1,A,,,\nL2,9,1,A,,,\n")
    assert frame["lens_id"].to_list() == ["L1 @J004000.00+010000.0", "L1 @J004400.00+010000.0", "L2"]
    assert rejections.counts == {"repeated row": 1}


def test_an_odd_grade_of_a_mapping_with_a_default_is_a_candidate_without_tier(tmp_path):
    assert channel(tmp_path, IMAGING + "L1,10,1,?,,,\n")[0]["label"].to_list() == ["candidate"]


def test_a_grade_the_mapping_does_not_know_is_an_error_with_its_row(tmp_path):
    fault = refused(tmp_path, "name,RA,DEC,grade\nL1,10,1,A\nL2,11,1,Q\n", "huang2020.csv")
    assert (fault.column, fault.row) == ("grade", 1)
    assert "'Q'" in str(fault)


def test_a_missing_column_is_named_and_the_mapping_is_taught(tmp_path):
    fault = refused(tmp_path, "name,RA,grade\nL1,10,A\n")
    assert fault.column == "DEC"
    assert "labels: {map:" in str(fault)
    assert "name, RA, grade" in str(fault)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "empty"), (b"\n\n", "no header"), (b"name,RA\xff\xfe\n1,2\n", "utf-8"),
     (b"a,a,RA,DEC\n1,2,3,4\n", "repeated"),
     (IMAGING.encode() + b"L1,x,y,A,,,\n", "no usable row"), (b"name,RA,DEC,grade\0\n", "binary")],
)  # fmt: skip
def test_a_file_that_is_no_table_is_called_what_it_is(tmp_path, content, message):
    assert message in str(refused(tmp_path, content))


@pytest.mark.parametrize("ending", ["fits", "parquet", "ecsv"])
def test_a_truncated_table_is_named(tmp_path, ending):
    path = tmp_path / f"mock-imaging.{ending}"
    path.write_bytes(b"SIMPLE  = nothing more")
    with pytest.raises(BadInput, match="corrupt") as caught:
        read_channel(path, mapping.mapping_for_file(path))
    assert caught.value.file == str(path)


def hours_list(n, names):
    ras = [360 * (k + 0.5) / n for k in range(n)]
    decs = [-60 + 90 * ((k * 7) % n) / n for k in range(n)]
    return IMAGING + "".join(
        f"{f'DESI-{r:08.4f}{d:+08.4f}' if names else f'L{k}'},{r / 15},{d},A,,,\n"
        for k, (r, d) in enumerate(zip(ras, decs, strict=True))
    )


@pytest.mark.parametrize(("n", "names"), [(40, False), (3, True)])
def test_right_ascension_in_hours_is_suspected_aloud(tmp_path, n, names):
    fault = refused(tmp_path, hours_list(n, names))
    assert fault.column == "RA"
    assert "hours" in str(fault)


def test_hours_are_known_by_the_footprint(tmp_path):
    text = IMAGING + "L1,10.1,-3,A,,,\nL2,10.2,-2,A,,,\n"
    assert "footprint" in str(refused(tmp_path, text, footprint=[tile_of_key("150m005")]))
    assert channel(tmp_path, text, footprint=[tile_of_key("010m005")])[0].height == 2


def test_a_small_list_near_zero_hours_is_not_suspected(tmp_path):
    body = "".join(f"L{k},{k / 10},{k / 9 - 3},A,,,\n" for k in range(60))
    assert channel(tmp_path, IMAGING + body)[0].height == 60


def test_hours_convert_when_the_mapping_says_so(tmp_path):
    rules = mapping.load_mapping("mock-imaging").model_copy(update={"units": mapping.Units(ra="hours")})
    path = tmp_path / "mock-imaging.csv"
    path.write_text(IMAGING + "L1,10.5,-3,A,,,\nL2,10:30:00,-3,A,,,\n")
    assert read_channel(path, rules)[0]["ra"].to_list() == pytest.approx([157.5, 157.5])


def test_a_dropped_file_with_usual_columns_reads_but_neither_trains_nor_is_independent(tmp_path):
    frame, _ = channel(tmp_path, "ID;RA_deg;Dec_deg;Grade\nx1;10.5;2.5;A\nx2;11.5;2.5;?\n", "dropped.csv")
    assert frame["channel"].unique().to_list() == ["dropped"]
    assert frame["label"].to_list() == ["visual_A", "candidate"]
    rules = mapping.mapping_for_file(tmp_path / "dropped.csv")
    assert rules.role == "evaluation"
    assert rules.derived_from == (mapping.UNKNOWN_ORIGIN,)


def test_a_file_without_identities_gets_names_from_positions(tmp_path):
    frame, _ = channel(tmp_path, "ra,dec\n150.1,2.2\n", "dropped.csv")
    assert frame["lens_id"][0] == "J100024.00+021200.0"


def test_a_file_nobody_can_read_teaches_how_to_map_it(tmp_path):
    assert "Put a mapping beside the file" in str(refused(tmp_path, "lon,lat\n1,2\n", "strange.csv"))


@pytest.mark.parametrize("name", ["..csv.csv", "a b.csv", "x;rm.csv", ".hidden.csv", "-x.csv"])
def test_a_file_name_becomes_a_key_only_when_it_is_safe(tmp_path, name):
    assert "not a valid" in str(refused(tmp_path, "ra,dec\n1,2\n", name))


def test_a_mapping_beside_the_file_wins(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "channel: mine\nrole: train\ncolumns: {lens_id: [A, B], join_id: true, ra: [X], dec: [Y], theta_e: [T]}\n"
        "units: {theta_e: mas}\nlabels: {at_least: [[1, visual_C], [3, visual_A]], default: candidate}\n"
    )
    frame, _ = channel(tmp_path, "A,B,X,Y,T\n1,2,10,20,1500\n1,3,11,20,-1\n", "mine.csv")
    assert frame["lens_id"].to_list() == ["1-2", "1-3"]
    assert frame["theta_e"].to_list() == [1.5, None]


@pytest.mark.parametrize(
    ("change", "field"),
    [("role: perhaps", "role"), ("labels: {map: {A: confirmed}}", "labels.map.A"), ("channel: ../up", "channel"),
     ("surprise: 1", "surprise")],
)  # fmt: skip
def test_a_wrong_mapping_names_its_field(change, field):
    key = change.split(":")[0]
    lines = {
        "channel": "channel: x",
        "role": "role: train",
        "columns": "columns: {ra: [X], dec: [Y]}",
        "labels": "labels: {}",
    }
    lines[key] = change
    with pytest.raises(BadInput) as caught:
        mapping.parse_mapping("\n".join(lines.values()), "some.yaml")
    assert caught.value.file == "some.yaml"
    assert caught.value.column == field


def test_every_mapping_that_ships_is_valid_and_keyed_by_its_name():
    for name in mapping.mapping_names():
        assert mapping.load_mapping(name).channel == name


@pytest.mark.parametrize(
    ("name", "header", "row", "label"),
    [
        ("mock-single-fibre", "TARGETID,TARGET_RA,TARGET_DEC,Z_LENS,Z_OII,QUALITY", "39627,1,2,.4,.9,A", "spec_both_z"),
        ("mock-pairwise", "group_id,RA_lens,DEC_lens,Z_lens,Z_src,sep_arcsec,theta_E_arcsec,class_algo",
         "7,1,2,.4,.9,1.2,.7,conventional", "spec_both_z"),
        ("mock-quasars", "Name,RAJ2000,DEJ2000,Grade,zq,sep", "Q1,1,2,B,1.9,2.1", "visual_B"),
        ("mock-late-imaging", IMAGING.strip(), "L,1,2,C,.5,SER,.4", "visual_C"),
    ],
)  # fmt: skip
def test_the_practice_lists_map(tmp_path, name, header, row, label):
    frame, _ = channel(tmp_path, f"{header}\n{row}\n", f"{name}.csv")
    assert frame["label"].to_list() == [label]
    assert frame["channel"].to_list() == [name]
    assert frame["kind"][0] == ("quasar" if name == "mock-quasars" else "galaxy")


def test_a_confident_row_of_lenscat_is_a_visual_grade(tmp_path):
    text = (
        "name,RA [deg],DEC [deg],zlens,type,grading,ref\n"
        "DESI-010.0+01.0,10,1,0.5 | nan,galaxy,confident,x\nB1938,1,2,-,galaxy,confident,y\n"
    )
    frame, rejections = channel(tmp_path, text, "lenscat.csv")
    assert frame["label"].to_list() == [str(Label.VISUAL_A)]
    assert rejections.counts == {"name without DESI-": 1}


@settings(deadline=None)
@given(st.floats(0, 360), st.floats(-90, 90))
def test_position_names_are_safe_and_truncate(ra, dec):
    name = position_name(ra, dec)
    place = SkyCoord(f"{name[1:3]}h{name[3:5]}m{name[5:10]}s", f"{name[10:13]}d{name[13:15]}m{name[15:]}s")
    assert place.separation(SkyCoord(ra, min(max(dec, -90), 90), unit="deg")).arcsec < 0.19
    assert abs(place.dec.deg) <= abs(dec) + 1e-7
