"""The exact fingerprint of a stamp: a digest that proves that no stamp is in two splits.

What a digest cannot find, the same sky a pixel apart or through another service, is for ``duplicates``.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt


def stamp_digests(images: npt.NDArray[np.float32]) -> list[str]:
    """SHA-256 (hex) of each stamp's little-endian float32 bytes, C order."""
    plain = np.ascontiguousarray(images, dtype="<f4")
    return [hashlib.sha256(stamp.data).hexdigest() for stamp in plain]
