"""The background test, the report and its verdict, the panel and the adversarial probes."""

import json
from functools import partial

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError
from scipy.stats import kstest

from lens_assets.science.completeness.detectability import gate_statistic
from lens_assets.science.cutouts.settings import NormalisationSpec
from lens_assets.science.errors import BadInput
from lens_assets.science.realism import background as bg
from lens_assets.science.realism.adversarial import add_ring, adversarial_ring, arc_suppressed, null_injection
from lens_assets.science.realism.background_gates import ks_gate, power_gate
from lens_assets.science.realism.figures import write_figures
from lens_assets.science.realism.gates import colour_gate, distance_gate, snr_gate
from lens_assets.science.realism.panel import assemble, score_votes, write_sheet
from lens_assets.science.realism.report import realism_report, verdict_allows
from lens_assets.science.realism.settings import Matching, Override, Settings
from lens_assets.science.realism.stamps import StampSet

QUICK = Settings(
    permutations=20,
    bootstrap_draws=60,
    control_splits=3,
    probe_repeats=1,
    matching=Matching(psfsize_arcsec=0.3, depth_mag=0.8, brightness_mag=0.8),
)


judged = partial(realism_report, normalisation=NormalisationSpec())


@pytest.fixture(scope="module")
def world(sky):
    """Reals and injections of one population, with the untouched hosts; features are noise."""
    rng = np.random.default_rng(31)

    def stamps(n, prefix, depth=24.0):
        images = sky.galaxies(rng, n) + sky.noise(rng, n)
        arcs = sky.arcs(rng, n, theta=rng.uniform(5, 9, n), flux=10 ** rng.uniform(0, 0.6, n))
        return images, arcs, sky.frame(rng, n, prefix)

    bare, arcs, frame = stamps(80, "r")
    real = StampSet.of(bare + arcs, sky.weights(80), frame, rng.normal(size=(80, 32)))
    bare, arcs, frame = stamps(240, "h")
    hosts = StampSet.of(bare, sky.weights(240), frame, rng.normal(size=(240, 32)))
    named = frame.with_columns(id=pl.concat_str(pl.lit("i-"), "galaxy_id"))
    injected = StampSet.of(bare + arcs, sky.weights(240), named, rng.normal(size=(240, 32)))
    return real, injected, hosts


def changed(stamps, images=None, features=None, frame=None):
    return StampSet.of(
        stamps.images if images is None else images,
        stamps.invvar,
        stamps.frame if frame is None else frame,
        stamps.features if features is None else features,
    )


@pytest.fixture(scope="module")
def good(world):
    return judged(*world, np.random.default_rng(1).normal(size=(200, 32)), QUICK, ("d", "v"))


def test_one_population_gets_a_go(good):
    assert good.verdict == "go", good.reasons
    assert verdict_allows(good, Override()) == (True, "go")
    assert good.banner == ""
    controls = good.gate("feature_probe").detail["controls"]
    assert {"real_real_halves", "hosts_against_real", "hosts_against_negatives"} <= set(controls)


def test_the_same_identity_gives_the_same_bytes_whatever_the_order(world, good):
    rng = np.random.default_rng(2)
    shuffled = []
    for s in world:
        p = rng.permutation(len(s))
        shuffled.append(StampSet.of(s.images[p], s.invvar[p], s.frame[p], s.features[p]))
    again = judged(*shuffled, np.random.default_rng(1).normal(size=(200, 32)), QUICK, ("d", "v"))
    assert again.to_json() == good.to_json()
    assert again.measures.equals(good.measures)
    assert "NaN" not in good.to_json()


def test_one_real_galaxy_many_times_is_one_source_and_no_go(world, good):
    """Gates that pass on many copies of one galaxy say nothing of galaxies; thirty of them are enough to be heard."""
    real, injected, hosts = world
    assert good.facts["sources"] == {}
    for distinct, verdict in ((1, "no-go"), (40, "go")):
        named = pl.Series([str(i % distinct) for i in range(len(injected))])
        shown = changed(injected, frame=injected.frame.with_columns(source_id=named))
        report = judged(real, shown, hosts, None, QUICK, ("d", "v"))
        found = report.facts["sources"]
        assert found["distinct"] == distinct
        assert found["effective"] <= distinct + 1e-9
        assert found["injections"] > 100
        assert report.verdict == verdict, report.reasons
        assert ("1 distinct real galaxies, at least 30" in report.banner) == (distinct == 1)


def test_planted_differences_each_fail_their_own_gate(world, sky):
    real, injected, hosts = world
    rng = np.random.default_rng(3)
    layer = injected.images + 0.5 * sky.noise(rng, len(injected))
    blue = hosts.images + (injected.images - hosts.images) * np.array([2.5, 1, 1], np.float32)[None, :, None, None]
    loud = hosts.images + 6 * (injected.images - hosts.images)
    shifted = injected.features + 1.0
    cases = {
        "background_ks": changed(injected, layer),
        "background_power": changed(injected, layer),
        "arc_colour": changed(injected, blue),
        "arc_snr": changed(injected, loud),
        "feature_probe": changed(injected, features=shifted),
    }
    for gate, planted in cases.items():
        report = judged(real, planted, hosts, None, QUICK, ("d", "v"))
        assert report.gate(gate).passed is False, gate
        assert report.verdict == "no-go"
        assert any(reason.startswith(gate) for reason in report.reasons)
        assert report.banner.startswith("REALISM NO-GO")
        if gate == "feature_probe":
            assert report.gate(gate).value > 0.97
            assert report.reasons == [report.reasons[0]]


def test_too_few_real_lenses_are_insufficient_and_hence_no_go(world):
    real, injected, hosts = world
    report = judged(real.take(np.arange(12)), injected, hosts, None, QUICK, "few")
    assert report.verdict == "no-go"
    assert report.gate("arc_snr").status == "insufficient"
    assert report.gate("arc_snr").passed is None
    assert "12 real lenses" in report.gate("arc_snr").detail["reason"]


def test_missing_features_are_a_reason_not_a_pass(world):
    real, injected, hosts = world
    bare = [StampSet.of(s.images, s.invvar, s.frame) for s in (real, injected, hosts)]
    report = judged(*bare, None, QUICK, "bare")
    assert report.reasons == ["feature_probe: insufficient (no features were given)"]


def test_an_override_needs_a_reason_and_is_recorded(world):
    real, injected, hosts = world
    with pytest.raises(ValidationError, match="needs a reason"):
        Override(allow=True)
    report = judged(real.take(np.arange(12)), injected, hosts, None, QUICK, "few")
    allowed, why = verdict_allows(report, Override(allow=True, reason="a rehearsal"))
    assert allowed
    assert why == "no-go overridden: a rehearsal"
    assert verdict_allows(report, Override())[0] is False
    assert report.tag == "nogo"


def test_only_observable_stamps_are_compared_where_both_sides_say(world):
    real, injected, hosts = world
    seen = [np.arange(len(s)) % 2 == 0 for s in (real, injected)]
    marked = [
        changed(s, frame=s.frame.with_columns(observable=pl.Series(o)))
        for s, o in zip((real, injected), seen, strict=True)
    ]
    report = judged(*marked, hosts, None, QUICK, "seen")
    assert report.facts["observable"] == {"applied": True, "real": [40, 80], "injected": [120, 240]}
    assert report.gate("arc_snr").n_real <= 40


def test_tables_and_json_are_complete(good):
    table = good.table()
    assert table.height == 12
    assert set(table["gate_status"]) <= {"pass", "fail", "reported", "insufficient"}
    value = json.loads(good.to_json())
    assert value["facts"]["matching"]["brightness"]["n_real_matched"] >= 30
    assert good.measures.filter(pl.col("matched_brightness") & (pl.col("side") == "real")).height >= 30


def test_figures_are_named_with_the_verdict_and_reproducible(good, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, two = write_figures(good, tmp_path / "a"), write_figures(good, tmp_path / "b")
    assert [p.name for p in one] == [f"realism-{n}-go.png" for n in ("gates", "measures", "background", "probe")]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(one, two, strict=True))


def test_background_p_values_are_uniform_on_spaced_pixels_and_not_on_neighbours(sky):
    """Two halves of one noise field: spaced pixels keep the level of the test, adjoining ones do not."""
    rng = np.random.default_rng(5)
    # two resamplings, then a box average: correlation long enough to break an unspaced test
    noise = sky.noise(rng, 120)
    noise = (noise + np.roll(noise, 1, 2) + np.roll(noise, 1, 3) + np.roll(noise, (1, 1), (2, 3))) / 4
    weights = sky.weights(120)
    sky_ = bg.sky_of(noise, weights)
    step = bg.spacing(bg.correlation(noise, sky_), 0.05)
    assert step >= 2
    ids = np.array([f"s{i}" for i in range(120)])
    spaced, adjoining = [], []
    for i in range(120):
        one = bg.Sky(sky_.usable[i : i + 1], sky_.level[i : i + 1], sky_.sigma[i : i + 1])
        for b in range(3):
            x, y = bg.lattice_samples(noise[i : i + 1], noise[i : i + 1], one, step, ids[i : i + 1], b, ("u",))
            spaced.append(bg.ks(x, y)[1])
            z = noise[i, b][one.usable[0, b]] / one.sigma[0, b]
            adjoining.append(bg.ks(z[: len(z) // 2], z[len(z) // 2 :])[1])
    assert kstest(spaced, "uniform").pvalue > 1e-3
    assert np.mean(np.array(spaced) < 0.05) < 0.09
    assert np.mean(np.array(adjoining) < 0.05) > 0.15


def test_the_measured_correlation_is_that_of_two_lanczos_resamplings(sky):
    noise = sky.noise(np.random.default_rng(6), 60)
    rho = bg.correlation(noise, bg.sky_of(noise, sky.weights(60)))
    assert rho[:, :3].mean(axis=0) == pytest.approx([0.196, -0.128, 0.034], abs=0.025)
    white = np.random.default_rng(7).normal(size=(30, 3, 101, 101)).astype(np.float32)
    assert bg.spacing(bg.correlation(white, bg.sky_of(white, np.ones_like(white))), 0.05) == 1


def test_a_noise_layer_of_a_tenth_of_the_variance_is_found(world, sky):
    _, injected, hosts = world
    where = {h: i for i, h in enumerate(hosts.strings("galaxy_id"))}
    rows = np.array([where[h] for h in injected.strings("galaxy_id")])
    untouched, ids = hosts.images[rows], injected.strings("galaxy_id")
    sky_ = bg.sky_of(untouched, hosts.invvar[rows])
    layer = injected.images + 0.33 * sky.noise(np.random.default_rng(8), len(injected))
    clean = power_gate(injected.images, untouched, ids, ids, QUICK, ("p",))
    dirty = power_gate(layer, untouched, ids, ids, QUICK, ("p",))
    assert clean.value < 0.01
    assert 0.05 < dirty.value < 0.25
    assert dirty.passed is False
    assert ks_gate(injected.images, untouched, sky_, ids, QUICK, ("p",)).passed is True
    assert ks_gate(layer, untouched, sky_, ids, QUICK, ("p",)).passed is False


def test_gates_of_plain_numbers_pass_alike_and_fail_apart():
    rng = np.random.default_rng(9)
    a, b = rng.lognormal(2, 0.5, 100), rng.lognormal(2, 0.5, 400)
    ga, gb = np.array([f"a{i}" for i in range(100)]), np.array([f"b{i // 4}" for i in range(400)])
    assert snr_gate("arc_snr", a, b, ga, gb, QUICK, ("s",)).passed is True
    far = snr_gate("arc_snr", a, 2.5 * b, ga, gb, QUICK, ("s",))
    assert far.passed is False
    assert far.lo95 < 2.5 < far.hi95
    colours = ({"gr": rng.normal(0.3, 0.3, 100)}, {"gr": rng.normal(0.3, 0.3, 400)})
    assert colour_gate("c", *colours, ga, gb, QUICK, ("s",)).passed is True
    assert colour_gate("c", colours[0], {"gr": colours[1]["gr"] + 0.5}, ga, gb, QUICK, ("s",)).passed is False
    near, apart = (distance_gate("d", a, x, ga, gb, QUICK, ("s",)) for x in (b, b + 10))
    assert near.status == apart.status == "reported"
    assert near.value < near.detail["null_hi95"]
    assert apart.value > 3 * apart.detail["null_hi95"]


def test_bad_stamps_are_named(world, sky):
    real, _, _ = world
    with pytest.raises(BadInput, match="depth_r"):
        StampSet.of(real.images, real.invvar, real.frame.drop("depth_r"))
    doubled = real.frame.with_columns(id=pl.lit("x"))
    with pytest.raises(BadInput, match="ids repeat"):
        StampSet.of(real.images, real.invvar, doubled)
    broken = real.images.copy()
    broken[3, 1, 50, 50] = np.nan
    with pytest.raises(BadInput, match="row 3"):
        StampSet.of(broken, real.invvar, real.frame)


def test_the_panel_is_blind_balanced_and_reproducible(world, tmp_path):
    real, injected, _ = world
    one, two = (assemble(real, injected, 50, ("p",)) for _ in range(2))
    assert one.key == two.key
    kinds = [a["kind"] for a in one.key["answers"]]
    assert kinds.count("real") == 25
    assert kinds != sorted(kinds)
    assert kinds != sorted(kinds, reverse=True)
    assert one.key["answers"] != assemble(real, injected, 50, ("q",)).key["answers"]
    for panel, name in ((one, "a.png"), (two, "b.png")):
        write_sheet(panel, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with pytest.raises(BadInput, match="needs 100 real"):
        assemble(real, injected, 200, ("p",))


def test_votes_are_scored_and_tied_to_their_panel(world):
    real, injected, _ = world
    panel = assemble(real, injected, 50, ("p",))
    truth = {a["number"]: float(a["kind"] == "injected") for a in panel.key["answers"]}
    rng = np.random.default_rng(0)
    guesses = {k: float(rng.integers(0, 2)) for k in truth}
    scored = score_votes(panel.key, {"seer": truth, "guesser": guesses, "shy": {1: 0.5}}, panel.digest)
    assert scored["graders"]["seer"]["accuracy"] == 1.0
    assert scored["graders"]["seer"]["auc"] == 1.0
    assert scored["graders"]["seer"]["p_guessing"] < 1e-10
    assert scored["graders"]["guesser"]["lo95"] < 0.5 < scored["graders"]["guesser"]["hi95"]
    assert scored["graders"]["shy"]["called"] == 0
    assert scored["pooled"]["called"] == 100
    with pytest.raises(BadInput, match="votes are for panel"):
        score_votes(panel.key, {}, "other")
    forged = {**panel.key, "answers": panel.key["answers"][::-1]}
    with pytest.raises(BadInput, match="was changed"):
        score_votes(forged, {})
    with pytest.raises(BadInput, match="1 to 50"):
        score_votes(panel.key, {"x": {51: 1.0}})


def _arc_reader(images):
    """A scorer that reads arcs: the coherent energy that the azimuthal model leaves."""
    stat = gate_statistic(images, np.ones_like(images)).total
    return 1 / (1 + np.exp(-(stat - 20) / 3))


def _core_reader(images):
    """A scorer that takes the shortcut: every stamp with a galaxy in it is a lens."""
    return (images[:, 1, 45:56, 45:56].sum(axis=(1, 2)) > 1).astype(float)


def test_adversarial_probes_pass_a_reader_of_arcs_and_catch_a_shortcut(world):
    real, _, hosts = world
    assert _arc_reader(real.images).mean() > 0.4
    assert arc_suppressed(real, _arc_reader, QUICK, ("a",)).passed is True
    for probe in (null_injection, arc_suppressed, adversarial_ring):
        stamps = real if probe is arc_suppressed else hosts
        caught = probe(stamps, _core_reader, QUICK, ("a",))
        assert caught.passed is False
        assert caught.value > 0.9
    with pytest.raises(BadInput, match="probabilities"):
        null_injection(hosts, lambda x: np.full(len(x), 3.0), QUICK, ("a",))


def test_rings_are_where_and_what_they_say(world):
    _, _, hosts = world
    some = hosts.take(np.arange(6))
    y, x = np.mgrid[:101, :101] - 50
    radius = np.hypot(x, y)
    sharp = add_ring(some, "sharp") - some.images
    assert np.abs(sharp[:, :, np.abs(radius - 8) > 0.51]).max() < 1e-6
    assert (sharp[:, 1][:, np.abs(radius - 8) < 0.4] > 0).all()
    one = add_ring(some, "one-band") - some.images
    assert np.abs(one[:, [0, 2]]).max() == 0
    with pytest.raises(BadInput, match="no such ring"):
        add_ring(some, "square")
