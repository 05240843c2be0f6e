"""From a cell of a release to the files of the survey: nothing missing, nothing replaced in silence."""

import json

import polars as pl
import pytest

from lens_assets.science.columns.lineage import CELL_LINEAGE
from lens_assets.science.errors import BadInput
from lens_assets.science.release.cell import cell_lineage
from lens_assets.science.release.lineage import trace
from lens_assets.science.release.write import write_release
from lens_assets.science.storage import Draft, Store

WHERE = {"theta_e": 1.05, "psf": 1.21, "depth": 22.9}


def tile_of(galaxy_id):
    return "000m005" if int(galaxy_id.split("-")[2]) % 2 else "010p000"


@pytest.fixture
def made(build, simulated, tmp_path):
    """A release and the store it was made from, with two tiles and one batch a theta_E."""
    rows = simulated.injections()
    named = rows.with_columns(
        injection_id=pl.concat_str(pl.lit("sersic"), pl.col("theta_e").map_elements(lambda t: f"{t:.2f}", pl.String),
                                   pl.col("injection_id"), separator="|"),
        tile=pl.col("galaxy_id").map_elements(tile_of, pl.String),
    )  # fmt: skip
    store = Store(tmp_path / "store")

    def artefact(asset, partition, table, frame, **made_from):
        with store.draft(asset, partition, made_from=made_from) as draft:
            draft.table(frame, table)
        return store.get(asset, partition)

    inputs = {}
    for tile in ("000m005", "010p000"):
        sweeps = artefact("sweeps", tile, "data", pl.DataFrame({"n": [1]}), sweep=f"file of {tile}")
        hosts = named.filter(pl.col("tile") == tile)["galaxy_id"].unique().sort()
        digests = {f"{k}_digest_{b}": [f"{k}{b}{tile}"] * len(hosts) for k in ("image", "invvar") for b in "grz"}
        index = pl.DataFrame({"galaxy_id": hosts, "brickname": f"brick of {tile}", "source": "brick",
                              "stamp_digest": hosts, **digests})  # fmt: skip
        made = artefact("cutouts", tile, "index", index, **{f"sweeps[{tile}]": sweeps.digest})
        inputs[f"cutouts[{tile}]"] = made.digest
    batches = {}
    for (theta,), part in sorted(named.group_by("theta_e")):
        key = f"{theta:.2f}+sersic"
        frame = part.select("injection_id", "galaxy_id", "tile")
        batches[f"injection_batch[{key}]"] = artefact("injection_batch", key, "data", frame, **inputs).digest
    surface = artefact("completeness_surface", "d+sersic", "data", pl.DataFrame({"n": [1]}), **batches)
    counted = build(named, realism=None, variant="sersic")
    folder = tmp_path / "release"
    folder.mkdir()
    write_release(
        Draft(folder), {"d|sersic": counted}, name="it", version="1.0.0", realism=None, priors={}, detector={},
        lineage=trace(store, surface), citation={"title": "t", "authors": [{"name": "n"}]},
    )  # fmt: skip
    return folder, store, named


def test_a_cell_leads_to_its_injections_hosts_stamps_bricks_and_sweep_files(made):
    folder, store, named = made
    found = cell_lineage(folder, store, **WHERE)
    mine = named.filter((pl.col("theta_e") == 1.0) & (pl.col("psfsize_r") == 1.2) & (pl.col("depth_r") == 23.0))
    assert CELL_LINEAGE.violations(found.injections) == []
    assert found.injections["injection"].to_list() == mine["injection_id"].sort().to_list()
    assert found.cell["n"] == mine.height
    assert found.cell["hosts"] == mine["galaxy_id"].n_unique()
    for row in found.injections.iter_rows(named=True):
        tile = tile_of(row["host"])
        assert (row["tile"], row["brickname"], row["sweep_digest"]) == (tile, f"brick of {tile}", f"file of {tile}")
        assert row["stamp_digest"] == row["host"]
        assert row["batch"] == "injection_batch[1.00+sersic]"
    assert sorted(found.artefacts) == [
        "cutouts[000m005]", "cutouts[010p000]", "injection_batch[1.00+sersic]", "sweeps[000m005]", "sweeps[010p000]",
    ]  # fmt: skip
    stated = json.loads((folder / "LINEAGE.json").read_text())
    assert all(stated[name]["digest"] == digest for name, digest in found.artefacts.items())


def test_an_artefact_made_again_with_other_content_is_named(made):
    folder, store, _ = made
    old = store.get("injection_batch", "1.00+sersic")
    with store.draft("injection_batch", "1.00+sersic", made_from={"code": "another"}) as draft:
        draft.table(old.read().head(3))
    with pytest.raises(BadInput, match=r"injection_batch\[1.00\+sersic\] has been made again"):
        cell_lineage(folder, store, **WHERE)
    store.delete("sweeps", "000m005")
    with pytest.raises(BadInput, match=r"sweeps\[000m005\] is gone"):
        cell_lineage(folder, store, **{**WHERE, "theta_e": 1.5})


def test_a_question_outside_the_grid_is_refused(made):
    folder, store, _ = made
    with pytest.raises(BadInput, match="outside the grid"):
        cell_lineage(folder, store, **{**WHERE, "depth": 27.0})
