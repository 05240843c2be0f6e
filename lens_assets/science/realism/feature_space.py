"""Gate 5: real lenses against injections in the frozen detector's feature space, at matched lensed brightness.

The AUC of the probe alone says little: it is read beside what permuted labels, two halves of the real lenses, and the
bare hosts give. A probe that separates untouched hosts from real lenses as well as it separates injections has found
the hosts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lens_assets.science.realism.frechet import FEWEST, Frechet, frechet
from lens_assets.science.realism.gate import NAN, GateResult, decided
from lens_assets.science.realism.match import Matched
from lens_assets.science.realism.probe import Probe, halves_control, linear_probe
from lens_assets.science.realism.settings import Bars, Settings
from lens_assets.science.realism.stamps import StampSet

F64 = npt.NDArray[np.float64]


def feature_gates(
    real: StampSet,
    injected: StampSet,
    hosts: StampSet,
    negatives: npt.ArrayLike | None,
    negatives_groups: npt.ArrayLike | None,
    m: Matched,
    s: Settings,
    key: tuple[Any, ...],
) -> list[GateResult]:
    """The probe and the Frechet distance on the stamps that ``m`` matched, with the controls."""
    a, b = real.take(m.real), injected.take(m.injected)
    ids = [x.strings("id") for x in (a, b)]
    groups = [x.strings("group") for x in (a, b)]
    few = ""
    if a.features is None or b.features is None:
        few = "no features were given"
    elif len(a) < s.min_real or len(b) < s.min_real:
        few = f"{len(a)} real lenses and {len(b)} injections at matched brightness, at least {s.min_real} are needed"
    elif min(len(np.unique(x)) for x in groups) < s.probe_folds:
        few = f"fewer groups than {s.probe_folds} folds"
    if few or a.features is None or b.features is None:
        blank = (NAN,) * 4
        return [
            decided("feature_probe", NAN, blank, s.bars.probe_auc, len(a), len(b), unit="AUC", insufficient=few),
            decided("feature_frechet", NAN, blank, None, len(a), len(b), unit="sigma^2", insufficient=few),
        ]
    options: dict[str, Any] = {
        "folds": s.probe_folds,
        "repeats": s.probe_repeats,
        "max_components": s.probe_max_components,
        "c": s.probe_c,
    }
    ends: dict[str, Any] = {"ids_a": ids[0], "ids_b": ids[1], "groups_a": groups[0], "groups_b": groups[1]}
    result = linear_probe(
        a.features,
        b.features,
        identity=("real-injected", *key),
        permutations=s.permutations,
        draws=s.bootstrap_draws,
        **ends,
        **options,
    )
    controls = _controls(a, b, hosts, negatives, negatives_groups, s, key, options)
    if min(len(a), len(b)) < FEWEST:
        few = f"{len(a)} real lenses and {len(b)} injections, at least {FEWEST} are needed"
        blank = (NAN,) * 4
        none = decided("feature_frechet", NAN, blank, None, len(a), len(b), unit="sigma^2", insufficient=few)
        return [probe_gate(result, s.bars, controls), none]
    distance = frechet(
        a.features, b.features, identity=key, draws=s.bootstrap_draws, max_components=s.probe_max_components, **ends
    )
    return [probe_gate(result, s.bars, controls), frechet_gate(distance, len(a), len(b))]


def _controls(
    a: StampSet,
    b: StampSet,
    hosts: StampSet,
    negatives: npt.ArrayLike | None,
    negatives_groups: npt.ArrayLike | None,
    s: Settings,
    key: tuple[Any, ...],
    options: dict[str, Any],
) -> dict[str, Any]:
    """Real against real (random halves; confirmed against A where both suffice), and the hosts without arcs."""
    assert a.features is not None
    out: dict[str, Any] = {}
    ids, groups = a.strings("id"), a.strings("group")
    if len(np.unique(groups)) >= 2 * s.probe_folds:
        halves = halves_control(a.features, ids=ids, groups=groups, identity=key, splits=s.control_splits, **options)
        out["real_real_halves"] = {"mean": float(halves.mean()), "hi95": float(np.quantile(halves, 0.95)), "n": len(a)}
    if a.has(["tier"]):
        tier = a.strings("tier")
        first, second = tier == "confirmed", tier == "A"
        if min(first.sum(), second.sum()) >= s.min_real:
            out["confirmed_against_A"] = _control(
                a.features[first],
                a.features[second],
                ids[first],
                ids[second],
                groups[first],
                groups[second],
                ("tiers", *key),
                s,
                options,
            )
    used = np.isin(hosts.strings("galaxy_id"), b.strings("galaxy_id"))
    if hosts.features is None or used.sum() < s.min_real:
        return out
    h, h_ids = hosts.features[used], hosts.strings("galaxy_id")[used]
    out["hosts_against_real"] = _control(a.features, h, ids, h_ids, groups, h_ids, ("hosts-real", *key), s, options)
    if negatives is not None:
        n = np.asarray(negatives, float)
        n_ids = np.asarray([f"negative-{i:09d}" for i in range(len(n))])
        n_groups = n_ids if negatives_groups is None else np.asarray(negatives_groups).astype(str)
        n_ids = n_ids if negatives_groups is None else n_groups
        apart = ~np.isin(n_groups, h_ids)  # a host is not its own control
        if apart.sum() >= s.min_real:
            out["hosts_against_negatives"] = _control(
                n[apart], h, n_ids[apart], h_ids, n_groups[apart], h_ids, ("hosts-negatives", *key), s, options
            )
    return out


def _control(
    a: F64,
    b: F64,
    ids_a: Any,
    ids_b: Any,
    groups_a: Any,
    groups_b: Any,
    key: tuple[Any, ...],
    s: Settings,
    options: dict[str, Any],
) -> dict[str, Any]:
    result = linear_probe(
        a,
        b,
        ids_a=ids_a,
        ids_b=ids_b,
        groups_a=groups_a,
        groups_b=groups_b,
        identity=key,
        permutations=0,
        draws=s.bootstrap_draws,
        **{**options, "repeats": 1},
    )
    return {"auc": result.auc, "lo95": result.lo95, "hi95": result.hi95, "n": [result.n_a, result.n_b]}


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
