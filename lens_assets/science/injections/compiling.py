"""Compiled functions of this room, with machine code that is kept on disk and never stale.

numba keeps what it compiled beside a module, and looks at that module's time of change alone: code compiled against a
helper in another file would outlive a change of the helper. Here the stamp of every kept function covers all modules of
the room that compile anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numba
from numba.extending import intrinsic as _intrinsic

intrinsic: Callable[[Callable[..., Any]], Callable[..., Any]] = _intrinsic


@lru_cache(maxsize=1)
def _room() -> str:
    total = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        source = path.read_bytes()
        if b"@compiled()" in source:
            total.update(path.name.encode() + b"\0" + source + b"\0")
    return total.hexdigest()


def compiled(**options: Any) -> Callable[..., Any]:
    """``numba.njit`` that keeps its machine code beside the module, or does without where that cannot be written.

    No fused or reassociated arithmetic: results are the same on every processor.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            made = numba.njit(cache=True, nogil=True, error_model="numpy", **options)(function)
            kept = made._cache._cache_file
            kept._source_stamp = (*kept._source_stamp, _room())
        except (RuntimeError, AttributeError):  # no writable place for the cache, or a numba that keeps it elsewhere
            return numba.njit(nogil=True, error_model="numpy", **options)(function)
        return made

    return decorate
