"""The gates on the stamps of a sample: what blocks, what passes, and in which words."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from lens_assets.checks import cutouts as gates

CLEAN = {"identical": 0, "overlap": 0, "alike": 0}


def judged(gate, **facts):
    return gate(SimpleNamespace(facts=facts), None)


def noise(verdict: str, auc: float | None = 0.7, lo68: float | None = 0.65):
    return {
        "auc": auc, "lo68": lo68, "hi68": 0.75, "n": 900, "n_pos": 90, "verdict": verdict, "bar": 0.60, "rule": "pass if",
    }  # fmt: skip


def test_stamps_of_one_source_pass_and_of_two_block_with_their_numbers():
    assert not judged(gates._one_source, sources={"0: brick": 9, "1: brick": 2}).problems
    assert not judged(gates._one_source).problems  # a sample without stamps
    (told,) = judged(gates._one_source, sources={"0: brick": 9, "1: viewer": 2}).problems
    assert "positives: 2 viewer" in told
    assert "negatives: 9 brick" in told


def test_noise_that_tells_the_classes_apart_blocks_with_auc_interval_n_and_rule():
    (told,) = judged(gates._noise, noise=noise("fail")).problems
    for words in ("AUC 0.700", "0.650 to 0.750", "n 900", "pass if 0.60"):
        assert words in told


@pytest.mark.parametrize("found", [noise("pass", 0.52, 0.5), noise("insufficient", None, None)])
def test_noise_at_chance_passes_and_too_few_lenses_do_not_block_a_rehearsal(found):
    outcome = judged(gates._noise, noise=found)
    assert not outcome.problems
    assert ("insufficient" in str(outcome.figures)) == (found["verdict"] == "insufficient")


@pytest.mark.parametrize("kind", ["identical", "alike"])
def test_the_same_picture_in_two_splits_blocks_even_in_the_evaluation(kind):
    found = {"across_splits": CLEAN | {kind: 3}, "with_train_or_val": CLEAN}
    (told,) = judged(gates._copies, duplicates=found).problems
    assert told == f"3 pairs of stamps in two splits are {kind}"


def test_shared_pixels_block_where_one_side_shapes_the_detector_and_are_told_where_both_judge():
    far = {"across_splits": CLEAN | {"overlap": 18}, "with_train_or_val": CLEAN}
    outcome = judged(gates._copies, duplicates=far)
    assert not outcome.problems
    assert "18" in str(outcome.figures["duplicates"].data)
    near = {"across_splits": CLEAN | {"overlap": 5}, "with_train_or_val": CLEAN | {"overlap": 2}}
    assert judged(gates._copies, duplicates=near).problems == [
        "2 stamps of train or val share pixels with one of another split"
    ]
