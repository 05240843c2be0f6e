"""A store in an S3 prefix: files go up under their content, the manifest is put last, readers fetch through a cache.

No object is ever overwritten but manifests, so a writer killed anywhere leaves the old artefact, and the files that had
arrived are not sent again by the next. The manifest is put on condition that the one there is still the one this
writer saw, else the writer looks again at what is there and repeats: writers that finish together leave the last one's
artefact. Nothing is removed on that path; :meth:`RemoteStore.collect_garbage` does, and the day it waits is what
makes that safe: a writer relies on a file that is already there only when the manifest it replaces names it or the
file is younger than half of that day.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from lens_assets.science.errors import BadInput
from lens_assets.science.hashing import digest as digest_of
from lens_assets.science.storage.artefact import (
    MANIFEST,
    Artefact,
    folder_in,
    manifest_text,
    parse_manifest,
    safe_key,
    sha256_file,
)
from lens_assets.science.storage.cache import Cache
from lens_assets.science.storage.local import GENERATION
from lens_assets.science.storage.objects import Content, Found, Objects
from lens_assets.science.storage.store import DAY, Store

COLLECTING = ".collecting"
_ROUNDS = 50
"""Writers of one partition that may come between before one gives up."""


@dataclass(frozen=True)
class RemotePlace:
    """A content in a bucket, seen through the cache."""

    objects: Objects
    cache: Cache
    prefix: str
    digest: str
    files: tuple[dict[str, Any], ...]

    @property
    def uri(self) -> str:
        """``s3://`` address of the folder."""
        return self.objects.uri(self.prefix)

    def folder(self) -> Path:
        """The cache's folder of this content, with all its files."""
        for f in self.files:
            self._fetched(f)
        return self.cache.place(self.digest)

    def file(self, name: str) -> Path | None:
        """The cached copy, fetched when it is not here."""
        found = next((f for f in self.files if f["name"] == name), None)
        return self._fetched(found) if found else None

    def sha256(self, name: str) -> str | None:
        """Digest of the object's bytes; a cached copy that differs is dropped."""
        total, n = hashlib.sha256(), 0
        for piece in self.objects.stream(f"{self.prefix}/{safe_key(name)}"):
            total.update(piece)
            n += 1
        found = total.hexdigest()
        copy = self.cache.place(self.digest) / name
        if copy.is_file() and sha256_file(copy) != found:
            self.cache.drop(self.digest, name)
        return found if n or self.objects.head(f"{self.prefix}/{name}") else None

    def _fetched(self, f: dict[str, Any]) -> Path:
        key = f"{self.prefix}/{safe_key(f['name'])}"
        return self.cache.file(
            self.digest, f, lambda path: self.objects.download(key, path, int(f["bytes"])), self.objects.uri(key)
        )


class RemoteStore(Store, scheme="s3"):
    """All artefacts under one S3 prefix."""

    resumes = True

    def __init__(
        self, root: str | Path, *, cache: str | Path | None = None, max_cache_bytes: int | None = None
    ) -> None:
        self.objects = Objects.at(str(root))
        self.root = self.objects.uri()
        self.cache = Cache(cache, max_cache_bytes)

    def find(self, asset: str, partition: str = "all") -> Artefact | None:
        """See :meth:`Store.find`. One GET."""
        key = _home(asset, partition, MANIFEST)
        found = self.objects.read(key)
        if found is None:
            return None
        manifest = parse_manifest(found.data, self.objects.uri(key))
        files = tuple(manifest["files"])
        prefix = _home(asset, partition, folder_in(manifest))
        return Artefact(
            asset, partition, RemotePlace(self.objects, self.cache, prefix, manifest["digest"], files), manifest
        )

    def find_all(self, asset: str, partitions: Sequence[str]) -> list[Artefact | None]:
        """See :meth:`Store.find_all`. One GET each, several at a time."""
        if len(partitions) < 2:
            return super().find_all(asset, partitions)
        with ThreadPoolExecutor(min(16, len(partitions))) as pool:
            return list(pool.map(lambda partition: self.find(asset, partition), partitions))

    def assets(self) -> list[str]:
        """See :meth:`Store.assets`."""
        return self.objects.folders()

    def partitions(self, asset: str) -> list[str]:
        """See :meth:`Store.partitions`. Lists the keys of the asset (a request per thousand) and no other's: fewer
        requests than the manifests of its partitions, one by one, would take."""
        keys = (found.key.split("/") for found in self.objects.listing(f"{safe_key(asset)}/"))
        return sorted(parts[1] for parts in keys if len(parts) == 3 and parts[2] == MANIFEST)

    def delete(self, asset: str, partition: str) -> None:
        """See :meth:`Store.delete`. The files stay for :meth:`collect_garbage`: a writer may be relying on them."""
        self.objects.delete([_home(asset, partition, MANIFEST)])

    def release(self) -> None:
        """See :meth:`Store.release`."""
        self.cache.release()

    def evict(self, max_bytes: int | None = None) -> int:
        """See :meth:`Store.evict`."""
        return self.cache.evict(max_bytes)

    def _workshop(self, asset: str, partition: str) -> Path:
        return self.cache.folder / "drafts" / digest_of(self.root)[:12] / asset / partition

    def _publish(self, asset: str, partition: str, scratch: Path, manifest: dict[str, Any]) -> None:
        """Send the files that are not there, then the manifest on condition; again when another writer came between."""
        key = _home(asset, partition, MANIFEST)
        unused = f"{manifest['digest'][:16]}-{uuid.uuid4().hex[:8]}"
        for _ in range(_ROUNDS):
            seen = self.objects.read(key)
            folder = self._send(asset, partition, scratch, manifest, _named(seen), unused)
            text = manifest_text({**manifest, "folder": folder}).encode()
            if (seen and seen.data == text) or self.objects.put(key, text, seen.etag if seen else None):
                break
        else:
            raise OSError(f"{self.objects.uri(key)}: {_ROUNDS} other writers came between; is it made in a loop?")
        self.cache.adopt(manifest["digest"], scratch, manifest["files"])
        for old in scratch.parent.iterdir():
            if old.is_dir() and not old.name.startswith(".draft-"):
                shutil.rmtree(old, ignore_errors=True)

    def _send(
        self, asset: str, partition: str, scratch: Path, manifest: dict[str, Any], named: str | None, unused: str
    ) -> str:
        """Upload what is not there; returns the folder that now holds the files. An object is never overwritten by
        another: where one is damaged, or so old that it may be being collected, the files go to ``unused``."""
        folders = [str(manifest["digest"])[:16], unused]
        if named and named.startswith(folders[0]):
            folders.insert(0, named)
        for folder in dict.fromkeys(folders):
            missing = []
            for f in manifest["files"]:
                there = self.objects.head(_home(asset, partition, f"{folder}/{f['name']}"))
                if there is None:
                    missing.append(f)
                elif not _same(there, f) or not (folder == named or _age(there.modified) < DAY / 2):
                    break
            else:
                for f in missing:
                    target = _home(asset, partition, f"{folder}/{f['name']}")
                    self.objects.upload(scratch / f["name"], target, f["sha256"])
                return folder
        raise AssertionError(unused)

    def collect_garbage(self, older_than: float = DAY, *, dry_run: bool = False) -> list[str]:
        """See :meth:`Store.collect_garbage`. Lists everything below the root; keys that are not a store's are left.

        One collector at a time (``BlockingIOError`` while there is another): two could take away, the one by the list it
        made before the other deleted, what a writer has made again since.
        """
        if dry_run:
            return [self.objects.uri(key) for key in self._garbage(older_than, dry_run=True)]
        with self._alone():
            return [self.objects.uri(key) for key in self._garbage(older_than, dry_run=False)]

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the mark that a collector is at work; one that was left by a killed collector counts for a day."""
        mine, other = (
            f"{socket.gethostname()} {os.getpid()} {uuid.uuid4().hex}\n".encode(),
            self.objects.read(COLLECTING),
        )
        if (other and _age(other.modified) < DAY) or not self.objects.put(
            COLLECTING, mine, other.etag if other else None
        ):
            raise BlockingIOError(
                f"{self.objects.uri(COLLECTING)}: another collector is at work; if it was killed, remove this object"
            )
        try:
            yield
        finally:
            self.objects.delete([COLLECTING])

    def _garbage(self, older_than: float, *, dry_run: bool) -> list[str]:
        homes: dict[tuple[str, str], dict[str, list[Found]]] = {}
        for found in self.objects.listing():
            parts = found.key.split("/")
            if _ours(parts):
                homes.setdefault((parts[0], parts[1]), {}).setdefault(parts[2], []).append(found)
        removed: list[str] = []
        for home, folders in sorted(homes.items()):
            if all(_age(f.modified) < older_than for files in folders.values() for f in files):
                continue
            seen = self.objects.read("/".join((*home, MANIFEST)))
            named = _named(seen)
            if seen and (named is None or _age(seen.modified) < older_than):
                continue  # torn: nothing can be said; young: readers may hold the generation before
            for folder, files in sorted(folders.items()):
                if folder != named and all(_age(f.modified) >= older_than for f in files):
                    removed += [f.key for f in files]
        begun = [
            (key, upload)
            for key, upload, at in self.objects.unfinished()
            if _ours(key.split("/")) and _age(at) >= older_than
        ]
        if not dry_run:
            self.objects.delete(removed)
            for key, upload in begun:
                self.objects.abort(key, upload)
        return [*removed, *(f"{key}?uploadId={upload}" for key, upload in begun)]


def _home(asset: str, partition: str, name: str) -> str:
    return f"{safe_key(asset)}/{safe_key(partition)}/{name}"


def _ours(parts: list[str]) -> bool:
    """Whether this is the key of a file of an artefact."""
    return len(parts) == 4 and GENERATION.fullmatch(parts[2]) is not None


def _named(seen: Content | None) -> str | None:
    """The folder that the manifest names; ``None`` when there is no manifest, or a torn one."""
    if seen is None:
        return None
    try:
        return folder_in(parse_manifest(seen.data, ""))
    except BadInput:
        return None


def _same(there: Found, f: dict[str, Any]) -> bool:
    return (there.bytes, there.sha256) == (f["bytes"], f["sha256"])


def _age(moment: datetime) -> float:
    """Seconds since ``moment``; what the server's clock puts into our future counts as now."""
    return max((datetime.now(UTC) - moment) / timedelta(seconds=1), 0.0)
