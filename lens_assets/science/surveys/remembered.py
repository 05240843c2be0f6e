"""The SHA-256 of a large file, computed once and remembered while the file stays the same file.

A sweep is a gigabyte, and every run that looks at its tile asks for its digest: whether the table is still made of these bytes.
Hashing costs three times as much as reading and proving the rows. The digest is remembered with what the system says of the
file: device, inode, size, time of change of content *and* of the inode, in nanoseconds. The last cannot be set by anybody
(``touch``, ``cp -p`` and ``rsync -t`` set only the former), so a rewritten file is another one. A file that changed a moment ago is
not remembered: a second change within the clock's tick would not show.

Not used: the DATASUM and CHECKSUM that a file carries. They are 32-bit sums that do not know the order of words, so a sweep
whose rows were sorted anew has the same; and a file that was edited without renewing them would pass for the old one.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from pathlib import Path

from lens_assets.science.hashing import digest
from lens_assets.science.storage import sha256_file

SETTLED_SECONDS = 5.0
"""A file that changed less than this ago is hashed every time."""


def sha256_remembered(path: Path, notes: Path | None) -> str:
    """SHA-256 (hex) of a file's bytes, from a note below the folder ``notes`` where it holds one of this very file.

    Without ``notes``, or when it cannot be written, the file is hashed. A file that changes while it is hashed is not remembered.
    """
    if notes is None:
        return sha256_file(path)
    note, before = notes / f"{digest(str(path.absolute()))[:24]}.json", _state(path)
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        told = json.loads(note.read_text())
        if told["file"] == str(path.absolute()) and told["state"] == before:
            return str(told["sha256"])
    found = sha256_file(path)
    if before == _state(path) and time.time() - max(before[-2:]) / 1e9 > SETTLED_SECONDS:
        with contextlib.suppress(OSError):
            notes.mkdir(parents=True, exist_ok=True)
            scratch = note.with_name(f".{note.name}.{uuid.uuid4().hex[:8]}")
            scratch.write_text(json.dumps({"file": str(path.absolute()), "state": before, "sha256": found}))
            os.replace(scratch, note)
    return found


def _state(path: Path) -> list[int]:
    s = path.stat()
    return [s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns]
