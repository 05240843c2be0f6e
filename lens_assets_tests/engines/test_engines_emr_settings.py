"""The settings of EMR: explicit, complete, and refused with a clear word before anything is started."""

from pathlib import Path

import pytest
import yaml

import lens_assets
from lens_assets.resources.emr.settings import EmrSettings, load_settings
from lens_assets.science.errors import BadInput

EXAMPLE = Path(lens_assets.__file__).parents[1] / "deploy" / "emr.yaml"


def put(settings: dict, key: str, value: object) -> dict:
    """The settings with one value, at a dotted place, changed (``...`` removes it)."""
    *path, last = key.split(".")
    at = settings
    for name in path:
        at = at[name]
    if value is ...:
        at.pop(last)
    else:
        at[last] = value
    return settings


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("region", "oregon", "not an AWS region"),
        ("region", ..., "region"),
        ("bucket", "s3://lenses", "no s3://"),
        ("prefix", "/a/", "no slash at either end"),
        ("archive", "venv.tar.gz", "an archive on S3"),
        ("entry", "s3://lenses/main.jar", "a Python file on S3"),
        ("max_hours", 0, "greater than 0"),
        ("max_hours", ..., "max_hours"),
        ("poll_seconds", 1e9, "less than or equal to 300"),
        ("idle", 3, "Extra inputs are not permitted"),
        ("cluster.idle_minutes", ..., "idle_minutes"),
        ("cluster.idle_minutes", 0, "greater than or equal to 1"),
        ("cluster.release_label", "latest", "not a release label"),
        ("cluster.primary.instance_type", "huge", "not an instance type"),
        ("cluster.primary.spot", True, "a spot primary node takes the cluster"),
        ("cluster.primary.count", 3, "one node"),
        ("cluster.core.count", 0, "greater than or equal to 1"),
        ("cluster.core.spot_max_usd", 0.5, "spot_max_usd is for spot machines"),
        ("cluster.task.spot_max_usd", 0, "greater than 0"),
        ("cluster.core.instance_type", "m7g.2xlarge", "m7g.2xlarge is not x86_64"),
        ("cluster.subnet", "default", "not a subnet"),
        ("cluster.step_concurrency", 300, "less than or equal to 256"),
        ("architecture", "arm64", "m7i.xlarge is not arm64"),
        ("serverless.execution_role", "emr-role", "not the ARN of a role"),
        ("serverless.max_vcpu", 6, "no room for a driver and an executor"),
        ("serverless.cores", 3, "Input should be 1, 2, 4, 8 or 16"),
        ("spark_conf", {"executor.memory": "4g"}, "does not start with spark."),
        ("spark_conf", {"spark.archives": "x"}, "is set by the platform"),
        ("spark_conf", {"spark.executorEnv.PYSPARK_PYTHON": "x"}, "is set by the platform"),
    ],
)
def test_a_wrong_value_is_refused_with_the_file_and_a_reason(settings_dict, tmp_path, key, value, says):
    path = tmp_path / "emr.yaml"
    path.write_text(yaml.safe_dump(settings_dict))
    load_settings(path)
    path.write_text(yaml.safe_dump(put(settings_dict, key, value)))
    with pytest.raises(BadInput, match=r"emr\.yaml") as refusal:
        load_settings(path)
    assert says in str(refusal.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("secret_key", "x"),
        ("spark_conf", {"spark.hadoop.fs.s3a.secret.key": "x"}),
        ("spark_conf", {"spark.hadoop.fs.s3a.access.key": "x"}),
        ("cluster.tags", {"password": "x"}),
        ("cluster.tags", {"owner": "key AKIAABCDEFGHIJKLMNOP"}),
        ("cluster.configurations", [{"Properties": {"AWS_SESSION_TOKEN": "x"}}]),
    ],
)
def test_what_looks_like_a_credential_is_refused_and_not_repeated(settings_dict, tmp_path, key, value):
    path = tmp_path / "emr.yaml"
    path.write_text(yaml.safe_dump(put(settings_dict, key, value)))
    with pytest.raises(BadInput, match="never from this file") as refusal:
        load_settings(path)
    assert "AKIA" not in str(refusal.value)


def test_the_section_of_the_chosen_engine_must_be_there(settings_dict, tmp_path):
    path = tmp_path / "emr.yaml"
    path.write_text(yaml.safe_dump(put(settings_dict, "serverless", ...)))
    assert load_settings(path, "cluster").serverless is None
    with pytest.raises(BadInput, match="section `serverless` is needed"):
        load_settings(path, "serverless")
    path.write_text(yaml.safe_dump(put(settings_dict, "cluster", ...)))
    with pytest.raises(BadInput, match="name a `cluster`, a `serverless`"):
        load_settings(path)


def test_a_missing_file_and_one_that_is_not_yaml_are_named(tmp_path):
    with pytest.raises(BadInput, match=r"nowhere\.yaml.*deploy/emr\.yaml is an example"):
        load_settings(tmp_path / "nowhere.yaml")
    (tmp_path / "bad.yaml").write_text("a: [1")
    with pytest.raises(BadInput, match=r"bad\.yaml.*not YAML"):
        load_settings(tmp_path / "bad.yaml")


def test_the_example_in_deploy_is_valid_and_states_every_setting_of_cost():
    settings = load_settings(EXAMPLE)
    stated = yaml.safe_load(EXAMPLE.read_text())
    assert {"region", "max_hours", "architecture"} <= set(stated)
    assert {"primary", "core", "task", "idle_minutes", "release_label", "subnet"} <= set(stated["cluster"])
    assert {"max_vcpu", "max_memory_gb", "idle_minutes", "cores", "memory_gb"} <= set(stated["serverless"])
    assert settings.cluster.release_label == "emr-spark-8.0.0"
    assert settings.cluster.task.spot


def test_settings_cannot_be_changed_after_they_were_checked(settings_dict):
    settings = EmrSettings.model_validate(settings_dict)
    with pytest.raises(ValueError, match="frozen"):
        settings.max_hours = 100
