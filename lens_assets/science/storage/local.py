"""A store in a local folder: drafts are renamed into place, the manifest is replaced last.

A reader follows the manifest, so it sees the old artefact or the new one, never a mixture, and a run killed at any
moment leaves nothing that a reader would take for data.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lens_assets.science.errors import BadInput
from lens_assets.science.storage.artefact import (
    MANIFEST,
    Artefact,
    folder_in,
    manifest_text,
    parse_manifest,
    safe_key,
    sha256_file,
    sync,
)
from lens_assets.science.storage.store import DAY, Store, _dead_drafts

GENERATION = re.compile(r"[0-9a-f]{16}(-[0-9a-f]{8})?")
"""Name of the folder of one content."""


@dataclass(frozen=True)
class LocalPlace:
    """A folder on this machine."""

    path: Path

    @property
    def uri(self) -> str:
        """Its path."""
        return str(self.path)

    def folder(self) -> Path:
        """Itself."""
        return self.path

    def file(self, name: str) -> Path | None:
        """The file in it."""
        path = self.path / name
        return path if path.is_file() else None

    def sha256(self, name: str) -> str | None:
        """Digest of the file's bytes."""
        path = self.path / name
        return sha256_file(path) if path.is_file() else None


class LocalStore(Store, scheme="file"):
    """All artefacts under one folder."""

    root: Path

    def _home(self, asset: str, partition: str) -> Path:
        return self.root / safe_key(asset) / safe_key(partition)

    def find(self, asset: str, partition: str = "all") -> Artefact | None:
        """See :meth:`Store.find`."""
        home = self._home(asset, partition)
        try:
            text = (home / MANIFEST).read_bytes()
        except FileNotFoundError:
            return None
        manifest = parse_manifest(text, str(home / MANIFEST))
        return Artefact(asset, partition, LocalPlace(home / folder_in(manifest)), manifest)

    def assets(self) -> list[str]:
        """See :meth:`Store.assets`."""
        return sorted(p.name for p in self.root.iterdir() if p.is_dir()) if self.root.is_dir() else []

    def partitions(self, asset: str) -> list[str]:
        """See :meth:`Store.partitions`."""
        home = self.root / safe_key(asset)
        if not home.is_dir():
            return []
        return sorted(p.name for p in home.iterdir() if (p / MANIFEST).is_file())

    def _workshop(self, asset: str, partition: str) -> Path:
        return self._home(asset, partition)

    def _publish(self, asset: str, partition: str, scratch: Path, manifest: dict[str, Any]) -> None:
        """Make a finished draft the artefact, one writer at a time.

        The folder that the manifest names is never removed or replaced before the manifest names another: fresh bytes
        of damaged content go to a new folder. The generation before stays until the next write, for readers that hold
        it.
        """
        home = self._home(asset, partition)
        with _publishing(home):
            current = _folder_in_manifest(home)
            final = home / manifest["digest"][:16]
            if final.exists():
                if _intact(final, manifest["files"]):
                    shutil.rmtree(scratch)
                else:
                    final = home / f"{final.name}-{uuid.uuid4().hex[:8]}"
            if scratch.exists():
                os.replace(scratch, final)
            sync(home)
            _write(home / MANIFEST, manifest_text({**manifest, "folder": final.name}))
            for old in home.iterdir():
                if old.is_dir() and old.name not in (final.name, current) and not old.name.startswith(".draft-"):
                    shutil.rmtree(old, ignore_errors=True)

    def delete(self, asset: str, partition: str) -> None:
        """See :meth:`Store.delete`."""
        home = self._home(asset, partition)
        (home / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(home, ignore_errors=True)

    def collect_garbage(self, older_than: float = DAY, *, dry_run: bool = False) -> list[str]:
        """See :meth:`Store.collect_garbage`. Works without listing more than one partition at a time."""
        removed = []
        for asset in self.assets():
            for home in sorted(p for p in (self.root / asset).iterdir() if p.is_dir()):
                with _publishing(home):
                    for path in _garbage(home, time.time() - older_than):
                        removed.append(str(path))
                        if not dry_run:
                            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        return removed


def _garbage(home: Path, before: float) -> list[Path]:
    """What may go from one partition's folder; the caller holds its lock."""
    found = _dead_drafts(home)
    manifest, current = home / MANIFEST, _folder_in_manifest(home)
    if manifest.is_file() and (current is None or manifest.stat().st_mtime > before):
        return found  # torn: nothing can be said; young: readers may hold the generation before
    for path in sorted(home.iterdir()):
        ours = GENERATION.fullmatch(path.name) or path.name.startswith(f".{MANIFEST}.")
        if ours and path.name != current and path.stat().st_mtime <= before:
            found.append(path)
    return found


def _write(path: Path, text: str) -> None:
    scratch = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}")
    with open(scratch, "w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(scratch, path)
    sync(path.parent)


@contextlib.contextmanager
def _publishing(home: Path) -> Iterator[None]:
    """Hold the lock of one artefact's folder: two writers that finish together would clean away each other's files."""
    with open(home / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _folder_in_manifest(home: Path) -> str | None:
    try:
        return folder_in(parse_manifest((home / MANIFEST).read_bytes(), str(home)))
    except (FileNotFoundError, BadInput):
        return None


def _intact(folder: Path, files: list[dict[str, Any]]) -> bool:
    """Whether a folder holds exactly these files with these bytes."""
    if {p.name for p in folder.iterdir()} != {f["name"] for f in files}:
        return False
    return all(sha256_file(folder / f["name"]) == f["sha256"] for f in files)
