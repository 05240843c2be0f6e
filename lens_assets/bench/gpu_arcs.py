"""Arcs a second on a GPU: the batched renderer against lenstronomy's default (one thread) and caustics (the same GPU).

All draw the same injections of ``injections.bench``: SIE + shear, one elliptical Sersic source, three PSFs, 101 pixels. Ours is
timed to images in the processor's memory (``ours``) and on the device alone (``on_device``, by the number of injections at
a time); the compiled renderer with all threads of the machine stands beside it (``processors``). Accuracy is that of
``arcs``: the 99th percentile over 200 draws, of which 60 are extreme, of the largest relative error above 1 % of the peak.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lens_assets.bench.caustics_way import Caustics
from lens_assets.bench.device import attempt, device_of, facts, finished, rate
from lens_assets.bench.timing import interleaved, line
from lens_assets.science.injections.batched import render_batched
from lens_assets.science.injections.bench import TRUTH, _quiet_allocator, _Theirs, bench_scene, errors
from lens_assets.science.injections.psf import PsfSpec
from lens_assets.science.injections.render import SIZE, TIGHT, Accuracy, grid_side, render
from lens_assets.science.injections.scene import Scene
from lens_assets.science.surveys.layout import PIXEL_SCALE

F32 = npt.NDArray[np.float32]
FEW = 8
"""Injections of lenstronomy's."""


def _on_device(scene: Scene, accuracy: Accuracy, device: torch.device, chunk: int | None) -> None:
    rows = list(range(len(scene)))
    for _ in render_batched(
        scene, rows, PsfSpec(), SIZE, grid_side(SIZE), PIXEL_SCALE, accuracy.levels, accuracy.tolerance, str(device), chunk
    ):  # fmt: skip
        pass


def _percentiles(images: npt.NDArray[Any], truth: npt.NDArray[Any]) -> dict[str, Any]:
    relative, of_peak = errors(images, truth)
    return {
        "relative": np.percentile(relative, (50, 90, 99, 100)).tolist(),
        "of_peak": np.percentile(of_peak, (50, 90, 99, 100)).tolist(),
    }


def _caustics(
    scene: Scene, drawn: Scene, truth: F32, device: torch.device, batches: tuple[int, ...], repeats: int
) -> dict[str, Any]:
    """Rates by batch size and the error of caustics; the best rate is ``rate``."""
    psf = PsfSpec()
    side = Caustics(scene, psf, device)
    by_batch = {
        str(b): attempt(rate, partial(side.images, b), len(scene), device, repeats) for b in batches
    }  # fmt: skip
    medians = {b: found["median"] for b, found in by_batch.items() if "median" in found}
    if not medians:
        return {"version": side.version, "by_batch": by_batch}
    best = max(medians, key=lambda b: medians[b])
    images = Caustics(drawn, psf, device).images(int(best)).cpu().numpy()
    one_band = rate(lambda: side.images(int(best), (2,)), len(scene), device, repeats)
    return {
        "version": side.version, "rate": medians[best], "batch": int(best), "one_band": one_band["median"],
        "by_batch": by_batch, "error": _percentiles(images, truth), "dtype": "float32", "quad_level": 4,
    }  # fmt: skip


def bench_gpu_arcs(
    repeats: int = 5, *, device: str = "cuda", n: int = 2048, n_accuracy: int = 200, n_caustics: int = 256,
    chunks: tuple[int, ...] = (64, 256, 1024), batches: tuple[int, ...] = (8, 32, 128), few: int = FEW,
) -> dict[str, Any]:  # fmt: skip
    """One result line: injections a second of ours (images in the processor's memory) and lenstronomy's, and the others."""
    where, psf, threads = device_of(device), PsfSpec(), os.cpu_count() or 1
    scene = bench_scene(50 + n).part(50, 50 + n)
    _quiet_allocator()
    drawn = bench_scene().part(0, n_accuracy)
    truth = render(drawn, psf, accuracy=TRUTH, threads=threads).images
    compiled = render(drawn, psf, threads=threads).images
    found = render(drawn, psf, backend="torch", device=device).images
    again = render(drawn, psf, backend="torch", device=device).images
    tight = render(drawn, psf, accuracy=TIGHT, backend="torch", device=device).images
    different = errors(found, compiled)[0].max()
    if not different < 1e-5:
        raise RuntimeError(f"the batched renderer differs from the compiled one by {different}")
    first = min(6, n - few)  # from there on, as in ``arcs``
    reference = _Theirs(scene.part(first, first + few), psf)
    reference.default()
    ours = finished(lambda: render(scene, psf, backend="torch", device=device), where)
    ours()
    seconds = interleaved(ours, reference.default, repeats)
    on_device = {}
    for chunk in chunks:
        if where.type == "cuda":
            torch.cuda.reset_peak_memory_stats(where)
        made = attempt(
            rate, partial(_on_device, scene, Accuracy(), where, chunk), n, where, repeats
        )  # fmt: skip
        if where.type == "cuda":
            made["peak_mib_each"] = torch.cuda.max_memory_allocated(where) / 2**20 / chunk
        on_device[str(chunk)] = made
    cpu = torch.device("cpu")
    return line(
        "arcs-gpu", "lenstronomy default 4x, one thread", seconds, (n, few), "injections/s", 1, **facts(where),
        on_device=on_device,
        on_device_tight=attempt(rate, partial(_on_device, scene, TIGHT, where, None), n, where, repeats),
        processors=rate(lambda: render(scene, psf, threads=threads), n, cpu, repeats), processor_threads=threads,
        caustics=attempt(
            _caustics, bench_scene(50 + n_caustics).part(50, 50 + n_caustics), drawn, truth, where, batches, repeats
        ),
        error=_percentiles(found, truth), error_tight=_percentiles(tight, truth),
        p99=float(np.percentile(errors(found, truth)[0], 99)),
        from_compiled=float(different), bytes_repeat=bool(found.tobytes() == again.tobytes()), dtype="float64", n=n,
        n_accuracy=n_accuracy, n_theirs=few,
    )  # fmt: skip
