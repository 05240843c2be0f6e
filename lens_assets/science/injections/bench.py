"""Rate and accuracy of the arc renderer against lenstronomy's default (4 x 4 samples), interleaved, one thread.

Both sides draw the same SIE + shear with one elliptical Sersic source in three PSFs, 101 pixels. Accuracy is the
largest relative error over pixels above 1 % of a band's peak (``p99``), or the largest error in units of the peak
(``tight``), against a converged truth over 200 draws of which 60 are extreme (Re 0.03-0.1", n 2-4).
"""

from __future__ import annotations

import contextlib
import ctypes
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from lens_assets.science.hashing import generator
from lens_assets.science.injections.psf import PsfSpec, kernel
from lens_assets.science.injections.reference import KERNEL_SIZE, lenstronomy_models
from lens_assets.science.injections.render import SIZE, TIGHT, Accuracy, render
from lens_assets.science.injections.scene import Scene, scene_of
from lens_assets.science.surveys.layout import PIXEL_SCALE

F64 = npt.NDArray[np.float64]
TRUTH = Accuracy(levels=6, tolerance=1e-4)
"""Converged: five times the tolerance moves no pixel by more than 1e-4; a uniform grid of 40 x 40 a pixel agrees to 8e-5
for smooth sources (and is itself 4e-3 off at cusps)."""
EXTREME = 60


def bench_scene(n: int = 200, seed: int = 20261123) -> Scene:
    """The draws of the benchmark: the first ``EXTREME`` are compact and cuspy."""
    g = generator("bench-arcs", seed)
    theta = g.uniform(0.5, 3.0, n)
    beta, angle = theta * np.sqrt(g.uniform(0.0, 0.64, n)), g.uniform(0, 2 * np.pi, n)
    extreme = np.arange(n) < EXTREME
    fwhm = g.uniform(0.85, 1.8, n)
    return scene_of({
        "theta_e": theta, "q_lens": g.uniform(0.5, 1.0, n), "phi_lens": g.uniform(0, np.pi, n),
        "lens_x": g.normal(0, 0.05, n), "lens_y": g.normal(0, 0.05, n),
        "gamma1": g.normal(0, 0.05, n), "gamma2": g.normal(0, 0.05, n),
        "source_x": beta * np.cos(angle), "source_y": beta * np.sin(angle),
        "source_q": g.uniform(0.3, 1.0, n), "source_phi": g.uniform(0, np.pi, n),
        "source_re": np.where(extreme, np.exp(g.uniform(np.log(0.03), np.log(0.1), n)), g.uniform(0.1, 0.8, n)),
        "source_n": np.where(extreme, g.uniform(2.0, 4.0, n), g.uniform(0.5, 2.0, n)),
        "source_mag_g": np.full(n, 24.0), "source_mag_r": np.full(n, 23.8), "source_mag_z": np.full(n, 23.6),
        "psfsize_g": 1.09 * fwhm, "psfsize_r": fwhm, "psfsize_z": 0.95 * fwhm,
    })  # fmt: skip


def errors(images: npt.NDArray[Any], truth: npt.NDArray[Any]) -> tuple[F64, F64]:
    """Per injection: largest relative error above 1 % of the peak, and largest error over the peak, worst band."""
    peak = truth.max(axis=(2, 3), keepdims=True).astype(np.float64)
    difference = np.abs(images.astype(np.float64) - truth)
    relative = np.where(truth > 0.01 * peak, difference / np.maximum(truth, 1e-3 * peak), 0.0)
    return relative.max(axis=(1, 2, 3)), (difference / peak).max(axis=(1, 2, 3))


class _Theirs:
    """lenstronomy as it is used by default: one ``ImageModel`` per band, 4 x 4 samples a pixel, native PSF kernel.

    Models and kernels are made beforehand and not timed. ``shared`` is what a careful user could do: evaluate the
    source once and convolve it with three kernels; reported beside the ratio, as ``ratio_shared``.
    """

    def __init__(self, scene: Scene, psf: PsfSpec) -> None:
        from lenstronomy.ImSim.Numerics.convolution import PixelKernelConvolution

        n = range(len(scene))
        self.models = [
            [lenstronomy_models(scene, i, psf, b, SIZE, PIXEL_SCALE, 4, kernel_on="native") for b in range(3)]
            for i in n
        ]
        self.bare = [lenstronomy_models(scene, i, psf, 2, SIZE, PIXEL_SCALE, 4, kernel_on=None) for i in n]
        self.kernels = [
            [
                PixelKernelConvolution(kernel(psf, f, PIXEL_SCALE, KERNEL_SIZE), convolution_type="fft_static")
                for f in fwhm
            ]
            for fwhm in scene.fwhm
        ]
        self.factors = scene.flux / scene.flux[:, 2:]

    def default(self) -> None:
        """Three calls of ``ImageModel.image`` per injection."""
        for bands in self.models:
            for model, kwargs in bands:
                model.image(**kwargs)

    def shared(self) -> None:
        """One evaluation and three convolutions per injection."""
        for (model, kwargs), kernels, factors in zip(self.bare, self.kernels, self.factors, strict=True):
            image = model.image(**kwargs)
            for convolution, factor in zip(kernels, factors, strict=True):
                convolution.convolution2d(image * factor)


def _quiet_allocator() -> None:
    """Raise glibc's malloc thresholds for both sides: they alone change lenstronomy two- to threefold."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        for option, value in ((-1, 1 << 30), (-3, 1 << 30)):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
            libc.mallopt(option, value)


def bench_arcs(repeats: int = 5, *, tight: bool = False, n_accuracy: int = 200) -> dict[str, Any]:
    """One result line: ``ours`` and ``theirs`` in injections per second, median ``ratio`` of the rounds, ``p99`` error.

    ``ratio_cpu`` is the same in processor time of this thread, which other users of a shared machine disturb less.
    """
    import torch

    accuracy, psf = (TIGHT if tight else Accuracy()), PsfSpec()
    scene = bench_scene()
    some, few = scene.part(50, 114), scene.part(56, 64)
    _quiet_allocator()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        render(few, psf, accuracy=accuracy)
        reference = _Theirs(few, psf)
        reference.default()
        reference.shared()
        ours, theirs, shared, cpu = [], [], [], []
        for _ in range(repeats):
            start, cpu_start = time.perf_counter(), time.thread_time()
            render(some, psf, accuracy=accuracy)
            middle, cpu_middle = time.perf_counter(), time.thread_time()
            reference.default()
            after, cpu_after = time.perf_counter(), time.thread_time()
            reference.shared()
            end = time.perf_counter()
            ours.append(len(some) / (middle - start))
            theirs.append(len(few) / (after - middle))
            cpu.append((cpu_after - cpu_middle) / len(few) / ((cpu_middle - cpu_start) / len(some)))
            shared.append(len(few) / (end - after))
    finally:
        torch.set_num_threads(threads)
    drawn = scene.part(0, n_accuracy)
    truth = render(drawn, psf, accuracy=TRUTH).images
    relative, of_peak = errors(render(drawn, psf, accuracy=accuracy).images, truth)
    ratios = np.array(ours) / np.array(theirs)
    return {
        "name": "arcs-tight" if tight else "arcs",
        "reference": "lenstronomy default 4x",
        "ours": float(np.median(ours)),
        "theirs": float(np.median(theirs)),
        "ratio": float(np.median(ratios)),
        "spread": float(ratios.max() - ratios.min()) / 2,
        "ratio_cpu": float(np.median(cpu)),
        "ratio_shared": float(np.median(np.array(ours) / np.array(shared))),
        "threads": 1,
        "p99": float(np.percentile(of_peak if tight else relative, 99)),
        "p99_of_peak": float(np.percentile(of_peak, 99)),
        "n": n_accuracy,
    }
