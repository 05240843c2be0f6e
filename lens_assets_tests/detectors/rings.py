"""Synthetic stamps for tests of detectors: noise, a bulge, and half a ring round the lenses. Not a mock of the sky."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl

from lens_assets.science.hashing import generator

SIZE = 33


class Rings:
    """A source of stamps (n, 3, 33, 33) in memory; ``lenses`` are the ids that get a ring."""

    def __init__(self, lenses, size=SIZE):
        self.lenses, self.size = frozenset(lenses), size

    def images(self, galaxy_ids):
        """Nanomaggies per pixel, for any ids."""
        return (
            np.stack([self._one(g) for g in galaxy_ids]) if len(galaxy_ids) else np.empty((0, 3, self.size, self.size))
        )

    def invvar(self, galaxy_ids):
        """One everywhere but in a corner pixel."""
        out = np.ones((len(galaxy_ids), 3, self.size, self.size), np.float32)
        out[..., 0, 0] = 0
        return out

    def _one(self, galaxy_id):
        rng = generator("rings", galaxy_id)
        y, x = np.mgrid[: self.size, : self.size] - self.size // 2
        r = np.hypot(x, y)
        image = rng.normal(0, 0.01, (3, self.size, self.size))
        image += np.exp(-r / rng.uniform(1.0, 2.0)) * rng.uniform(0.2, 0.6) * np.array([0.4, 0.8, 1.0])[:, None, None]
        if galaxy_id in self.lenses:
            arc = np.exp(-0.5 * ((r - rng.uniform(5, 8)) / 1.2) ** 2) * (
                1 + np.cos(np.arctan2(y, x) - rng.uniform(0, 6.28))
            )
            image += 0.1 * arc * np.array([1.0, 0.7, 0.4])[:, None, None]
        image[:, 0, 0] = 1e6
        return image.astype(np.float32)


def make_sample(n=480, lens_every=4):
    """A sample with every role; lenses are every fourth row, every second of them tier B."""
    roles = ("train", "train", "train", "select", "threshold", "report", "train", "host")
    rows = []
    for i in range(n):
        lens = i % lens_every == 0
        tier_b = lens and (i // lens_every) % 2 == 1
        rows.append(
            {
                "galaxy_id": f"10000-7-{i}",
                "role": roles[(i // 20) % len(roles)],
                "label": int(lens),
                "weight": 0.5 if tier_b else 1.0,
                "tier": ("B" if tier_b else "A") if lens else None,
                "pool": None if lens else ("N2" if i % 5 == 0 else "N1"),
            }
        )
    return pl.DataFrame(rows, schema_overrides={"label": pl.Int8})


def lenses_of(sample):
    """The ids of the lenses."""
    return sample.filter(pl.col("label") == 1)["galaxy_id"].to_list()


CHILD = """
import importlib.util, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("detectors_rings", sys.argv[1])
rings = importlib.util.module_from_spec(spec); spec.loader.exec_module(rings)
from lens_assets.science.detectors.recipes import Recipe
from lens_assets.science.detectors.settings import Settings
from lens_assets.science.detectors.train import train
sample = rings.make_sample()
train(Recipe.model_validate_json(sys.argv[2]), sample, rings.Rings(rings.lenses_of(sample)), Path(sys.argv[3]),
      settings=Settings.model_validate_json(sys.argv[4]), progress=lambda row: print("epoch", row["epoch"], flush=True))
"""


def train_until_killed(recipe, folder, settings, after):
    """Train in a process of its own and kill it (-9) when it tells of epoch ``after``; the lines it had told."""
    command = [sys.executable, "-W", "ignore", "-c", CHILD, __file__]
    with subprocess.Popen(
        [*command, recipe.model_dump_json(), str(folder), settings.model_dump_json()],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        stdout=subprocess.PIPE,
        text=True,
    ) as killed:
        lines = []
        for line in killed.stdout:
            lines.append(line.strip())
            if line.startswith(f"epoch {after}"):
                killed.send_signal(signal.SIGKILL)
                break
    assert killed.returncode == -signal.SIGKILL
    return lines
