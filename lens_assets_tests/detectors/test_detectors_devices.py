"""Training on several devices: the same steps as on one, and one network."""

import numpy as np
import pytest
import torch
from detectors_rings import train_until_killed
from sklearn.metrics import roc_auc_score

from lens_assets.science.detectors.dataset import Epoch, Normalised
from lens_assets.science.detectors.loop import weighted_loss
from lens_assets.science.detectors.news import Heard, relayed
from lens_assets.science.detectors.recipes import Recipe, parse_detector
from lens_assets.science.detectors.rows import rows_of
from lens_assets.science.detectors.train import train
from lens_assets.science.errors import BadInput

TWO = pytest.mark.skipif(torch.cuda.device_count() == 1, reason="where there are GPUs, two processes need two")
ENCODER = {
    "kind": "dinov2",
    "weights": "random",
    "width": 32,
    "layers": 1,
    "heads": 2,
    "mlp_ratio": 2,
    "patch": 8,
    "positions": 32,
}


@pytest.fixture(scope="module")
def rows(sample, recipe):
    return rows_of(sample, "train", recipe)


@pytest.fixture(scope="module")
def pixels(rows, stamps, recipe):
    return Normalised(rows.galaxy_ids, stamps, recipe.normalisation)


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("augment", [True, False])
def test_processes_together_make_the_batches_of_one(world, augment, rows, pixels, recipe):
    alone = Epoch(rows, pixels, recipe, 2, augment=augment)
    parts = [Epoch(rows, pixels, recipe, 2, augment=augment, rank=r, world=world) for r in range(world)]
    assert {len(p) for p in parts} == {len(alone)}, "every process makes as many steps"
    for b in range(0, len(alone), 3):
        whole, shares = alone[b], [p[b] for p in parts]
        assert sum(len(s[1]) for s in shares) == len(whole[1])
        for r, share in enumerate(shares):
            assert torch.equal(share[0], whole[0][r::world])
            assert torch.equal(share[1], whole[1][r::world])
    assert sorted(np.concatenate([p.slots(r) for r, p in enumerate(parts)])) == list(
        range(sum(len(alone[b][1]) for b in range(len(alone))))
    )


def test_the_mean_of_the_processes_losses_is_the_loss_of_the_batch(rows, pixels, recipe):
    batch = Epoch(rows, pixels, recipe, 0)[0]
    logit = torch.linspace(-3, 3, len(batch[1]))
    parts = [Epoch(rows, pixels, recipe, 0, rank=r, world=7)[0] for r in range(7)]
    losses = [weighted_loss(logit[r::7], target, weight) for r, (_, target, weight) in enumerate(parts)]
    assert len(batch[1]) % 7, "uneven parts are the case that could go wrong"
    assert float(torch.stack(losses).mean()) == pytest.approx(float(weighted_loss(logit, *batch[1:])), rel=1e-6)


def test_more_processes_than_stamps_in_a_batch_are_refused(rows, pixels, recipe):
    with pytest.raises(BadInput, match="for 99 processes"):
        Epoch(rows, pixels, recipe, 0, rank=0, world=99)


def test_news_of_another_process_reach_the_caller_in_order_and_whole(tmp_path):
    class Tracker:
        def __init__(self):
            self.steps = []

        def metrics(self, values, step):
            self.steps.append((step, values))

    tracker, rows_told, pulses = Tracker(), [], []
    with relayed(tmp_path / "news.jsonl", Heard(tracker, rows_told.append, pulses.append)) as posted:
        for epoch in range(20):
            posted.pulse(f"in {epoch}")
            posted.epoch({"epoch": epoch, "select_auc": epoch / 20, "seconds": 1.0, "at_most": 2.0})
    assert [row["epoch"] for row in rows_told] == [step for step, _ in tracker.steps] == list(range(20))
    assert tracker.steps[3][1] == {"select_auc": 0.15}
    assert pulses == [f"in {epoch}" for epoch in range(20)]

    def fault(_):
        raise ValueError("the tracker is full")

    with pytest.raises(ValueError, match="full"), relayed(tmp_path / "news.jsonl", Heard(None, fault)) as posted:
        posted.epoch({"epoch": 0})


@TWO
@pytest.mark.slow
def test_a_network_trained_by_two_processes_is_one_network_judged_on_all_select_rows(
    recipe, sample, stamps, settings, tmp_path
):
    told = []
    result = train(
        recipe,
        sample,
        stamps,
        tmp_path,
        settings=settings.model_copy(update={"devices": 2}),
        epochs=3,
        progress=told.append,
    )
    alone = train(recipe, sample, stamps, tmp_path / "alone", settings=settings, epochs=3)
    assert [row["epoch"] for row in told] == [0, 1, 2]
    assert told[-1]["at_most"] == 0
    assert result.config["processes"] == 2
    assert result.config["data_digest"] == alone.config["data_digest"]
    assert result.history["steps"].to_list() == alone.history["steps"].to_list(), "the same number of steps an epoch"
    assert result.identity != alone.identity
    assert all(torch.isfinite(t.float()).all() for t in result.weights.values())
    # batch norms see half batches, so the curves are near, not equal
    np.testing.assert_allclose(result.history["train_loss"], alone.history["train_loss"], rtol=0.25)
    select = rows_of(sample, "select", recipe)
    with torch.inference_mode():
        logit = result.network()(
            torch.from_numpy(Normalised(select.galaxy_ids, stamps, recipe.normalisation)[np.arange(len(select))])
        )
    best = result.history.filter("best").row(0, named=True)
    assert roc_auc_score(select.label, logit) == pytest.approx(best["select_auc"], abs=1e-6), (
        "logits came back in order"
    )


@TWO
@pytest.mark.slow
def test_two_processes_make_the_gradient_steps_of_one(sample, stamps, settings, tmp_path):
    plain = parse_detector("dinov2-s1").model_dump()
    schedule = plain["schedule"] | {"epochs": 4, "batch_size": 21, "accumulate": 2, "lr": 0.01, "warmup_epochs": 0.0}
    recipe = Recipe.model_validate(plain | {"input_size": 33, "network": ENCODER, "schedule": schedule})
    one = train(recipe, sample, stamps, tmp_path, settings=settings)
    two = train(recipe, sample, stamps, tmp_path, settings=settings.model_copy(update={"devices": 2}))
    np.testing.assert_allclose(two.history["train_loss"], one.history["train_loss"], rtol=1e-5)
    np.testing.assert_allclose(two.history["select_loss"], one.history["select_loss"], rtol=1e-5)
    torch.testing.assert_close(two.weights["head.weight"], one.weights["head.weight"], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_training_of_two_processes_that_was_killed_is_continued(sample, stamps, settings, tmp_path):
    plain = parse_detector("dinov2-s1").model_dump()
    schedule = plain["schedule"] | {"epochs": 10, "batch_size": 40, "lr": 0.01, "warmup_epochs": 0.0, "patience": None}
    recipe = Recipe.model_validate(plain | {"input_size": 33, "network": ENCODER, "schedule": schedule})
    two = settings.model_copy(update={"devices": 2})
    train_until_killed(recipe, tmp_path, two, 1)
    told = []
    again = train(recipe, sample, stamps, tmp_path, settings=two, progress=lambda row: told.append(row["epoch"]))
    resumed = again.facts["resumed_after_epoch"]
    assert 1 <= resumed < 9
    assert told == list(range(resumed + 1, 10))
    alone = train(recipe, sample, stamps, tmp_path, settings=settings)
    torch.testing.assert_close(again.weights["head.weight"], alone.weights["head.weight"], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(again.history["train_loss"], alone.history["train_loss"], rtol=1e-4)
