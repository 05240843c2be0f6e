"""Training: what it learns from, what it must not see, and that a kill changes nothing."""

import numpy as np
import polars as pl
import pytest
import torch
from detectors_rings import Rings, lenses_of, train_until_killed

from lens_assets.assets.detectors import told
from lens_assets.science.detectors import checkpoint, loop
from lens_assets.science.detectors.loop import weighted_loss
from lens_assets.science.detectors.recipes import Recipe, parse_detector
from lens_assets.science.detectors.score import bf16_supported
from lens_assets.science.detectors.train import train
from lens_assets.science.errors import BadInput


@pytest.mark.parametrize("after", [0, 1])
def test_a_training_killed_in_the_middle_and_continued_ends_in_the_same_bytes(
    trained, recipe, sample, stamps, settings, tmp_path, after
):
    slow = settings.model_copy(update={"cache_bytes": 0})  # stamps are made again in every epoch
    lines = train_until_killed(recipe, tmp_path, slow, after)
    assert lines[-1] == f"epoch {after}"
    epochs = []
    again = train(recipe, sample, stamps, tmp_path, settings=settings, progress=lambda row: epochs.append(row["epoch"]))
    resumed = again.facts["resumed_after_epoch"]
    assert after <= resumed < 5, "it must have been continued, not begun again or found finished"
    assert epochs == list(range(resumed + 1, 6))
    for name, result in (("continued", again), ("undisturbed", trained)):
        (tmp_path / name).mkdir()
        checkpoint.save(tmp_path / name, result)
    for name in ("weights.safetensors", "spec.json", "history.parquet"):
        assert (tmp_path / "continued" / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes(), name


def test_a_finished_training_is_not_trained_again(trained, recipe, sample, stamps, settings):
    told = []
    again = train(recipe, sample, stamps, trained.checkpoint.parent.parent, settings=settings, progress=told.append)
    assert told == []
    assert all(torch.equal(again.weights[k], trained.weights[k]) for k in trained.weights)


def test_the_network_learns_to_see_rings(trained):
    assert trained.history["select_auc"].max() > 0.9
    assert trained.history["train_loss"][-1] < 0.8 * trained.history["train_loss"][0]


def test_the_epoch_is_the_one_with_the_best_auc_on_the_select_rows(trained):
    best = trained.history.sort(["select_auc", "select_loss"], descending=[True, False]).row(0, named=True)
    assert trained.best_epoch == best["epoch"]
    assert trained.history.filter("best")["epoch"].to_list() == [best["epoch"]]


def test_rows_of_other_roles_can_say_anything_without_changing_a_weight(
    trained, recipe, sample, stamps, settings, tmp_path
):
    other = ~pl.col("role").is_in(["train", "select"])
    lie = sample.with_columns(
        label=pl.when(other).then(1 - pl.col("label")).otherwise("label").cast(pl.Int8),
        weight=pl.when(other).then(99.0).otherwise("weight"),
    ).reverse()
    again = train(recipe, lie, stamps, tmp_path, settings=settings)
    assert again.identity == trained.identity
    assert all(torch.equal(again.weights[k], trained.weights[k]) for k in trained.weights)


def test_a_changed_training_label_does_change_the_weights(trained, recipe, sample, stamps, settings, tmp_path):
    one = sample.filter((pl.col("role") == "train") & (pl.col("label") == 0))["galaxy_id"][0]
    lie = sample.with_columns(label=pl.when(pl.col("galaxy_id") == one).then(1).otherwise("label").cast(pl.Int8))
    again = train(recipe, lie, stamps, tmp_path, settings=settings)
    assert again.identity != trained.identity
    assert any(not torch.equal(again.weights[k], trained.weights[k]) for k in trained.weights)


def test_tier_b_weighs_what_the_recipe_says_and_the_effective_weights_are_logged(sample, stamps, settings, tmp_path):
    ends = {}
    for weight in (0.3, 0.6):
        recipe = parse_detector("tiny-s1", overrides={"tiny": {"input_size": 33, "tier_b_weight": weight}})
        result = train(recipe, sample, stamps, tmp_path, settings=settings, epochs=1)
        n_b = sample.filter((pl.col("role") == "train") & (pl.col("tier") == "B")).height
        assert result.config["loss_weights"][f"{weight:g}"] == n_b
        ends[weight] = result.weights
    assert any(not torch.equal(ends[0.3][k], ends[0.6][k]) for k in ends[0.3])


def test_the_loss_is_the_weighted_mean_cross_entropy():
    rng = np.random.default_rng(3)
    z, y, w = rng.normal(0, 3, 50), rng.integers(0, 2, 50), rng.uniform(0.3, 1, 50)
    p = 1 / (1 + np.exp(-z))
    expected = np.mean(-w * (y * np.log(p) + (1 - y) * np.log(1 - p)))
    got = weighted_loss(*(torch.tensor(v, dtype=torch.float32) for v in (z, y, w)))
    assert float(got) == pytest.approx(expected, rel=1e-5)


def test_a_loss_that_is_not_finite_stops_the_training(recipe, sample, stamps, settings, tmp_path):
    wild = recipe.model_copy(update={"schedule": recipe.schedule.model_copy(update={"lr": 1e38, "clip": 1e38})})
    with pytest.raises((FloatingPointError, ValueError)):
        train(wild, sample, stamps, tmp_path, settings=settings)


@pytest.mark.parametrize("role", ["train", "select"])
def test_a_role_of_one_class_is_refused(role, recipe, sample, stamps, settings, tmp_path):
    half = sample.filter((pl.col("role") != role) | (pl.col("label") == 0))
    with pytest.raises(BadInput, match=f"role '{role}' has 0 positives"):
        train(recipe, half, stamps, tmp_path, settings=settings)


def test_a_mixture_that_asks_for_an_empty_pool_is_refused(recipe, sample, settings, tmp_path):
    none = sample.filter(pl.col("pool").is_null() | (pl.col("pool") == "N1"))
    with pytest.raises(BadInput, match="N2 an epoch and the sample has none"):
        train(recipe, none, Rings(lenses_of(sample)), tmp_path, settings=settings)


@pytest.mark.skipif(not bf16_supported(), reason="no bfloat16 here")
def test_where_the_processor_has_bfloat16_products_are_in_it_and_weights_in_float32(
    recipe, sample, stamps, settings, tmp_path
):
    seen = set()

    def watch(module, inputs, output):
        if isinstance(module, torch.nn.Conv2d):
            seen.add((module.weight.dtype, output.dtype))

    watching = torch.nn.modules.module.register_module_forward_hook(watch)
    try:
        auto = recipe.model_copy(update={"precision": "auto"})
        result = train(auto, sample, stamps, tmp_path, settings=settings, epochs=3)
        assert (torch.float32, torch.bfloat16) in seen
        again = train(auto, sample, stamps, tmp_path / "again", settings=settings, epochs=3)
    finally:
        watching.remove()
    assert result.config["precision_used"] == "bf16-mixed"
    assert all(t.dtype in (torch.float32, torch.int64) for t in result.weights.values())
    assert result.history["train_loss"][2] < result.history["train_loss"][0]
    assert all(torch.equal(result.weights[k], again.weights[k]) for k in result.weights), (
        "the same seed, the same bytes"
    )


def test_accumulated_batches_make_the_step_of_the_whole_batch(sample, stamps, settings, tmp_path):
    encoder = {"kind": "dinov2", "weights": "random", "width": 32, "layers": 1, "heads": 2, "patch": 8, "positions": 32}
    plain = parse_detector("dinov2-s1").model_dump() | {"input_size": 33, "network": encoder}
    ends = []
    for batch, accumulate in ((40, 1), (10, 4)):
        schedule = plain["schedule"] | {
            "epochs": 3,
            "batch_size": batch,
            "accumulate": accumulate,
            "warmup_epochs": 0.0,
        }
        recipe = Recipe.model_validate(plain | {"schedule": schedule})
        ends.append(train(recipe, sample, stamps, tmp_path, settings=settings))
    assert ends[0].history["steps"].to_list() == ends[1].history["steps"].to_list() == [6, 12, 18]
    torch.testing.assert_close(ends[0].weights["head.weight"], ends[1].weights["head.weight"], rtol=1e-3, atol=1e-6)


def test_the_log_hears_how_far_a_long_epoch_is_and_how_long_a_training_can_still_take(
    recipe, sample, stamps, settings, tmp_path, monkeypatch
):
    monkeypatch.setattr(loop, "PULSE", 0.0)
    rows, lines = [], []
    train(recipe, sample, stamps, tmp_path, settings=settings, epochs=2, progress=rows.append, pulse=lines.append)
    assert [line.split(":")[0] for line in lines] == sorted(line.split(":")[0] for line in lines)
    assert "epoch 0: 1 of 8 batches; its last in about" in lines[0]
    assert rows[0]["at_most"] == pytest.approx(rows[0]["seconds"])
    assert rows[1]["at_most"] == 0
    assert "at most" in told(rows[0])
    assert "the last one" in told(rows[1])


def test_practice_runs_stop_after_their_minutes_and_say_so(recipe, sample, stamps, settings, tmp_path):
    short = settings.model_copy(update={"max_minutes": 1e-6})
    result = train(recipe, sample, stamps, tmp_path, settings=short)
    assert result.history.height == 1
    assert "minutes were over" in result.facts["ended"]


def test_training_stops_when_patience_is_over(recipe, sample, stamps, settings, tmp_path):
    schedule = recipe.schedule.model_copy(update={"lr": 1e-30, "patience": 2, "epochs": 30, "weight_decay": 0.0})
    result = train(recipe.model_copy(update={"schedule": schedule}), sample, stamps, tmp_path, settings=settings)
    assert result.history.height == result.best_epoch + 3 < 30
    assert result.facts["ended"] == "no better epoch in 2"
