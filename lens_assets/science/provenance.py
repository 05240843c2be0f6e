"""What made an artefact: the digest of the code that ran, and the versions it ran on.

The digest covers the source and packaged YAML of the named rooms and of the modules all rooms share, so an artefact
made by other code has another fingerprint and is made again; whoever deploys stale code sees it in the output.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

SCIENCE = Path(__file__).resolve().parent
CONFIG = SCIENCE.parent / "config"
_SHARED = ("errors.py", "hashing.py", "sphere.py", "intervals.py", "storage/artefact.py")


@lru_cache
def code_digest(*rooms: str) -> str:
    """SHA-256 (16 hex) over the Python files of ``rooms`` (sub-packages of science, or ``room/file.py``) and shared modules."""
    paths = [SCIENCE / name for name in _SHARED]
    for room in rooms:
        place = SCIENCE / room
        paths += sorted(place.rglob("*.py")) if place.is_dir() else [place]
    total = hashlib.sha256()
    for path in sorted(set(paths)):
        total.update(path.relative_to(SCIENCE).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()[:16]


def versions(*packages: str) -> dict[str, str]:
    """Installed versions of packages; ``absent`` where one is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found
