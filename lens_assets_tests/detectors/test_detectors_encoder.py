"""The frozen encoder: how it is shown stamps, where its weights come from, and what it is called when it has none."""

import json
import shutil

import numpy as np
import pytest
import torch
from detectors_rings import Rings, lenses_of
from safetensors.torch import load_file, save_file

from lens_assets.science.detectors import checkpoint, frozen
from lens_assets.science.detectors.dataset import Normalised, move, moves
from lens_assets.science.detectors.encoder import RANDOM, EncoderNet, EncoderSpec, place_weights
from lens_assets.science.detectors.networks import build_network, count_parameters
from lens_assets.science.detectors.recipes import Augmentation, Recipe, load_recipes, parse_detector
from lens_assets.science.detectors.rows import rows_of
from lens_assets.science.detectors.score import Scorer, bf16_supported
from lens_assets.science.detectors.train import train
from lens_assets.science.errors import BadInput
from lens_assets.science.release import card

HUB = "somebody/small-encoder"
SMALL = {
    "kind": "dinov2",
    "weights": "random",
    "width": 32,
    "layers": 2,
    "heads": 2,
    "mlp_ratio": 2,
    "patch": 8,
    "positions": 32,
}


@pytest.fixture(scope="module")
def spec():
    return EncoderSpec.model_validate(SMALL)


@pytest.fixture(scope="module")
def probe_recipe(spec):
    plain = parse_detector("dinov2-s1").model_dump()
    schedule = plain["schedule"] | {"epochs": 12, "batch_size": 32, "lr": 0.02, "warmup_epochs": 0.0}
    return Recipe.model_validate(plain | {"input_size": 33, "network": SMALL, "schedule": schedule})


@pytest.fixture(scope="module")
def probed(probe_recipe, sample, stamps, settings, tmp_path_factory):
    return train(probe_recipe, sample, stamps, tmp_path_factory.mktemp("probed"), settings=settings)


@pytest.fixture
def hub_folder(spec, tmp_path):
    """An encoder as the hub holds it: ``config.json``, and tensors under the names of the published files."""
    net = build_network(spec, seed=77)
    published = {}
    for name, tensor in net.encoder.state_dict().items():
        for ours, theirs in (("q_proj", "attention.query"), ("k_proj", "attention.key"), ("v_proj", "attention.value")):
            name = name.replace(f"attention.{ours}", f"attention.{theirs}")
        published[name.replace("attention.o_proj", "attention.output.dense")] = tensor.clone()
    folder = tmp_path / "hub"
    folder.mkdir()
    save_file(published, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({"model_type": "dinov2", **spec.transformers()}))
    return folder, net


def test_the_encoder_of_the_recipe_has_the_size_of_its_published_one():
    recipe = load_recipes()["dinov2"]
    net = build_network(recipe.network)
    # facebook/dinov2-small with position embeddings for 518 pixels: 22.06 M parameters on its hub page
    assert count_parameters(net.encoder) == 22_056_576
    assert count_parameters(net) == 22_056_576 + 2 * 384 + 1
    assert not any(p.requires_grad for p in net.encoder.parameters())
    assert net.shown(torch.zeros(1, 3, 101, 101)).shape == (1, 3, 196, 196)


def test_the_encoder_sees_bands_as_colours_stretched_copied_and_cropped_never_interpolated(spec):
    net = build_network(spec.model_copy(update={"repeat": 2}))
    x = torch.arange(3 * 13 * 13, dtype=torch.float32).reshape(1, 3, 13, 13) / 60 - 4
    shown = net.shown(x)
    assert shown.shape == (1, 3, 24, 24)
    expected = 2 * np.arcsinh(x.numpy()[:, ::-1]) / np.arcsinh(10)
    doubled = np.kron(expected, np.ones((2, 2)))[:, :, 1:25, 1:25]
    np.testing.assert_allclose(shown.numpy(), doubled, rtol=1e-6)
    with pytest.raises(BadInput, match="smaller than a patch"):
        net.shown(torch.zeros(1, 3, 3, 3))


def test_features_are_class_token_and_mean_patch_token(spec):
    net = build_network(spec, seed=5).eval()
    x = torch.randn(2, 3, 33, 33)
    with torch.inference_mode():
        tokens = net.encoder(pixel_values=net.shown(x)).last_hidden_state
        features = net.features(x)
    assert features.shape == (2, 64)
    assert torch.equal(features, torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], 1))


def test_weights_from_a_folder_of_the_hub_are_those_of_the_encoder_and_their_digest_is_kept(spec, hub_folder):
    folder, original = hub_folder
    net = build_network(spec.model_copy(update={"weights": HUB}), seed=1)
    said = place_weights(net, {HUB: folder})
    assert all(
        torch.equal(a, b)
        for a, b in zip(net.encoder.state_dict().values(), original.encoder.state_dict().values(), strict=True)
    )
    assert said["statement"] == f"self-supervised encoder {HUB}, frozen"
    assert len(said["sha256"]) == 64
    tensors = load_file(folder / "model.safetensors")
    tensors["layernorm.bias"] += 1
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert place_weights(net, {HUB: folder})["sha256"] != said["sha256"]


def test_weights_that_are_no_safetensors_of_another_shape_or_not_whole_are_refused(spec, hub_folder, tmp_path):
    folder, _ = hub_folder
    net = build_network(spec.model_copy(update={"weights": HUB}))
    pickled = shutil.copytree(folder, tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(BadInput, match="no pickle"):
        place_weights(net, {HUB: pickled})
    with pytest.raises(BadInput, match="holds no encoder"):
        place_weights(net, {HUB: tmp_path / "nowhere"})
    wider = build_network(spec.model_copy(update={"weights": HUB, "width": 64}))
    with pytest.raises(BadInput, match="hidden_size"):
        place_weights(wider, {HUB: folder})
    tensors = load_file(folder / "model.safetensors")
    del tensors["layernorm.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadInput, match=r"lacks tensors.*layernorm\.weight"):
        place_weights(net, {HUB: folder})


def test_without_a_network_the_missing_weights_are_named_with_what_to_do(spec, monkeypatch, tmp_path):
    import huggingface_hub
    from huggingface_hub.errors import OfflineModeIsEnabled

    asked = []

    def offline(name, *, local_files_only=False, **_):
        asked.append((name, local_files_only))
        raise OfflineModeIsEnabled("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    net = build_network(spec.model_copy(update={"weights": HUB}))
    with pytest.raises(BadInput, match=r"detectors: \{encoders: \{somebody/small-encoder: FOLDER\}\}"):
        place_weights(net, {})
    assert asked == [(HUB, True), (HUB, False)], "the cache of this machine is asked first"


def test_the_head_learns_and_the_encoder_stays_as_it_was(probed, probe_recipe):
    before = build_network(probe_recipe.network, seed=probe_recipe.seed)
    after = probed.network()
    assert isinstance(after, EncoderNet)
    for (name, a), b in zip(before.encoder.state_dict().items(), after.encoder.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert probed.history["train_loss"][-1] < probed.history["train_loss"][0]
    assert probed.history["select_auc"].max() > 0.7
    assert probed.config["trained_parameters"] == 65
    assert probed.config["parameters"] == count_parameters(after)


def test_the_saved_detector_gives_the_logits_that_chose_its_epoch_without_any_hub(
    probed, probe_recipe, sample, stamps, settings, tmp_path, monkeypatch
):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", None)
    spec = checkpoint.save(tmp_path, probed)
    scorer = checkpoint.load(tmp_path, settings=settings.model_copy(update={"score_precision": "fp32"}))
    select = rows_of(sample, "select", probe_recipe)
    logit = scorer.score(stamps.images(select.galaxy_ids), stamps.invvar(select.galaxy_ids) > 0)
    from sklearn.metrics import roc_auc_score

    assert roc_auc_score(select.label, logit) == pytest.approx(spec.select_auc, abs=1e-3)
    shifted = torch.from_numpy(logit).double() + probed.config["prior_shift"]
    loss = torch.nn.functional.binary_cross_entropy_with_logits(shifted, torch.from_numpy(select.label).double())
    assert float(loss) == pytest.approx(probed.history.filter("best")["select_loss"][0], rel=1e-3)
    assert scorer.features(stamps.images(select.galaxy_ids[:3])).shape == (3, 64)


def test_a_random_encoder_is_called_so_in_the_specification_and_in_what_the_tracker_gets(
    probed, probe_recipe, sample, stamps, settings, tmp_path
):
    spec = checkpoint.save(tmp_path, probed)
    assert spec.training["encoder"]["statement"] == spec.encoder == RANDOM
    assert f"- encoder: {RANDOM}" in card._listing(spec.model_dump()), "the model card of a release says it"
    told = {}

    class Tracker:
        def params(self, values):
            told.update(values)

        def metrics(self, values, step):
            pass

    train(probe_recipe, sample, stamps, tmp_path, settings=settings, logger=Tracker(), epochs=1)
    assert told["encoder.statement"] == RANDOM == "random encoder: not a self-supervised one"
    assert RANDOM.lower() in load_recipes()["random_encoder"].about.lower()


def test_features_of_an_epoch_are_those_of_its_moved_stamps(probe_recipe, sample, stamps, tmp_path):
    rows = rows_of(sample, "train", probe_recipe)
    pixels = Normalised(rows.galaxy_ids[:12], stamps, probe_recipe.normalisation)
    net = build_network(probe_recipe.network, seed=2)
    views = frozen.orientations(probe_recipe.augmentation)
    made = frozen.encoded(net, pixels, views, 33, tmp_path / "f.npy", batch=5, device=torch.device("cpu"), pulse=print)
    which = np.arange(12)
    m = moves(rows.keys[:12], which, probe_recipe.augmentation, 3, 4)
    assert len(set(zip(m.turns, m.mirror, strict=True))) > 3
    moved = np.stack([move(pixels[which][i], int(m.turns[i]), bool(m.mirror[i]), 0, 0, 33) for i in which])
    with torch.inference_mode():
        plain = net.features(torch.from_numpy(moved))
    torch.testing.assert_close(made.views(which, m, 33), plain, atol=1e-5, rtol=1e-4)
    other = build_network(probe_recipe.network, seed=9)
    again = frozen.encoded(
        other, pixels, views, 33, tmp_path / "f.npy", batch=5, device=torch.device("cpu"), pulse=print
    )
    assert np.array_equal(again.values, made.values), "what was encoded is not encoded again"


@pytest.mark.parametrize(
    ("flips", "rotations", "n"), [(True, True, 8), (True, False, 4), (False, True, 4), (False, False, 1)]
)
def test_every_orientation_that_an_epoch_can_ask_for_is_encoded(flips, rotations, n):
    augmentation = Augmentation(flips=flips, rotations=rotations, shift=0)
    keys = np.arange(500, dtype=np.uint64)
    m = moves(keys, np.zeros(500, np.int64), augmentation, 1, 0)
    views = frozen.orientations(augmentation)
    assert set(zip(m.turns.tolist(), m.mirror.tolist(), strict=True)) == set(views)
    assert len(views) == n


def test_a_frozen_encoder_with_shifts_is_refused(probe_recipe):
    with pytest.raises(ValueError, match="no shift"):
        Recipe.model_validate(probe_recipe.model_dump() | {"augmentation": {"shift": 1}})


@pytest.mark.parametrize(
    "precision",
    ["fp32", pytest.param("bf16", marks=pytest.mark.skipif(not bf16_supported(), reason="no bfloat16 here"))],
)
def test_scores_of_an_encoder_do_not_depend_on_their_neighbours(spec, precision, sample):
    net = build_network(spec, seed=3)
    torch.nn.init.normal_(net.head.weight)
    scorer = Scorer(net, load_recipes()["dinov2"].normalisation, 33, precision=precision, drift=0.0, batch=16)
    images = Rings(lenses_of(sample)).images(sample["galaxy_id"][:40].to_list())
    whole = scorer.score(images)
    assert scorer.score(images[::-1])[::-1].tobytes() == whole.tobytes()
    assert np.concatenate([scorer.score(images[i : i + 1]) for i in range(3)]).tobytes() == whole[:3].tobytes()
    assert len(np.unique(whole)) > 30
