"""Configuration alone decides where artefacts are kept: the workspace, the I/O manager and an asset never know."""

from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from lens_assets.assets.stage import describe, stage
from lens_assets.partitions import ALL
from lens_assets.resources.artefacts import ArtefactIOManager
from lens_assets.resources.workspace import Workspace
from lens_assets.science.errors import BadInput
from lens_assets.science.storage import Artefact, Draft, verify

# Dagster's own initialisation of a nested resource calls what Dagster has deprecated.
deprecated = pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run is deprecated:DeprecationWarning")
KEYS = dg.StaticPartitionsDefinition(["a", "b", "c"])
VARIABLES = ("LENS_ASSETS_STORE", "LENS_ASSETS_CACHE", "LENS_ASSETS_CACHE_GB", "LENS_ASSETS_CATALOGUES")


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the machine's."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_without_settings_artefacts_are_kept_below_home(tmp_path):
    store = Workspace(home=str(tmp_path)).store()
    assert store.root == tmp_path / "store"


def test_the_environment_or_a_field_names_another_place_and_the_field_wins(tmp_path, monkeypatch):
    monkeypatch.setenv("LENS_ASSETS_STORE", "s3://somewhere/else/")
    monkeypatch.setenv("LENS_ASSETS_CACHE", str(tmp_path / "fast"))
    monkeypatch.setenv("LENS_ASSETS_CACHE_GB", "2.5")
    store = Workspace(home=str(tmp_path)).store()
    assert (store.root, store.cache.folder) == ("s3://somewhere/else", tmp_path / "fast" / "store")
    assert store.cache.max_bytes == 2_500_000_000
    store = Workspace(home=str(tmp_path), store_root="s3://mine", cache=str(tmp_path / "x"), cache_gb="0").store()
    assert (store.root, store.cache.folder, store.cache.max_bytes) == ("s3://mine", tmp_path / "x" / "store", None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LENS_ASSETS_STORE", "near")
    assert Workspace(home=str(tmp_path)).store().root == tmp_path / "near"


def test_the_copies_are_below_home_and_bounded_unless_somebody_says_otherwise(tmp_path):
    workspace = Workspace(home=str(tmp_path), store_root="s3://mine")
    assert workspace.store().cache.folder == tmp_path / "cache" / "store"
    assert workspace.store().cache.max_bytes == 50_000_000_000


@pytest.mark.parametrize("size", ["many", "-1", "inf", "nan"])
def test_a_bound_that_is_no_size_is_refused(tmp_path, size):
    with pytest.raises(BadInput, match="LENS_ASSETS_CACHE_GB"):
        Workspace(home=str(tmp_path), cache_gb=size).store()


def test_catalogues_in_a_bucket_are_refused_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("LENS_ASSETS_CATALOGUES", "s3://lists/strong")
    with pytest.raises(BadInput, match="local folder"):
        _ = Workspace(home=str(tmp_path)).catalogue_folder


def source(made: list[str]) -> dg.AssetsDefinition:
    @dg.asset(name="source", io_manager_key="artefacts", partitions_def=KEYS)
    def asset(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult[Artefact]:
        def make(draft: Draft) -> None:
            made.append(context.partition_key)
            draft.path("text.txt").write_text(context.partition_key)

        return stage(context, workspace, {"settings": 1}, make)

    return asset


def joined(seen: list[str]) -> dg.AssetsDefinition:
    @dg.asset(name="joined", io_manager_key="artefacts", ins={"source": dg.AssetIn(partition_mapping=ALL)})
    def asset(
        context: dg.AssetExecutionContext, workspace: Workspace, source: list[Artefact]
    ) -> dg.MaterializeResult[Artefact]:
        def make(draft: Draft) -> None:
            seen.extend(a.file("text.txt").read_text() for a in source)
            draft.path("text.txt").write_text("".join(seen))

        return stage(context, workspace, {"inputs": [a.digest for a in source]}, make)

    return asset


@deprecated
def test_assets_are_made_recognised_and_handed_on_through_a_bucket(bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("LENS_ASSETS_STORE", bucket.root)
    made, seen = [], []
    assets = [source(made), joined(seen)]

    def run(home: Path, **how: object) -> Callable:
        workspace = Workspace(home=str(home), profile_name="tiny")
        resources = {"workspace": workspace, "artefacts": ArtefactIOManager(workspace=workspace)}
        done = dg.materialize(assets, resources=resources, instance=instance, **how)
        assert done.success
        return lambda name: done.asset_materializations_for_node(name)[0].metadata

    with dg.DagsterInstance.ephemeral() as instance:
        for key in "bca":
            with bucket.server.counting() as asked:
                run(tmp_path / "one", selection=["source"], partition_key=key)
            assert asked.count("PUT file") == 1
            assert "GET list" not in asked
        with bucket.server.counting() as asked:
            metadata = run(tmp_path / "two", selection=["joined"])("joined")  # another machine: an empty cache
        assert (seen, asked.count("GET file")) == (["a", "b", "c"], 3)
        assert "GET list" not in asked
        assert metadata["reused"].value is False
        with bucket.server.counting() as asked:
            assert run(tmp_path / "three", selection=["source"], partition_key="a")("source")["reused"].value is True
        assert set(asked) == {"GET manifest"}
    assert made == ["b", "c", "a"]
    store = Workspace(home=str(tmp_path / "four")).store()
    for artefact in (*(store.get("source", key) for key in "abc"), store.get("joined")):
        verify(artefact)
    assert not (tmp_path / "one" / "store").exists()


def test_the_metadata_of_an_asset_in_a_folder_name_that_folder(tmp_path):
    with Workspace(home=str(tmp_path)).store().draft("thing") as draft:
        draft.path("text.txt").write_text("x")
    made = Workspace(home=str(tmp_path)).store().get("thing")
    assert describe(made)["dagster/uri"].value == str(made.folder) == made.uri
