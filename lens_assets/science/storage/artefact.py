"""What an artefact is: named files and a manifest that carries their digests and what made them.

The digest is that of the files' bytes and holds no time, host or run id: the same content has the same digest wherever
and whenever it was made, in a folder or in a bucket. This module decides those bytes (how a table and a JSON file are
written) and so belongs to every code digest; where the files lie is a :class:`Place`'s business.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from lens_assets.science.errors import BadInput
from lens_assets.science.hashing import digest as digest_of

MANIFEST = "manifest.json"
PRIMARY = "data"
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+\-]{0,127}")


def safe_key(key: str) -> str:
    """``key`` if it may become one path component, else :class:`BadInput` (no separators, no leading dot, at most
    128).
    """
    if not _KEY.fullmatch(key) or ".." in key:
        raise BadInput(f"not a valid partition or asset key: {key!r} (letters, digits, and . _ + - inside)")
    return key


class Place(Protocol):
    """Where the files of one artefact lie."""

    @property
    def uri(self) -> str:
        """The folder's path or ``s3://`` address, for people and metadata."""
        ...

    def folder(self) -> Path:
        """A local folder that holds all its files and nothing else."""
        ...

    def file(self, name: str) -> Path | None:
        """A local path of one of its files; ``None`` when it has none of this name."""
        ...

    def sha256(self, name: str) -> str | None:
        """SHA-256 of the bytes that lie there now, read anew; ``None`` when they are gone."""
        ...


@dataclass(frozen=True)
class Artefact:
    """A complete artefact: its place, manifest and identity."""

    asset: str
    partition: str
    place: Place
    manifest: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """SHA-256 over the names and bytes of the files."""
        return str(self.manifest["digest"])

    @property
    def fingerprint(self) -> str:
        """Digest of what made it: code version, configuration, input digests."""
        return str(self.manifest["fingerprint"])

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the maker stated: row counts, rejections, figures of merit."""
        return self.manifest.get("facts", {})  # type: ignore[no-any-return]

    @property
    def uri(self) -> str:
        """Where it lies: the path of its folder, or ``s3://bucket/prefix/asset/partition/digest``."""
        return self.place.uri

    @property
    def folder(self) -> Path:
        """A local folder with all its files (a remote artefact is fetched whole; :meth:`file` fetches one)."""
        return self.place.folder()

    def file(self, name: str) -> Path:
        """Local path of one of its files; :class:`BadInput` when it is not there."""
        path = self.place.file(name)
        if path is None:
            raise BadInput(f"artefact {self.asset}[{self.partition}] has no file {name!r}", file=self.uri)
        return path

    def scan(self, table: str = PRIMARY) -> pl.LazyFrame:
        """One of its tables, lazily."""
        return pl.scan_parquet(self.file(f"{table}.parquet"))

    def read(self, table: str = PRIMARY) -> pl.DataFrame:
        """One of its tables."""
        return pl.read_parquet(self.file(f"{table}.parquet"))

    def json(self, name: str) -> Any:
        """One of its JSON files (``name`` without the ending)."""
        return json.loads(self.file(f"{name}.json").read_text())


class Draft:
    """An artefact in the making: a private local folder into which the maker writes its files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.facts: dict[str, Any] = {}

    def path(self, name: str) -> Path:
        """Where to write a file called ``name`` (one level, validated)."""
        return self.folder / safe_key(name)

    def table(self, frame: pl.DataFrame | pl.LazyFrame, table: str = PRIMARY) -> None:
        """Write a table as Parquet (zstd). Row order is the caller's: sort by identity for reproducible bytes."""
        frame = frame.collect() if isinstance(frame, pl.LazyFrame) else frame
        frame.rechunk().write_parquet(
            self.path(f"{table}.parquet"), compression="zstd", compression_level=3, row_group_size=262_144
        )
        if table == PRIMARY:
            self.facts.setdefault("rows", frame.height)

    def json(self, name: str, value: Any) -> None:
        """Write a JSON file: sorted keys, indented, ``NaN`` refused as ``null`` is meant instead."""
        text = json.dumps(value, sort_keys=True, indent=1, allow_nan=False, default=str)
        self.path(f"{name}.json").write_text(text + "\n")


def verify(artefact: Artefact) -> None:
    """Raise :class:`BadInput` when a file's bytes differ from its manifest. Reads every byte, in a bucket too."""
    for f in artefact.manifest["files"]:
        found = artefact.place.sha256(f["name"])
        if found is None:
            raise BadInput(
                f"artefact {artefact.asset}[{artefact.partition}] has no file {f['name']!r}", file=artefact.uri
            )
        if found != f["sha256"]:
            raise BadInput(
                "its bytes differ from the manifest; materialise it again", file=f"{artefact.uri}/{f['name']}"
            )


def sha256_file(path: str | Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def manifest_of(
    asset: str, partition: str, folder: Path, facts: Mapping[str, Any], made_from: Mapping[str, Any]
) -> dict[str, Any]:
    """The manifest of the finished files in ``folder``, which are synced to disk on the way."""
    files = []
    for path in sorted(folder.iterdir()):
        sync(path)
        files.append({"name": path.name, "bytes": path.stat().st_size, "sha256": sha256_file(path)})
    sync(folder)
    return {
        "asset": asset,
        "partition": partition,
        "digest": digest_of([[f["name"], f["sha256"]] for f in files]),
        "files": files,
        "facts": dict(facts),
        "made_from": dict(made_from),
        "fingerprint": digest_of(dict(made_from)),
    }


def manifest_text(manifest: Mapping[str, Any]) -> str:
    """The manifest as it is stored, the same characters in a folder and in a bucket."""
    return json.dumps(manifest, sort_keys=True, indent=1, default=str) + "\n"


def parse_manifest(text: str | bytes, uri: str) -> dict[str, Any]:
    """A stored manifest; :class:`BadInput` naming ``uri`` when it is torn or is not one."""
    try:
        manifest: dict[str, Any] = json.loads(text)
    except (json.JSONDecodeError, UnicodeDecodeError) as fault:
        raise BadInput(f"not JSON ({fault})", file=uri) from fault
    named = [manifest.get("digest"), manifest.get("folder", "")] if isinstance(manifest, dict) else [None]
    if not all(isinstance(name, str) for name in named):
        raise BadInput("not the manifest of an artefact", file=uri)
    return manifest


def folder_in(manifest: Mapping[str, Any]) -> str:
    """The folder that a manifest names, beside itself."""
    return safe_key(manifest.get("folder") or manifest["digest"][:16])


def sync(path: Path) -> None:
    """Flush a file or folder to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
