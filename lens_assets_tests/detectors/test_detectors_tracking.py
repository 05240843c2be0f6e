"""MLflow: what is logged, the way back, and what becomes of a run that was killed."""

import warnings

import pytest

from lens_assets.science.detectors.train import train


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture(scope="module")
def start(place):
    from lens_assets.science.detectors.tracking import Tracking

    def begin(name, **more):
        return Tracking.start_run(
            f"sqlite:///{place}/mlflow.db", "detectors", name, artifact_root=place / "artefacts", **more
        )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the database is made, with the deprecations of others
        begin("first").end()
    return begin


@pytest.mark.filterwarnings("ignore")
def test_a_training_leaves_parameters_curves_files_and_the_way_back(start, recipe, sample, stamps, settings, tmp_path):
    tags = {"dagster.run_id": "abc", "dagster.asset": "detector", "dagster.partition": "tiny-s1"}
    with start("tiny-s1", tags=tags) as tracking:
        result = train(recipe, sample, stamps, tmp_path, settings=settings, logger=tracking, epochs=2)
        (tmp_path / "weights.safetensors").write_bytes(b"x")
        tracking.artifact(tmp_path / "weights.safetensors")
        tracking.metrics({"report/auc": 0.9, "none": None, "nan": float("nan")})
    run = tracking._client.get_run(tracking.run_id)
    assert run.info.status == "FINISHED"
    assert {k: run.data.tags[k] for k in tags} == tags
    assert run.data.params["recipe.schedule.epochs"] == "2"
    assert run.data.params["loss_weights.0.5"] == str(result.config["loss_weights"]["0.5"])
    assert run.data.params["data_digest"] == result.config["data_digest"]
    curve = tracking._client.get_metric_history(tracking.run_id, "select_auc")
    assert [m.step for m in curve] == [0, 1]
    assert [m.value for m in curve] == result.history["select_auc"].to_list()
    assert set(run.data.metrics) == {"steps", "lr", "train_loss", "select_loss", "select_auc", "report/auc"}
    assert [f.path for f in tracking._client.list_artifacts(tracking.run_id)] == ["weights.safetensors"]
    assert tracking.run_id in tracking.url


@pytest.mark.filterwarnings("ignore")
def test_a_run_that_was_killed_is_continued_and_a_finished_one_is_not(start):
    killed = start("a", key="tiny-s1|123")
    killed.params({"x": 1})
    again = start("a", key="tiny-s1|123")
    assert again.run_id == killed.run_id
    again.params({"x": 2, "y": 3})  # MLflow would refuse the change of x
    again.end()
    other = start("a", key="tiny-s1|123")
    assert other.run_id != killed.run_id
    other.end("KILLED")


@pytest.mark.filterwarnings("ignore")
def test_a_run_that_fails_says_why(start):
    with pytest.raises(RuntimeError, match="broken"), start("b") as tracking:
        raise RuntimeError("broken")
    run = tracking._client.get_run(tracking.run_id)
    assert run.info.status == "FAILED"
    assert run.data.tags["lens_assets.fault"] == "RuntimeError: broken"


@pytest.mark.filterwarnings("ignore")
def test_what_is_told_of_one_detector_at_several_times_is_one_run(start):
    with start("c", key="detector 1", again=True) as first:
        first.params({"x": 1})
        first.curves({"select_auc": [0.5, 0.7, float("nan")]}, [0, 1, 2])
    with start("c", key="detector 1", again=True) as second:
        assert second.run_id == first.run_id
        assert second.has_params
        second.metrics({"held-out.auc": 0.9})
    run = first._client.get_run(first.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"select_auc": 0.7, "held-out.auc": 0.9}
    assert [m.value for m in first._client.get_metric_history(first.run_id, "select_auc")] == [0.5, 0.7]


@pytest.mark.filterwarnings("ignore")
def test_versions_are_folders_of_safetensors_registered_once_and_aliases_move(start, place, tmp_path):
    from mlflow.tracking import MlflowClient

    from lens_assets.science.detectors.registry import CHAMPION, Registry, frozen_alias, model_name

    uri = f"sqlite:///{place}/mlflow.db"
    registry = Registry(uri, model_name("test"))
    assert registry.aliases() == {}
    assert registry.version_of("d1") is None
    registry.clear(CHAMPION)  # nothing to take away is no error
    (tmp_path / "weights.safetensors").write_bytes(b"x")
    (tmp_path / "spec.json").write_text("{}")
    versions = []
    for key, digest in (("a-s1", "d1"), ("b-s1", "d2")):
        with start(key, key=f"detector {digest}", again=True) as run:
            run.artifact(tmp_path, "checkpoint")
            versions.append(registry.register(run.run_id, key, digest))
    assert versions == ["1", "2"]
    assert registry.register(run.run_id, "b-s1", "d2", {"lens_assets.gates": "green"}) == "2"
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    version = client.get_model_version(registry.model, "2")
    assert version.tags == {"lens_assets.digest": "d2", "lens_assets.detector": "b-s1", "lens_assets.gates": "green"}
    assert version.source.endswith(f"{run.run_id}/artifacts/checkpoint")
    files = {f.path for f in client.list_artifacts(version.run_id, "checkpoint")}
    assert files == {"checkpoint/weights.safetensors", "checkpoint/spec.json"}, "no pickle, no flavour"
    surface = frozen_alias("a-s1+sersic-population")
    assert surface == "frozen-for-a-s1-sersic-population"
    registry.point(CHAMPION, "1")
    registry.point(surface, "1")
    registry.point(CHAMPION, "2")
    assert registry.aliases() == {CHAMPION: "2", surface: "1"}
    registry.clear(CHAMPION)
    assert registry.aliases() == {surface: "1"}
