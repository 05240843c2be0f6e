"""Stable hashes and counter-based generators, keyed by identity.

Our own integer hash (SplitMix64's finaliser; Steele, Lea & Flood 2014, doi:10.1145/2714064.2660195), because a
library's hash may change between versions and every sample, split and injection of a published surface hangs on it.
Strings go through SHA-256. Nothing here depends on the order of rows, the engine, the process or the platform.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_M1 = np.uint64(0xBF58476D1CE4E5B9)
_M2 = np.uint64(0x94D049BB133111EB)

U64 = npt.NDArray[np.uint64]


def digest(*parts: Any) -> str:
    """SHA-256 (hex) of ``parts`` as canonical JSON: sorted keys, no spaces, floats by ``repr``."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=_jsonable, allow_nan=True)
    return hashlib.sha256(text.encode()).hexdigest()


def canonical(value: Any) -> Any:
    """``value`` as plain JSON data (dictionaries, lists, strings, finite numbers), as it is digested and stored.

    JSON has no infinity and no nan: they become the strings ``"Infinity"``, ``"-Infinity"`` and ``"NaN"``.
    """
    text = json.dumps(value, sort_keys=True, default=_jsonable, allow_nan=True)
    return json.loads(text, parse_constant=str)


def _jsonable(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, bytes):
        return value.hex()
    text = str(value)
    if " at 0x" in text:
        raise TypeError(f"{type(value).__name__} has no stable text to hash: {text}")
    return text


def seed_of(*identity: Any) -> int:
    """A 64-bit seed from any identity (strings, numbers, tuples): the first 8 bytes of its digest."""
    return int.from_bytes(bytes.fromhex(digest(*identity))[:8], "big")


def generator(*identity: Any) -> np.random.Generator:
    """A Philox generator keyed by ``identity``; the same identity gives the same stream, anywhere."""
    key = bytes.fromhex(digest(*identity))
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key[:16], "big")))


def mix64(values: npt.ArrayLike, seed: int = 0) -> U64:
    """SplitMix64 of each value under ``seed``.

    Parameters
    ----------
    values : integers, any shape; signed ones are reinterpreted as two's complement.
    seed : any 64-bit integer.

    Returns
    -------
    uint64 array of the same shape, uniform over [0, 2**64).
    """
    x = np.asarray(values)
    if x.dtype.kind not in "iu":
        raise TypeError(f"mix64 hashes integers, not {x.dtype}")
    with np.errstate(over="ignore"):
        s = np.asarray([seed & 0xFFFFFFFFFFFFFFFF], dtype=np.uint64)
        z = x.astype(np.uint64) + _finalise(s + _GAMMA)[0] + _GAMMA
        return _finalise(z)


def _finalise(z: U64) -> U64:
    with np.errstate(over="ignore"):
        z = (z ^ (z >> np.uint64(30))) * _M1
        z = (z ^ (z >> np.uint64(27))) * _M2
        return z ^ (z >> np.uint64(31))


def uniform(values: npt.ArrayLike, seed: int = 0) -> npt.NDArray[np.float64]:
    """``mix64`` as a number in [0, 1): the top 53 bits."""
    return (mix64(values, seed) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def galaxy_key(release: npt.ArrayLike, brickid: npt.ArrayLike, objid: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """One int64 for (RELEASE, BRICKID, OBJID): 15 + 20 + 28 bits.

    RELEASE is int16, BRICKID at most 662,174 < 2**20 (DR10 `files` page), OBJID int32 and far below 2**28.
    Raises ``ValueError`` where a part does not fit.
    """
    r, b, o = (np.asarray(a).astype(np.int64) for a in (release, brickid, objid))
    for name, part, bits in (("RELEASE", r, 15), ("BRICKID", b, 20), ("OBJID", o, 28)):
        if part.size and (part.min() < 0 or part.max() >= 1 << bits):
            raise ValueError(f"{name} outside [0, 2**{bits}): {part.min()}..{part.max()}")
    return (r << 48) | (b << 28) | o


def key_of_id(galaxy_id: str) -> int:
    """The int64 key of a canonical ``RELEASE-BRICKID-OBJID`` id."""
    release, brickid, objid = (int(part) for part in galaxy_id.split("-"))
    return int(galaxy_key([release], [brickid], [objid])[0])


def site_names(galaxy_ids: Iterable[str]) -> npt.NDArray[np.str_]:
    """(n,) brick of each object, from its id RELEASE-BRICKID-OBJID; an id of another form is a site of its own."""
    return np.array([g.rsplit("-", 1)[0] if g.count("-") == 2 else g for g in map(str, galaxy_ids)], str)


def sites_of(galaxy_ids: Iterable[str]) -> npt.NDArray[np.int64]:
    """(n,) number of the brick of each object: of its :func:`site_names`, in their order."""
    return np.unique(site_names(galaxy_ids), return_inverse=True)[1].astype(np.int64)
