"""The store: find, get, list, make and remove artefacts under one root, a local folder or an S3 prefix.

``Store(root)`` is the only door: the root's form decides which of the two it is, so nothing above this package knows.
Both keep ``<asset>/<partition>/manifest.json`` and, beside it, one folder a content, ``<digest16>/<file>``: a local
store copied into a bucket (``aws s3 sync``) is a store, and back. Finding and getting read one manifest; making lists
nothing. Only :meth:`Store.partitions`, :meth:`Store.assets` and :meth:`Store.collect_garbage` list, and no step of a
partition calls them (two of the checks that look across all partitions do).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

from lens_assets.science.errors import BadInput
from lens_assets.science.storage.artefact import Artefact, Draft, manifest_of, manifest_text, safe_key

DAY = 86_400.0


class Store:
    """All artefacts under one root.

    Parameters
    ----------
    root : a folder (path or ``file:`` URL) or ``s3://bucket/prefix``. Credentials and region are boto3's own affair
        (environment, profile, instance role); another server than AWS is named by ``AWS_ENDPOINT_URL_S3``.
    cache : folder for the local copies of remote files; unused for a local root. ``None``: ``LENS_ASSETS_CACHE``, else a
        private folder below the system's temporary one.
    max_cache_bytes : bound of that cache; ``None`` is unbounded. See :class:`~lens_assets.science.storage.cache.Cache`.

    Cheap to make (nothing is opened or asked) and safe to pickle.
    """

    root: Path | str
    resumes: ClassVar[bool] = False
    """Whether finished drafts are kept until they are published: where that takes minutes."""
    _kinds: ClassVar[dict[str, type[Store]]] = {}

    def __init_subclass__(cls, *, scheme: str) -> None:
        Store._kinds[scheme] = cls

    def __new__(cls, root: str | Path = "", **_: Any) -> Store:
        """The store for this kind of root."""
        if cls is not Store:
            return super().__new__(cls)
        text = str(root)
        scheme = text.partition(":")[0] if "://" in text or text.startswith("file:") else "file"
        if scheme not in cls._kinds:
            raise BadInput(f"a store is a folder or s3://bucket/prefix, not {text!r}")
        return super().__new__(cls._kinds[scheme])

    def __init__(
        self, root: str | Path, *, cache: str | Path | None = None, max_cache_bytes: int | None = None
    ) -> None:
        self.root = root if isinstance(root, Path) else _path_of(root)

    def __repr__(self) -> str:
        return f"Store({str(self.root)!r})"

    def find(self, asset: str, partition: str = "all") -> Artefact | None:
        """The artefact, or ``None`` while it is absent. One read of one manifest."""
        raise NotImplementedError

    def find_all(self, asset: str, partitions: Sequence[str]) -> list[Artefact | None]:
        """:meth:`find` for each of ``partitions``, in their order."""
        return [self.find(asset, partition) for partition in partitions]

    def get(self, asset: str, partition: str = "all") -> Artefact:
        """The artefact; ``FileNotFoundError`` that says how to make it while it is absent."""
        found = self.find(asset, partition)
        if found is None:
            raise FileNotFoundError(f"{asset}[{partition}] has not been materialised under {self.root}")
        return found

    def assets(self) -> list[str]:
        """Sorted names of the assets that have, or had, an artefact. Lists the root."""
        raise NotImplementedError

    def partitions(self, asset: str) -> list[str]:
        """Sorted keys of the complete partitions of an asset. Lists that asset: not for the path of one partition."""
        raise NotImplementedError

    @contextlib.contextmanager
    def draft(
        self, asset: str, partition: str = "all", *, made_from: Mapping[str, Any] | None = None
    ) -> Iterator[Draft]:
        """Make an artefact: write files through the yielded :class:`Draft`; it becomes visible when the block ends.

        ``made_from`` (code version, configuration, input digests) is stored and its digest is the fingerprint. If the
        block raises, or the process dies, the previous artefact stays as it was. Of writers that finish together the
        last one's artefact stands, whole.
        """
        home = self._workshop(safe_key(asset), safe_key(partition))
        home.mkdir(parents=True, exist_ok=True)
        for dead in _dead_drafts(home):
            _discard(dead)
        scratch = home / f".draft-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        scratch.mkdir()
        try:
            draft = Draft(scratch)
            yield draft
            manifest = manifest_of(asset, partition, scratch, draft.facts, made_from or {})
            if self.resumes:
                _note(scratch).write_text(manifest_text(manifest))
            try:
                self._publish(asset, partition, scratch, manifest)
            except OSError:
                if self.resumes:
                    _rename(scratch, "kept")
                raise
        finally:
            _discard(scratch, noted=self.resumes)

    def resume(self, asset: str, partition: str, made_from: Mapping[str, Any]) -> Artefact | None:
        """Publish what was made on this machine from exactly ``made_from`` but whose upload was cut off (the process
        killed, the network gone); ``None`` when there is nothing of the kind. Looks at the local disk only.

        To be called before :meth:`draft`, which clears such remains away: a large artefact is then sent again, not
        made again, and of its files only those that had not arrived.
        """
        home = self._workshop(safe_key(asset), safe_key(partition))
        for dead in _dead_drafts(home) if self.resumes and home.is_dir() else ():
            try:
                mine = _rename(dead, str(os.getpid()))  # whoever renames it has it
            except FileNotFoundError:
                continue
            try:
                manifest = _whole(mine, made_from)
                if manifest is not None:
                    self._publish(asset, partition, mine, manifest)
                    return self.find(asset, partition)
            except OSError:
                _rename(mine, "kept")
                raise
            finally:
                _discard(mine)
        return None

    def delete(self, asset: str, partition: str) -> None:
        """Remove an artefact: the manifest first, so that it is absent before it is incomplete."""
        raise NotImplementedError

    def collect_garbage(self, older_than: float = DAY, *, dry_run: bool = False) -> list[str]:
        """Remove what no manifest names and no process is making: remains of killed writers, generations before the
        last. Returns the addresses of what was (``dry_run``: would be) removed.

        ``older_than`` (seconds) spares what may be in the hands of a reader or a writer: everything younger, and every
        old generation of a partition that was published less than this ago. Below a day only when nothing else runs.
        """
        raise NotImplementedError

    def release(self) -> None:
        """State that this process holds no local path of a remote artefact any more, so that the cache may drop them."""

    def evict(self, max_bytes: int | None = None) -> int:
        """Shrink the cache of remote files to ``max_bytes`` (default: its bound); returns the bytes freed."""
        return 0

    def _workshop(self, asset: str, partition: str) -> Path:
        """The local folder in which drafts of a partition are made."""
        raise NotImplementedError

    def _publish(self, asset: str, partition: str, scratch: Path, manifest: dict[str, Any]) -> None:
        """Make a finished draft the artefact."""
        raise NotImplementedError


def _path_of(root: str) -> Path:
    return Path(unquote(urlsplit(root).path) if root.startswith("file:") else root)


def _note(scratch: Path) -> Path:
    return scratch.with_name(f"{scratch.name}.json")


def _discard(scratch: Path, *, noted: bool = True) -> None:
    if noted:
        _note(scratch).unlink(missing_ok=True)
    if scratch.exists():
        shutil.rmtree(scratch, ignore_errors=True)


def _whole(scratch: Path, made_from: Mapping[str, Any]) -> dict[str, Any] | None:
    """The manifest of a finished draft whose bytes are still those it states; ``None`` for any other."""
    try:
        manifest: dict[str, Any] = json.loads(_note(scratch).read_text())
    except (FileNotFoundError, ValueError):
        return None  # its maker was killed before it had finished
    args = (manifest["asset"], manifest["partition"], scratch, manifest["facts"], made_from)
    return manifest if manifest == json.loads(manifest_text(manifest_of(*args))) else None


def _rename(scratch: Path, owner: str) -> Path:
    """Hand a draft and its note to another owner: a process id, or "kept"."""
    final = scratch.with_name(f".draft-{owner}-{uuid.uuid4().hex[:8]}")
    os.rename(scratch, final)
    with contextlib.suppress(FileNotFoundError):
        os.rename(_note(scratch), _note(final))
    return final


def _dead_drafts(home: Path) -> list[Path]:
    """Drafts of processes that are gone (a kill -9 leaves one behind), and those kept for :meth:`Store.resume`."""
    found = []
    for path in sorted(home.glob(".draft-*")):
        owner = path.name.split("-")[1]
        if path.suffix != ".json" and (owner == "kept" or not alive(int(owner))):
            found.append(path)
    return found


def alive(pid: int) -> bool:
    """Whether a process of this machine has this id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
