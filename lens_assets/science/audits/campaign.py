"""The closure experiment from beginning to end: write the closure sky, cut and score it, run the experiment.

Everything lies below one folder and is recognised when it is there, so a run that was killed goes on where it stood.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl

from lens_assets.science.audits.experiment import experiment
from lens_assets.science.audits.experiment_figure import closure_figure
from lens_assets.science.audits.instrument import Instrument, placed, psf_of_sky
from lens_assets.science.audits.judge import Outcome, Scored
from lens_assets.science.audits.sky import Sky, make_sky, practice_of, read_sky
from lens_assets.science.audits.truth import score_lenses
from lens_assets.science.completeness.figures import save
from lens_assets.science.cutouts.shard import ShardSet, write_shard
from lens_assets.science.engines.recognise import ensure
from lens_assets.science.errors import BadInput
from lens_assets.science.hashing import digest
from lens_assets.science.negatives.selection import load_selection
from lens_assets.science.profile import Profile
from lens_assets.science.provenance import code_digest
from lens_assets.science.storage import Draft, Store, sha256_file

Say = Callable[[str], None]


def campaign(
    folder: Path, practice: Path, profile: Profile, instrument: Instrument, say: Say = lambda text: None
) -> tuple[Scored, Outcome]:
    """Run the closure experiment: what was scored, and what it says.

    Parameters
    ----------
    folder : where the closure sky, its stamps and nothing else are kept.
    practice : root of the practice release the surface was measured on.

    Raises :class:`BadInput` where the release is no mock, the surface supports no cell, or the closure sky has none of its
    conditions.
    """
    settings = profile.closure
    size = make_sky(
        folder, practice_of(practice), settings, profile.workers,
        lambda what, done, of: say(f"closure sky: {done} of {of} {what}"),
    )  # fmt: skip
    selection = load_selection(profile.negatives.selection)
    sky = read_sky(folder, size, settings, profile.surveys, selection, profile.negatives)
    instrument = replace(instrument, there=psf_of_sky(instrument.variant, size, sky.seed, folder / "psf"))
    galaxies, lenses = (placed(frame, instrument.surface) for frame in (sky.galaxies, sky.lenses))
    if not galaxies.height or not lenses.height:
        raise BadInput("the closure sky has no bricks under conditions that the surface supports: make it larger")
    say(f"{lenses.height} true lenses and {galaxies.height} galaxies under supported conditions")
    stamps = _stamps(folder, sky, galaxies, profile, say)
    galaxies = galaxies.filter(pl.Series(stamps.has(galaxies["galaxy_id"])))
    scored = score_lenses(lenses, sky.release, instrument.scorer, profile.cutouts)
    sky.rejected.add("under conditions without support", sky.lenses.height - lenses.height)
    return experiment(instrument, sky, scored, stamps, galaxies, settings, threads=profile.workers, progress=say)


def _stamps(folder: Path, sky: Sky, galaxies: pl.DataFrame, profile: Profile, say: Say) -> ShardSet:
    """Stamps of the galaxies, cut by the ordinary code into a shard of their own."""
    rows = galaxies.select("galaxy_id", "brickname", "ra", "dec").sort("galaxy_id")
    identity = {
        "code": code_digest("cutouts", "surveys", "columns/cutouts.py"),
        "settings": profile.cutouts,
        "rows": digest(rows.rows()),
        "sky": sha256_file(folder / "release" / "release.json"),
    }
    shard, _ = ensure(
        Store(folder / "store"), "stamps", "all", identity,
        lambda draft: draft.facts.update(
            write_shard(draft, sky.release, rows, profile.cutouts, workers=profile.workers, work=folder / "parts",
                        progress=lambda done, of: say(f"stamps: {done} of {of} bricks"))
        ),
    )  # fmt: skip
    return ShardSet([shard.folder])


def keep(scored: Scored, outcome: Outcome, draft: Draft, title: str) -> None:
    """Write the tables (``data``: arms, ``steps``, ``cells``), the numbers as JSON, the figure ``closure.png``, and what was
    scored (``injections`` by arm, ``lenses``, ``known``)."""
    arms = [arm.rows.with_columns(closure_arm=pl.lit(name)) for name, arm in scored.arms.items()]
    columns = ["closure_arm", "injection_id", "galaxy_id", "i_theta", "i_psf", "i_depth", "score"]
    draft.table(pl.concat([rows.select(columns) for rows in arms], how="vertical_relaxed"), "injections")
    draft.table(scored.lenses, "lenses")
    draft.table(scored.known, "known")
    draft.table(outcome.arms)
    draft.table(outcome.steps, "steps")
    draft.table(outcome.cells, "cells")
    tables = {"arms": outcome.arms.to_dicts(), "steps": outcome.steps.to_dicts()}
    draft.json("closure", {"title": title, **outcome.facts, **tables})
    save(closure_figure(outcome, f"{title} at {outcome.facts['threshold']['name']}, closure sky of seed {outcome.facts['seed']}"),
         draft.path("closure.png"))  # fmt: skip
    draft.facts.update(outcome.facts)
