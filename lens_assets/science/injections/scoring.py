"""The stream from parameters to numbers: render -> measure, and render -> normalise -> score, with no file between.

What does not belong here: the physics (``render``), the network (``detectors.score``), what becomes of a score
(``completeness``).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from lens_assets.science.ahead import ahead
from lens_assets.science.columns.injections import INJECTION_BATCH
from lens_assets.science.columns.scoring import INJECTION_GATES, INJECTION_SCORES
from lens_assets.science.completeness.detectability import GateSettings, gate_statistic
from lens_assets.science.detectors.score import Batch, Scorer, conditions_of, probability
from lens_assets.science.injections.batch import StampSource, inject
from lens_assets.science.injections.planes import Galaxies
from lens_assets.science.injections.psf_check import require
from lens_assets.science.injections.settings import Settings
from lens_assets.science.injections.truth import truth_of
from lens_assets.science.injections.variants import Variant


def measure(
    plan: pl.DataFrame,
    stamps: StampSource,
    settings: Settings,
    variant: Variant,
    gate: GateSettings | None = None,
    galaxies: Galaxies | None = None,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Render a plan once and measure it.

    Returns
    -------
    the ``injection_batch`` table (parameters and truth), and ``injection_id, gate_statistic`` (of the detectability
    gate, on the injected stamp; null where its background cannot be measured), both sorted by ``injection_id``. Raises
    :class:`BadInput` where PSF images are wanted and do not fit the hosts (``psf_check``).
    """
    require(variant.psf, plan)
    truth, statistic = [], []
    for chunk in inject(plan, stamps, settings, variant, galaxies):
        truth.append(truth_of(chunk, settings))
        total = gate_statistic(chunk.images, chunk.invvar, gate).total
        statistic.append(pl.DataFrame({"injection_id": chunk.ids, "gate_statistic": total}))
    schema = {"injection_id": pl.String, "gate_statistic": pl.Float64}
    gates = pl.concat([pl.DataFrame(schema=schema), *statistic]).with_columns(pl.col("gate_statistic").fill_nan(None))
    if not truth:
        return pl.DataFrame(schema={c.name: c.dtype for c in INJECTION_BATCH.columns}), gates
    whole = plan.join(pl.concat(truth), on="injection_id", how="left")
    return INJECTION_BATCH.conform(whole), INJECTION_GATES.conform(gates)


def score_injections(
    plan: pl.DataFrame,
    stamps: StampSource,
    scorer: Scorer,
    settings: Settings,
    variant: Variant,
    galaxies: Galaxies | None = None,
) -> pl.DataFrame:
    """The ``injection_scores`` table: one row an injection, in one pass and without keeping stamps.

    Beside a GPU arcs are rendered ahead of it. On processors alone both take all of them, and side by side they are a tenth
    slower than in turn.
    """
    rows = plan.sort("injection_id")
    ids: list[str] = []
    conditions = conditions_of(rows, scorer)  # an injection is seen under its host's

    def stream() -> Iterator[Batch]:
        chunks = inject(rows, stamps, settings, variant, galaxies)
        for chunk in ahead(chunks) if scorer.device.type == "cuda" else chunks:
            of_chunk = None if conditions is None else conditions[len(ids) : len(ids) + len(chunk.ids)]
            ids.extend(chunk.ids)
            yield chunk.images, chunk.invvar > 0, of_chunk

    logits = [np.empty(0, np.float32), *scorer.score_stream(stream())]
    logit = np.concatenate(logits)
    frame = pl.DataFrame({"injection_id": ids, "logit": logit, "score": probability(logit)})
    return INJECTION_SCORES.conform(frame)
