"""The benchmarks of a GPU at a toy size on the processor: both sides agree and the line holds what is promised."""

import importlib.util
import json

import pytest
import torch

from lens_assets.bench import device
from lens_assets.cli import bench as command

SIZE = 33
WITHOUT = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")


@pytest.mark.filterwarnings("ignore:`axes` should not be:DeprecationWarning")  # of lenstronomy
def test_arcs_are_held_against_the_compiled_renderer_before_they_are_timed(monkeypatch):
    from lens_assets.bench import gpu_arcs

    found = gpu_arcs.bench_gpu_arcs(
        1, device="cpu", n=4, n_accuracy=3, n_caustics=2, chunks=(2,), batches=(2,), few=1
    )  # fmt: skip
    command.check(found)
    json.dumps(found, default=float)
    assert found["p99"] < 1e-2
    assert found["from_compiled"] < 1e-6
    assert found["bytes_repeat"]
    assert found["on_device"]["2"]["median"] > 0
    if importlib.util.find_spec("caustics") is None:
        assert "caustics" in found["caustics"]["failed"], "what is not installed is said, not left out"
    monkeypatch.setattr(gpu_arcs, "errors", lambda a, b: (a.max((1, 2, 3)) + 1, a))
    with pytest.raises(RuntimeError, match="differs from the compiled"):
        gpu_arcs.bench_gpu_arcs(1, device="cpu", n=2, n_accuracy=1, n_caustics=2, chunks=(), batches=(), few=1)


@pytest.mark.slow
def test_scoring_tells_every_form_with_its_drift():
    from lens_assets.bench.gpu_scoring import bench_gpu_scoring

    found = bench_gpu_scoring(
        1, device="cpu", n=8, size=SIZE, steps=1, held_out=64, batches=(8,), others=(), compiled=False, shown=8
    )
    command.check(found)
    json.dumps(found, default=float)
    assert found["network"]["eager float32"]["drift"] == 0
    for form in found["network"].values():
        assert form["rates"]["8"]["median"] > 0
        assert form["drift"] >= 0
    assert {row["precision"] for row in found["end_to_end"]} == {"fp32", "bf16"}


@pytest.mark.filterwarnings("ignore:`axes` should not be:DeprecationWarning")  # of lenstronomy
def test_injections_give_the_same_scores_whoever_renders():
    from lens_assets.bench.gpu_injection import bench_gpu_injection

    found = bench_gpu_injection(1, device="cpu", n=4, n_theirs=1, size=SIZE, steps=1, held_out=64, chunks=(4,), batch=8)
    command.check(found)
    assert found["largest_difference_of_logits"] < 1e-3
    assert found["batched"]["4"]["median"] > 0
    assert all(rate["median"] > 0 for rate in found["alone"].values())


@pytest.mark.slow
def test_trainings_state_their_precision_and_device():
    from lens_assets.bench.gpu_training import bench_gpu_training

    found = bench_gpu_training(1, device="cpu", n=96, select=32, size=SIZE, recipes=("tiny",), workers=(0,))
    command.check(found)
    assert {row["precision"] for row in found["by_recipe"]["tiny"].values()} == {"32-true", "bf16-mixed"}


@WITHOUT
@pytest.mark.parametrize("name", ["arcs", "scoring", "injection", "training"])
def test_without_a_gpu_nothing_is_measured_and_all_leaves_them_out(name, capsys):
    with pytest.raises(RuntimeError, match="no CUDA device"):
        command.benches()[f"{name}-gpu"](1)
    assert command.possible(["arcs", f"{name}-gpu"]) == ["arcs"]
    assert f"{name}-gpu" in capsys.readouterr().err


def test_one_way_that_fails_is_told_and_does_not_end_the_others():
    assert device.attempt(lambda: 3) == 3
    assert device.attempt(lambda: 1 / 0) == {"failed": "ZeroDivisionError: division by zero"}
