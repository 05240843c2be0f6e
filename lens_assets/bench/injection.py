"""Injections from parameters to scores: the platform's stream against lenstronomy and an eager float32 network.

Theirs: lenstronomy at its default (4 x 4 samples, native kernel; models and kernels are made beforehand and not timed),
Poisson noise by numpy, our own normalisation, and a plain loop of the same network. Ours: ``score_injections``, all of it.
Host stamps are in memory on both sides. lenstronomy runs in one thread: a second one is of no use to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from lens_assets.bench.network import Trained, trained
from lens_assets.bench.scoring import eager
from lens_assets.bench.timing import cpu_seconds_of, interleaved, line
from lens_assets.science.hashing import generator
from lens_assets.science.injections.batch import plan_batch
from lens_assets.science.injections.hosts import choose_hosts
from lens_assets.science.injections.noise import measure_gain
from lens_assets.science.injections.reference import lenstronomy_models
from lens_assets.science.injections.render import render
from lens_assets.science.injections.scene import scene_of
from lens_assets.science.injections.scoring import score_injections
from lens_assets.science.injections.settings import Settings
from lens_assets.science.injections.variants import load_variants
from lens_assets.science.surveys.layout import PIXEL_SCALE

F32 = npt.NDArray[np.float32]
SIGMA = np.array([0.0017, 0.0023, 0.0079])
"""Sky noise per pixel in g, r, z, nmgy: typical of DR10."""
VARIANT = "sersic-population"


class Hosts:
    """Host stamps in memory: an exponential galaxy in white noise, and its inverse variance."""

    def __init__(self, ids: Sequence[str], size: int) -> None:
        y, x = np.mgrid[:size, :size] - size // 2
        light = np.exp(-np.hypot(x, y) / 4.0) * np.array([0.1, 0.25, 0.4])[:, None, None]
        self.place = {name: i for i, name in enumerate(ids)}
        noise = generator("bench-hosts", size).normal(size=(len(ids), 3, size, size)) * SIGMA[:, None, None]
        self.pixels: F32 = (noise + light).astype(np.float32)
        self.weight: F32 = np.broadcast_to((SIGMA**-2)[:, None, None], self.pixels.shape).astype(np.float32)

    def images(self, galaxy_ids: Sequence[str]) -> F32:
        """Stamps, nmgy per pixel."""
        return np.take(self.pixels, [self.place[name] for name in galaxy_ids], axis=0)

    def invvar(self, galaxy_ids: Sequence[str]) -> F32:
        """Inverse variances, 1/nmgy^2."""
        return np.take(self.weight, [self.place[name] for name in galaxy_ids], axis=0)


def _sample(n: int) -> pl.DataFrame:
    """Test galaxies in one cell of the grid."""
    g = generator("bench-sample")
    columns: dict[str, Any] = {
        "galaxy_id": [f"10002-{1000 + i}-{i}" for i in range(n)], "tile": "000m005", "type": "SER", "split": "test",
        "role": "host", "label": 0, "gr": g.uniform(0.2, 2.2, n), "sersic": g.uniform(0.5, 6, n),
        "shape_e1": g.normal(0, 0.2, n), "shape_e2": g.normal(0, 0.2, n),
    }  # fmt: skip
    for band in "grz":
        columns |= {f"psfsize_{band}": g.uniform(1.15, 1.25, n), f"depth_{band}": g.uniform(23.3, 23.7, n)}
        columns |= {f"mag_{band}": g.uniform(17, 22, n)}
    return pl.DataFrame(columns)


class _Theirs:
    """The plain way for the rows of a plan."""

    def __init__(self, plan: pl.DataFrame, hosts: Hosts, network: Trained, size: int) -> None:
        scene, variant = scene_of(plan), load_variants()[VARIANT]
        ids = plan["galaxy_id"].to_list()
        self.models = [
            [lenstronomy_models(scene, i, variant.psf, b, size, PIXEL_SCALE, 4, kernel_on="native") for b in range(3)]
            for i in range(len(scene))
        ]
        self.host, self.network, self.size = hosts.images(ids), network, size
        self.gain = measure_gain(self.host, hosts.invvar(ids))[:, :, None, None]

    def arcs(self) -> F32:
        """Rendered arcs, nmgy per pixel."""
        out = np.empty((len(self.models), 3, self.size, self.size), np.float32)
        for image, bands in zip(out, self.models, strict=True):
            for b, (model, kwargs) in enumerate(bands):
                image[b] = model.image(**kwargs)
        return out

    def __call__(self) -> F32:
        """Logits."""
        arcs = self.arcs()
        noisy = generator("bench-noise").poisson(np.maximum(arcs, 0) * self.gain) / self.gain
        return eager(self.network, (self.host + noisy).astype(np.float32))


def bench_injection(
    repeats: int = 5, *, n: int = 128, n_theirs: int = 16, size: int = 101, steps: int = 20, held_out: int = 192
) -> dict[str, Any]:
    """Injections per second, render + noise + normalise + score; by the clock, and (``..._cpu``) per second of processor time,
    which other users of the machine disturb less and threads do not shorten."""
    threads = torch.get_num_threads()
    settings = Settings(per_cell=n, psf_centres=(1.2,), depth_centres=(23.5,), threads=threads, chunk=64)
    variant, network = load_variants()[VARIANT], trained(size, steps, held_out)
    chosen = choose_hosts(_sample(max(n // 10, 8)), settings, variant.hosts).hosts
    plan = plan_batch(chosen, variant, 1.5, settings)
    if plan.height != n:
        raise RuntimeError(f"the plan has {plan.height} injections, not {n}")
    hosts, scorer = Hosts(chosen["galaxy_id"].to_list(), size), network.scorer()
    few = plan.head(n_theirs)
    theirs = _Theirs(few, hosts, network, size)
    mine, reference = render(few, variant.psf, size=size).images.sum((2, 3)), theirs.arcs().sum((2, 3))
    flux_error = float(np.median(np.abs(mine / reference - 1)))
    if not flux_error < 0.05:
        raise RuntimeError(f"the sides do not render the same arcs: their fluxes differ by {flux_error:.1%}")

    def ours() -> None:
        if score_injections(plan, hosts, scorer, settings, variant).height != n:
            raise RuntimeError("injections were lost")

    ours()
    theirs()
    seconds = interleaved(ours, theirs, repeats)
    spent = np.array(interleaved(ours, theirs, repeats, cpu_seconds_of))
    return line(
        "injection", "lenstronomy default 4x, numpy noise, eager float32", seconds, (n, n_theirs), "injections/s",
        threads, precision=scorer.precision, **network.facts(), flux_error=flux_error, n=n, n_theirs=n_theirs,
        ratio_cpu=float(np.median(spent[1] / spent[0])) * n / n_theirs, ours_cpu=n / float(np.median(spent[0])),
        theirs_cpu=n_theirs / float(np.median(spent[1])),
    )  # fmt: skip
