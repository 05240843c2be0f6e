"""The gates of observables: signal-to-noise, colours and structure of arcs, real against injected.

Pure functions from measures to a :class:`GateResult`. What does not belong here: what a gate is (``gate``), the gates of the
background (``background_gates``) and of the features (``feature_space``).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import wasserstein_distance

from lens_assets.science.hashing import generator
from lens_assets.science.realism.gate import NAN, GateResult, decided
from lens_assets.science.realism.settings import Settings

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
S = npt.NDArray[np.str_]
PERCENTILES = (10, 50, 90)


def two_sample_interval(
    statistic: Callable[[I64, I64], float], groups_a: S, groups_b: S, rng: np.random.Generator, draws: int
) -> tuple[float, float, float, float]:
    """Percentile bootstrap (lo68, hi68, lo95, hi95) of ``statistic(rows_a, rows_b)``, resampling groups on either
    side."""
    sides = []
    for groups in (groups_a, groups_b):
        order = np.argsort(groups, kind="stable")
        _, counts = np.unique(groups, return_counts=True)
        sides.append(np.split(order, np.cumsum(counts)[:-1]))
    values = []
    for _ in range(draws):
        a, b = (np.concatenate([m[i] for i in rng.integers(0, len(m), len(m))]) for m in sides)
        values.append(statistic(a, b))
    finite = np.asarray(values, float)
    finite = finite[np.isfinite(finite)]
    if len(finite) < draws / 2:
        return NAN, NAN, NAN, NAN
    q = np.quantile(finite, [0.16, 0.84, 0.025, 0.975])
    return float(q[0]), float(q[1]), float(q[2]), float(q[3])


def _too_few(n_real: int, n_injected: int, settings: Settings) -> str:
    if n_real < settings.min_real:
        return f"{n_real} real lenses, at least {settings.min_real} are needed"
    if n_injected < settings.min_real:
        return f"{n_injected} injections, at least {settings.min_real} are needed"
    return ""


def snr_gate(
    name: str,
    real: F64,
    injected: F64,
    groups_real: S,
    groups_injected: S,
    settings: Settings,
    identity: tuple[Any, ...],
) -> GateResult:
    """Largest ratio, either way, of the 10th, 50th and 90th percentiles of an SNR, each raised to ``snr_floor`` first.

    The interval is that of the worst percentile.
    """
    ok_r, ok_i = np.isfinite(real), np.isfinite(injected)
    a, b, ga, gb = real[ok_r], injected[ok_i], groups_real[ok_r], groups_injected[ok_i]
    few = _too_few(len(a), len(b), settings)
    if few:
        return decided(name, NAN, (NAN,) * 4, settings.bars.snr_factor, len(a), len(b), insufficient=few)

    def ratio(i: I64, j: I64, percentile: float) -> float:
        top = max(float(np.percentile(b[j], percentile)), settings.snr_floor)
        return top / max(float(np.percentile(a[i], percentile)), settings.snr_floor)

    every = np.arange(len(a)), np.arange(len(b))
    ratios = [ratio(*every, p) for p in PERCENTILES]
    factors = [max(r, 1 / r) for r in ratios]
    worst = PERCENTILES[int(np.argmax(factors))]
    logs = two_sample_interval(
        lambda i, j: float(np.log(ratio(i, j, worst))), ga, gb, generator(name, *identity), settings.bootstrap_draws
    )
    folded = _absolute(logs)
    interval = float(np.exp(folded[0])), float(np.exp(folded[1])), float(np.exp(folded[2])), float(np.exp(folded[3]))
    detail = {
        "percentiles": list(PERCENTILES),
        "real": np.percentile(a, PERCENTILES).tolist(),
        "injected": np.percentile(b, PERCENTILES).tolist(),
        "ratio": ratios,
        "worst": worst,
        "floor": settings.snr_floor,
    }
    return decided(name, max(factors), interval, settings.bars.snr_factor, len(a), len(b), unit="factor", detail=detail)


def colour_gate(
    name: str,
    real: dict[str, F64],
    injected: dict[str, F64],
    groups_real: S,
    groups_injected: S,
    settings: Settings,
    identity: tuple[Any, ...],
) -> GateResult:
    """Largest absolute difference of median colours over the colours given (for instance ``gr`` and ``rz``), mag."""
    worst, chosen = -1.0, ("", (NAN,) * 4)
    detail: dict[str, Any] = {}
    n_r = n_i = 10**9
    few = ""
    for colour in sorted(real):
        ok_r, ok_i = np.isfinite(real[colour]), np.isfinite(injected[colour])
        a, b = real[colour][ok_r], injected[colour][ok_i]
        n_r, n_i = min(n_r, len(a)), min(n_i, len(b))
        reason = _too_few(len(a), len(b), settings)
        detail[colour] = {"n_real": len(a), "n_injected": len(b)}
        if reason:
            few = few or f"{colour}: {reason}"
            continue
        interval = two_sample_interval(
            partial(_median_difference, a, b),
            groups_real[ok_r],
            groups_injected[ok_i],
            generator(name, colour, *identity),
            settings.bootstrap_draws,
        )
        difference = float(np.median(b) - np.median(a))
        detail[colour] |= {
            "real_median": float(np.median(a)),
            "injected_median": float(np.median(b)),
            "difference": difference,
            "interval95": list(interval[2:]),
        }
        if abs(difference) > worst:
            worst, chosen = abs(difference), (colour, _absolute(interval))
    detail["worst"] = chosen[0]
    value = worst if worst >= 0 else NAN
    return decided(
        name, value, chosen[1], settings.bars.colour_mag, n_r, n_i, unit="mag", detail=detail, insufficient=few
    )


def _median_difference(a: F64, b: F64, i: I64, j: I64) -> float:
    return float(np.median(b[j]) - np.median(a[i]))


def _absolute(interval: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    """Interval of |x| from one of x."""
    out = []
    for lo, hi in (interval[:2], interval[2:]):
        out += [0.0 if lo <= 0 <= hi else min(abs(lo), abs(hi)), max(abs(lo), abs(hi))]
    return out[0], out[1], out[2], out[3]


def distance_gate(
    name: str,
    real: F64,
    injected: F64,
    groups_real: S,
    groups_injected: S,
    settings: Settings,
    identity: tuple[Any, ...],
) -> GateResult:
    """Wasserstein-1 distance in units of the real lenses' robust scatter; reported beside its permutation null, no
    bar."""
    ok_r, ok_i = np.isfinite(real), np.isfinite(injected)
    a, b, ga, gb = real[ok_r], injected[ok_i], groups_real[ok_r], groups_injected[ok_i]
    few = _too_few(len(a), len(b), settings)
    detail: dict[str, Any] = {"undefined_real": int((~ok_r).sum()), "undefined_injected": int((~ok_i).sum())}
    if few:
        return decided(name, NAN, (NAN,) * 4, None, len(a), len(b), detail=detail, insufficient=few)
    scale = 1.4826 * float(np.median(np.abs(a - np.median(a)))) or float(a.std()) or 1.0
    rng = generator(name, *identity)
    interval = two_sample_interval(
        lambda i, j: float(wasserstein_distance(a[i], b[j])) / scale, ga, gb, rng, settings.bootstrap_draws
    )
    pooled = np.concatenate([a, b])
    names = np.concatenate([np.char.add("r:", ga), np.char.add("i:", gb)])
    _, inverse = np.unique(names, return_inverse=True)
    label = np.zeros(inverse.max() + 1, bool)
    label[inverse[: len(a)]] = True
    null = []
    for _ in range(settings.permutations):
        first = rng.permutation(label)[inverse]
        null.append(float(wasserstein_distance(pooled[first], pooled[~first])) / scale)
    value = float(wasserstein_distance(a, b)) / scale
    # resampling only ever adds distance: the interval is moved back by that bias
    shift = value - (interval[0] + interval[1]) / 2
    interval = tuple(max(x + shift, 0.0) for x in interval)  # type: ignore[assignment]
    detail |= {
        "real_median": float(np.median(a)),
        "injected_median": float(np.median(b)),
        "scale": scale,
        "null_median": float(np.median(null)),
        "null_hi95": float(np.quantile(null, 0.95)),
        "p_value": float((1 + (np.asarray(null) >= value).sum()) / (1 + len(null))),
    }
    return decided(name, value, interval, None, len(a), len(b), unit="robust sigma", detail=detail)
