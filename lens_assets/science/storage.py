"""Artefacts on disk: complete or absent, addressed by content, carrying what made them.

An artefact is one partition of one asset: a folder of files under ``<root>/<asset>/<partition>/<digest>/`` and beside
it ``manifest.json``, which names that folder. Files are written to a temporary folder, synced and renamed; the
manifest is replaced last, in one step. A reader follows the manifest, so it sees the old artefact or the new one,
never a mixture, and a run killed at any moment leaves nothing that a reader would take for data. The digest is that
of the files' bytes and holds no time, host or run id: the same content has the same digest wherever and whenever it
was made.

What does not belong here: what an artefact means (the rooms know), and Dagster (``lens_assets.resources`` wraps this).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


@dataclass(frozen=True)
class Artefact:
    """A complete artefact: its folder, manifest and identity."""

    asset: str
    partition: str
    folder: Path
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

    def file(self, name: str) -> Path:
        """Path of one of its files; :class:`BadInput` when it is not there."""
        path = self.folder / name
        if not path.is_file():
            raise BadInput(f"artefact {self.asset}[{self.partition}] has no file {name!r}", file=str(self.folder))
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
    """An artefact in the making: a private folder into which the maker writes its files."""

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


class Store:
    """All artefacts under one root folder."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def _home(self, asset: str, partition: str) -> Path:
        return self.root / safe_key(asset) / safe_key(partition)

    def find(self, asset: str, partition: str = "all") -> Artefact | None:
        """The artefact, or ``None`` while it is absent."""
        home = self._home(asset, partition)
        try:
            manifest = json.loads((home / MANIFEST).read_text())
        except FileNotFoundError:
            return None
        except json.JSONDecodeError as fault:
            raise BadInput(f"not JSON ({fault})", file=str(home / MANIFEST)) from fault
        return Artefact(asset, partition, home / manifest.get("folder", manifest["digest"][:16]), manifest)

    def get(self, asset: str, partition: str = "all") -> Artefact:
        """The artefact; ``FileNotFoundError`` that says how to make it while it is absent."""
        found = self.find(asset, partition)
        if found is None:
            raise FileNotFoundError(f"{asset}[{partition}] has not been materialised under {self.root}")
        return found

    def partitions(self, asset: str) -> list[str]:
        """Sorted keys of the complete partitions of an asset."""
        home = self.root / safe_key(asset)
        if not home.is_dir():
            return []
        return sorted(p.name for p in home.iterdir() if (p / MANIFEST).is_file())

    @contextlib.contextmanager
    def draft(
        self, asset: str, partition: str = "all", *, made_from: Mapping[str, Any] | None = None
    ) -> Iterator[Draft]:
        """Make an artefact: write files through the yielded :class:`Draft`; it becomes visible when the block ends.

        ``made_from`` (code version, configuration, input digests) is stored and its digest is the fingerprint. If the
        block raises, or the process dies, the previous artefact stays as it was.
        """
        home = self._home(asset, partition)
        home.mkdir(parents=True, exist_ok=True)
        _sweep_dead_drafts(home)
        scratch = home / f".draft-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        scratch.mkdir()
        try:
            draft = Draft(scratch)
            yield draft
            files = _inventory(scratch)
            content = digest_of([[f["name"], f["sha256"]] for f in files])
            manifest = {
                "asset": asset,
                "partition": partition,
                "digest": content,
                "files": files,
                "facts": draft.facts,
                "made_from": dict(made_from or {}),
                "fingerprint": digest_of(dict(made_from or {})),
            }
            with _publishing(home):
                self._publish(home, scratch, manifest)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _publish(self, home: Path, scratch: Path, manifest: dict[str, Any]) -> None:
        """Make a finished draft the artefact, one writer at a time.

        The folder that the manifest names is never removed or replaced before the manifest names another: fresh bytes
        of damaged content go to a new folder. The generation before stays until the next write, for readers that hold
        it.
        """
        current = _folder_in_manifest(home)
        final = home / manifest["digest"][:16]
        if final.exists():
            if _intact(final, manifest["files"]):
                shutil.rmtree(scratch)
            else:
                final = home / f"{final.name}-{uuid.uuid4().hex[:8]}"
        if scratch.exists():
            os.replace(scratch, final)
        _sync(home)
        _write_json(home / MANIFEST, {**manifest, "folder": final.name})
        for old in home.iterdir():
            if old.is_dir() and old.name not in (final.name, current) and not old.name.startswith(".draft-"):
                shutil.rmtree(old, ignore_errors=True)

    def delete(self, asset: str, partition: str) -> None:
        """Remove an artefact: the manifest first, so that it is absent before it is incomplete."""
        home = self._home(asset, partition)
        (home / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(home, ignore_errors=True)


def verify(artefact: Artefact) -> None:
    """Raise :class:`BadInput` when a file's bytes differ from its manifest."""
    for f in artefact.manifest["files"]:
        if sha256_file(artefact.file(f["name"])) != f["sha256"]:
            raise BadInput(
                "its bytes differ from the manifest; materialise it again", file=str(artefact.folder / f["name"])
            )


def sha256_file(path: str | Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _inventory(folder: Path) -> list[dict[str, Any]]:
    files = []
    for path in sorted(p for p in folder.iterdir()):
        _sync(path)
        files.append({"name": path.name, "bytes": path.stat().st_size, "sha256": sha256_file(path)})
    _sync(folder)
    return files


def _write_json(path: Path, value: Any) -> None:
    scratch = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}")
    with open(scratch, "w") as stream:
        json.dump(value, stream, sort_keys=True, indent=1, default=str)
        stream.write("\n")
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(scratch, path)
    _sync(path.parent)


@contextlib.contextmanager
def _publishing(home: Path) -> Iterator[None]:
    """Hold the lock of one artefact's folder: two writers that finish together would clean away each other's files."""
    with open(home / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _folder_in_manifest(home: Path) -> str | None:
    try:
        manifest = json.loads((home / MANIFEST).read_text())
        return str(manifest.get("folder", manifest["digest"][:16]))
    except (FileNotFoundError, json.JSONDecodeError, KeyError):
        return None


def _intact(folder: Path, files: list[dict[str, Any]]) -> bool:
    """Whether a folder holds exactly these files with these bytes."""
    if {p.name for p in folder.iterdir()} != {f["name"] for f in files}:
        return False
    return all(sha256_file(folder / f["name"]) == f["sha256"] for f in files)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sweep_dead_drafts(home: Path) -> None:
    """Remove drafts of processes that are gone (a kill -9 leaves one behind)."""
    for path in home.glob(".draft-*"):
        pid = int(path.name.split("-")[1])
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            shutil.rmtree(path, ignore_errors=True)
        except PermissionError:
            continue
