"""Where the CSV of the lenscat package is, without importing the package (its import pulls in ligo.skymap).

The counts pinned here are those of lenscat 1.1.3: 32,838 rows, 5,104 of them with a DESI name (435 confident and 4,669
probable). A table with other counts is another version, and a surface made from it is another surface.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

VERSION = "1.1.3"
CSV_SHA256 = "7de5111afb6486c119198cb2df868a2e6a15f79869e6cdc8109ec7d59b06a7cc"
DESI_CONFIDENT, DESI_PROBABLE = 435, 4669


def lenscat_csv() -> Path:
    """Path of the installed package's ``lenscat/data/catalog.csv``.

    Raises ``FileNotFoundError`` that says how to get it when the package is absent.
    """
    try:
        found = importlib.metadata.distribution("lenscat")
    except importlib.metadata.PackageNotFoundError:
        raise FileNotFoundError(
            f"lenscat is not installed: `pip install --no-deps lenscat=={VERSION}`, or `pip download` it, unpack the "
            "wheel and copy lenscat/data/catalog.csv into the catalogue folder as lenscat.csv"
        ) from None
    path = Path(str(found.locate_file("lenscat/data/catalog.csv")))
    if not path.is_file():
        raise FileNotFoundError(f"{path}: this lenscat ({found.version}) holds no catalogue; {VERSION} does")
    return path
