"""Recipes: bases, domains, the published search's split, and the networks they name."""

import math
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from detectors_rings import Rings, lenses_of
from pydantic import ValidationError

from lens_assets.science.detectors.efficientnet import V2_S, EfficientNetV2Spec
from lens_assets.science.detectors.networks import build_network, count_parameters, family, fused
from lens_assets.science.detectors.parity import FACTS, page
from lens_assets.science.detectors.recipes import Domain, Recipe, load_recipes, parse_detector, read_recipe
from lens_assets.science.detectors.rows import epoch_counts, in_domain, rows_of, split_of
from lens_assets.science.detectors.train import train
from lens_assets.science.errors import BadInput

SMALL = EfficientNetV2Spec(
    kind="efficientnetv2",
    stem=8,
    features=24,
    stages=(("fused", 1, 1, 8, 1), ("fused", 2, 2, 12, 1), ("mbconv", 2, 2, 16, 2)),
)


@pytest.fixture(scope="module")
def recipes():
    return load_recipes()


@pytest.fixture(scope="module")
def described(sample):
    """The sample with what domains look at."""
    n = sample.height
    return sample.with_columns(
        psfsize_r=pl.Series(np.linspace(0.9, 1.7, n)).shuffle(seed=1),
        depth_r=pl.Series([None if i % 50 == 0 else 22.5 + 2 * i / n for i in range(n)]).shuffle(seed=2),
        type=pl.Series([("DEV", "SER", "EXP", "REX", "PSF")[i % 5] for i in range(n)]).shuffle(seed=3),
        sersic=pl.Series([0.5 + (i % 11) / 2 for i in range(n)]),
    )


def test_the_efficientnet_is_the_second_family_with_its_published_size(recipes):
    net = build_network(recipes["efficientnetv2_s"].network)
    # torchvision's efficientnet_v2_s: 21,458,488 parameters, of which 1,280 x 1,000 + 1,000 are its classes
    assert count_parameters(net) - (1280 + 1) == 21_458_488 - 1_281_000 == 20_177_488
    assert abs(count_parameters(net) / 20_542_883 - 1) < 0.02  # Inchausti et al. 2025, variant not named
    assert "EfficientNetV2" in family(recipes["efficientnetv2_s"].network)
    assert V2_S[0] == ("fused", 1, 1, 24, 2), "the second family begins with fused blocks"
    assert "20,178,769" in recipes["efficientnetv2_s"].about
    assert count_parameters(net) == 20_178_769


@pytest.mark.parametrize("name", sorted(load_recipes()))
def test_every_recipe_takes_any_seed(name):
    assert (parse_detector(f"{name}-s7").seed, parse_detector(f"{name}-s123456789").key) == (7, f"{name}-s123456789")
    assert parse_detector(f"{name}-s7").digest != parse_detector(f"{name}-s8").digest


def test_networks_with_odd_channel_counts_are_kept_out_of_channels_last_order(recipes):
    assert build_network(SMALL).memory_format == torch.contiguous_format
    assert build_network(recipes["tiny"].network).memory_format == torch.channels_last
    assert build_network(recipes["resnet18"].network).memory_format == torch.channels_last
    scored = fused(build_network(SMALL))
    assert all(p.is_contiguous() for p in scored.parameters())


def test_an_efficientnet_learns_in_contiguous_order_and_keeps_its_output_when_folded(
    sample, stamps, settings, tmp_path
):
    seen = []

    recipe = parse_detector("tiny-s1", overrides={"tiny": {"input_size": 33}})
    recipe = Recipe.model_validate(recipe.model_dump() | {"network": SMALL.model_dump()})

    def watch(module, inputs):
        if isinstance(module, torch.nn.Conv2d):
            seen.append(inputs[0].is_contiguous())

    watching = torch.nn.modules.module.register_module_forward_pre_hook(watch)
    try:
        result = train(recipe, sample, stamps, tmp_path, settings=settings, epochs=2)
    finally:
        watching.remove()
    assert seen
    assert all(seen)
    assert result.history["train_loss"][1] < result.history["train_loss"][0]
    x = torch.randn(4, 3, 33, 33)
    with torch.inference_mode():
        plain, quick = result.network().features(x), fused(result.network()).features(x)
    assert plain.shape == (4, 24)
    assert torch.allclose(plain, quick, atol=1e-4, rtol=1e-4)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in fused(result.network()).modules())


def test_a_recipe_takes_from_its_base_what_it_does_not_state(recipes):
    base, other = recipes["resnet18"], recipes["efficientnetv2_s"]
    assert other.schedule == base.schedule.model_copy(update={"batch_size": 64, "accumulate": 4})
    assert (other.mixture, other.augmentation) == (base.mixture, base.augmentation)
    assert other.network.kind == "efficientnetv2", "another kind of network takes no field of the base's"
    assert recipes["poor_seeing"].schedule == base.schedule
    assert recipes["poor_seeing"].domain != recipes["good_seeing"].domain
    for text in ("name: a\nbase: nothing\n", "- 1\n"):
        with pytest.raises(BadInput, match=r"mine\.yaml"):
            read_recipe(text, file="mine.yaml")
    with pytest.raises(BadInput, match="leads back"):
        read_recipe("name: a\nbase: a\n", file="a.yaml", others={"a.yaml": "name: a\nbase: a\n"})


@pytest.mark.parametrize(
    ("one", "other"), [("good_seeing", "poor_seeing"), ("shallow", "deep"), ("early_type", "late_type")]
)
def test_two_specialists_share_the_sample_without_overlap(one, other, recipes, described):
    a, b = (described.select(in_domain(recipes[name].domain)).to_series() for name in (one, other))
    assert not (a & b).any()
    assert a.any()
    assert b.any()
    unknown = described["depth_r"].is_null() if one == "shallow" else described["type"] == "PSF"
    undecided = ~(a | b)
    assert (undecided == (unknown if one != "good_seeing" else pl.Series([False] * len(a)))).all()


def test_a_specialist_learns_from_its_domain_alone_and_says_what_it_left_out(
    recipe, described, stamps, settings, tmp_path
):
    domain = Domain.model_validate({"about": "good", "any_of": [{"psfsize_r": {"high": 1.3}}]})
    narrow = recipe.model_copy(update={"domain": domain})
    inside = described.filter(pl.col("psfsize_r") < 1.3)
    assert rows_of(described, "train", narrow).galaxy_ids == rows_of(inside, "train", recipe).galaxy_ids
    result = train(narrow, described, stamps, tmp_path, settings=settings, epochs=1)
    again = train(recipe, inside, stamps, tmp_path, settings=settings, epochs=1)
    assert all(torch.equal(result.weights[k], again.weights[k]) for k in again.weights)
    outside = described.filter((pl.col("psfsize_r") >= 1.3) & (pl.col("role") == "train"))
    assert result.config["outside_domain"]["train_positives"] == outside["label"].sum()
    assert result.config["outside_domain"]["train_negatives"] == (outside["label"] == 0).sum()
    assert result.config["domain"] == "good"
    with pytest.raises(BadInput, match=r"within the domain \(good\)"):
        rows_of(described.with_columns(psfsize_r=pl.lit(9.0)), "train", narrow)
    with pytest.raises(BadInput, match="psfsize_r"):
        rows_of(described.drop("psfsize_r"), "train", narrow)


def test_the_published_split_is_seventy_to_thirty_within_train_and_select_only(sample, recipes):
    published = recipes["paper_iv"]
    part = split_of(
        pl.concat([sample] + [sample.with_columns(pl.col("galaxy_id") + f"-{i}") for i in range(9)]), published
    )
    kept = {role: frame for (role,), frame in part.partition_by("role", as_dict=True).items()}
    n = part.height
    assert set(kept) == {"train", "select"}
    assert abs(kept["train"].height - 0.7 * n) < 4 * math.sqrt(0.21 * n)
    assert n == 10 * sample.filter(pl.col("role").is_in(["train", "select"])).height, "other roles play no part"
    assert split_of(sample.reverse(), published).sort("galaxy_id").equals(split_of(sample, published).sort("galaxy_id"))
    blocked = split_of(sample, recipes["bottleneck"])
    assert blocked["role"].equals(blocked.join(sample, on="galaxy_id", how="left", maintain_order="left")["role_right"])


def test_the_published_schedule_draws_every_row_once_an_epoch_unweighted(sample, recipes):
    published = recipes["paper_iv"]
    rows = rows_of(sample, "train", published)
    assert (rows.weight == 1).all()
    assert epoch_counts(rows, published.mixture) == tuple(np.bincount(rows.group, minlength=3))
    assert published.schedule.batch_size * published.schedule.accumulate == 2048
    second = recipes["paper_iv_efficientnet"]
    assert (second.schedule.batch_size * second.schedule.accumulate, second.schedule.lr) == (512, 3.88e-4)


def test_only_the_published_recipes_split_at_random(recipes):
    assert [n for n, r in recipes.items() if r.random_split] == ["paper_iv", "paper_iv_efficientnet"]
    with pytest.raises(ValidationError, match="published search"):
        Recipe.model_validate(recipes["tiny"].model_dump() | {"random_split": {"train": 0.7}})


def test_a_training_on_the_published_split_is_labelled_so(sample, recipe, settings, tmp_path):
    published = Recipe.model_validate(
        recipe.model_dump() | {"name": "paper_tiny", "random_split": {"train": 0.7}, "weighted": False}
    )
    result = train(published, sample, Rings(lenses_of(sample)), tmp_path, settings=settings, epochs=1)
    assert "not blocked on the sky" in result.config["split"]
    assert result.config["loss"] == "binary cross-entropy"
    assert list(result.config["loss_weights"]) == ["1"]


ROOT = Path(__file__).parents[2]


def test_the_committed_page_of_parity_is_that_of_the_recipes(recipes):
    assert (ROOT / "docs" / "parity.md").read_text() == page(), "a recipe has changed: run `make docs`"
    differing = re.findall(r"^\| ([a-z ]+) \|.*\*\*differs\*\*", page(), flags=re.M)
    assert differing == ["initial weights"], "what differs from what the paper states is known and said"
    assert set(FACTS) == {n for n, r in recipes.items() if r.random_split}


def test_the_page_of_detectors_names_every_recipe_with_its_size(recipes):
    text = (ROOT / "docs" / "detectors.md").read_text()
    for name, recipe in recipes.items():
        row = re.search(rf"^\| `{name}` \|.*$", text, flags=re.M)
        assert row, name
        assert f" {count_parameters(build_network(recipe.network)):,} " in row.group(0), name
        assert f" {recipe.schedule.batch_size * recipe.schedule.accumulate:,} " in row.group(0), name
