"""Tile assets in Dagster: one tile or a range in one run, each tile reported with its own digest, whatever the engine."""

import json
from pathlib import Path

import dagster as dg
import pytest

from lens_assets.assets import lenses, negatives, surveys
from lens_assets.assets.stage import FORCE_TAG
from lens_assets.assets.tiles import AT_ONCE, tiles_at_once
from lens_assets.checks.tables import registry_checks
from lens_assets.resources import engine as engine_module
from lens_assets.resources.artefacts import ArtefactIOManager
from lens_assets.resources.engine import Engine, confirm
from lens_assets.resources.workspace import Workspace
from lens_assets.science.engines.report import LostTiles, TileReport
from lens_assets.science.errors import BadInput
from lens_assets.science.storage import Store

pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:Parameter `include_sources` of function `AssetSelection.all`"),
    # Dagster's own initialisation of a nested resource calls what Dagster has deprecated.
    pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run is deprecated:DeprecationWarning"),
]
TILE_ASSETS = [
    surveys.sweep_files, negatives.surroundings, surveys.sweeps, surveys.conditions, negatives.sweep_border,
    lenses.lens_matches, negatives.negative_pool,
]  # fmt: skip


class Home:
    """An installation over the small survey, with a Dagster instance that knows its tiles."""

    def __init__(self, root: Path, release: Path, registry, keys: list[str], instance: dg.DagsterInstance) -> None:
        self.workspace = Workspace(home=str(root), release=str(release), profile_name="paper")
        self.instance, self.keys, self.cursor = instance, keys, None
        with self.workspace.store().draft("lens_registry", made_from={"test": 1}) as draft:
            draft.table(registry)
        instance.add_dynamic_partitions("tile", keys)
        self.defs = dg.Definitions(
            assets=TILE_ASSETS,
            resources={"workspace": self.workspace, "artefacts": ArtefactIOManager(workspace=self.workspace)},
            executor=dg.in_process_executor,
        )
        self.job = self.defs.resolve_implicit_global_asset_job_def()

    def run(self, *assets: str, tile: str | None = None, **tags: str) -> dg.ExecuteInProcessResult:
        """One tile, or without one all of them as a range in one run."""
        whole = {
            "dagster/asset_partition_range_start": self.keys[0],
            "dagster/asset_partition_range_end": self.keys[-1],
        }
        return self.job.execute_in_process(
            instance=self.instance,
            asset_selection=[dg.AssetKey(a) for a in assets],
            partition_key=tile,
            tags={**({} if tile else whole), **tags},
            raise_on_error=False,
        )

    def latest(self, asset: str, tile: str) -> dg.AssetMaterialization | None:
        """What Dagster holds to be the newest materialisation of a tile."""
        filters = dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[tile])
        records = self.instance.fetch_materializations(filters, limit=1).records
        return records[0].asset_materialization if records else None

    def versions(self, asset: str) -> dict[str, str]:
        return {t: e.tags["dagster/data_version"] for t in self.keys if (e := self.latest(asset, t))}

    def digests(self, asset: str) -> dict[str, str]:
        store = self.workspace.store()
        return {t: store.get(asset, t).digest[:16] for t in store.partitions(asset)}

    def ask(self) -> dict[str, set[str]]:
        """One tick of the automation."""
        found = dg.evaluate_automation_conditions(self.defs, self.instance, cursor=self.cursor)
        self.cursor = found.cursor
        names = [a.key.to_user_string() for a in TILE_ASSETS[2:]]
        asked = {name: set(found.get_requested_partitions(dg.AssetKey(name))) for name in names}
        return {name: tiles for name, tiles in asked.items() if tiles}


@pytest.fixture
def home(tmp_path, release, registry, keys, monkeypatch):
    for name in ("ENGINE", "EMR", "SPARK_MASTER", "HOME", "STORE", "CACHE"):
        monkeypatch.delenv(f"LENS_ASSETS_{name}", raising=False)
    with dg.DagsterInstance.ephemeral() as instance:
        yield Home(tmp_path / "home", release, registry, keys, instance)


def errors_of(result: dg.ExecuteInProcessResult) -> str:
    return "\n".join(e.step_failure_data.error.to_string() for e in result.all_events if e.is_step_failure)


def test_a_range_is_one_call_of_the_engine_and_one_newest_event_a_tile_with_its_own_digest(home, monkeypatch):
    calls, make = [], Engine.make

    def counting(self, context, asset, tiles, workspace, **how):
        calls.append((asset, tiles))
        return make(self, context, asset, tiles, workspace, **how)

    monkeypatch.setattr(Engine, "make", counting)
    result = home.run("sweeps", "conditions", "lens_matches", "negative_pool")
    assert result.success, errors_of(result)
    assert sorted(calls) == [(a, home.keys) for a in ("conditions", "lens_matches", "negative_pool", "sweeps")]
    for asset in ("sweeps", "conditions", "lens_matches", "negative_pool"):
        assert home.versions(asset) == home.digests(asset)
        assert len(set(home.versions(asset).values())) == len(home.keys) or asset == "lens_matches"
        for tile in home.keys:
            event = home.latest(asset, tile)
            assert event.metadata["dagster/row_count"].value == home.workspace.store().get(asset, tile).facts["rows"]
            assert event.metadata["engine"].value == "local"
            assert event.metadata["reused"].value is False


def test_one_tile_and_the_range_agree_so_that_neither_renews_what_the_other_made(home):
    for tile in home.keys:
        assert home.run("sweeps", tile=tile).success
    one_by_one = home.versions("sweeps")
    assert home.run("sweeps").success
    assert home.versions("sweeps") == one_by_one == home.digests("sweeps")
    assert all(home.latest("sweeps", t).metadata["reused"].value for t in home.keys)


def test_after_a_range_the_automation_asks_for_what_hangs_on_new_content_once_and_comes_to_rest(home):
    def arrive(tile, version):
        tags = {"dagster/data_version": version}
        home.instance.report_runless_asset_event(dg.AssetMaterialization("sweep_files", partition=tile, tags=tags))

    for tile in home.keys:
        arrive(tile, "1")
    home.run("sweeps", "conditions", "lens_matches", "negative_pool")
    home.ask()
    assert home.ask() == {}
    home.run("sweeps")  # the same content again, as a range
    assert home.ask() == {}
    arrive(home.keys[1], "2")
    assert home.ask() == {"sweeps": {home.keys[1]}}


def test_the_job_over_a_range_leaves_the_checks_to_the_run_of_each_tile(home):
    checks = registry_checks(TILE_ASSETS)
    defs = dg.Definitions(
        assets=TILE_ASSETS, asset_checks=checks, jobs=[tiles_at_once()], resources=home.defs.resources
    )
    job = defs.resolve_job_def(AT_ONCE)
    whole = {"dagster/asset_partition_range_start": home.keys[0], "dagster/asset_partition_range_end": home.keys[-1]}
    result = job.execute_in_process(instance=home.instance, tags=whole, raise_on_error=False)
    assert result.success, errors_of(result)
    assert not result.get_asset_check_evaluations()
    assert set(home.versions("negative_pool")) == set(home.keys)
    one = defs.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=home.instance,
        partition_key=home.keys[0],
        asset_selection=[dg.AssetKey("sweeps")],
        raise_on_error=False,
    )
    assert one.success, errors_of(one)
    assert [c.passed for c in one.get_asset_check_evaluations()] == [True]
    assert home.latest("sweeps", home.keys[0]).metadata["reused"].value is True


def test_a_bad_tile_fails_the_range_after_the_others_were_reported(home, release, tmp_path):
    broken = tmp_path / "broken"
    for path in release.rglob("*.fits"):
        copy = broken / path.relative_to(release)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes()[: 20_000 if home.keys[2] in path.name else None])
    other = Home(
        tmp_path / "other", broken, home.workspace.store().get("lens_registry").read(), home.keys, home.instance
    )
    result = other.run("sweeps")
    assert not result.success
    text = errors_of(result)
    assert "1 of 4 tiles could not be made" in text
    assert f"sweep-{home.keys[2]}" in text or home.keys[2] in text
    assert set(other.versions("sweeps")) == set(home.keys) - {home.keys[2]}
    assert other.versions("sweeps") == other.digests("sweeps")
    alone = other.run("sweeps", tile=home.keys[2])
    assert not alone.success
    assert "BadInput" in errors_of(alone)


def test_the_force_tag_reaches_every_tile_of_a_range(home):
    home.run("sweeps")
    assert home.run("sweeps", **{FORCE_TAG: "true"}).success
    assert not any(home.latest("sweeps", t).metadata["reused"].value for t in home.keys)


def test_a_missing_input_is_named_for_one_tile_and_for_a_range(home):
    assert "sweeps[" in errors_of(home.run("conditions", tile=home.keys[0]))
    text = errors_of(home.run("conditions"))
    assert "4 of 4 tiles could not be made" in text
    assert "has not been materialised" in text


def test_the_engine_spark_makes_in_dagster_what_the_local_one_makes(
    home, spark, monkeypatch, tmp_path, release, registry
):
    home.run("sweeps", "negative_pool")
    monkeypatch.setenv("LENS_ASSETS_ENGINE", "spark")
    monkeypatch.setenv("LENS_ASSETS_SPARK_MASTER", "local[2]")
    with dg.DagsterInstance.ephemeral() as instance:
        other = Home(tmp_path / "spark", release, registry, home.keys, instance)
        result = other.run("sweeps", "negative_pool")
        assert result.success, errors_of(result)
        for asset in ("sweeps", "negative_pool"):
            assert other.versions(asset) == home.versions(asset)
            workers = {other.latest(asset, t).metadata["worker"].value for t in home.keys}
            assert not workers & {home.latest(asset, t).metadata["worker"].value for t in home.keys}
            assert {other.latest(asset, t).metadata["engine"].value for t in home.keys} == {"spark"}


def test_an_unknown_engine_is_refused_with_the_known_ones(home, monkeypatch):
    monkeypatch.setenv("LENS_ASSETS_ENGINE", "hadoop")
    text = errors_of(home.run("sweeps", tile=home.keys[0]))
    assert "no engine 'hadoop'" in text
    assert "local, processes, spark, emr, emr-serverless" in text


@pytest.mark.parametrize("name", ["emr", "emr-serverless"])
def test_a_remote_engine_refuses_roots_that_its_machines_cannot_reach(home, name):
    with pytest.raises(BadInput, match=r"the store .* cannot be reached from EMR: it must be s3://"):
        Engine(name=name).place(home.workspace)
    far = Workspace(
        home=home.workspace.home,
        release=home.workspace.release,
        store_root="s3://engines-tests/p",
        profile_name="paper",
    )
    with pytest.raises(BadInput, match=r"the data release .* must be s3:// or https://"):
        Engine(name=name).place(far)


def test_a_report_of_what_the_store_does_not_hold_is_found_out(home):
    home.run("sweeps", tile=home.keys[0])
    digest = home.workspace.store().get("sweeps", home.keys[0]).digest
    good = TileReport("sweeps", home.keys[0], digest=digest)
    confirm(home.workspace, [good, TileReport("sweeps", home.keys[1], error="failed: nothing to confirm")])
    with pytest.raises(LostTiles, match=r"holds nothing: do both sides use the same store\?"):
        confirm(home.workspace, [good, TileReport("sweeps", home.keys[1], digest="d")])
    with pytest.raises(LostTiles, match=f"holds {digest[:16]}"):
        confirm(home.workspace, [TileReport("sweeps", home.keys[0], digest="d")])


def test_the_place_of_a_run_is_that_of_its_workspace_and_carries_no_secret(home, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "do-not-carry-me")
    place = Engine().place(home.workspace)
    assert place.store == str(home.workspace.store().root)
    assert Store(place.store).get("lens_registry").digest == home.workspace.store().get("lens_registry").digest
    assert "do-not-carry-me" not in place.model_dump_json()
    assert json.loads(place.model_dump_json())["release"] == home.workspace.release_root


def test_importing_the_engines_reads_no_environment(monkeypatch):
    assert engine_module.Engine().name == ""
    monkeypatch.setenv("LENS_ASSETS_ENGINE", "processes")
    assert Engine().kind == "processes"
