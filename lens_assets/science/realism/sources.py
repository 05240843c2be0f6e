"""How many distinct real galaxies stand behind the injections that are compared."""

from __future__ import annotations

from typing import Any

import numpy as np

from lens_assets.science.realism.match import Matched
from lens_assets.science.realism.settings import Settings
from lens_assets.science.realism.stamps import StampSet


def source_counts(injected: StampSet, m: Matched, settings: Settings) -> dict[str, Any]:
    """How many distinct real galaxies the compared injections show, and how many that is in effect; empty without any.

    Intervals resample hosts. Injections of one galaxy share it whatever their hosts, so the interval is for these galaxies, and
    ``effective`` = (sum n)^2 / sum n^2 over galaxies (Kish 1965), not the number of injections, is the sample of sources.
    """
    if not injected.has(["source_id"]):
        return {}
    names = injected.frame["source_id"][m.injected].drop_nulls()
    if injected.frame["source_id"].null_count() == len(injected):
        return {}
    count = names.value_counts()["count"].to_numpy().astype(float)
    effective = float(count.sum() ** 2 / np.square(count).sum()) if len(count) else 0.0
    return {
        "distinct": len(count), "effective": effective, "injections": int(count.sum()), "needed": settings.min_sources,
        "most_of_one": int(count.max(initial=0)),
    }  # fmt: skip
