"""The gates of the background: pixels of injected stamps where no arc is, against the untouched hosts'.

What does not belong here: how backgrounds are sampled and compared (``background``).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lens_assets.science.hashing import generator
from lens_assets.science.realism import background as bg
from lens_assets.science.realism.gate import NAN, GateResult, decided
from lens_assets.science.realism.settings import Settings
from lens_assets.science.realism.stamps import StampSet

S = npt.NDArray[np.str_]


def background_gates(
    injected: StampSet, hosts: StampSet, s: Settings, key: tuple[Any, ...]
) -> tuple[list[GateResult], dict[str, Any]]:
    """One injection a host (the first by id), so that every untouched pixel is used once."""
    where = {h: i for i, h in enumerate(hosts.frame["galaxy_id"].to_list())}
    rows, partner, seen = [], [], set()
    missing = 0
    for i, host in enumerate(injected.frame["galaxy_id"].to_list()):
        if host not in where:
            missing += 1
        elif host not in seen:
            seen.add(host)
            rows.append(i)
            partner.append(where[host])
    facts = {"hosts_used": len(rows), "injections_without_untouched_host": missing}
    if len(rows) < s.min_background_hosts:
        few = f"{len(rows)} hosts with an untouched stamp, at least {s.min_background_hosts} are needed"
        blank = (NAN,) * 4
        return [
            decided("background_ks", NAN, blank, s.bars.ks_p, 0, len(rows), insufficient=few, better="high"),
            decided("background_power", NAN, blank, s.bars.power_ratio, 0, len(rows), insufficient=few),
        ], facts
    made, bare = injected.take(np.array(rows)), hosts.take(np.array(partner))
    names = made.strings("galaxy_id")
    sky = bg.sky_of(bare.images, bare.invvar)
    return [
        ks_gate(made.images, bare.images, sky, names, s, key),
        power_gate(made.images, bare.images, names, names, s, key),
    ], facts


def ks_gate(
    injected: npt.NDArray[np.float32],
    untouched: npt.NDArray[np.float32],
    sky: bg.Sky,
    ids: S,
    settings: Settings,
    identity: tuple[Any, ...],
) -> GateResult:
    """Smallest Holm-adjusted KS p over the bands, on lattice pixels beyond the measured correlation length."""
    n = len(injected)
    rho = bg.correlation(untouched, sky)
    step = bg.spacing(rho, settings.ks_max_correlation)
    detail: dict[str, Any] = {"spacing_px": step, "autocorrelation": rho.tolist(), "inner_radius_px": bg.CLEAR}
    ps = []
    for b, band in enumerate("grz"):
        x, y = bg.lattice_samples(injected, untouched, sky, step, ids, b, identity)
        d, p = bg.ks(x, y)
        ps.append(p)
        detail[band] = {
            "distance": d,
            "p": p,
            "pixels": [len(x), len(y)],
            "scatter_ratio": float(np.std(np.clip(x, -5, 5)) / np.std(np.clip(y, -5, 5))) if len(x) and len(y) else NAN,
            "offset_sigma": float(np.mean(np.clip(x, -5, 5)) - np.mean(np.clip(y, -5, 5)))
            if len(x) and len(y)
            else NAN,
        }
    few = (
        "" if n >= settings.min_background_hosts else f"{n} hosts, at least {settings.min_background_hosts} are needed"
    )
    return decided(
        "background_ks", bg.holm(np.array(ps)), (NAN,) * 4, settings.bars.ks_p, 0, n, unit="p", better="high",
        detail=detail, insufficient=few,
    )  # fmt: skip


def power_gate(
    injected: npt.NDArray[np.float32],
    untouched: npt.NDArray[np.float32],
    ids: S,
    hosts: S,
    settings: Settings,
    identity: tuple[Any, ...],
) -> GateResult:
    """Largest |ratio - 1| of background power, injected over untouched, over bands and spatial frequencies."""
    n = len(injected)
    few = (
        "" if n >= settings.min_background_hosts else f"{n} hosts, at least {settings.min_background_hosts} are needed"
    )
    if few:
        return decided("background_power", NAN, (NAN,) * 4, settings.bars.power_ratio, 0, n, insufficient=few)
    pi, pu = bg.patch_power(injected), bg.patch_power(untouched)
    ratio = bg.power_ratio(pi, pu)
    rng = generator("power", *identity)
    members = [np.flatnonzero(hosts == h) for h in np.unique(hosts)]
    drawn = np.stack([
        bg.power_ratio(pi, pu, np.concatenate([members[k] for k in rng.integers(0, len(members), len(members))]))
        for _ in range(settings.bootstrap_draws)
    ])  # fmt: skip
    worst = np.abs(drawn - 1).max(axis=(1, 2))
    q = np.quantile(worst, [0.16, 0.84, 0.025, 0.975])
    lo, hi = np.quantile(drawn, [0.025, 0.975], axis=0)
    detail = {
        "frequency_edges": bg.POWER_BINS.tolist(),
        "ratio": ratio.tolist(),
        "lo95": lo.tolist(),
        "hi95": hi.tolist(),
    }
    value = float(np.abs(ratio - 1).max())
    return decided(
        "background_power", value, (q[0], q[1], q[2], q[3]), settings.bars.power_ratio, 0, n, unit="ratio - 1",
        detail=detail,
    )  # fmt: skip
