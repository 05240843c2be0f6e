"""Probes and gates: they find a shortcut that is planted, and none where there is none."""

import numpy as np
import polars as pl
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict

from lens_assets.science.columns.gates import DETECTOR_GATES
from lens_assets.science.detectors import probes, shortcuts
from lens_assets.science.detectors.probes import ANNULUS, CORE, probe, region_features
from lens_assets.science.detectors.settings import GateSettings
from lens_assets.science.hashing import generator
from lens_assets.science.realism.settings import Settings as RealismSettings
from lens_assets.science.splits.shortcut import ShortcutResult

QUICK = {"permutations": 40, "draws": 60, "fewest": 10}
SETTINGS = GateSettings(permutations=30, draws=50, most=400, min_groups=10)


def ids_of(n):
    return np.array([f"g{i:05d}" for i in range(n)])


def run(x, y, groups=None, **more):
    ids = ids_of(len(y))
    return probe(x, y, ids=ids, groups=ids if groups is None else groups, identity=("test",), **{**QUICK, **more})


def test_nothing_to_find_is_found_to_be_nothing():
    aucs = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        found = run(rng.normal(size=(300, 12)), rng.random(300) < 0.3)
        aucs.append(found.auc)
        assert found.p_value > 0.02
        assert found.lo95 < found.auc < found.hi95
    assert np.mean(aucs) == pytest.approx(0.5, abs=0.02)


def test_a_linear_and_a_curved_shortcut_are_found_as_boosted_trees_find_them():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(900, 8))
    for y in (x[:, 0] + rng.normal(size=900) > 1, (x[:, 0] ** 2 + x[:, 1] ** 2 + 0.7 * rng.normal(size=900)) > 3):
        found = run(x, y)
        trees = cross_val_predict(HistGradientBoostingClassifier(max_iter=60), x, y, cv=5, method="predict_proba")[:, 1]
        assert found.auc > roc_auc_score(y, trees) - 0.02
        assert found.auc > 0.75
        assert found.p_value == pytest.approx(1 / 41)
        assert found.null_hi95 < 0.6


def test_copies_of_an_object_do_not_teach_the_fold_that_judges_them():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(120, 10)), rng.random(120) < 0.5
    again = np.concatenate([x, x + 1e-3 * rng.normal(size=x.shape)])
    groups = np.tile(ids_of(120), 2)
    leaking = run(again, np.tile(y, 2), folds=4)
    honest = run(again, np.tile(y, 2), groups, folds=4)
    assert leaking.auc > 0.75
    assert honest.auc < 0.65
    assert honest.groups == 120


def test_the_order_of_rows_plays_no_part():
    rng = np.random.default_rng(3)
    x, y, ids = rng.normal(size=(200, 6)), rng.random(200) < 0.4, ids_of(200)
    other = rng.permutation(200)
    a = probe(x, y, ids=ids, groups=ids, identity=("o",), **QUICK)
    b = probe(x[other], y[other], ids=ids[other], groups=ids[other], identity=("o",), **QUICK)
    assert a == b


def test_too_few_lenses_are_no_result_but_a_reason():
    found = run(np.zeros((100, 3)), np.arange(100) < 9)
    assert np.isnan(found.auc)
    assert found.detail == "9 groups of one class, 10 are needed"


def test_features_see_their_own_ring_alone_and_not_its_orientation():
    rng = np.random.default_rng(4)
    image = rng.normal(size=(2, 3, 61, 61)).astype(np.float32)
    y, x = np.ogrid[:61, :61]
    r = np.hypot(x - 30, y - 30)
    changed = image + 5 * (r >= 4).astype(np.float32)
    for structure in (False, True):
        np.testing.assert_array_equal(
            region_features(image, CORE, structure), region_features(changed, CORE, structure)
        )
        assert not np.allclose(region_features(image, ANNULUS, structure), region_features(changed, ANNULUS, structure))
        turned = np.rot90(image, axes=(2, 3)).copy()[:, :, ::-1]
        np.testing.assert_allclose(
            region_features(image, ANNULUS, structure), region_features(turned, ANNULUS, structure), rtol=1e-9
        )
    means = region_features(image, CORE, False)
    assert means.shape == (2, 9)
    assert means[1, 4] == pytest.approx(image[1, 1][(r >= 1) & (r < 2)].mean(), rel=1e-5)


class Galaxies:
    """Stamps of 61 px: a round galaxy; lenses have an arc, and where ``shortcut`` a brighter core."""

    def __init__(self, lenses, shortcut):
        self.lenses, self.shortcut = frozenset(lenses), shortcut

    def images(self, ids):
        return np.stack([self._one(g) for g in ids]) if len(ids) else np.empty((0, 3, 61, 61), np.float32)

    def invvar(self, ids):
        return np.full((len(ids), 3, 61, 61), 1e4, np.float32)

    def _one(self, g):
        rng = generator("galaxies", g)
        y, x = np.mgrid[:61, :61] - 30
        r, phi = np.hypot(x, y), np.arctan2(y, x)
        image = rng.normal(0, 0.01, (3, 61, 61))
        core = rng.uniform(0.02, 0.04) * (1.7 if g in self.lenses and self.shortcut else 1.0)
        image += core * np.exp(-r / 2)
        if g in self.lenses:
            arc = np.exp(-0.5 * ((r - 9) / 1.5) ** 2) * np.exp(-0.5 * ((phi - rng.uniform(-2, 2)) / 0.6) ** 2)
            image += 0.05 * arc
        return image.astype(np.float32)


class Eyes:
    """A detector that answers the contrast of the annulus; ``blind``: it answers the core's brightness instead."""

    conditions = ()

    def __init__(self, blind=False):
        from lens_assets.science.cutouts.settings import NormalisationSpec

        self.normalisation, self.blind = NormalisationSpec(), blind

    def score(self, images, valid=None, conditions=None):
        if self.blind:
            return (800 * (images[:, 1, 28:33, 28:33].mean((1, 2)) - 0.012)).astype(np.float32)
        f = region_features(images, ANNULUS, True)
        return (60 * (f[:, 36:72].max(1) - 0.02) * 5).astype(np.float32)


def galaxies(n=360, every=3):
    rng = np.random.default_rng(0)
    label = (np.arange(n) % every == 0).astype(np.int8)
    role = np.where(np.arange(n) % 4 == 3, "host", "train").astype("U10")
    role[(label == 1) & (np.arange(n) % 2 == 0)] = "report"
    return pl.DataFrame({
        "galaxy_id": [f"1-{i:04d}" for i in range(n)], "label": label, "role": role,
        "split": ["test" if r != "train" else "train" for r in role], "type": ["SER"] * n,
        "tier": ["A" if x else None for x in label], "system_id": [None] * n,
        "mag_r": rng.normal(19, 0.1, n), "gr": rng.normal(1, 0.02, n), "rz": rng.normal(0.8, 0.02, n),
        **{f"psfsize_{b}": np.full(n, 1.3) for b in "grz"}, "depth_r": np.full(n, 24.0),
    }, schema_overrides={"system_id": pl.String})  # fmt: skip


@pytest.mark.parametrize("shortcut", [False, True])
def test_a_core_that_gives_lenses_away_turns_its_gate_red_and_an_honest_one_does_not(shortcut):
    sample = galaxies()
    stamps = Galaxies(sample.filter(pl.col("label") == 1)["galaxy_id"], shortcut)
    found = {g.gate: g for g in shortcuts.probe_gates(sample, stamps, Eyes(), SETTINGS)}
    core, annulus = found["core_only_matched"], found["annulus_only_matched"]
    assert core.decides
    assert annulus.colour == "green"
    assert (core.colour == "red") == shortcut, core
    assert "matched in TYPE" in core.note
    assert core.n_pos <= sample.filter((pl.col("label") == 1) & (pl.col("role") == "train")).height


def test_a_detector_that_looks_at_the_core_fails_where_one_that_looks_at_arcs_passes():
    sample = galaxies()
    stamps = Galaxies(sample.filter(pl.col("label") == 1)["galaxy_id"], True)
    realism = RealismSettings(bootstrap_draws=60)
    good, bad = (
        {g.gate: g for g in shortcuts.score_gates(sample, stamps, eyes, SETTINGS, realism)}
        for eyes in (Eyes(), Eyes(True))
    )
    assert good["arc_suppressed"].colour == "green", good["arc_suppressed"]
    assert bad["arc_suppressed"].colour == "red", bad["arc_suppressed"]
    assert good["null_injection"].colour == "green"
    assert set(good) == {"null_injection", "arc_suppressed", "adversarial_ring_sharp", "adversarial_ring_one_band"}


@pytest.mark.parametrize(
    ("value", "lo", "hi", "better", "colour"),
    [
        (0.54, 0.5, 0.58, "low", "green"), (0.60, 0.56, 0.64, "low", "yellow"), (0.75, 0.69, 0.8, "low", "yellow"),
        (0.75, 0.71, 0.8, "low", "red"), (0.9, 0.8, 0.95, "high", "green"), (0.5, 0.4, 0.53, "high", "red"),
        (float("nan"), 0.1, 0.2, "low", "insufficient"),
    ],
)  # fmt: skip
def test_colours_follow_the_rule(value, lo, hi, better, colour):
    bars = (0.55, 0.70) if better == "low" else (0.7, 0.6)
    assert shortcuts.colour_of(value, lo, hi, *bars, better) == colour


def gate(name, colour, decides=True, value=0.9):
    return shortcuts.Gate(
        name, value, value - 0.01, value + 0.01, 0, 1, 0.5, 0.7, "AUC", "low", colour, decides, 10, 5, note="why"
    )


def test_the_worst_deciding_gate_is_the_colour_of_the_whole_and_the_table_is_registered():
    table = shortcuts.table_of([gate("a", "green"), gate("b", "yellow"), gate("c", "red", decides=False)])
    assert DETECTOR_GATES.violations(table) == []
    colour, words = shortcuts.standing(table)
    assert colour == "yellow"
    assert len(words) == 1
    assert words[0].startswith("b is yellow: 0.900 [0.890, 0.910] against 0.5")
    missing = shortcuts.table_of([gate("a", "green"), gate("b", "insufficient", value=float("nan"))])
    assert shortcuts.standing(missing) == ("insufficient", ["b is insufficient: why"])


def test_metadata_is_a_gate_like_the_others():
    result = ShortcutResult(0.8, 0.75, 0.85, 100, 20, 3, "fail", "logistic", 0.6)
    found = shortcuts._metadata(result, SETTINGS)
    assert (found.colour, found.decides, found.n_pos) == ("red", True, 20)


def test_leave_one_out_error_picks_the_ridge_that_cross_validation_would():
    rng = np.random.default_rng(5)
    z, w = rng.normal(size=(60, 20)), rng.normal(size=20)
    y = (z @ w + 4 * rng.normal(size=60))[:, None]
    errors = []
    for ridge in probes.RIDGES * np.linalg.eigvalsh(z.T @ z).mean():
        left = []
        for i in range(60):
            keep = np.arange(60) != i
            mean = y[keep].mean()
            beta = np.linalg.solve(z[keep].T @ z[keep] + ridge * np.eye(20), z[keep].T @ (y[keep, 0] - mean))
            left.append(y[i, 0] - mean - z[i] @ beta)
        errors.append(np.mean(np.square(left)))
    ridge = probes.RIDGES[int(np.argmin(errors))] * np.linalg.eigvalsh(z.T @ z).mean()
    new = rng.normal(size=(5, 20))
    expected = new @ np.linalg.solve(z.T @ z + ridge * np.eye(20), z.T @ (y[:, 0] - y.mean()))
    np.testing.assert_allclose(probes._ridge(z, y, new)[:, 0], expected, rtol=1e-6)
