"""What a training tells while it runs: to a tracker, to the caller, and from a process of its own to the one that waits.

Trainings on several devices run in processes that share nothing with the caller's log or tracker. There the first
process appends its news to a file, one JSON object a line, and a thread of the caller hands them on (``relayed``).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

_EVERY = 0.2  # seconds between two looks at the file


class Logger(Protocol):
    """What training tells a tracker."""

    def params(self, values: Mapping[str, Any]) -> None:
        """The effective configuration, once."""
        ...

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """The curves, once an epoch."""
        ...


class News(Protocol):
    """Who hears of a training."""

    def epoch(self, row: dict[str, Any]) -> None:
        """An epoch has ended: its row of the history, ``seconds`` it took, and ``at_most`` seconds to go."""
        ...

    def pulse(self, text: str) -> None:
        """A line now and then within a long epoch."""
        ...


@dataclass(frozen=True)
class Heard:
    """News for the tracker and the caller of this process."""

    logger: Logger | None = None
    progress: Callable[[dict[str, Any]], None] | None = None
    pulses: Callable[[str], None] | None = None

    def epoch(self, row: dict[str, Any]) -> None:
        if self.logger is not None:
            kept = {name: float(value) for name, value in row.items() if name not in ("epoch", "seconds", "at_most")}
            self.logger.metrics(kept, step=row["epoch"])
        if self.progress is not None:
            self.progress(row)

    def pulse(self, text: str) -> None:
        if self.pulses is not None:
            self.pulses(text)


@dataclass(frozen=True)
class Posted:
    """News for another process, by a file."""

    path: Path

    def epoch(self, row: dict[str, Any]) -> None:
        self._post({"epoch": row})

    def pulse(self, text: str) -> None:
        self._post({"pulse": text})

    def _post(self, line: dict[str, Any]) -> None:
        with self.path.open("a") as stream:
            stream.write(json.dumps(line) + "\n")


@contextmanager
def relayed(path: Path, heard: News) -> Iterator[Posted]:
    """While open, what is posted at ``path`` is told to ``heard``; all of it before the block is left."""
    path.unlink(missing_ok=True)
    over = threading.Event()
    faults: list[BaseException] = []

    def listen() -> None:
        read = 0
        while True:
            last = over.is_set()
            text = path.read_text()[read:] if path.is_file() else ""
            whole = text[: text.rfind("\n") + 1]
            read += len(whole)
            for line in whole.splitlines():
                (kind, value), *_ = json.loads(line).items()
                try:
                    heard.epoch(value) if kind == "epoch" else heard.pulse(value)
                except BaseException as fault:  # raised again in the caller's own thread
                    faults.append(fault)
                    return
            if last:
                return
            over.wait(_EVERY)

    thread = threading.Thread(target=listen, name="news", daemon=True)
    thread.start()
    try:
        yield Posted(path)
    finally:
        over.set()
        thread.join()
        path.unlink(missing_ok=True)
    if faults:
        raise faults[0]
