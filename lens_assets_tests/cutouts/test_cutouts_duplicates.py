"""The same sky twice is found, other skies are not, and the search says how often it is wrong."""

from __future__ import annotations

import itertools

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy import ndimage

from lens_assets.science.cutouts import calibration, duplicates, pairs
from lens_assets.science.cutouts.duplicates import Prints, agreement, fingerprint, high_pass, likely_pairs, sky_of
from lens_assets.science.hashing import generator

SIDE = 101


def field(*name: object, side: int = SIDE + 8, galaxy: float = 0.4, radius: float = 4.0, neighbours: int = 3):
    """A round galaxy in the middle, a few neighbours, white noise blurred as one resampling blurs it."""
    draw = generator("field", *name)
    y, x = np.mgrid[:side, :side] - side // 2
    sky = ndimage.gaussian_filter(draw.normal(0, 2e-3, (side, side)), 0.45)
    sky += galaxy * np.exp(-np.hypot(x, y) / radius)
    for _ in range(neighbours):
        cx, cy, flux = draw.uniform(-50, 50), draw.uniform(-50, 50), draw.uniform(0.01, 0.1)
        sky += flux * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 18)
    return sky.astype(np.float32)


def cut(sky: np.ndarray, dx: int = 0, dy: int = 0) -> np.ndarray:
    return sky[4 + dy : 4 + dy + SIDE, 4 + dx : 4 + dx + SIDE]


def marks(*stamps: np.ndarray):
    planes = np.stack(stamps).astype(np.float32)
    sky, known = sky_of(planes, np.ones(planes.shape, bool))
    return fingerprint(sky, known), high_pass(sky, known), known


def recognised(a: np.ndarray, b: np.ndarray) -> bool:
    prints, sharp, known = marks(a, b)
    likely = len(likely_pairs(prints)[0]) == 1
    return likely and agreement(sharp[0], known[0], sharp[1], known[1]) >= duplicates.AGREEMENT


@pytest.mark.parametrize(("dx", "dy"), list(itertools.product((-1, 0, 1), repeat=2)))
def test_the_same_sky_cut_up_to_a_pixel_apart_is_found(dx, dy):
    for k in range(4):
        sky = field("shift", k)
        assert recognised(cut(sky), cut(sky, dx, dy))


def test_the_same_sky_through_another_resampling_and_under_more_noise_is_found():
    hits = 0
    for k in range(12):
        sky = field("resampled", k)
        moved = ndimage.shift(sky, (0.5, 0.5), order=3, mode="reflect")
        moved = moved + generator("more", k).normal(0, 1e-3, sky.shape)
        hits += recognised(cut(sky), cut(moved))
    assert hits == 12


def test_two_large_round_galaxies_are_not_called_the_same_though_their_wings_correlate():
    a, b = (cut(field("wings", k, galaxy=0.6, radius=14.0, neighbours=0)) for k in range(2))
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE // 2
    far = np.hypot(x, y) > SIDE / 4
    assert np.corrcoef(a[far], b[far])[0, 1] > 0.9  # what fooled a plain correlation of the outer pixels
    _, sharp, known = marks(a, b)
    assert abs(agreement(sharp[0], known[0], sharp[1], known[1])) < 0.15
    assert not recognised(a, b)


def test_hardly_any_of_many_unrelated_pairs_is_likely_and_none_agrees():
    stamps = [cut(field("crowd", k, radius=3 + k % 9)) for k in range(120)]
    prints, sharp, known = marks(*stamps)
    i, j, _ = likely_pairs(prints)
    assert len(i) <= 20  # 7,140 pairs; 4 standard deviations
    assert all(
        agreement(sharp[a], known[a], sharp[b], known[b]) < duplicates.AGREEMENT for a, b in zip(i, j, strict=True)
    )


def test_an_object_that_fills_its_stamp_is_counted_as_not_comparable_and_matches_nothing():
    full = cut(field("full", galaxy=5.0, radius=40.0))
    prints, _, _ = marks(full, full, cut(field("plain")))
    assert prints.usable.tolist() == [False, False, True]
    assert len(likely_pairs(prints)[0]) == 0


def test_invalid_pixels_are_unknown_and_not_evidence():
    a, b = np.zeros((1, SIDE, SIDE), np.float32), np.zeros((1, SIDE, SIDE), np.float32)
    a[0], b[0] = cut(field("hole", 1)), cut(field("hole", 2))
    hole = np.ones((1, SIDE, SIDE), bool)
    hole[:, :60] = False
    a[:, :60] = b[:, :60] = 7.0  # the same junk in both
    (sa, ka), (sb, kb) = sky_of(a, hole), sky_of(b, hole)
    both = Prints(np.concatenate([fingerprint(sa, ka).sign, fingerprint(sb, kb).sign]))
    assert (both.sign.reshape(2, 20, 20)[:, :11] == 0).all()
    assert len(likely_pairs(both)[0]) == 0


@hypothesis_settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([0.0, 1.0, 2.5]))
def test_the_blocked_search_gives_the_pairs_of_brute_force(seed, limit):
    draw = generator("brute", seed)
    base = draw.choice([-1, 0, 1], (9, 40), p=[0.45, 0.1, 0.45]).astype(np.int8)
    near = base.copy()
    near[draw.random(near.shape) < 0.1] *= -1
    prints = Prints(np.concatenate([base, near]))
    wanted = []
    for i, j in itertools.combinations(range(18), 2):
        common = (prints.sign[i] != 0) & (prints.sign[j] != 0)
        z = (prints.sign[i] * prints.sign[j])[common].sum() / np.sqrt(common.sum())
        if common.sum() >= 10 and z >= limit and z > 0 and z * np.sqrt(common.sum()) >= limit * np.sqrt(10):
            wanted.append((i, j))
    old = duplicates._TILE
    duplicates._TILE = (5, 7)
    try:
        i, j, _ = likely_pairs(prints, None, limit)
    finally:
        duplicates._TILE = old
    assert [
        (a, b) for a, b in zip(i.tolist(), j.tolist(), strict=True) if a != b and (limit > 0 or (a, b) in wanted)
    ] == wanted


def test_the_threshold_rises_until_few_enough_pairs_have_to_be_looked_at():
    null = np.linspace(4, 8, 401)
    assert calibration.threshold(null, 10**6, 10**7) == duplicates.LIKENESS
    limit = calibration.threshold(null, 10**6, 10**9)
    passed = (null >= limit).sum() / 10**6 * 10**9
    assert passed <= calibration.MOST_LIKELY < passed + (null >= limit - 0.1).sum() * 10**3
    assert calibration.threshold(np.empty(0), 0, 0) == duplicates.LIKENESS


class Stamps:
    """What ``duplicate_pairs`` needs of a set of shards."""

    def __init__(self, planes: np.ndarray) -> None:
        self.planes = np.repeat(planes[:, None], 3, axis=1).astype(np.float32)
        self.shards = [self]
        self.shape = self.planes.shape[1:]

    def images(self, rows):
        return self.planes[rows]

    def invvar(self, rows):
        return np.full((len(rows), *self.shape), 2.5e5, np.float32)


def sample_of(planes: np.ndarray, ra: np.ndarray, splits: list[str], digests: list[str]) -> pl.DataFrame:
    n = len(planes)
    return pl.DataFrame(
        {
            "galaxy_id": [f"10000-400000-{k:03d}" for k in range(n)],
            "split": splits,
            "ra": ra,
            "dec": np.zeros(n),
            "stamp_digest": digests,
            "position": np.arange(n),
        }
    )


def test_every_kind_of_pair_is_found_once_with_its_splits():
    skies = [field("kinds", k) for k in range(30)]
    planes = np.stack([cut(s) for s in skies] + [cut(skies[0]), cut(skies[1], 1, -1), cut(skies[2], 0, 1)])
    ra = np.concatenate([np.arange(30) * 0.1, [10.0, 11.0, 0.2 + 10 / 3600]])  # the last lies 10 arcsec from number 2
    splits = ["train"] * 30 + ["test", "val", "evaluation"]
    digests = [f"d{k}" for k in range(30)] + ["d0", "x", "y"]
    table, facts = pairs.duplicate_pairs(Stamps(planes), sample_of(planes, ra, splits, digests))
    got = {(r["first"][-3:], r["second"][-3:]): r for r in table.iter_rows(named=True)}
    assert {k: r["kind"] for k, r in got.items()} == {
        ("000", "030"): "identical",
        ("001", "031"): "alike",
        ("002", "032"): "overlap",
    }
    assert got["001", "031"]["agreement"] > 0.9
    assert got["001", "031"]["separation_arcsec"] == pytest.approx(10.9 * 3600, rel=1e-6)
    assert got["002", "032"]["shared"] == pytest.approx(1 - 10 / (101 * 0.262), rel=1e-3)
    assert facts["kinds"] == facts["across_splits"] == {"identical": 1, "overlap": 1, "alike": 1}
    assert facts["with_train_or_val"] == {"identical": 1, "overlap": 1, "alike": 1}
    judging = [s.replace("train", "test") for s in splits]
    facts = pairs.duplicate_pairs(Stamps(planes), sample_of(planes, ra, judging, digests))[1]
    assert facts["across_splits"] == {"identical": 0, "overlap": 1, "alike": 1}
    assert facts["with_train_or_val"] == {"identical": 0, "overlap": 0, "alike": 1}  # test and evaluation may overlap


def test_the_search_states_how_often_it_misses_and_how_often_it_invents():
    planes = np.stack([cut(field("calibrated", k, radius=2 + k % 8)) for k in range(60)])
    sample = sample_of(planes, np.arange(60) * 0.1, ["train"] * 60, [f"d{k}" for k in range(60)])
    table, facts = pairs.duplicate_pairs(Stamps(planes), sample)
    measured = facts["calibration"]
    assert table.height == 0
    assert measured["null_pairs"] == 60 * 59
    assert measured["null_alike"] == 0
    assert measured["false_alarms_below"] == pytest.approx(2.996 / (60 * 59), rel=1e-3)  # -ln 0.05
    found, tried = measured["found"], measured["tried"]
    assert tried > 50
    assert found["half a pixel off, resampled"] >= 0.9 * tried
    assert found["a pixel off in both axes"] >= 0.9 * tried
    assert found["under its own noise once more"] >= 0.9 * tried
    assert 0 < found["a pixel off and under its own noise once more"] < tried  # it can be missed, and it says so
    again = pairs.duplicate_pairs(Stamps(planes), sample.sample(fraction=1.0, shuffle=True, seed=4))
    assert again[1] == facts


def test_a_sample_of_one_stamp_has_no_pairs():
    planes = cut(field("one"))[None]
    table, facts = pairs.duplicate_pairs(Stamps(planes), sample_of(planes, np.zeros(1), ["train"], ["d"]))
    assert table.height == 0
    assert facts["kinds"]["overlap"] == 0
