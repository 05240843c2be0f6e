"""What is there to be watched: sweeps of the release, catalogues in the folder, recipes and variants in the configuration.

Each function returns key -> version, or raises; none knows Dagster.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from lens_assets.science.detectors.recipes import detector_keys, load_recipes, parse_detector
from lens_assets.science.errors import BadInput
from lens_assets.science.injections.variants import load_variants
from lens_assets.science.storage import safe_key, sha256_file
from lens_assets.science.surveys.release import DataRelease

CATALOGUE_ENDINGS = (".csv", ".parquet", ".fits", ".ecsv")
SETTLED_SECONDS = 2.0
"""A file younger than this may still be being copied: it is looked at on the next round."""


def tiles(release: DataRelease) -> dict[str, str]:
    """Tile key -> identity of its sweep file."""
    return {key: release.sweep_identity(key) for key in release.tiles()}


def catalogue_files(folder: Path) -> dict[str, Path]:
    """Channel key -> catalogue file. A name that cannot be a key, or two files of one stem, raise :class:`BadInput`."""
    if not folder.is_dir():
        raise BadInput("the folder of lens catalogues is not there", file=str(folder))
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix not in CATALOGUE_ENDINGS or path.name.startswith("."):
            continue
        key = safe_key(path.stem)
        if key in found:
            raise BadInput(f"two catalogues are called {key!r}: {found[key].name} and {path.name}", file=str(folder))
        found[key] = path
    return found


def channels(folder: Path, *, now: float | None = None, before: Mapping[str, str] | None = None) -> dict[str, str]:
    """Channel key -> digest of its catalogue, for the files that have settled.

    One that has not settled keeps its version in ``before``, the last listing: it has not vanished, it is being written.
    """
    moment, known, found = time.time() if now is None else now, before or {}, {}
    for key, path in catalogue_files(folder).items():
        if moment - path.stat().st_mtime >= SETTLED_SECONDS:
            found[key] = sha256_file(path)
        elif key in known:
            found[key] = known[key]
    return found


def wait_until_settled(folder: Path, most: float = 30.0) -> None:
    """Wait until no catalogue is younger than :data:`SETTLED_SECONDS`, for a run that looks once only.

    Raises :class:`BadInput` naming a file that is still being written after ``most`` seconds.
    """
    until = time.time() + most
    while True:
        young = [p for p in catalogue_files(folder).values() if time.time() - p.stat().st_mtime < SETTLED_SECONDS]
        if not young:
            return
        if time.time() > until:
            raise BadInput(f"is still being written after {most:.0f} s", file=str(young[0]))
        time.sleep(0.2)


def detectors() -> dict[str, str]:
    """Detector key -> digest of its recipe."""
    recipes = load_recipes()
    return {key: parse_detector(key, recipes).digest for key in detector_keys(recipes)}


def variants() -> dict[str, str]:
    """Variant key -> digest of its definition and priors."""
    return {name: variant.digest for name, variant in load_variants().items()}
