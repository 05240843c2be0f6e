"""What the evaluation of an ensemble holds beside that of any detector: diversity, risk-coverage, gain over its best member."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from lens_assets.science.detectors import ensemble_disk, ensemble_figures
from lens_assets.science.detectors.compare import answer
from lens_assets.science.detectors.ensemble_diversity import diversity
from lens_assets.science.detectors.members import SCORES_FILE
from lens_assets.science.detectors.settings import Settings
from lens_assets.science.storage import Artefact, Draft


def write(
    draft: Draft, detector: Path, scored: Artefact, scores: pl.DataFrame, thresholds: pl.DataFrame, settings: Settings
) -> list[Path]:
    """Write tables ``diversity``, ``risk-coverage`` and ``gain``, and ``diversity.png``; returns the figures.

    Parameters
    ----------
    detector : the ensemble's folder. ``scored`` : its ``detector_scores``, with the members' logits.
    scores : what the evaluation took; ``thresholds`` : what it found.
    """
    spec = ensemble_disk.read_spec(detector)
    members = [m.key for m in spec.members]
    wide = scored.read(SCORES_FILE).pivot("member", index="galaxy_id", values="logit")
    found = diversity(scores.join(wide, on="galaxy_id"), members, spec.rule, thresholds, settings, spec.key)
    draft.table(found.table, "diversity")
    draft.table(found.curves, "risk-coverage")
    draft.table(found.gain, "gain")
    draft.facts.update(best_member=found.best_member)
    if found.gain.height:
        draft.facts.update(gain=answer(found.gain))
    return ensemble_figures.draw(draft.folder, spec.key, found)
