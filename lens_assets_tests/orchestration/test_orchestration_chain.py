"""The whole chain on the smallest practice sky, once; then again, and with a catalogue that arrives late."""

import contextlib
import csv
import json
import os
import re
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import numpy as np
import polars as pl
import pytest

from lens_assets import lookup
from lens_assets.chain import STEPS, ChainFailed, Progress, partitions_of, run_chain
from lens_assets.cli.mock import write
from lens_assets.cli.summary import summary
from lens_assets.definitions import defs
from lens_assets.resources.workspace import Workspace
from lens_assets.science.injections.cosmos import read_galaxies
from lens_assets.science.mock.catalogues import late_catalogue
from lens_assets.science.provenance import CONFIG
from lens_assets.science.release import lineage, publish
from lens_assets.science.storage import Artefact, verify
from lens_assets.science.surveys.layout import tile_of_file
from lens_assets_tests.injections.test_injections_galaxies import write_catalogue

pytestmark = [pytest.mark.timeout(1500)]
SEED = 20261123
UNTIL_EVALUATION = tuple(name for step in STEPS[:9] for name in step.assets)


def artefacts(workspace: Workspace) -> dict[str, Artefact]:
    """Every complete artefact by asset[partition]."""
    store = workspace.store()
    return {
        f"{asset.name}[{key}]": store.get(asset.name, key)
        for asset in sorted(store.root.iterdir())
        for key in store.partitions(asset.name)
    }


def state(workspace: Workspace) -> dict[str, tuple[str, int, int]]:
    """Folder and times of every artefact: a rewrite shows here even when the bytes are the same."""
    return {
        name: (str(a.folder), a.folder.stat().st_mtime_ns, (a.folder.parent / "manifest.json").stat().st_mtime_ns)
        for name, a in artefacts(workspace).items()
    }


@dataclass
class Home:
    """A finished chain: its workspace, its Dagster instance, and what the first run reported."""

    workspace: Workspace
    instance: dg.DagsterInstance
    first: list[Progress]
    heard: list[str]

    def judge(self, variant: str) -> None:
        """Batches and report of one more variant."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            only = ("injection_batch", "realism")
            list(run_chain(defs, self.workspace, self.instance, only=only, variants=(variant,)))

    def again(self, only: tuple[str, ...] | None = None) -> dict[str, bool]:
        """Run the chain again; ``reused`` of every materialisation by asset[partition]."""
        seen = {run.run_id for run in self.instance.get_runs()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            list(run_chain(defs, self.workspace, self.instance, only=only))
        found: dict[str, bool] = {}
        for run in self.instance.get_runs():
            if run.run_id in seen:
                continue
            for record in self.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION):
                made = record.dagster_event.step_materialization_data.materialization
                if "reused" not in made.metadata:
                    continue  # what a run tells of an external asset (surroundings), not an artefact
                key = (made.partition or "all").replace("|", "+")
                found[f"{made.asset_key.to_user_string()}[{key}]"] = bool(made.metadata["reused"].value)
        return found


@contextlib.contextmanager
def environment(**values: str) -> Iterator[None]:
    """Environment variables, put back afterwards."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    root = tmp_path_factory.mktemp("chain")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    # The environment names another home on purpose: the chain must write where the workspace says.
    with (
        environment(LENS_ASSETS_HOME=str(elsewhere), LENS_ASSETS_PROFILE="tiny", DAGSTER_HOME=str(root / "dagster")),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # of the libraries that train and plot: their rooms' tests hear them
        write(root, "tiny", SEED, 2)
        workspace = Workspace(home=str(root), profile_name="tiny")
        (root / "dagster").mkdir()
        with dg.DagsterInstance.local_temp(str(root / "dagster")) as instance:
            heard: list[str] = []
            first = list(run_chain(defs, workspace, instance, hear=heard.append))
            yield Home(workspace, instance, first, heard)
    assert not list(elsewhere.iterdir())


def test_every_step_of_the_chain_yields_once_for_each_of_its_partitions(home):
    profile = home.workspace.profile()
    expected = [
        (step, number, key)
        for step in STEPS
        if step.wanted(profile)
        for number, key in enumerate(partitions_of(step.axis, profile, home.instance), 1)
    ]
    assert [(p.step, p.number, p.partition) for p in home.first] == expected
    assert {p.step for p in home.first} == {step for step in STEPS if step.wanted(profile)}


def test_who_runs_the_chain_hears_what_its_assets_log_and_nothing_of_dagsters_own(home):
    assert any("epoch" in line for line in home.heard)
    assert not any("STEP_START" in line or "Started execution" in line for line in home.heard)


def test_the_chain_writes_into_the_workspace_it_was_given(home):
    made = artefacts(home.workspace)
    profile = home.workspace.profile()
    assert {a.asset for a in made.values()} == {name for s in STEPS if s.wanted(profile) for name in s.assets}
    for artefact in made.values():
        verify(artefact)


def test_the_release_is_intact_and_the_look_up_answers_from_it(home):
    (place,) = [p for p in home.workspace.product_folder.iterdir() if not p.name.startswith(".")]
    assert publish.verify(place)
    answer = lookup.load(place).describe(theta_e=1.0, psf=1.3, depth=23.5, threshold="default", level=0.68)
    assert "theta_e" in answer.lower() or "completeness" in answer.lower()


def test_the_survey_weighted_number_of_every_tile_is_what_numpy_makes_of_its_sweep_file(home, weighted_by_hand):
    store, profile = home.workspace.store(), home.workspace.profile()
    (place,) = [p for p in home.workspace.product_folder.iterdir() if not p.name.startswith(".")]
    surface = lookup.load(place)
    point = surface.operating_points[surface.default_threshold]
    edges = {a: np.array(surface.header["grid"][a]["edges"]) for a in ("psf", "depth")}
    batches = pl.concat([store.get("injection_batch", p).read() for p in store.partitions("injection_batch")])
    scores = pl.concat([store.get("injection_scores", p).read() for p in store.partitions("injection_scores")])
    rows = batches.join(scores, on="injection_id")
    raw = {
        k: rows[c].to_numpy()
        for k, c in (("theta_e", "theta_e"), ("psf", "psfsize_r"), ("depth", "depth_r"), ("score", "score"))
    }
    raw["type"] = rows["type"].cast(pl.String).to_numpy().astype(str)
    published = pl.read_parquet(next(place.glob("survey*.parquet"))).filter(pl.col("operating_point") == point["name"])
    types, least = ("SER", "DEV", "REX", "EXP"), profile.completeness.min_per_stratum
    compared = 0
    for sweep in sorted((home.workspace.root / "release").rglob("sweep-*.fits")):
        tile = tile_of_file(sweep.name).key
        for theta in profile.runs.theta_e:
            own = published.filter((pl.col("tile") == tile) & (pl.col("axis_centre") == theta)).row(0, named=True)
            hand = weighted_by_hand(sweep, raw, edges, theta, point["cut"], least, types)
            shares = {k: own[f"share_{k}"] for k in ("supported", "empty", "insufficient", "outside")}
            assert shares == pytest.approx({k: hand[k] for k in shares}, abs=1e-12)
            if hand["supported"]:
                compared += 1
                assert own["completeness"] == pytest.approx(hand["value"], abs=1e-12)
            else:
                assert own["completeness"] is None
    assert compared > 0


def test_the_lineage_of_a_surface_reaches_a_sweep_a_channel_and_names_their_digests(home):
    store = home.workspace.store()
    (key,) = store.partitions("completeness_surface")
    found = lineage.trace(store, store.get("completeness_surface", key))
    for asset in ("sweeps", "lens_channel", "cutouts", "network", "detector"):
        names = [name for name in found if name.startswith(f"{asset}[")]
        assert names, f"{asset} is not in the lineage: {sorted(found)}"
        for name in names:
            partition = name.removeprefix(f"{asset}[").removesuffix("]")
            assert found[name]["digest"] == store.get(asset, partition).digest
    assert not [name for name, entry in found.items() if entry.get("replaced")]


def test_the_summary_shows_the_verdict_and_an_interval_and_n_with_every_area_under_a_curve(home):
    text = summary(home.workspace)
    assert re.search(r"^  realism (GO|NO-GO): \S", text, flags=re.M), text
    areas = [line for line in text.splitlines() if " auc " in line]
    assert areas
    for line in areas:
        assert ("[" in line and "]" in line) or " - " in line, line
        assert "n = " in line, line
    assert "AGAINST THE HIDDEN TRUTH" in text
    (place,) = [p.name for p in home.workspace.product_folder.iterdir() if not p.name.startswith(".")]
    assert place in text


def test_a_second_run_reuses_everything_and_touches_no_artefact(home):
    before = state(home.workspace)
    reused = home.again()
    assert set(reused) == set(before)
    assert not [name for name, was in reused.items() if not was]
    assert state(home.workspace) == before


def test_an_ensemble_goes_through_the_whole_chain_as_a_network_does(home, tmp_path):
    text = (CONFIG / "profiles" / "tiny.yaml").read_text().replace("[tiny-s1]", "[mean_tiny-e1]")
    (tmp_path / "ensemble.yaml").write_text(text)
    workspace = Workspace(home=home.workspace.home, profile_name=str(tmp_path / "ensemble.yaml"))
    other = Home(workspace, home.instance, [], [])
    steps = tuple(name for step in STEPS if step.axis in ("network", "detector", "surface") for name in step.assets)
    reused = other.again(steps)
    assert reused["network[tiny-s1]"] is True
    assert reused["network[tiny-s2]"] is False
    made = {name for name in reused if "mean_tiny-e1" in name}
    assert made == {
        f"{name}[mean_tiny-e1{'' if step.axis == 'detector' else '+sersic-population'}]"
        for step in STEPS if step.axis in ("detector", "surface") for name in step.assets
    }  # fmt: skip
    store = workspace.store()
    key = "mean_tiny-e1+sersic-population"
    traced = lineage.trace(store, store.get("completeness_surface", key))
    for network in ("network[tiny-s1]", "network[tiny-s2]"):
        assert traced[network]["digest"] == store.get("network", network.removeprefix("network[")[:-1]).digest
    assert "detector[tiny-s1]" not in traced
    evaluation = store.get("evaluation", "mean_tiny-e1")
    assert evaluation.read("diversity").height
    assert evaluation.facts["best_member"] in ("tiny-s1", "tiny-s2")
    summary(workspace)
    assert all(other.again(steps).values())


def test_a_lens_outside_the_survey_renews_the_registry_but_trains_nothing(home):
    before = {name: a.digest for name, a in artefacts(home.workspace).items()}
    path = home.workspace.catalogue_folder / "far-away.csv"
    with open(path, "w", newline="") as stream:
        writer = csv.DictWriter(stream, ["name", "RA", "DEC", "grade"])
        writer.writeheader()
        writer.writerow({"name": "F1", "RA": 250.0, "DEC": 60.0, "grade": "A"})
    _settle(path)
    reused = home.again(UNTIL_EVALUATION)
    after = {name: a.digest for name, a in artefacts(home.workspace).items()}
    assert reused["lens_channel[far-away]"] is False
    assert after["lens_registry[all]"] != before["lens_registry[all]"]
    assert reused["lens_registry[all]"] is False
    assert reused["lens_matches[000m005]"] is False
    assert reused["network[tiny-s1]"] is True
    assert reused["detector[tiny-s1]"] is True
    assert all(was for name, was in reused.items() if name.startswith(("sweeps[", "cutouts[", "detector_scores[")))


def test_a_late_catalogue_renews_the_registry_and_trains_only_when_a_training_row_changed(home):
    store = home.workspace.store()
    before = {name: a.digest for name, a in artefacts(home.workspace).items()}
    rows = store.get("network", "tiny-s1").manifest["made_from"]["rows"]
    systems = store.get("lens_registry").read()
    path = home.workspace.catalogue_folder / "mock-late-imaging.csv"
    assert late_catalogue(home.workspace.truth_folder, path, SEED) > 3
    _settle(path)
    reused = home.again(UNTIL_EVALUATION)
    now = store.get("lens_registry").read()
    assert store.get("lens_registry").digest != before["lens_registry[all]"]
    assert now.filter(pl.col("channels").list.contains("mock-late-imaging")).height
    assert not systems.filter(pl.col("channels").list.contains("mock-late-imaging")).height
    same_rows = store.get("network", "tiny-s1").manifest["made_from"]["rows"] == rows
    assert reused["network[tiny-s1]"] is same_rows
    assert reused["detector[tiny-s1]"] is same_rows
    assert reused["lens_channel[mock-imaging]"] is True
    if same_rows:
        assert store.get("detector", "tiny-s1").digest == before["detector[tiny-s1]"]


def test_what_is_published_can_be_read_back_as_json_with_its_verdict(home):
    (place,) = [p for p in home.workspace.product_folder.iterdir() if not p.name.startswith(".")]
    (header,) = place.glob("surface*.json")
    assert json.loads(header.read_text())["verdict"]


def _settle(path: Path) -> None:
    """Make a file look as old as one that has been there for a minute."""
    moment = time.time() - 60
    os.utime(path, (moment, moment))


def test_real_galaxies_are_judged_through_dagster_with_the_number_of_sources_they_are(
    home: Home, tmp_path: Path
) -> None:
    """The row of real sources: by configuration alone, on a catalogue in GalSim's layout."""
    with pytest.raises(ChainFailed, match="LENS_ASSETS_GALAXIES"):
        home.judge("real-population")
    catalogue = write_catalogue(tmp_path)
    with environment(LENS_ASSETS_GALAXIES=str(catalogue)):
        usable = len(read_galaxies(catalogue, home.workspace.profile().injections.galaxies).ids)
        home.judge("real-population")
    made = home.workspace.store().get("realism", "tiny-s1+real-population")
    found = made.json("report")["facts"]["sources"]
    assert 1 <= found["distinct"] <= usable
    assert found["effective"] <= found["distinct"] + 1e-6
    assert any("distinct real galaxies" in reason for reason in made.facts["reasons"])
    assert "distinct real galaxies as sources" in (made.folder / "realism.html").read_text()
    batch = home.workspace.store().get("injection_batch", "1.00+real-population").read()
    assert set(batch["family"]) == {"real"}
    assert batch["source_id"].n_unique() <= usable
