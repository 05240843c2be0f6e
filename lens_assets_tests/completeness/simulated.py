"""A survey of hosts with known completeness: what the tests of surfaces, releases, look-ups and closure share."""

from __future__ import annotations

import numpy as np
import polars as pl
from scipy.special import expit
from scipy.stats import norm

from lens_assets.science.completeness.settings import Settings

SMALL = Settings(theta_e=(0.5, 1.0, 1.5, 2.0), psf=(0.9, 1.2, 1.5), depth=(22.5, 23.0, 23.5), min_per_cell=100)
HOST_SIGMA = 0.6
NO_GO = {
    "verdict": "no-go",
    "gates": [
        {"name": "feature_probe", "passed": False, "value": 0.871, "lo": 0.85, "hi": 0.89, "bar": 0.7, "n": 300},
        {"name": "arc_snr", "passed": True, "value": 1.2},
    ],
}
GO = {"verdict": "go", "gates": [{"name": "feature_probe", "passed": True, "value": 0.62, "bar": 0.7}]}
THRESHOLDS = pl.DataFrame(
    {
        "name": ["fixed_0.5", "fpr_1e-3", "fpr_1e-4"],
        "fpr_target": [None, 1e-3, 1e-4],
        "threshold": [0.5, 0.7, 0.9],
        "lo68": [None, 0.68, None],
        "hi68": [None, 0.72, None],
        "lo95": [None, 0.66, None],
        "hi95": [None, 0.74, None],
        "n_negatives": [None, 100_000, 100_000],
        "refused": [None, None, "100000 negatives, needs 1000000"],
    }
)


def true_completeness(theta_e, psf, depth, cut=0.5, shift=0.0):
    """Mean over hosts of P(score >= cut): logit-score is centre + host + N(0, 1)."""
    limit = np.log(cut / (1 - cut))
    return norm.sf((limit - _centre(theta_e, psf, depth) - shift) / np.hypot(HOST_SIGMA, 1.0))


def _centre(theta_e, psf, depth):
    return 2.0 * np.log(np.asarray(theta_e) / psf) + 0.8 * (np.asarray(depth) - 23.0)


def injections(seed=0, per_cell=120, hosts_per_cell=20, settings=SMALL, skip=(), few=(), shift=0.0):
    """Injections into hosts that sit at the centres of cells; ``skip`` and ``few`` hold (psf, depth) indices."""
    rng = np.random.default_rng(seed)
    frames = []
    for i, psf in enumerate(settings.psf):
        for j, depth in enumerate(settings.depth):
            if (i, j) in skip:
                continue
            effect = rng.normal(0, HOST_SIGMA, hosts_per_cell)
            for t, theta_e in enumerate(settings.theta_e):
                n = 10 if (i, j) in few else per_cell
                host = rng.integers(0, hosts_per_cell, n)
                snr = 10 ** rng.normal(0.9, 0.3, n)
                logit = _centre(theta_e, psf, depth) + effect[host] + rng.normal(0, 1, n) + shift
                frames.append(
                    pl.DataFrame(
                        {
                            "injection_id": [f"{t}-{i}-{j}-{m:04d}" for m in range(n)],
                            "galaxy_id": [f"9010-{1000 * (100 * i + j) + h}-{h}" for h in host],
                            "theta_e": np.full(n, theta_e),
                            "psfsize_r": np.full(n, psf),
                            "depth_r": np.full(n, depth),
                            "type": np.array(["DEV", "SER"])[host % 2],
                            "score": expit(logit),
                            "arc_snr": snr,
                            "lensed_mag_r": 23.0 - 2.5 * np.log10(snr / 8),
                            "observable": snr > 6,
                        }
                    )
                )
    return pl.concat(frames)


def lenses(seed=1, n=4000, settings=SMALL, shift=0.0):
    """True lenses, one a host, at conditions of the grid; about a tenth outside it in PSF or depth."""
    rng = np.random.default_rng(seed)
    theta_e = rng.choice(settings.theta_e, n)
    psf, depth = rng.choice([*settings.psf, 2.4], n, p=[0.3, 0.4, 0.25, 0.05]), rng.choice([*settings.depth, 25.5], n)
    logit = _centre(theta_e, psf, depth) + rng.normal(0, HOST_SIGMA, n) + rng.normal(0, 1, n) + shift
    return pl.DataFrame({"theta_e": theta_e, "psfsize_r": psf, "depth_r": depth, "score": expit(logit)})
