"""Publishing a release: a copy under its name and version that is complete or absent, and never changes afterwards."""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from pathlib import Path

from lens_assets.science.errors import BadInput
from lens_assets.science.storage import safe_key, sha256_file

_VERSION = re.compile(r"\d+\.\d+\.\d+([-+][0-9A-Za-z.\-]+)?")


class ReleaseExistsError(FileExistsError):
    """A release of this name and version was published with other bytes; give the new one another version."""


def checked_version(version: str) -> str:
    """``version`` if it is a semantic version (semver.org), else :class:`BadInput`."""
    if not _VERSION.fullmatch(version):
        raise BadInput(f"version {version!r} is not of the form 1.2.3 (semver.org)")
    return version


def verify(folder: str | Path) -> list[str]:
    """Check a release against its SHA256SUMS; returns its files. :class:`BadInput` names what is missing or differs."""
    folder = Path(folder)
    sums = folder / "SHA256SUMS"
    if not sums.is_file():
        raise BadInput("a release holds SHA256SUMS", file=str(sums))
    stated: dict[str, str] = {}
    for line in sums.read_text().splitlines():
        sha, _, name = line.partition("  ")
        stated[name] = sha
    found = {p.name for p in folder.iterdir() if p.name not in ("SHA256SUMS", "__pycache__")}
    for name in sorted(found ^ set(stated)):
        raise BadInput("not in SHA256SUMS" if name in found else "is missing", file=str(folder / name))
    for name, sha in stated.items():
        if sha256_file(folder / name) != sha:
            raise BadInput("its bytes differ from SHA256SUMS", file=str(folder / name))
    return sorted(stated)


def publish(artefact_folder: str | Path, releases_root: str | Path, version: str) -> Path:
    """Copy a written release to ``releases_root/NAME-VERSION``; returns that folder.

    The copy is made beside it and renamed, so a reader never sees half of it. Publishing the same bytes again changes
    nothing. Raises :class:`ReleaseExistsError` when that version holds other bytes, :class:`BadInput` when
    ``version`` is not the one the release was written with.
    """
    source, root = Path(artefact_folder), Path(releases_root)
    files = verify(source)
    headers = [f for f in files if f.startswith("surface") and f.endswith(".json")]
    if len(headers) != 1:
        raise BadInput(f"a release holds one surface*.json, not {len(headers)}", file=str(source))
    header = json.loads((source / headers[0]).read_text())
    if header["version"] != checked_version(version):
        raise BadInput(f"written as version {header['version']}, not {version}", file=str(source))
    final = root / safe_key(f"{header['name']}-{version}")
    if final.exists():
        return _same(source, final)
    root.mkdir(parents=True, exist_ok=True)
    scratch = root / f".publish-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    try:
        scratch.mkdir()
        for name in [*files, "SHA256SUMS"]:
            with open(source / name, "rb") as read, open(scratch / name, "wb") as write:
                shutil.copyfileobj(read, write)
                write.flush()
                os.fsync(write.fileno())
        try:
            os.rename(scratch, final)
        except OSError:
            if not final.exists():
                raise
            return _same(source, final)  # somebody else was first
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return final


def _same(source: Path, final: Path) -> Path:
    if (final / "SHA256SUMS").is_file() and (final / "SHA256SUMS").read_bytes() == (source / "SHA256SUMS").read_bytes():
        verify(final)
        return final
    raise ReleaseExistsError(
        f"{final} was published with other bytes; a version is never overwritten: raise the version"
    )
