"""Local copies of remote files, so that everything that reads stays path-based: one folder a content, shared by all
processes of a machine.

A file appears under its name only after its SHA-256 was found to be the one in the manifest; its size is looked at
again on every use, so that one that was cut short is fetched again. The folder of a content holds its files and
nothing else.

Shrinking takes the contents used longest ago, and never one that a living process was handed: each process notes the
contents it uses in a file that it keeps locked (the kernel drops the lock with the process), and the shrinking reads
those notes. So a memory map stays, and so does a path that a data loader's worker opens later. A process that has come
to the end of a piece of work says so with :meth:`Cache.release`. The bound therefore holds across pieces of work; one
piece may exceed it by what it uses itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lens_assets.science.errors import BadInput
from lens_assets.science.storage.artefact import safe_key, sha256_file

_TOUCH = 60.0  # seconds between two notes of use of one content by one process


@dataclass
class _Lease:
    """What this process was handed, and the locked file that says so."""

    note: int | None = None  # descriptor, open as long as the process lives
    held: dict[str, float] = field(default_factory=dict)
    fetched: int = 0
    lock: threading.RLock = field(default_factory=threading.RLock)


_LEASES: dict[tuple[int, str], _Lease] = {}
_GUARD = threading.Lock()


class Cache:
    """The cache below ``folder``; ``max_bytes`` bounds it (``None``: no bound)."""

    def __init__(self, folder: str | Path | None = None, max_bytes: int | None = None) -> None:
        self.folder = Path(folder).absolute() if folder else _default_folder()
        self.max_bytes = max_bytes

    def place(self, digest: str) -> Path:
        """The folder of a content, there or not."""
        return self.folder / "artefacts" / safe_key(digest)

    def file(self, digest: str, wanted: dict[str, Any], fetch: Callable[[Path], None], uri: str) -> Path:
        """A file of a content; ``fetch`` is called with where to write it when it is not here whole.

        ``wanted`` is its entry in the manifest (``name``, ``bytes``, ``sha256``). :class:`BadInput` naming ``uri`` when
        what was fetched (twice) is not what the manifest names.
        """
        self._hold(digest)
        path = self.place(digest) / safe_key(wanted["name"])
        if _whole(path, wanted):
            return path
        with self._entry(digest):
            if _whole(path, wanted):  # another process was fetching it
                return path
            scratch = self._incoming()
            try:
                for last in (False, True):
                    fetch(scratch)
                    if scratch.stat().st_size == wanted["bytes"] and sha256_file(scratch) == wanted["sha256"]:
                        break
                    if last:
                        raise BadInput("its bytes differ from the manifest; materialise it again", file=uri)
                self._put(scratch, path)
            finally:
                scratch.unlink(missing_ok=True)
        self._trim(int(wanted["bytes"]))
        return path

    def adopt(self, digest: str, folder: Path, files: list[dict[str, Any]]) -> None:
        """Take over the files of a draft that has been published: its maker's readers need not fetch them."""
        self._hold(digest)
        with self._entry(digest):
            for f in files:
                path = self.place(digest) / f["name"]
                if not _whole(path, f) and _whole(folder / f["name"], f):
                    self._put(folder / f["name"], path)
        self._trim(sum(f["bytes"] for f in files))

    def drop(self, digest: str, name: str) -> None:
        """Forget a file that was found to be damaged."""
        (self.place(digest) / safe_key(name)).unlink(missing_ok=True)

    def size(self) -> int:
        """Bytes held."""
        return sum(size for _, size, _ in self._entries())

    def evict(self, max_bytes: int | None = None) -> int:
        """Remove the contents used longest ago until at most ``max_bytes`` (default: the bound) are left, sparing those
        in use; returns the bytes freed."""
        limit = self.max_bytes if max_bytes is None else max_bytes
        if limit is None or not self.folder.is_dir():
            return 0
        freed, victims = 0, []
        with self._all(exclusive=True):
            used = self._in_use()
            entries = sorted(self._entries())
            total = sum(size for _, size, _ in entries)
            for _, size, path in entries:
                if total - freed <= limit:
                    break
                if path.name not in used:
                    victim = self._incoming()
                    os.rename(path, victim)
                    victims.append(victim)
                    freed += size
            self._sweep()
        for victim in victims:
            shutil.rmtree(victim, ignore_errors=True)
        return freed

    def release(self) -> None:
        """State that this process holds no path any more."""
        lease = self._lease()
        with lease.lock:
            lease.held.clear()
            if lease.note is not None:
                os.ftruncate(lease.note, 0)

    def _lease(self) -> _Lease:
        with _GUARD:
            return _LEASES.setdefault((os.getpid(), str(self.folder)), _Lease())

    def _hold(self, digest: str) -> None:
        """Note that this process uses a content, before it looks for the files."""
        lease, now = self._lease(), time.time()
        with lease.lock:
            if now - lease.held.get(digest, 0.0) < _TOUCH and lease.note is not None:
                return
            with self._all(exclusive=False):
                if lease.note is None or os.fstat(lease.note).st_nlink == 0:  # new, or the cache was removed by hand
                    path = self._made("leases") / f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
                    lease.note = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
                    fcntl.flock(lease.note, fcntl.LOCK_EX)
                    os.write(lease.note, "".join(f"{name}\n" for name in lease.held).encode())
                if digest not in lease.held:
                    os.write(lease.note, f"{digest}\n".encode())
                lease.held[digest] = now
            with contextlib.suppress(FileNotFoundError):
                os.utime(self.place(digest))

    def _in_use(self) -> set[str]:
        """Contents of living processes; notes of the dead are removed. The caller holds the cache exclusively."""
        used: set[str] = set()
        for path in self._made("leases").iterdir():
            with open(path) as stream:
                try:
                    fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    used.update(stream.read().split())
                else:
                    path.unlink()
        return used

    def _trim(self, fetched: int) -> None:
        if self.max_bytes is None:
            return
        lease = self._lease()
        with lease.lock:
            lease.fetched += fetched
            due = lease.fetched * 20 >= self.max_bytes
            lease.fetched = 0 if due else lease.fetched
        if due:
            self.evict()

    def _entries(self) -> list[tuple[float, int, Path]]:
        """(last use, bytes, folder) of every content."""
        found = []
        place = self.folder / "artefacts"
        for path in place.iterdir() if place.is_dir() else ():
            with contextlib.suppress(FileNotFoundError):
                found.append((path.stat().st_mtime, sum(f.stat().st_size for f in path.iterdir()), path))
        return found

    def _put(self, scratch: Path, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch.chmod(0o444)
        os.replace(scratch, path)

    def _incoming(self) -> Path:
        return self._made("incoming") / f"{os.getpid()}-{uuid.uuid4().hex}"

    def _sweep(self) -> None:
        from lens_assets.science.storage.store import alive

        for path in self._made("incoming").iterdir():
            if not alive(int(path.name.split("-")[0])):
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)

    def _made(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @contextlib.contextmanager
    def _all(self, *, exclusive: bool) -> Iterator[None]:
        """Handing out (shared) and shrinking (exclusive) exclude each other."""
        with open(self._made("locks") / "all", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
            yield

    @contextlib.contextmanager
    def _entry(self, digest: str) -> Iterator[None]:
        """One process fetches into a content at a time (two in 256 pairs of contents share a lock)."""
        with open(self._made("locks") / digest[:2], "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _whole(path: Path, wanted: dict[str, Any]) -> bool:
    try:
        return path.stat().st_size == int(wanted["bytes"])
    except FileNotFoundError:
        return False


def _default_folder() -> Path:
    """``LENS_ASSETS_CACHE``, else a folder of this user's own below the system's temporary one."""
    named = os.environ.get("LENS_ASSETS_CACHE", "")
    if named:
        return Path(named).absolute() / "store"
    folder = Path(tempfile.gettempdir()) / f"lens-assets-cache-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise BadInput("belongs to another user; set LENS_ASSETS_CACHE", file=str(folder))
    return folder
