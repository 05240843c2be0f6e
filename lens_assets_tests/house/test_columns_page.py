"""The committed page of columns is the one the registry gives."""

import subprocess
import sys
from pathlib import Path

from lens_assets.science.columns.page import page
from lens_assets.science.columns.registry import Column, Table
from lens_assets.science.columns.tables import all_columns, all_tables

ROOT = Path(__file__).parents[2]


def test_the_committed_page_is_that_of_the_registry() -> None:
    assert (ROOT / "docs" / "columns.md").read_text() == page(), "the registry has changed: run `make docs`"


def test_every_table_and_every_column_is_on_the_page() -> None:
    text = page()
    for table in all_tables().values():
        section = text.split(f"\n## {table.name}\n", 1)[1].split("\n## ", 1)[0]
        assert [
            line.split("|")[1].split("`")[1] for line in section.splitlines() if line.startswith("| `")
        ] == table.names
    assert all(f"| `{column.name}`" in text for column in all_columns().values())


def test_a_bar_in_a_meaning_does_not_break_the_table() -> None:
    import polars as pl

    from lens_assets.science.columns.page import _section

    column = Column("a", pl.String, "", "variant|theta", "s", lo=0)
    assert "| `a` | String | 1 | 0 .. | no | variant\\|theta | s |" in _section(Table("t", "one", (column,), ("a",)))


def test_the_module_prints_the_page() -> None:
    command = [sys.executable, "-m", "lens_assets.science.columns.page"]
    assert subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout == page()
