"""The closure sky: bricks of the practice sky's own kind that no step of the chain has seen, crowded with true lenses.

Written by the ordinary mock writer and read by the ordinary reader. Its settings are those of the practice release it is
for, with two changes: the theta_E of its lenses is spread so that every cell gets some, and more than half of its bright
objects are lenses. What a lens is at a given theta_E is the same, and so is the crowding. Its tiles are others, so that no
brick, galaxy id or HEALPix cell is shared.

Only the closure experiment and its tests may read it: it opens the truth.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from lens_assets.science.audits.settings import ClosureSettings
from lens_assets.science.audits.truth import KINDS, read_truth
from lens_assets.science.errors import BadInput, Rejections
from lens_assets.science.mock.footprint import tiles_of
from lens_assets.science.mock.settings import MockSize, load_size
from lens_assets.science.mock.writer import RELEASE, Progress, write_release
from lens_assets.science.negatives.pool import build_pool
from lens_assets.science.negatives.selection import SelectionProfile, screen
from lens_assets.science.negatives.settings import Settings as NegativeSettings
from lens_assets.science.surveys.release import DataRelease
from lens_assets.science.surveys.settings import Settings as SurveySettings

_LIGHT = ("mag_g", "mag_r", "mag_z", "re", "q")


@dataclass(frozen=True)
class Sky:
    """What the closure sky holds.

    ``lenses`` : true galaxy lenses that a scan would meet: ``galaxy_id, ra, dec, brickname, theta_e`` (arcsec), survey
    conditions ``psfsize_r`` (arcsec), ``depth_r`` (AB mag). ``galaxies`` : non-lenses of the ordinary pool, with their true
    light ``true_mag_g .. true_re, true_q``. ``rejected`` : true lenses left out, by reason.
    """

    size: MockSize
    seed: int
    release: DataRelease
    lenses: pl.DataFrame
    galaxies: pl.DataFrame
    rejected: Rejections


def practice_of(release: Path) -> tuple[MockSize, int]:
    """The size (with its settings) and the seed that the practice release below ``release`` was written with.

    Raises :class:`BadInput` where it is no finished mock: closure needs a sky whose truth is known.
    """
    path = release / RELEASE
    if not path.is_file():
        raise BadInput("no finished mock release here: closure is for a sky whose truth is known", file=str(path))
    request = json.loads(path.read_text())["request"]
    return MockSize.model_validate(request["size"]), int(request["seed"])


def closure_size(practice: MockSize, seed: int, settings: ClosureSettings) -> MockSize:
    """The closure sky of a practice sky (and its ``seed``): as many bright objects a brick, tiles that it does not have."""
    taken = {t.key for t in tiles_of(practice, seed)}
    survey = load_size("survey").model_copy(update={"n_tiles": settings.tiles + len(taken) + 20})
    tiles = [t.key for t in tiles_of(survey, settings.seed) if t.key not in taken][: settings.tiles]
    bright = practice.galaxies + practice.lenses
    lenses = round(settings.lens_share * bright)
    median, scatter = settings.theta_e
    own = practice.settings.model_copy(update={"theta_e": (median, scatter, 0.375, 3.125), "quasar_share": 0.0})
    return MockSize.model_validate(
        {
            **practice.model_dump(),
            "name": f"{practice.name}-closure",
            "tiles": tiles,
            "n_tiles": 0,
            "deep_tiles": (),
            "bricks_per_tile": settings.bricks_per_tile,
            "lenses": lenses,
            "galaxies": bright - lenses,
            "missing_band": 0,
            "survey_edge": 0,
            "settings": own.model_dump(),
        }
    )


def make_sky(
    folder: Path,
    practice: tuple[MockSize, int],
    settings: ClosureSettings,
    workers: int = 1,
    progress: Progress | None = None,
) -> MockSize:
    """Write (or finish, or recognise) the closure sky of a ``practice`` sky below ``folder``; returns its size.

    One that was written by other code or settings is replaced: it is derived, and nothing refers to it.
    """
    size = closure_size(*practice, settings)
    release, truth, catalogues = (folder / name for name in ("release", "truth", "catalogues"))
    write_release(release, truth, catalogues, size, settings.seed, workers, progress, replace=True)
    return size


def read_sky(
    folder: Path,
    size: MockSize,
    settings: ClosureSettings,
    surveys: SurveySettings,
    selection: SelectionProfile,
    negatives: NegativeSettings,
) -> Sky:
    """Read the closure sky as a survey is read: sweeps, the screen that both classes pass, the pool of non-lenses.

    Raises :class:`BadInput` where it is not complete.
    """
    release = DataRelease(str(folder / "release"), settings=surveys)
    truth, objects = read_truth(folder / "truth"), _objects(folder / "truth")
    positions = truth.select("ra", "dec")
    kept, pools, seen = [], [], []
    for tile in release.tiles():
        sweep = release.sweep(tile)[0]
        seen.append(sweep.select("galaxy_id"))
        screened = screen(sweep, selection, "positive")[0]
        kept.append(screened.select("galaxy_id", "brickname", "psfsize_r", "depth_r", ra_s="ra", dec_s="dec"))
        pools.append(build_pool(sweep, positions, selection, negatives)[0])
    rejected = Rejections()
    rows = truth.filter(pl.col("true_kind").is_in(list(KINDS)))
    rejected.add("another kind of lens", truth.height - rows.height)
    for reason, table in (("no object in the sweeps", pl.concat(seen)), ("fails the survey's screen", pl.concat(kept))):
        found = rows.join(table, left_on="true_galaxy_id", right_on="galaxy_id", how="semi")
        rejected.add(reason, rows.height - found.height)
        rows = found
    rows = rows.join(pl.concat(kept), left_on="true_galaxy_id", right_on="galaxy_id", how="left", validate="1:1")
    lenses = rows.select(
        pl.col("true_galaxy_id").alias("galaxy_id"), pl.col("ra_s").alias("ra"), pl.col("dec_s").alias("dec"),
        "brickname", pl.col("true_theta_e").alias("theta_e"), "psfsize_r", "depth_r",
    ).sort("galaxy_id")  # fmt: skip
    rejected.check(truth.height, lenses.height)
    galaxies = pl.concat(pools).join(objects, on="galaxy_id", how="inner").sort("galaxy_id")
    return Sky(size, settings.seed, release, lenses, galaxies, rejected)


def _objects(truth: Path) -> pl.DataFrame:
    path = truth / "objects.parquet"
    if not path.is_file():
        raise BadInput("the closure sky is not complete", file=str(path))
    return pl.read_parquet(path).filter(pl.col("true_galaxy_id").is_not_null()).select(
        pl.col("true_galaxy_id").alias("galaxy_id"), *(f"true_{c}" for c in _LIGHT)
    )  # fmt: skip
