"""The benchmark `spark` at a toy size: both sides agree, the line holds what is promised. Speed is not asserted."""

import json
import math

import pytest

from lens_assets.bench import spark as bench

pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"),
]


def test_both_sides_agree_and_the_line_holds_what_is_promised(spark):
    found = bench.bench_spark(1, rows=40_000, files=4, tile_rows=2_000)
    assert found["name"] == "spark"
    assert all(math.isfinite(found[key]) and found[key] > 0 for key in ("ours", "theirs", "ratio"))
    assert {"spread", "threads", "reference", "counted", "dr10"} <= set(found)
    assert found["counted"] > 100
    json.dumps(found)


def test_sides_that_count_differently_are_no_measurement(monkeypatch):
    monkeypatch.setattr(bench, "session", lambda settings: None)
    monkeypatch.setattr(bench, "ours", lambda spark, paths, partitions: {("SER", 0): 2})
    monkeypatch.setattr(bench, "native", lambda spark, folder: {("SER", 0): 1})
    monkeypatch.setattr("lens_assets.science.engines.spark.stop", lambda: None)
    with pytest.raises(RuntimeError, match="do not count the same: 2 and 1"):
        bench.bench_spark(1, rows=400, files=2, tile_rows=2_000)


def test_the_projection_states_what_it_assumes_and_scales_as_it_should():
    slow, fast = bench.project(1e5, 500), bench.project(2e5, 500)
    assert slow["hours_computing"] == pytest.approx(2 * fast["hours_computing"], rel=0.01)
    assert slow["archive"]["hours_reading"] == pytest.approx(2.827e9 * 500 / 1e6 / 100 / 3600, rel=0.01)
    assert slow["mirror"]["hours"] < slow["archive"]["hours"]
    assert slow["mirror"]["usd"] == pytest.approx(slow["mirror"]["hours"] * slow["usd_per_hour"], rel=0.02)
    assumed = slow["assumptions"]
    assert {"region", "machines", "cores", "usd_per_hour_spot", "usd_per_hour_emr", "not_counted"} <= set(assumed)
    assert assumed["rows"] == 2_827_055_986


def test_the_cluster_of_the_projection_is_that_of_the_example_settings():
    from pathlib import Path

    import lens_assets
    from lens_assets.resources.emr.settings import load_settings

    settings = load_settings(Path(lens_assets.__file__).parents[1] / "deploy" / "emr.yaml").cluster
    text = bench.CLUSTER["machines"]
    assert f"primary {settings.primary.instance_type}" in text
    assert f"core {settings.core.count} x {settings.core.instance_type} on demand" in text
    assert f"task {settings.task.count} x {settings.task.instance_type} spot" in text
    assert bench.CLUSTER["cores"] == 8 * (settings.core.count + settings.task.count)
    assert bench.CLUSTER["idle_minutes"] == settings.idle_minutes
