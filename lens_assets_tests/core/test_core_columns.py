"""The column registry: what a table checks, and the book-keeping of rejections."""

import polars as pl
import pytest

from lens_assets.science.columns.registry import Column, Table, united
from lens_assets.science.errors import BadInput, Rejections, UnbalancedCount

ID = Column("id", pl.String, "", "name", "test")
MAG = Column("mag", pl.Float64, "mag", "brightness", "test", lo=10, hi=30, nullable=True)
N = Column("n", pl.Int16, "", "count", "test", lo=0)
TABLE = Table("stars", "one star", (ID, MAG, N), ("id",))
ROWS = {"n": [1, 2], "id": ["b", "a"], "mag": [12.5, None], "extra": [0, 0]}


def test_a_table_selects_casts_and_sorts():
    got = TABLE.conform(pl.DataFrame(ROWS))
    assert got.columns == ["id", "mag", "n"]
    assert got["id"].to_list() == ["a", "b"]
    assert got["n"].dtype == pl.Int16


@pytest.mark.parametrize(
    ("change", "column", "row", "message"),
    [
        ({"mag": None}, "mag", None, "needs this column"),
        ({"n": [1, None]}, "n", 1, "no null"),
        ({"n": [1, 70000]}, "n", None, "cannot become"),
        ({"id": ["a", None]}, "id", 1, "no null"),
    ],
)
def test_a_table_names_the_column_that_is_wrong(change, column, row, message):
    frame = pl.DataFrame({k: v for k, v in {**ROWS, **change}.items() if v is not None})
    with pytest.raises(BadInput, match=message) as fault:
        TABLE.conform(frame, file="x.fits")
    assert (fault.value.file, fault.value.column, fault.value.row) == ("x.fits", column, row)
    assert "x.fits" in str(fault.value)


def test_violations_count_doubled_keys_and_values_out_of_range():
    frame = pl.DataFrame({"id": ["a", "a", "b", "c"], "mag": [9.0, 31.0, float("nan"), None], "n": [-1, 0, 1, 2]})
    assert TABLE.violations(frame) == [
        "1 rows repeat their key ('id',)",
        "mag [mag]: 1 below 10, 1 above 30 of 2",
        "n []: 1 below 0, 0 above None of 4",
    ]
    assert TABLE.violations(TABLE.conform(pl.DataFrame(ROWS))) == []


def test_a_name_defined_twice_is_refused_and_one_shared_is_not():
    assert list(united((ID, N), (N, MAG))) == ["id", "n", "mag"]
    with pytest.raises(ValueError, match="'n' is defined twice"):
        united((N,), (Column("n", pl.Int64, "", "count", "test"),))
    other = Column("n", pl.String, "", "name of a number", "test", variant="in words")
    assert united((N,), (other,)) == {"n": N, "n (in words)": other}
    with pytest.raises(ValueError, match=r"'n \(in words\)' is defined twice"):
        united((other,), (Column("n", pl.Int64, "", "count", "test", variant="in words"),))


def test_rejections_prove_that_nothing_was_lost():
    r = Rejections()
    r.add("not finite", 2)
    r.add("not finite", 1)
    r.add("nothing", 0)
    r.merge({"faint": 4})
    r.merge(Rejections({"faint": 1}))
    assert (r.counts, r.total) == ({"not finite": 3, "faint": 5}, 8)
    r.check(10, 2)
    with pytest.raises(UnbalancedCount, match="10 rows came in, 3 went out"):
        r.check(10, 3)
    with pytest.raises(UnbalancedCount, match="negative"):
        r.add("impossible", -1)
