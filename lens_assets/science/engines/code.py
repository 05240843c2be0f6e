"""Which code this is: the digest by which an orchestrator recognises that a cluster runs the same."""

from __future__ import annotations

import hashlib
from functools import lru_cache

from lens_assets.science.provenance import CONFIG, SCIENCE


@lru_cache
def package_digest() -> str:
    """SHA-256 (16 hex) over all of the science and its packaged configuration."""
    total = hashlib.sha256()
    for path in sorted([*SCIENCE.rglob("*.py"), *CONFIG.rglob("*.yaml")]):
        total.update(path.relative_to(SCIENCE.parent).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()[:16]
