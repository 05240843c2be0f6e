"""Drawing injections that match the real lenses' conditions, and lensed brightness where asked.

Nearest neighbours within a stated tolerance per axis, without replacement, nearest pairs first and one round a time,
so that every real lens gets its first partner before any gets a second. A real lens with no injection within
tolerance is counted as unmatched, never stretched to the nearest one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from lens_assets.science.errors import Rejections
from lens_assets.science.hashing import seed_of

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
_CANDIDATES = 128


@dataclass(frozen=True)
class Matched:
    """Rows of the real and injected sets that were matched (each sorted, unique) and the pairs themselves.

    ``facts``: counts in, matched and left out by reason; tolerance and, per axis, medians of both sides and the
    standardised mean difference that remains.
    """

    real: I64
    injected: I64
    pairs: I64
    facts: dict[str, Any]


def match(
    real: Mapping[str, F64],
    injected: Mapping[str, F64],
    tolerance: Mapping[str, float],
    *,
    real_ids: npt.NDArray[np.str_],
    injected_ids: npt.NDArray[np.str_],
    per_real: int,
    real_exact: npt.NDArray[np.str_] | None = None,
    injected_exact: npt.NDArray[np.str_] | None = None,
    identity: tuple[Any, ...] = (),
) -> Matched:
    """Match on the axes of ``tolerance`` (axis name to the largest allowed difference, in the axis's unit).

    ``real[axis]`` (n,) and ``injected[axis]`` (m,) are values; nan on any axis leaves the row out, with a count.
    ``*_exact`` strings must be equal within a pair. Distance is Euclidean in units of the tolerances; ties are broken
    by a hash of ids, so the result does not depend on the order of rows.
    """
    axes = list(tolerance)
    scale = np.array([tolerance[a] for a in axes])
    a = np.stack([np.asarray(real[x], float) for x in axes], axis=1) / scale
    b = np.stack([np.asarray(injected[x], float) for x in axes], axis=1) / scale
    ok_a, ok_b = np.isfinite(a).all(axis=1), np.isfinite(b).all(axis=1)
    left_out, unused = Rejections(), Rejections()
    left_out.add("an axis is not measured", int((~ok_a).sum()))
    unused.add("an axis is not measured", int((~ok_b).sum()))
    rows_a, rows_b = np.flatnonzero(ok_a), np.flatnonzero(ok_b)
    candidates: list[tuple[float, int, int, int]] = []
    if len(rows_a) and len(rows_b):
        pools = [("", rows_a, rows_b)]
        if real_exact is not None and injected_exact is not None:
            labels = sorted(set(real_exact[rows_a].tolist()) & set(injected_exact[rows_b].tolist()))
            pools = [(v, rows_a[real_exact[rows_a] == v], rows_b[injected_exact[rows_b] == v]) for v in labels]
        for _, pa, pb in pools:
            pb = pb[np.argsort(injected_ids[pb], kind="stable")]
            tree = cKDTree(b[pb])
            k = min(_CANDIDATES, len(pb))
            distance, index = tree.query(a[pa], k=k, distance_upper_bound=np.sqrt(len(axes)) * (1 + 1e-12))
            for row, ds, js in zip(pa, distance.reshape(len(pa), k), index.reshape(len(pa), k), strict=True):
                i = int(row)
                for d, j in zip(ds, js, strict=True):
                    if j < len(pb) and np.all(np.abs(a[i] - b[pb[j]]) <= 1 + 1e-9):
                        tie = seed_of("match", *identity, str(real_ids[i]), str(injected_ids[pb[j]]))
                        candidates.append((float(d), tie, i, int(pb[j])))
    candidates.sort()
    pairs: list[tuple[int, int]] = []
    taken: set[int] = set()
    for _ in range(per_real):
        served: set[int] = set()
        rest = []
        for item in candidates:
            i, j = item[2], item[3]
            if j in taken:
                continue
            if i in served:
                rest.append(item)
                continue
            served.add(i)
            taken.add(j)
            pairs.append((i, j))
        candidates = rest
        if not served:
            break
    pair_array = np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)
    real_rows, injected_rows = np.unique(pair_array[:, 0]), np.unique(pair_array[:, 1])
    left_out.add("no injection within tolerance", len(rows_a) - len(real_rows))
    unused.add("not needed or outside tolerance", len(rows_b) - len(injected_rows))
    left_out.check(len(a), len(real_rows))
    unused.check(len(b), len(injected_rows))
    balance = {}
    for c, axis in enumerate(axes):
        u, v = a[real_rows, c] * scale[c], b[injected_rows, c] * scale[c]
        if len(u) > 1 and len(v) > 1:
            spread = float(np.sqrt((u.var(ddof=1) + v.var(ddof=1)) / 2))
            balance[axis] = {
                "tolerance": float(scale[c]),
                "real_median": float(np.median(u)),
                "injected_median": float(np.median(v)),
                "standardised_difference": float((v.mean() - u.mean()) / spread) if spread > 0 else 0.0,
            }
        else:
            balance[axis] = {"tolerance": float(scale[c])}
    facts = {
        "n_real": len(a),
        "n_real_matched": len(real_rows),
        "n_injected": len(b),
        "n_injected_matched": len(injected_rows),
        "per_real": per_real,
        "real_left_out": dict(sorted(left_out.counts.items())),
        "injected_left_out": dict(sorted(unused.counts.items())),
        "axes": balance,
    }
    return Matched(real_rows, injected_rows, pair_array, facts)
