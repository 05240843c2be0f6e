"""Stamps scored a second: the platform's scorer against a plain loop of the same network, eager and in float32.

Both sides take raw stamps and normalise them with the same function in batches of 64; the reference gets our fast
normalisation, so the ratio is of the network alone, diluted.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lens_assets.bench.network import Trained, stamps, trained
from lens_assets.bench.timing import cpu_seconds_of, interleaved, line
from lens_assets.science.cutouts.normalise import normalise
from lens_assets.science.detectors.score import BATCH

F32 = npt.NDArray[np.float32]


def eager(network: Trained, images: F32) -> F32:
    """Logits as most would compute them: float32, contiguous, not fused, no compiler."""
    out = []
    with torch.inference_mode():
        for i in range(0, len(images), BATCH):
            x = torch.from_numpy(normalise(images[i : i + BATCH], network.spec))
            out.append(network.net(x).numpy())
    return np.concatenate(out)


def bench_scoring(
    repeats: int = 5, *, n: int = 192, size: int = 101, steps: int = 20, held_out: int = 192
) -> dict[str, Any]:
    """Stamps per second, and (``..._cpu``) per second of processor time; ``drift`` is the largest change of a logit from
    float32, ``precision`` what was scored in."""
    network = trained(size, steps, held_out)
    scorer = network.scorer()
    images, _ = stamps(n, size, "scoring")
    difference = float(np.abs(scorer.score(images) - eager(network, images)).max())  # warms both sides up
    if not difference <= max(2 * network.drift, 1e-2):
        raise RuntimeError(f"the sides do not score alike: logits differ by {difference}, the drift is {network.drift}")
    sides = (lambda: scorer.score(images), lambda: eager(network, images))
    seconds, spent = interleaved(*sides, repeats), np.array(interleaved(*sides, repeats, cpu_seconds_of))
    return line(
        "scoring", "the same network, eager float32", seconds, (n, n), "stamps/s", torch.get_num_threads(),
        precision=scorer.precision, **network.facts(), difference=difference, n=n,
        ratio_cpu=float(np.median(spent[1] / spent[0])), ours_cpu=n / float(np.median(spent[0])),
        theirs_cpu=n / float(np.median(spent[1])),
    )  # fmt: skip
