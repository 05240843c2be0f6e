"""A data release at a root: a folder, ``file:``, ``s3://`` or ``https://``, laid out like the public DR10.

The only place that knows whether a file is near or far. Remote files are fetched whole into a cache (to a temporary
name, then renamed) and read from there; a local release is read in place. A failed listing is an error, never an
empty list, and a file counts as missing only when the server says so: a failed connection is not a missing band.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import polars as pl

from lens_assets.science.errors import BadInput, Rejections
from lens_assets.science.hashing import digest
from lens_assets.science.surveys.bricks import PRODUCTS, Brick
from lens_assets.science.surveys.layout import BANDS, SWEEP_DIR, brick_of_name, tile_of_file, tile_of_key
from lens_assets.science.surveys.remembered import sha256_remembered
from lens_assets.science.surveys.settings import Settings
from lens_assets.science.surveys.sweeps import read_sweep

_SCHEMES = ("s3", "http", "https")


class DataRelease:
    """A release to read. Cheap to make (nothing is opened) and safe to pickle.

    Parameters
    ----------
    root : path, ``file:`` URL, ``s3://bucket/prefix`` or ``https://server/path``, the folder that holds ``south/``.
    cache : folder for remote files, required for a remote root, and for notes of what large files are (their digests).
    tiles : keys of the sweeps, for servers that give no directory listing.
    options : passed to fsspec's file system, for instance ``{"anon": True}`` for a public bucket.
    """

    def __init__(
        self,
        root: str,
        cache: Path | None = None,
        *,
        tiles: Sequence[str] | None = None,
        settings: Settings | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        scheme = urlsplit(root).scheme
        self.remote = "://" in root and scheme != "file"
        if self.remote and scheme not in _SCHEMES:
            raise BadInput(f"the release root {root!r} must be a path, file:, s3:// or https://")
        if self.remote and cache is None:
            raise BadInput(f"a remote release ({root}) needs a cache folder")
        self.root = root.rstrip("/") if self.remote else str(Path(urlsplit(root).path if scheme == "file" else root))
        self.cache = Path(cache) / digest(self.root)[:12] if cache and self.remote else None
        self.notes = Path(cache) / "digests" if cache else None
        self.settings = settings or Settings()
        self.options = dict(options or {})
        self._tiles = None if tiles is None else sorted(tile_of_key(t).key for t in tiles)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_fs"}

    def __repr__(self) -> str:
        return f"DataRelease({self.root!r})"

    @cached_property
    def _fs(self) -> Any:
        import fsspec

        return fsspec.filesystem(urlsplit(self.root).scheme, use_listings_cache=False, **self.options)

    def tiles(self) -> list[str]:
        """Sorted keys of the sweeps present.

        A folder that exists and is empty gives an empty list; one that cannot be listed raises :class:`BadInput` (it is
        not there) or ``OSError`` (the server failed).
        """
        if self._tiles is not None:
            return list(self._tiles)
        names = [n for n in self._names(SWEEP_DIR) if n.startswith("sweep-") and n.endswith(".fits")]
        if not names and self.root.startswith("http"):
            raise BadInput("the server lists no sweeps here; give the tiles by name", file=f"{self.root}/{SWEEP_DIR}")
        return sorted(tile_of_file(name).key for name in names)

    def has_sweep(self, tile: str) -> bool:
        """Whether the release has a sweep of this tile: one look at one file. A server that fails raises."""
        if self._tiles is not None:
            return tile in self._tiles
        relative = tile_of_key(tile).path
        try:
            self._identity(relative) if self.remote else self._present(relative)
        except _Missing:
            return False
        return True

    def sweep_identity(self, tile: str) -> str:
        """A cheap version of a sweep (size and time of change, or the server's ETag): it changes when the file does."""
        relative = tile_of_key(tile).path
        if not self.remote:
            path = self._present(relative)
            stat = path.stat()
            return f"{stat.st_size}-{stat.st_mtime_ns}"
        return self._identity(relative)

    def sweep_path(self, tile: str) -> Path:
        """The sweep as a local file; fetched again when the remote one has changed."""
        relative = tile_of_key(tile).path
        return self._fetch(relative, version=self._identity(relative)) if self.remote else self._present(relative)

    def sweep(self, tile: str) -> tuple[pl.DataFrame, Rejections]:
        """The ``sweeps`` table of a tile and its counted rejections: see :func:`read_sweep`."""
        return read_sweep(self.sweep_path(tile), tile, self.settings)

    def sweep_digest(self, tile: str) -> str:
        """SHA-256 of the sweep's bytes, for lineage. Reads the whole file, once: see ``remembered``."""
        return sha256_remembered(self.sweep_path(tile), self.notes)

    def brick(self, brickname: str, products: Sequence[str] = PRODUCTS) -> Brick:
        """Open a brick: all of ``products`` for g, r, z and the mask; see :class:`Brick`. Remote files are fetched
        once and then trusted (a published release does not change its coadds: clear the cache if a mirror was
        rewritten)."""
        cell = brick_of_name(brickname)
        wanted = [(p, b) for p in products for b in BANDS] + [("maskbits", "")]
        paths = {}
        for product, band in wanted:
            relative = cell.coadd(product, band or None)
            with contextlib.suppress(_Missing):
                paths[product, band] = self._fetch(relative) if self.remote else self._present(relative)
        if not paths:
            raise BadInput(
                f"the release has no coadds of brick {brickname}", file=f"{self.root}/{cell.coadd('image', 'r')}"
            )
        return Brick(cell, paths, self.settings.verify_datasum)

    def _names(self, folder: str) -> list[str]:
        if not self.remote:
            try:
                return os.listdir(f"{self.root}/{folder}")
            except (FileNotFoundError, NotADirectoryError) as fault:
                raise BadInput(
                    "no such folder: is this the root of a DR10 release?", file=f"{self.root}/{folder}"
                ) from fault
        url = f"{self.root}/{folder}/"
        try:
            return [str(n).rstrip("/").rsplit("/", 1)[-1] for n in self._fs.ls(url, detail=False)]
        except FileNotFoundError as fault:
            raise BadInput(
                "no such folder, or the server does not list it; give the tiles by name", file=url
            ) from fault

    def _present(self, relative: str) -> Path:
        path = Path(self.root) / relative
        if not path.is_file():
            raise _Missing("the release has no such file", file=str(path))
        return path

    def _identity(self, relative: str) -> str:
        url = f"{self.root}/{relative}"
        try:
            info = self._fs.info(url)
        except FileNotFoundError as fault:
            status = getattr(fault.__cause__, "status", 404 if fault.__cause__ is None else None)
            if self.root.startswith("http") and status != 404:
                raise OSError(f"{url}: the server failed ({fault.__cause__!r})") from fault
            raise _Missing("the release has no such file", file=url) from fault
        version = next((info[k] for k in ("ETag", "Last-Modified", "LastModified") if info.get(k)), "")
        return f"{info.get('size')}-{version}".replace('"', "")

    def _fetch(self, relative: str, version: str | None = None) -> Path:
        """The cached copy of a remote file, downloaded when absent (or when ``version`` is not the one cached)."""
        assert self.cache is not None
        path, note = self.cache / relative, self.cache / f"{relative}.version.json"
        if path.is_file() and (version is None or (note.is_file() and json.loads(note.read_text()) == version)):
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        url, scratch = f"{self.root}/{relative}", path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        try:
            self._fs.get_file(url, str(scratch))
            if version is not None and not version.startswith((f"{scratch.stat().st_size}-", "None-")):
                raise OSError(
                    f"{url}: the download stopped at {scratch.stat().st_size} bytes of {version.split('-')[0]}"
                )
            _sync(scratch)
            note.unlink(missing_ok=True)
            os.replace(scratch, path)
        except FileNotFoundError as fault:
            raise _Missing("the release has no such file", file=url) from fault
        finally:
            scratch.unlink(missing_ok=True)
        if version is not None:
            temporary = note.with_name(f".{note.name}.{uuid.uuid4().hex[:8]}")
            temporary.write_text(json.dumps(version))
            os.replace(temporary, note)
        return path


class _Missing(BadInput):
    """The file is not in the release: for a coadd, a band without exposures."""


def _sync(path: Path) -> None:
    with open(path, "rb") as stream:
        os.fsync(stream.fileno())
