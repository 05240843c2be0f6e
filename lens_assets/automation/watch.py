"""What is there to be watched: sweeps of the release, catalogues in the folder, recipes and variants in the configuration.

Each function returns key -> version, or raises; none knows Dagster.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from lens_assets.science.detectors.ensembles import composition, load_ensembles, networks_of
from lens_assets.science.detectors.recipes import detector_keys, load_recipes, parse_detector
from lens_assets.science.errors import BadInput
from lens_assets.science.hashing import digest
from lens_assets.science.injections.variants import load_variants
from lens_assets.science.lenses.mapping import UNKNOWN_ORIGIN, ChannelMapping, mapping_for_file
from lens_assets.science.storage import safe_key, sha256_file
from lens_assets.science.surveys.release import DataRelease

CATALOGUE_ENDINGS = (".csv", ".tsv", ".parquet", ".fits", ".ecsv", ".vot")
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


def catalogue_file(folder: Path, key: str) -> Path:
    """The catalogue file of a channel; :class:`BadInput` that says what has happened when it is no longer there."""
    found = catalogue_files(folder).get(key)
    if found is None:
        raise BadInput(
            f"the catalogue of channel {key!r} is no longer there; put it back, or wait until the channel is withdrawn",
            file=str(folder),
        )
    return found


def channels(folder: Path, *, now: float | None = None, before: Mapping[str, str] | None = None) -> dict[str, str]:
    """Channel key -> version of its catalogue (digest of its bytes and of its mapping), for the files that have settled.

    One that has not settled keeps its version in ``before``, the last listing: it has not vanished, it is being written.
    A file that repeats another one is left out: see :func:`twins`.
    """
    moment, known, found = time.time() if now is None else now, before or {}, {}
    files = catalogue_files(folder)
    for key, path in files.items():
        if moment - path.stat().st_mtime >= SETTLED_SECONDS:
            found[key] = f"{sha256_file(path)}+{digest(mapping_for_file(path))[:16]}"
        elif key in known:
            found[key] = known[key]
    repeated = _twins(found, files, known)
    return {key: version for key, version in found.items() if key not in repeated}


def twins(folder: Path, before: Mapping[str, str] | None = None) -> dict[str, str]:
    """Catalogues that are another one again, key -> the key that stays.

    The same bytes make the same list, whatever the file is called, unless each of the two has a mapping of its own that
    reads it differently (two selections from one compilation). The file that was known before stays; else the one whose name
    sorts first.
    """
    files = catalogue_files(folder)
    return _twins({key: sha256_file(path) for key, path in files.items()}, files, before or {})


def _twins(versions: Mapping[str, str], files: Mapping[str, Path], known: Mapping[str, str]) -> dict[str, str]:
    kept: dict[str, list[str]] = {}
    repeated = {}
    for key in sorted(versions, key=lambda k: (k not in known, k)):
        content = versions[key].split("+")[0]
        same = [other for other in kept.get(content, []) if _same_list(files[key], files[other])]
        if same:
            repeated[key] = same[0]
        else:
            kept.setdefault(content, []).append(key)
    return repeated


def _same_list(one: Path, other: Path) -> bool:
    """Whether two files of the same bytes are one list: unless both are mapped on purpose, and differently."""
    rules: list[ChannelMapping] = [mapping_for_file(path) for path in (one, other)]
    guessed = any(UNKNOWN_ORIGIN in r.derived_from for r in rules)
    return guessed or rules[0].identity == rules[1].identity


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


def networks() -> dict[str, str]:
    """Network key -> digest of its recipe: every seed a recipe offers, and every member of an ensemble."""
    recipes, ensembles = load_recipes(), load_ensembles()
    keys = {*detector_keys(recipes), *networks_of(list(ensembles), ensembles)}
    return {key: parse_detector(key, recipes).digest for key in sorted(keys)}


def detectors() -> dict[str, str]:
    """Detector key -> digest of what it is made of: every network by itself, and every ensemble."""
    ensembles = load_ensembles()
    return {key: composition(key, ensembles).digest for key in sorted({*networks(), *ensembles})}


def variants() -> dict[str, str]:
    """Variant key -> digest of its definition and priors."""
    return {name: variant.digest for name, variant in load_variants().items()}
