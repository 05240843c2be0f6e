"""Fingerprints of stamps: an exact digest, and a perceptual hash that finds the same sky in another guise.

The digest proves that no stamp is in two splits; the hash finds what a digest cannot: the same object cut a pixel
apart, from another brick or by another service. A hash match is a suspicion to look at, never proof.
"""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import numpy.typing as npt
import polars as pl

from lens_assets.science.errors import BadInput


def stamp_digests(images: npt.NDArray[np.float32]) -> list[str]:
    """SHA-256 (hex) of each stamp's little-endian float32 bytes, C order."""
    plain = np.ascontiguousarray(images, dtype="<f4")
    return [hashlib.sha256(stamp.data).hexdigest() for stamp in plain]


def dhash(plane: npt.NDArray[np.float32], valid: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.uint64]:
    """64-bit difference hash of (n, h, w) planes.

    The plane is averaged into 8 rows x 9 columns of near-equal blocks (invalid pixels count as 0); bit ``8 * row +
    column`` is set where the next block to the right is brighter. N. Krawetz's scheme ("Kind of like that", 2013) on
    fluxes.
    """
    n, height, width = plane.shape
    good = np.isfinite(plane) if valid is None else valid & np.isfinite(plane)
    filled = np.where(good, plane, np.float32(0)).astype(np.float64)
    rows, columns = np.arange(8) * height // 8, np.arange(9) * width // 9
    blocks = np.add.reduceat(np.add.reduceat(filled, rows, axis=1), columns, axis=2)
    blocks /= np.diff(np.append(rows, height))[:, None] * np.diff(np.append(columns, width))[None, :]
    bits = (blocks[:, :, 1:] > blocks[:, :, :-1]).reshape(n, 64)
    return np.packbits(bits, axis=1, bitorder="little").view("<u8").astype(np.uint64).reshape(n)


def near_duplicates(ids: pl.Series, hashes: npt.ArrayLike, max_bits: int = 3) -> pl.DataFrame:
    """Pairs of stamps whose hashes differ in at most ``max_bits`` (0..7) bits.

    Returns ``first, second, bits`` sorted, ``first < second``. Exact: two hashes that differ in at most k of 64 bits
    agree wholly in one of k + 1 chunks of bits, so only hashes that share a chunk are compared.
    """
    values = np.asarray(hashes, dtype=np.uint64)
    if not 0 <= max_bits <= 7:
        raise BadInput(f"max_bits {max_bits} is outside 0..7")
    if len(ids) != values.size:
        raise BadInput(f"{len(ids)} ids for {values.size} hashes")
    edges = np.linspace(0, 64, max_bits + 2).astype(int)
    pairs: set[tuple[int, int]] = set()
    for lo, hi in itertools.pairwise(edges):
        chunk = (values >> np.uint64(lo)) & np.uint64((1 << int(hi - lo)) - 1)
        order = np.argsort(chunk, kind="stable")
        starts = np.flatnonzero(np.diff(chunk[order], prepend=~chunk[order][:1]))
        for members in np.split(order, starts[1:]):
            for k, i in enumerate(members[:-1]):
                near = members[k + 1 :][np.bitwise_count(values[i] ^ values[members[k + 1 :]]) <= max_bits]
                pairs.update((min(int(i), int(j)), max(int(i), int(j))) for j in near)
    names = ids.to_list()
    rows = [(*sorted((names[i], names[j])), int(np.bitwise_count(values[i] ^ values[j]))) for i, j in pairs]
    schema = {"first": pl.String, "second": pl.String, "bits": pl.Int32}
    return pl.DataFrame(rows, schema=schema, orient="row").sort("first", "second")
