"""The chain with its artefacts in a bucket: configuration decides, the bytes do not change, and a restart does nothing."""

import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest

from lens_assets.chain import STEPS, run_chain
from lens_assets.cli.mock import write
from lens_assets.definitions import defs
from lens_assets.resources.workspace import Workspace
from lens_assets.science.storage import Artefact, verify

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
SEED = 20261123
EXTERNAL = {"surroundings", "compositions"}
UNTIL_CUTOUTS = tuple(name for step in STEPS[:6] for name in step.assets)


@dataclass
class Run:
    """A chain that ran in a workspace of its own."""

    workspace: Workspace
    instance: dg.DagsterInstance

    def go(self, only: tuple[str, ...] | None) -> list[bool]:
        """Run it; whether each materialisation was found to be made already."""
        seen = {run.run_id for run in self.instance.get_runs()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            list(run_chain(defs, self.workspace, self.instance, only=only))
        made = []
        for run in self.instance.get_runs():
            if run.run_id not in seen:
                for record in self.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION):
                    found = record.dagster_event.step_materialization_data.materialization
                    if found.asset_key.to_user_string() not in EXTERNAL:  # told by sensors: nothing is made
                        made.append(bool(found.metadata["reused"].value))
        return made

    def artefacts(self) -> dict[str, Artefact]:
        """Everything in its store, by asset[partition]."""
        store = self.workspace.store()
        return {f"{asset}[{key}]": store.get(asset, key) for asset in store.assets() for key in store.partitions(asset)}


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest practice sky."""
    root = tmp_path_factory.mktemp("sky")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write(root, "tiny", SEED, 2)
    return root


@pytest.fixture
def runs(sky: Path, s3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Run]]:
    """A near and a far workspace over the same sky; the far one by the environment alone."""
    with ExitStack() as stack:
        found = {}
        for name in ("near", "far"):
            for sub in ("home", "dagster"):
                (tmp_path / name / sub).mkdir(parents=True)
            (tmp_path / name / "home" / "truth").symlink_to(sky / "truth")  # for the closure audit
            instance = stack.enter_context(dg.DagsterInstance.local_temp(str(tmp_path / name / "dagster")))
            place = {"release": str(sky / "release"), "catalogues": str(sky / "catalogues"), "profile_name": "tiny"}
            found[name] = Run(Workspace(home=str(tmp_path / name / "home"), **place), instance)
        monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "near" / "dagster"))
        yield found


def compare(runs: dict[str, Run], s3, monkeypatch: pytest.MonkeyPatch, only: tuple[str, ...] | None) -> None:
    """Both ways give the same manifests; the far one wrote nothing into its home's store and lists on no hot path."""
    runs["near"].go(only)
    near = runs["near"].artefacts()
    monkeypatch.setenv("LENS_ASSETS_STORE", f"s3://lenses/chain-{'whole' if only is None else 'tiles'}")
    with s3.counting() as asked:
        runs["far"].go(only)
    far = runs["far"].artefacts()
    assert sorted(far) == sorted(near)
    assert len(near) > 15
    assert [name for name in near if dict(near[name].manifest) != dict(far[name].manifest)] == []
    for artefact in far.values():
        assert artefact.uri.startswith("s3://lenses/chain-")
        verify(artefact)
    assert not (runs["far"].workspace.root / "store").exists()
    assert asked.count("PUT manifest") == len(far)
    # Only the checks across all partitions list: of the stamps (one a tile) and of the negatives' pools.
    assert asked.count("GET list") < len(far)
    with s3.counting() as asked:
        assert all(runs["far"].go(only))
    assert not [what for what in asked if what.startswith(("PUT", "POST", "DELETE"))]
    assert "GET file" not in asked


def test_the_chain_up_to_the_stamps_has_the_same_digests_in_a_bucket(runs, s3, monkeypatch):
    compare(runs, s3, monkeypatch, UNTIL_CUTOUTS)


def test_the_whole_chain_has_the_same_digests_in_a_bucket(runs, s3, monkeypatch):
    compare(runs, s3, monkeypatch, None)
