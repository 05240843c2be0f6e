"""An ensemble is scored, written and read as one detector is."""

import dataclasses
import itertools
import json

import numpy as np
import polars as pl
import pytest
import torch

from lens_assets.science.detectors import checkpoint, ensemble_disk, ensemble_make, members
from lens_assets.science.detectors.ensemble_combine import LogitMap, Rule
from lens_assets.science.detectors.ensemble_score import EnsembleScorer, Member, score_members
from lens_assets.science.detectors.ensembles import Combiner, Ensemble
from lens_assets.science.detectors.networks import build_network
from lens_assets.science.detectors.recipes import Domain, Interval
from lens_assets.science.detectors.score import bf16_supported, score_rows
from lens_assets.science.errors import BadInput

KEYS = ("tiny-s1", "tiny-s2", "tiny-s3")


def shaken(result, seed):
    """The trained detector under another seed, its head a little another one."""
    weights = {name: tensor.clone() for name, tensor in result.weights.items()}
    noise = torch.from_numpy(np.random.default_rng(seed).normal(0, 0.1, weights["head.weight"].shape)).float()
    weights["head.weight"] += noise * weights["head.weight"].abs().mean() * 5
    recipe = result.recipe.model_copy(update={"seed": seed})
    return dataclasses.replace(result, recipe=recipe, weights=weights)


@pytest.fixture(scope="module")
def networks(trained, sample, tmp_path_factory):
    """Three networks on disk."""
    found = {}
    seen = sample.filter(pl.col("role").is_in(["train", "select"]))["galaxy_id"].to_list()
    for seed, key in enumerate(KEYS, 1):
        place = tmp_path_factory.mktemp(key)
        checkpoint.save(place, trained if seed == 1 else shaken(trained, seed))
        found[key] = ensemble_make.Network(f"digest of {key}", place, seen)
    return found


@pytest.fixture(scope="module")
def rows(sample):
    """The sample as the split table has it: with positions, and the role `threshold` as `calibrate`."""
    n = sample.height
    role = pl.when(pl.col("role") == "threshold").then(pl.lit("calibrate")).otherwise(pl.col("role"))
    rng = np.random.default_rng(1)
    return sample.with_columns(role=role, ra=pl.Series(rng.uniform(0, 2, n)), dec=pl.Series(rng.uniform(0, 2, n)))


def ensemble(kind="mean", members=KEYS, **more):
    return Ensemble(name="three", about="x", members=members, combiner=Combiner(kind=kind, **more))


@pytest.fixture
def made(networks, rows, stamps, settings, tmp_path):
    """How to make an ensemble's folder: kind -> (folder, what was told)."""

    def make(kind="mean", sub="e", **more):
        folder = tmp_path / sub
        folder.mkdir()
        definition = ensemble(kind, **more)
        return folder, ensemble_make.make(folder, definition, networks, rows, stamps, settings)

    return make


@pytest.mark.parametrize("kind", ["mean", "calibrated", "stacked"])
def test_an_ensemble_on_disk_scores_as_its_members_put_together(made, networks, sample, stamps, settings, kind):
    folder, told = made(kind)
    exact = settings.model_copy(update={"score_precision": "fp32"})
    ids = sample.filter(pl.col("role") == "select")["galaxy_id"].to_list()[:40]
    images, valid = stamps.images(ids), stamps.invvar(ids) > 0
    each = [checkpoint.load(networks[k].folder, None, exact).score(images, valid) for k in KEYS]
    rule = ensemble_disk.read_spec(folder).rule
    scores = checkpoint.load(folder, None, exact).score(images, valid)
    assert np.array_equal(scores, rule(np.stack(each, 1)))
    drift = told.facts["bf16_drift"]
    assert (drift is None) == (not bf16_supported())
    if drift is not None:
        wide = settings.model_copy(update={"max_drift": 99.0})
        quick = checkpoint.load(folder, None, wide)
        assert quick.precision == "bf16"
        assert 0 < np.abs(quick.score(images, valid) - scores).max() <= drift
    assert told.facts["combiner"] == kind
    assert told.members["member"].to_list() == list(KEYS)
    assert told.members["network_digest"].to_list() == [f"digest of {k}" for k in KEYS]
    assert (told.fitted is None) == (kind == "mean")


def test_identical_members_score_as_the_member_and_features_stand_side_by_side(trained, recipe, sample, stamps):
    net = trained.network()
    of = lambda key: Member(key, net, recipe.normalisation, recipe.input_size)  # noqa: E731
    two = EnsembleScorer([of("a"), of("b")], Rule(kind="mean"), precision="fp32", batch=16)
    alone = checkpoint.Scorer(net, recipe.normalisation, recipe.input_size, precision="fp32", batch=16)
    ids = sample["galaxy_id"].to_list()[:37]
    images, valid = stamps.images(ids), stamps.invvar(ids) > 0
    assert np.array_equal(two.score(images, valid), alone.score(images, valid))
    features = two.features(images, valid)
    assert features.shape == (37, two.n_features) == (37, 2 * alone.n_features)
    assert np.array_equal(features, np.concatenate([alone.features(images, valid)] * 2, 1))


def test_a_stamp_has_the_same_bits_alone_in_odd_batches_and_in_one_stream(made, sample, stamps, settings):
    folder, _ = made("stacked")
    scorer = checkpoint.load(folder, None, settings)
    ids = sample["galaxy_id"].to_list()[:53]
    images, valid = stamps.images(ids), stamps.invvar(ids) > 0
    whole = scorer.score(images, valid)
    one_by_one = np.concatenate([scorer.score(images[i : i + 1], valid[i : i + 1]) for i in range(53)])
    cuts = [0, 3, 3, 20, 21, 50, 53]
    parts = [(images[a:b], valid[a:b]) for a, b in itertools.pairwise(cuts)]
    streamed = [*scorer.score_stream(iter(parts))]
    assert [len(s) for s in streamed] == [len(i) for i, _ in parts]
    assert np.array_equal(whole, one_by_one)
    assert np.array_equal(whole, np.concatenate(streamed))


def test_a_stream_is_read_once_and_no_further_than_it_must(made, sample, stamps, settings):
    """Injections are rendered as the stream asks for them: twice the reading would be twice the rendering."""
    folder, _ = made()
    scorer = checkpoint.load(folder, None, settings)
    ids = sample["galaxy_id"].to_list()[:64]
    images, valid = stamps.images(ids), stamps.invvar(ids) > 0
    read = []

    def stream():
        for i in range(0, 64, 16):
            read.append(i)
            yield images[i : i + 16], valid[i : i + 16]

    scores = scorer.score_stream(stream())
    next(scores)
    assert read == [0]
    list(scores)
    assert read == [0, 16, 32, 48]


def test_members_may_differ_in_network_and_in_what_they_see(trained, recipe, sample, stamps, settings):
    from lens_assets.science.detectors.recipes import load_recipes

    other = build_network(load_recipes()["bottleneck"].network, seed=3)
    annulus = recipe.normalisation.model_copy(update={"inner": 0.5, "outer": 0.8})
    normalisations = [recipe.normalisation, annulus]
    nets, sizes = [trained.network(), other], [recipe.input_size, 21]
    parts = [Member(str(i), n, s, z) for i, (n, s, z) in enumerate(zip(nets, normalisations, sizes, strict=True))]
    both = EnsembleScorer(parts, Rule(kind="mean"), precision="fp32", batch=16)
    ids = sample["galaxy_id"].to_list()[:20]
    images, valid = stamps.images(ids), stamps.invvar(ids) > 0
    each = [
        checkpoint.Scorer(n, s, z, precision="fp32", batch=16).score(images, valid).astype(float)
        for n, s, z in zip(nets, normalisations, sizes, strict=True)
    ]
    assert np.array_equal(both.score(images, valid), ((each[0] + each[1]) / 2).astype(np.float32))


def test_scores_come_with_those_of_the_members(made, networks, rows, stamps, settings):
    folder, _ = made("calibrated")
    scorer = checkpoint.load(folder, None, settings)
    part = rows[:30]
    found = score_members(scorer, part, stamps)
    assert found.select("galaxy_id", "logit", "score").equals(score_rows(scorer, part["galaxy_id"], stamps))
    long = members.scores_table(found, scorer.member_keys)
    assert long.height == 30 * 3
    assert long["member"].unique().sort().to_list() == list(KEYS)
    assert score_members(scorer, rows[:0], stamps).height == 0
    with pytest.raises(BadInput, match="twice"):
        score_members(scorer, pl.concat([part, part]), stamps)


def test_specialists_score_by_the_conditions_of_each_stamp_through_every_door(trained, recipe, sample, stamps):
    net, other = trained.network(), build_network(recipe.network, seed=9)
    torch.nn.init.normal_(other.head.weight, std=0.3)
    parts = [Member(k, n, recipe.normalisation, recipe.input_size) for k, n in (("sharp", net), ("blurred", other))]
    domains = [Domain(about=k, any_of=({"psfsize_r": Interval(**side)},)) for k, side in
               (("sharp", {"high": 1.3}), ("blurred", {"low": 1.3}))]  # fmt: skip
    rule = Rule(kind="routed", maps=(LogitMap(knots=((0.0, 0.0),)),) * 2, domains=tuple(domains))
    both = EnsembleScorer(parts, rule, key="two", precision="fp32", batch=16)
    each = [checkpoint.Scorer(m.net, m.normalisation, m.input_size, precision="fp32", batch=16) for m in parts]
    rows = sample[:41].with_columns(psfsize_r=pl.Series([1.0 if i % 3 else 1.5 for i in range(41)])).sort("galaxy_id")
    ids = rows["galaxy_id"].to_list()
    images, valid = stamps.images(ids), stamps.invvar(ids) > 0
    wanted = np.where(rows["psfsize_r"] < 1.3, each[0].score(images, valid), each[1].score(images, valid))
    seen = rows.select("psfsize_r")
    assert both.conditions == ("psfsize_r",)
    assert np.array_equal(both.score(images, valid, seen), wanted)
    cuts = [0, 5, 5, 30, 41]
    chunks = [(images[a:b], valid[a:b], seen[a:b]) for a, b in itertools.pairwise(cuts)]
    assert np.array_equal(np.concatenate([*both.score_stream(iter(chunks))]), wanted)
    assert np.array_equal(score_rows(both, rows.reverse(), stamps, chunk=7)["logit"].to_numpy(), wanted)
    assert np.array_equal(score_members(both, rows, stamps, chunk=7)["logit"].to_numpy(), wanted)
    assert np.array_equal(both.features(images, valid)[:, : each[0].n_features], each[0].features(images, valid))
    assert each[0].score(images, valid, seen).tobytes() == each[0].score(images, valid).tobytes()
    with pytest.raises(BadInput, match="psfsize_r"):
        both.score(images, valid)
    with pytest.raises(BadInput, match=r"two.*not known here"):
        score_rows(both, ids, stamps)


def test_an_ensemble_stays_what_it_is_when_its_networks_are_gone(networks, rows, stamps, settings, tmp_path):
    copies = {}
    for key, network in networks.items():
        place = tmp_path / key
        place.mkdir()
        for path in network.folder.iterdir():
            (place / path.name).write_bytes(path.read_bytes())
        copies[key] = dataclasses.replace(network, folder=place)
    folder = tmp_path / "e"
    folder.mkdir()
    ensemble_make.make(folder, ensemble(), copies, rows, stamps, settings)
    ids = rows["galaxy_id"][:8].to_list()
    before = checkpoint.load(folder, None, settings).score(stamps.images(ids))
    for network in copies.values():
        for path in network.folder.iterdir():
            path.unlink()
    assert np.array_equal(checkpoint.load(folder, None, settings).score(stamps.images(ids)), before)
    assert sorted(p.suffix for p in folder.iterdir()) == [".json"] * 4 + [".safetensors"] * 3


def test_the_same_ensemble_has_the_same_bytes(made):
    folders = [made("stacked", sub=name)[0] for name in ("one", "two")]
    names = [sorted(p.name for p in f.iterdir()) for f in folders]
    assert names[0] == names[1]
    assert all((folders[0] / n).read_bytes() == (folders[1] / n).read_bytes() for n in names[0])


def test_a_broken_or_foreign_ensemble_is_refused_by_the_name_of_its_file(made, recipe, settings):
    folder, _ = made()
    other = recipe.normalisation.model_copy(update={"clip": 7.0})
    with pytest.raises(BadInput, match="clip"):
        checkpoint.load(folder, other, settings)
    weights = folder / "tiny-s2.safetensors"
    data = weights.read_bytes()
    weights.write_bytes((folder / "tiny-s1.safetensors").read_bytes())
    with pytest.raises(BadInput, match=r"tiny-s2\.safetensors"):
        checkpoint.load(folder, None, settings)
    weights.write_bytes(data)
    spec = json.loads((folder / "spec.json").read_text())
    for change in ({"rule": {"kind": "stacked"}}, {"format": 9}, {"members": spec["members"][:2]}):
        (folder / "spec.json").write_text(json.dumps(spec | change))
        with pytest.raises(BadInput, match=r"spec\.json"):
            checkpoint.load(folder, None, settings)
    (folder / "spec.json").write_text("{")
    with pytest.raises(BadInput, match="not a detector's specification"):
        checkpoint.load(folder, None, settings)


def test_an_ensemble_fitted_on_rows_that_a_member_has_seen_is_refused(networks, rows, stamps, settings, tmp_path):
    wanted = rows.filter(pl.col("role") == "calibrate")["galaxy_id"].to_list()
    leaky = networks | {
        "tiny-s2": dataclasses.replace(networks["tiny-s2"], seen=[*networks["tiny-s2"].seen, wanted[0]])
    }
    with pytest.raises(BadInput, match=rf"member tiny-s2 has seen 1 of the {len(wanted)} rows"):
        ensemble_make.make(tmp_path, ensemble("stacked"), leaky, rows, stamps, settings)


def test_only_the_rows_of_its_own_roles_decide_an_ensemble(rows):
    assert set(ensemble_make.needed(ensemble("mean"), rows)["role"]) == {"select"}
    assert set(ensemble_make.needed(ensemble("stacked"), rows)["role"]) == {"select", "calibrate"}


def test_bfloat16_is_used_only_within_the_drift_of_the_combined_logit(trained, recipe):
    parts = [Member("a", trained.network(), recipe.normalisation, recipe.input_size)] * 2
    for drift in (None, 0.3):
        assert EnsembleScorer(parts, Rule(kind="mean"), drift=drift, max_drift=0.1).precision == "fp32"
        with pytest.raises(BadInput, match="drift"):
            EnsembleScorer(parts, Rule(kind="mean"), precision="bf16", drift=drift, max_drift=0.1)
    assert EnsembleScorer(parts, Rule(kind="mean"), precision="bf16", drift=0.01).precision == "bf16"


def test_a_detector_of_one_network_is_that_network_without_the_rows_it_saw(
    networks, settings, stamps, sample, tmp_path
):
    place = networks["tiny-s1"].folder
    pl.DataFrame({"galaxy_id": ["a"]}).write_parquet(place / "rows.parquet")
    folder = tmp_path / "d"
    folder.mkdir()
    table = members.pass_through(place, "abc", folder)
    (place / "rows.parquet").unlink()
    assert sorted(p.name for p in folder.iterdir()) == ["history.parquet", "spec.json", "weights.safetensors"]
    assert table.row(0, named=True)["member"] == "tiny-s1"
    assert table["member_weight"].to_list() == [1.0]
    ids = sample["galaxy_id"].to_list()[:5]
    scores = [checkpoint.load(f, None, settings).score(stamps.images(ids)) for f in (place, folder)]
    assert np.array_equal(*scores)
