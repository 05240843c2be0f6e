"""The gates: pure functions from measures to a :class:`GateResult`.

A gate passes on its value; its interval says how far that may be trusted, and ``detail["decisive"]`` whether the
whole 95 % interval lies on one side of the bar. A gate that could not be measured is *insufficient*, which is not a
pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import wasserstein_distance

from lens_assets.science.hashing import generator
from lens_assets.science.realism import background as bg
from lens_assets.science.realism.frechet import Frechet
from lens_assets.science.realism.probe import Probe
from lens_assets.science.realism.settings import Bars, Settings, Status

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
S = npt.NDArray[np.str_]
NAN = float("nan")
PERCENTILES = (10, 50, 90)


@dataclass(frozen=True)
class GateResult:
    """One gate. ``passed`` is None where there is nothing to pass or it was not measured; ``better`` says which side
    of the bar passes. ``n_*`` are the stamps the value rests on. ``detail`` holds plain numbers, lists and
    strings."""

    name: str
    value: float
    lo68: float
    hi68: float
    lo95: float
    hi95: float
    bar: float | None
    passed: bool | None
    n_real: int
    n_injected: int
    status: Status
    unit: str = ""
    better: str = "low"
    detail: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """As a dictionary; nan stays nan."""
        return asdict(self)


def decided(
    name: str,
    value: float,
    interval: tuple[float, float, float, float],
    bar: float | None,
    n_real: int,
    n_injected: int,
    *,
    unit: str = "",
    better: str = "low",
    detail: dict[str, Any] | None = None,
    insufficient: str = "",
) -> GateResult:
    """Build a result: compare with the bar, or say why not (``insufficient``)."""
    detail = dict(detail or {})
    passed: bool | None = None
    status: Status
    if insufficient or not np.isfinite(value):
        status = "insufficient"
        detail["reason"] = insufficient or "could not be measured"
    elif bar is None:
        status = "reported"
    else:
        passed = bool(value <= bar) if better == "low" else bool(value > bar)
        status = "pass" if passed else "fail"
        lo, hi = interval[2], interval[3]
        if np.isfinite(lo) and np.isfinite(hi):
            detail["decisive"] = bool(hi <= bar or lo > bar)
    lo68, hi68, lo95, hi95 = (float(v) for v in interval)
    return GateResult(
        name=name,
        value=float(value),
        lo68=lo68,
        hi68=hi68,
        lo95=lo95,
        hi95=hi95,
        bar=bar,
        passed=passed,
        n_real=int(n_real),
        n_injected=int(n_injected),
        status=status,
        unit=unit,
        better=better,
        detail=detail,
    )


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


def probe_gate(result: Probe, bars: Bars, controls: dict[str, Any]) -> GateResult:
    """The probe's AUC against its bar. Where even permuted labels reach the bar, the sample is too small to tell."""
    few = ""
    if np.isfinite(result.null_hi95) and result.null_hi95 > bars.probe_auc:
        few = f"permuted labels reach {result.null_hi95:.3f} (95 %), above the bar: too few stamps to tell"
    detail = {
        "null_mean": result.null_mean,
        "null_hi95": result.null_hi95,
        "p_value": result.p_value,
        "fold_aucs": list(result.fold_aucs),
        "components": result.components,
        "groups": result.groups,
        "controls": controls,
        "fpr": list(result.fpr),
        "tpr": list(result.tpr),
    }
    interval = (result.lo68, result.hi68, result.lo95, result.hi95)
    return decided(
        "feature_probe", result.auc, interval, bars.probe_auc, result.n_a, result.n_b, unit="AUC", detail=detail,
        insufficient=few if result.auc <= bars.probe_auc else "",
    )  # fmt: skip


def frechet_gate(result: Frechet, n_real: int, n_injected: int) -> GateResult:
    """The Frechet distance; reported beside that of two halves of the real sample."""
    detail = {
        "plug_in": result.plug_in,
        "components": result.components,
        "n_common": result.n_common,
        "at_common_size": result.matched_median,
        "real_real_median": result.null_median,
        "real_real_hi95": result.null_hi95,
    }
    interval = (result.lo68, result.hi68, result.lo95, result.hi95)
    return decided("feature_frechet", result.value, interval, None, n_real, n_injected, unit="sigma^2", detail=detail)
