"""Injections a second from parameters to scores with a GPU: the platform's stream against lenstronomy and an eager network.

Theirs is that of ``injection``: lenstronomy at its default in one thread (models made beforehand and not timed), Poisson noise
by numpy, our normalisation, and a plain float32 loop, here on the GPU. Ours is ``score_injections``: arcs by the compiled
renderer with all threads of the machine (``ours``), and by the batched one on the GPU (``batched``, by chunk). ``alone`` times
what the stream is made of, each by itself: arcs, arcs and noise, and the scorer on stamps that are there.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import polars as pl
import torch

from lens_assets.bench.device import attempt, device_of, facts, finished, rate
from lens_assets.bench.injection import VARIANT, Hosts, _sample, _Theirs
from lens_assets.bench.network import Trained, trained
from lens_assets.bench.timing import Side, interleaved, line
from lens_assets.science.cutouts.normalise import normalise
from lens_assets.science.detectors.score import BATCH, Batch, Scorer, exact_products
from lens_assets.science.hashing import generator
from lens_assets.science.injections.batch import inject, plan_batch
from lens_assets.science.injections.hosts import choose_hosts
from lens_assets.science.injections.render import render
from lens_assets.science.injections.scene import scene_of
from lens_assets.science.injections.scoring import score_injections
from lens_assets.science.injections.settings import Settings
from lens_assets.science.injections.variants import load_variants


def _eager_way(theirs: _Theirs, network: Trained, device: torch.device) -> Side:
    """Arcs, noise, normalisation and a plain loop of the network on the device."""
    net = copy.deepcopy(network.net).eval().requires_grad_(False).to(device)

    def run() -> None:
        arcs = theirs.arcs()
        noisy = generator("bench-noise").poisson(np.maximum(arcs, 0) * theirs.gain) / theirs.gain
        stamps = (theirs.host + noisy).astype(np.float32)
        with torch.inference_mode(), exact_products(device):
            for i in range(0, len(stamps), BATCH):
                net(torch.from_numpy(normalise(stamps[i : i + BATCH], network.spec)).to(device)).cpu()

    return run


def _used(plan: pl.DataFrame, hosts: Hosts, settings: Settings) -> int:
    return sum(len(chunk.ids) for chunk in inject(plan, hosts, settings))


def bench_gpu_injection(
    repeats: int = 5, *, device: str = "cuda", n: int = 2048, n_theirs: int = 16, size: int = 101, steps: int = 20,
    held_out: int = 192, chunks: tuple[int, ...] = (256, 2048), batch: int = 256,
) -> dict[str, Any]:  # fmt: skip
    """One result line: injections a second, render + noise + normalise + score."""
    where, threads = device_of(device), os.cpu_count() or 1
    settings = Settings(per_cell=n, psf_centres=(1.2,), depth_centres=(23.5,), threads=threads, chunk=256)
    variant, network = load_variants()[VARIANT], trained(size, steps, held_out)
    hosts_needed = max(n // settings.max_host_reuse + 1, 8)
    chosen = choose_hosts(_sample(hosts_needed), settings, variant.hosts).hosts
    plan = plan_batch(chosen, variant, 1.5, settings)
    if plan.height != n:
        raise RuntimeError(f"the plan has {plan.height} injections, not {n}")
    hosts = Hosts(chosen["galaxy_id"].to_list(), size)
    scorer = Scorer(
        network.net,
        network.spec,
        size,
        drift=network.drift,
        max_drift=max(0.1, network.drift),
        batch=batch,
        device=where,
    )
    theirs = _eager_way(_Theirs(plan.head(n_theirs), hosts, network, size), network, where)

    def ours(backend: str = "adaptive", chunk: int = 256) -> pl.DataFrame:
        how = settings.model_copy(update={"backend": backend, "chunk": chunk})
        found = score_injections(plan, hosts, scorer, how, variant)
        if found.height != n:
            raise RuntimeError("injections were lost")
        return found

    first, second = ours()["logit"].to_numpy(), ours("torch")["logit"].to_numpy()
    if not float(np.median(np.abs(first - second))) < 0.05:
        raise RuntimeError("the renderers do not give the same scores")
    theirs()
    seconds = interleaved(finished(ours, where), finished(theirs, where), repeats)
    scene, cpu = scene_of(plan), torch.device("cpu")
    ready = next(inject(plan.head(1024), hosts, settings.model_copy(update={"chunk": 1024}), variant))
    ready_batches = [(ready.images[i : i + 256], ready.invvar[i : i + 256] > 0) for i in range(0, len(ready.ids), 256)]

    def stream() -> Iterator[Batch]:
        yield from ready_batches

    return line(
        "injection-gpu", "lenstronomy default 4x and numpy noise in one thread, eager float32 on the GPU", seconds,
        (n, n_theirs), "injections/s", threads, **facts(where), precision=scorer.precision, score_batch=batch, **network.facts(),
        batched={str(c): attempt(rate, partial(ours, "torch", c), n, where, repeats) for c in chunks},
        alone={
            "arcs, processors": rate(lambda: render(scene, variant.psf, threads=threads), n, cpu, repeats),
            "arcs, batched": attempt(
                lambda: rate(lambda: render(scene, variant.psf, backend="torch", device=device), n, where, repeats)
            ),
            "arcs and noise, processors": rate(lambda: _used(plan, hosts, settings), n, cpu, repeats),
            "normalise and score": rate(lambda: list(scorer.score_stream(stream())), len(ready.ids), where, repeats),
        },
        largest_difference_of_logits=float(np.abs(first - second).max()), n=n, n_theirs=n_theirs,
    )  # fmt: skip
