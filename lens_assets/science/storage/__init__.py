"""Artefacts in a store: complete or absent, addressed by content, carrying what made them.

An artefact is one partition of one asset: a folder of files under ``<root>/<asset>/<partition>/<digest>/`` and beside
it ``manifest.json``, which names that folder and is replaced last. The root is a local folder or ``s3://bucket/prefix``;
nothing above this package knows which.

:mod:`artefact` says what one is and writes its files, :mod:`store` is the door, :mod:`local` and :mod:`remote` the two
kinds of root, :mod:`objects` the requests to S3, :mod:`cache` the local copies. What does not belong here: what an
artefact means (the rooms know), and Dagster (``lens_assets.resources`` wraps this).
"""

from __future__ import annotations

from lens_assets.science.storage import local, remote  # noqa: F401  (the kinds of store; boto3 comes with the first request)
from lens_assets.science.storage.artefact import (
    MANIFEST,
    PRIMARY,
    Artefact,
    Draft,
    Place,
    safe_key,
    sha256_file,
    verify,
)
from lens_assets.science.storage.store import Store

__all__ = ["MANIFEST", "PRIMARY", "Artefact", "Draft", "Place", "Store", "safe_key", "sha256_file", "verify"]
