"""The scorer, the checkpoint and the networks."""

import itertools
import json

import numpy as np
import polars as pl
import pytest
import torch
from detectors_rings import Rings, lenses_of
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from lens_assets.science.cutouts.normalise import NormalisationSpec, normalise
from lens_assets.science.detectors import checkpoint
from lens_assets.science.detectors.networks import build_network, count_parameters, fused
from lens_assets.science.detectors.recipes import detector_keys, load_recipes, parse_detector, read_recipe
from lens_assets.science.detectors.residual import ResidualSpec
from lens_assets.science.detectors.score import Scorer, bf16_supported, measure_drift, probability, score_rows
from lens_assets.science.detectors.settings import Settings
from lens_assets.science.errors import BadInput

PRECISIONS = ["fp32", pytest.param("bf16", marks=pytest.mark.skipif(not bf16_supported(), reason="no bfloat16 here"))]


@pytest.fixture(scope="module")
def folder(trained, tmp_path_factory):
    place = tmp_path_factory.mktemp("detector")
    checkpoint.save(place, trained)
    return place


@pytest.fixture(scope="module")
def raw(sample, stamps):
    ids = sample["galaxy_id"][:48].to_list()
    return stamps.images(ids), stamps.invvar(ids) > 0


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ["tiny", "bottleneck"])
def test_scores_do_not_depend_on_how_the_caller_groups_his_stamps(name, precision, raw):
    recipe = load_recipes()[name]
    net = build_network(recipe.network, seed=3)
    torch.nn.init.normal_(net.head.weight)
    scorer = Scorer(net, recipe.normalisation, 33, precision=precision, drift=0.0, batch=16)
    images, valid = raw
    whole = scorer.score(images, valid)
    cuts = [0, 1, 2, 19, 19, 36, 48]
    parts = list(scorer.score_stream((images[a:b], valid[a:b]) for a, b in itertools.pairwise(cuts)))
    assert [len(p) for p in parts] == np.diff(cuts).tolist()
    assert np.concatenate(parts).tobytes() == whole.tobytes()
    assert scorer.score(images[::-1], valid[::-1])[::-1].tobytes() == whole.tobytes(), "a place in the batch mattered"
    assert (
        np.concatenate([scorer.score(images[i : i + 1], valid[i : i + 1]) for i in range(3)]).tobytes()
        == whole[:3].tobytes()
    )
    assert len(np.unique(whole)) > 40


@given(st.lists(st.integers(0, 9), max_size=12))
@hypothesis_settings(max_examples=8, deadline=None)
def test_every_batch_of_a_stream_gets_its_own_scores_back(sizes):
    recipe = load_recipes()["tiny"]
    scorer = Scorer(build_network(recipe.network, seed=3), recipe.normalisation, 33, precision="fp32", batch=4)
    source = Rings([])
    ids = [[f"{i}-{j}" for j in range(n)] for i, n in enumerate(sizes)]
    got = list(scorer.score_stream((source.images(part).astype(np.float32), None) for part in ids))
    assert [len(g) for g in got] == sizes
    for part, scores in zip(ids, got, strict=True):
        if part:
            np.testing.assert_array_equal(scores, scorer.score(source.images(part)))


def test_the_scorer_agrees_with_the_plain_network(trained, folder, raw):
    images, valid = raw
    with torch.inference_mode():
        plain = trained.network()(
            torch.from_numpy(normalise(images, trained.recipe.normalisation, valid=valid))
        ).numpy()
    scorer = checkpoint.load(folder, settings=Settings(score_precision="fp32"))
    np.testing.assert_allclose(scorer.score(images, valid), plain, atol=1e-4)
    assert scorer.features(images, valid).shape == (48, scorer.n_features) == (48, 32)
    with torch.inference_mode():
        head = trained.network().logit(torch.from_numpy(scorer.features(images, valid))).numpy()
    np.testing.assert_allclose(head, scorer.score(images, valid), atol=1e-5)


@pytest.mark.skipif(not bf16_supported(), reason="no bfloat16 here")
def test_bfloat16_is_used_within_its_measured_drift_and_refused_beyond(trained, folder, raw, stamps, sample):
    assert trained.facts["bf16_drift"] < 0.1
    quick, exact = checkpoint.load(folder), checkpoint.load(folder, settings=Settings(score_precision="fp32"))
    assert (quick.precision, exact.precision) == ("bf16", "fp32")
    assert 0 < np.abs(quick.score(*raw) - exact.score(*raw)).max() < 0.2
    strict = Settings(max_drift=1e-9)
    assert checkpoint.load(folder, settings=strict).precision == "fp32"
    with pytest.raises(BadInput, match="drift"):
        checkpoint.load(folder, settings=strict.model_copy(update={"score_precision": "bf16"}))
    few = normalise(raw[0][:8], trained.recipe.normalisation)
    assert measure_drift(trained.network(), few, 33, 16) > 0


def test_a_detector_is_saved_and_loaded_without_a_change(trained, folder, raw):
    spec = checkpoint.read_spec(folder)
    assert spec.key == "tiny-s1"
    assert spec.recipe == trained.recipe
    assert spec.training["loss_weights"] == trained.config["loss_weights"]
    net, _ = checkpoint.load_network(folder)
    assert all(
        torch.equal(a, b)
        for a, b in zip(net.state_dict().values(), trained.network().state_dict().values(), strict=True)
    )
    assert sorted(p.name for p in folder.iterdir()) == ["history.parquet", "spec.json", "weights.safetensors"]


def test_another_normalisation_is_refused_by_name(folder, trained):
    checkpoint.load(folder, trained.recipe.normalisation)
    with pytest.raises(BadInput, match=r"inner: 0\.65 against 0\.6"):
        checkpoint.load(folder, NormalisationSpec(inner=0.6))


def test_weights_and_specifications_that_do_not_belong_together_are_refused(folder, tmp_path):
    for name in ("weights.safetensors", "spec.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    spoilt = bytearray((folder / "weights.safetensors").read_bytes())
    spoilt[-3] ^= 1
    (tmp_path / "weights.safetensors").write_bytes(spoilt)
    with pytest.raises(BadInput, match="not the weights"):
        checkpoint.load(tmp_path)
    (tmp_path / "weights.safetensors").write_bytes(spoilt[:100])
    with pytest.raises(BadInput, match="cannot be read"):
        checkpoint.load(tmp_path)
    spec = json.loads((tmp_path / "spec.json").read_text())
    spec["normalisation_digest"] = "0"
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    with pytest.raises(BadInput, match="disagree"):
        checkpoint.load(tmp_path)
    (tmp_path / "spec.json").write_text("{}")
    with pytest.raises(BadInput, match=r"spec\.json"):
        checkpoint.load(tmp_path)


def test_every_galaxy_asked_for_gets_one_row(folder, sample, stamps):
    ids = sample["galaxy_id"].sample(fraction=0.5, shuffle=True, seed=1).to_list()
    scores = score_rows(checkpoint.load(folder), ids, stamps, chunk=37)
    assert scores["galaxy_id"].to_list() == sorted(ids)
    np.testing.assert_allclose(scores["score"], 1 / (1 + np.exp(-scores["logit"].to_numpy())), rtol=1e-5)
    assert score_rows(checkpoint.load(folder), [], stamps).schema == scores.schema
    with pytest.raises(BadInput, match="twice"):
        score_rows(checkpoint.load(folder), [ids[0], ids[0]], stamps)


def test_lenses_score_higher_than_other_galaxies_on_rows_never_trained_on(folder, sample, stamps):
    rows = sample.filter(pl.col("role") == "report")
    joined = score_rows(checkpoint.load(folder), rows["galaxy_id"], stamps).join(rows, on="galaxy_id")
    assert set(lenses_of(rows)) == set(joined.filter(pl.col("label") == 1)["galaxy_id"])
    medians = joined.group_by("label").agg(pl.col("logit").median()).sort("label")["logit"]
    assert medians[1] > medians[0] + 1


def test_a_probability_is_finite_at_any_logit():
    np.testing.assert_allclose(probability([-1e4, -3.0, 0.0, 3.0, 1e4]), [0, 0.04742587, 0.5, 0.95257413, 1], rtol=1e-6)


def test_the_networks_have_the_size_their_papers_state():
    recipes = load_recipes()
    small = count_parameters(build_network(recipes["bottleneck"].network))
    assert small == 194_913
    assert abs(small / 194_433 - 1) < 0.005  # Inchausti et al. 2025
    assert count_parameters(build_network(recipes["resnet18"].network)) == 11_176_512 + 513  # He et al. 2016, one logit


def test_weights_are_drawn_from_the_seed_alone():
    spec = load_recipes()["tiny"].network
    torch.manual_seed(1)
    before = torch.rand(1)
    torch.manual_seed(1)
    a = build_network(spec, seed=5)
    assert torch.equal(torch.rand(1), before), "the global generator was touched"
    b, c = build_network(spec, seed=5), build_network(spec, seed=6)
    assert torch.equal(a.stem.conv.weight, b.stem.conv.weight)
    assert not torch.equal(a.stem.conv.weight, c.stem.conv.weight)


def test_folding_batch_norms_changes_no_output():
    net = build_network(load_recipes()["bottleneck"].network, seed=1)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.running_mean, std=0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    x = torch.randn(4, 3, 33, 33)
    with torch.inference_mode():
        a, b = net.eval().features(x), fused(net).features(x)
    assert torch.allclose(a, b, atol=1e-3, rtol=1e-4)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in fused(net).modules())


def test_channel_counts_that_corrupt_memory_are_refused():
    with pytest.raises(ValueError, match="not multiples of 16"):
        ResidualSpec(kind="basic", stem=8, widths=(16,), blocks=(1,))


def test_detector_keys_name_recipe_and_seed():
    recipes = load_recipes()
    assert {"bottleneck-s1", "resnet18-s1", "tiny-s1"} <= set(detector_keys(recipes))
    assert parse_detector("bottleneck-s42").seed == 42
    assert parse_detector("bottleneck-s42").key == "bottleneck-s42"
    for wrong in ("bottleneck", "nothing-s1", "bottleneck-s1x", "Bottleneck-s1"):
        with pytest.raises(BadInput, match="names no detector"):
            parse_detector(wrong)


def test_overrides_change_what_they_name_and_nothing_else():
    plain = parse_detector("bottleneck-s1")
    changed = parse_detector(
        "bottleneck-s1",
        overrides={"*": {"schedule": {"epochs": 3}}, "bottleneck": {"schedule": {"lr": 0.01}}, "tiny": {}},
    )
    assert (changed.schedule.epochs, changed.schedule.lr) == (3, 0.01)
    assert changed.schedule.batch_size == plain.schedule.batch_size
    assert changed.digest != plain.digest
    with pytest.raises(BadInput, match="epoch"):
        parse_detector("bottleneck-s1", overrides={"bottleneck": {"schedule": {"epoch": 3}}})


def test_a_recipe_with_a_typo_names_its_file():
    with pytest.raises(BadInput, match=r"mine\.yaml"):
        read_recipe("name: mine\nabot: x\n", file="mine.yaml")
    with pytest.raises(BadInput, match="add up to"):
        parse_detector("tiny-s1", overrides={"tiny": {"mixture": {"n1": 0.5}}})
