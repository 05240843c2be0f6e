"""Scoring and training on each device there is: the CPU, and the GPU where the machine has one."""

import itertools

import numpy as np
import pytest
import torch
from detectors_rings import Rings, lenses_of

from lens_assets.science.detectors.ensemble_combine import Rule
from lens_assets.science.detectors.ensemble_score import EnsembleScorer, Member
from lens_assets.science.detectors.networks import build_network
from lens_assets.science.detectors.recipes import load_recipes
from lens_assets.science.detectors.score import Scorer, best_device, bf16_supported, score_rows
from lens_assets.science.detectors.train import train
from lens_assets.science.errors import BadInput

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=CUDA)]


@pytest.fixture(scope="module")
def raw(sample):
    """Stamps with structure, more than a block of the normalisation."""
    ids = sample["galaxy_id"][:80].to_list()
    source = Rings(lenses_of(sample))
    return source.images(ids).astype(np.float32), source.invvar(ids) > 0


def network(name):
    recipe = load_recipes()[name]
    net = build_network(recipe.network, seed=3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        torch.nn.init.normal_(net.head.weight)
    return net, recipe.normalisation


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["tiny", "bottleneck"])
def test_float32_logits_of_a_device_are_those_of_the_processor(name, device, raw):
    net, spec = network(name)
    want = Scorer(net, spec, 33, precision="fp32", device="cpu", batch=16).score(*raw)
    found = Scorer(net, spec, 33, precision="fp32", device=device, batch=16).score(*raw)
    assert np.ptp(want) > 0.1, "nothing to compare"
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-4 * np.abs(want).max())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_threads_and_grouping_change_no_byte_of_a_score(precision, device, raw):
    if precision == "bf16" and not bf16_supported(torch.device(device)):
        pytest.skip(f"no bfloat16 on {device}")
    net, spec = network("tiny")
    images, valid = raw

    def scorer(threads):
        return Scorer(net, spec, 33, precision=precision, drift=0.0, device=device, batch=16, threads=threads)

    one, many = scorer(1), scorer(4)
    whole = one.score(images, valid)
    assert many.score(images, valid).tobytes() == whole.tobytes()
    cuts = [0, 1, 40, 40, 73, 80]
    parts = list(many.score_stream((images[a:b], valid[a:b]) for a, b in itertools.pairwise(cuts)))
    assert np.concatenate(parts).tobytes() == whole.tobytes()
    assert many.score(images[::-1], valid[::-1])[::-1].tobytes() == whole.tobytes()


def test_a_stamp_that_cannot_be_normalised_is_named_whichever_thread_had_it(raw):
    net, spec = network("tiny")
    images, valid = raw[0].copy(), raw[1]
    images[70] = 0.0
    with pytest.raises(BadInput, match="cannot be normalised") as fault:
        Scorer(net, spec, 33, precision="fp32", device="cpu", threads=4).score(images, valid)
    assert fault.value.row == 70


def test_a_processor_is_left_to_the_network_and_a_gpu_gets_threads_beside_it():
    net, spec = network("tiny")
    assert Scorer(net, spec, 33, device="cpu").threads == 1
    if torch.cuda.is_available():
        assert best_device().type == "cuda"
        assert Scorer(net, spec, 33).threads > 1


@pytest.mark.parametrize("device", DEVICES)
def test_an_ensemble_runs_where_its_members_do(device, raw):
    members = [Member(name, *network(name), 33) for name in ("tiny", "bottleneck")]
    ensemble = EnsembleScorer(members, Rule(kind="mean"), precision="fp32", device=device, batch=16)
    alone = [Scorer(m.net, m.normalisation, 33, precision="fp32", device=device, batch=16).score(*raw) for m in members]
    assert ensemble.device.type == device
    np.testing.assert_allclose(ensemble.score(*raw), np.mean(alone, axis=0), rtol=1e-5, atol=1e-6)


def test_more_gpus_than_there_are_is_a_sentence(recipe, sample, stamps, settings, tmp_path, monkeypatch):
    monkeypatch.setattr("lens_assets.science.detectors.train.best_device", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(BadInput, match="3 GPUs are asked for and there is 1"):
        train(recipe, sample, stamps, tmp_path, settings=settings.model_copy(update={"devices": 3}))


@CUDA
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["tiny", "bottleneck", "efficientnetv2_s"])
def test_two_trainings_on_a_gpu_end_in_the_same_bytes(name, precision, sample, stamps, settings, tmp_path):
    recipe = load_recipes()[name]
    schedule = recipe.schedule.model_copy(update={"epochs": 2, "batch_size": 32, "accumulate": 1})
    mixture = recipe.mixture.model_copy(update={"epoch_size": 128})
    recipe = recipe.model_copy(
        update={"input_size": 33, "precision": precision, "schedule": schedule, "mixture": mixture}
    )
    one, two = (train(recipe, sample, stamps, tmp_path / k, settings=settings) for k in "ab")
    assert one.config["device"] == "cuda"
    assert one.config["precision_used"] == ("bf16-mixed" if precision == "bf16" else "32-true")
    for weights in one.weights, two.weights:
        assert all(t.device.type == "cpu" and t.dtype in (torch.float32, torch.int64) for t in weights.values())
    assert all(torch.equal(one.weights[k], two.weights[k]) for k in one.weights)
    assert one.history.equals(two.history)


@CUDA
def test_a_network_trained_on_a_gpu_finds_rings_it_has_not_seen_and_a_processor_agrees(trained, sample, stamps):
    assert trained.config["device"] == "cuda"
    rows = sample.filter(sample["role"] == "report")
    net, spec = trained.network(), trained.recipe.normalisation
    there, here = (
        score_rows(Scorer(net, spec, 33, precision="fp32", device=d), rows["galaxy_id"], stamps)
        for d in ("cuda", "cpu")
    )
    np.testing.assert_allclose(there["logit"], here["logit"], rtol=1e-3, atol=1e-3)
    label = dict(zip(rows["galaxy_id"], rows["label"], strict=True))
    lens = np.array([label[name] for name in there["galaxy_id"]], dtype=bool)
    score = there["logit"].to_numpy()
    assert np.mean(score[lens][:, None] > score[~lens]) > 0.8
