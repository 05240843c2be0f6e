"""``lens-assets injection`` and ``lens-assets priors``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import typer
from astropy.io import fits
from matplotlib.image import imread
from typer.testing import CliRunner

from lens_assets.cli import injection, priors
from lens_assets.resources.workspace import Workspace
from lens_assets.science.errors import BadInput
from lens_assets.science.injections.batch import inject, plan_batch
from lens_assets.science.injections.hosts import choose_hosts
from lens_assets.science.injections.priors import prior_set
from lens_assets.science.injections.tables import page, paper_table
from lens_assets.science.injections.truth import measure_truth
from lens_assets.science.injections.variants import load_variants
from lens_assets_tests.injections.test_injections_batch import SMALL, Stamps, sample


def run(*words: str) -> tuple[int, str]:
    app = typer.Typer()
    priors.register(app)
    app.command("other")(lambda: None)  # so that `priors` stays a command's name
    result = CliRunner().invoke(app, list(words))
    return result.exit_code, result.output


def test_the_tables_of_priors_are_printed_with_a_fitted_set_as_a_column(tmp_path: Path) -> None:
    assert run("priors") == (0, paper_table())
    assert run("priors", "--format", "latex") == (0, paper_table("latex"))
    assert run("priors", "--page") == (0, page())
    fitted = prior_set("population").model_copy(update={"name": "calibrated", "colour_correlation": 0.123})
    (tmp_path / "p.json").write_text(fitted.model_dump_json())
    code, text = run("priors", "--fitted", str(tmp_path / "p.json"))
    assert code == 0
    assert "0.123" in text
    assert fitted.digest[:12] in text
    assert run("priors", "--fitted", str(tmp_path / "none.json"))[0] == 1


def test_an_injection_is_written_with_its_host_its_arc_and_its_row(tmp_path: Path) -> None:
    hosts = choose_hosts(sample(), SMALL).hosts
    rows = plan_batch(hosts, load_variants()["clumpy-population"], 1.5, SMALL)
    row = measure_truth(rows[3:4], Stamps(), SMALL)
    chunk = next(inject(row, Stamps(), SMALL))
    host = Stamps().images(row["galaxy_id"].to_list())[0]
    lines = injection.write(chunk, host, row, tmp_path)
    assert row["injection_id"][0] in lines[0]
    (table,), (picture,) = tmp_path.glob("*.fits"), tmp_path.glob("*.png")
    with fits.open(table) as file:
        for name, pixels in (("INJECTED", chunk.images[0]), ("HOST", host), ("ARC", chunk.arcs.images[0])):
            np.testing.assert_array_equal(file[name].data, pixels)
            assert file[name].header["BUNIT"] == "nanomaggy"
        kept = file["PARAMETERS"].data[0]
        for name, value in row.row(0, named=True).items():
            if isinstance(value, list):
                np.testing.assert_array_equal(kept[name], value)
            elif isinstance(value, float):
                assert kept[name] == value
    assert imread(picture).shape[1] > 1000


@pytest.mark.parametrize(
    ("name", "message"), [("sersic-population", "not an id"), ("a|1.00|0|0|0", "no batch of variant a")]
)
def test_an_injection_that_is_not_there_is_named(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        injection.find(Workspace(home=str(tmp_path)), name)


def test_rows_of_a_stored_batch_are_found(tmp_path: Path) -> None:
    workspace = Workspace(home=str(tmp_path))
    rows = plan_batch(choose_hosts(sample(), SMALL).hosts, load_variants()["sersic-population"], 1.5, SMALL)
    with workspace.store().draft("injection_batch", "1.50+sersic-population", made_from={"a": 1}) as draft:
        draft.table(rows)
    found = injection.find(workspace, rows["injection_id"][2])
    assert found.equals(rows[2:3])
    with pytest.raises(BadInput, match="no injection"):
        injection.find(workspace, "sersic-population|1.50|9|9|9")
    assert isinstance(found, pl.DataFrame)
