"""Asking the viewer politely, and never twice for what has been answered.

One file a position below a work folder keyed by the settings: the answer as it came (``<id>.fits``), or why it was not
taken (``<id>.json``). Both appear by rename after a sync, so a run killed at any moment finds every finished position
again and asks for the rest only. What the *server* failed to give is asked again by the next run; what the answer itself
rules out is not.

Politeness: one token bucket for all workers; waits that double with every try, jittered by the position's own hash (the
same run waits the same, neighbours do not knock together); ``Retry-After`` holds back everybody; a server that fails
position after position ends the run instead of being hammered.
"""

from __future__ import annotations

import email.utils
import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import urllib3

from lens_assets import __version__
from lens_assets.science.cutouts.settings import Settings, ViewerSettings
from lens_assets.science.cutouts.viewer import (
    BROKEN,
    OUTSIDE,
    SIZE,
    TEXT,
    Position,
    Refusal,
    parse_cutout,
    refuse_by_position,
    url_of,
)
from lens_assets.science.errors import BadInput
from lens_assets.science.hashing import key_of_id, uniform

UNANSWERED = "the viewer did not answer"
FAILED = "the viewer failed (status 500): no overlap, or an unreadable file"
SERVERS_FAULT = (UNANSWERED, FAILED, TEXT, BROKEN)
"""Reasons that say nothing about the position: asked again by the next run, and bounded in a shard."""
_MOST_BYTES = 64 * 2**20
Progress = Callable[[int, int], None]


@dataclass
class TokenBucket:
    """At most ``rate`` starts a second over any length of time, ``burst`` at once; ``hold`` stops everybody for a
    while."""

    rate: float
    burst: int = 1
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], object] = time.sleep
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        self._tokens, self._at, self._held = float(self.burst), self.clock(), 0.0

    def take(self) -> None:
        """Wait for a token."""
        while True:
            with self._lock:
                now = self.clock()
                self._tokens = min(self.burst, self._tokens + (now - self._at) * self.rate)
                self._at = now
                wait = max(self._held - now, (1 - self._tokens) / self.rate)
                if wait <= 1e-9:  # what rounding leaves of a token is no reason to sleep again
                    self._tokens = max(self._tokens - 1, 0.0)
                    return
            self.sleep(wait)

    def hold(self, seconds: float) -> None:
        """No token before ``seconds`` from now."""
        with self._lock:
            self._held = max(self._held, self.clock() + seconds)


def wait_before(attempt: int, galaxy_id: str, settings: ViewerSettings) -> float:
    """Seconds before try ``attempt`` (1: the second one): ``backoff * 2^(attempt - 1)`` times 0.5 to 1.5 by the hash of
    (galaxy, attempt), at most ``backoff_max``."""
    jitter = 0.5 + float(uniform([key_of_id(galaxy_id)], attempt)[0])
    return float(min(settings.backoff * 2.0 ** (attempt - 1) * jitter, settings.backoff_max))


def retry_after(value: str | None, now: datetime | None = None) -> float:
    """Seconds of a ``Retry-After`` header (a number or a date; RFC 9110, 10.2.3); 0 when absent or unreadable."""
    if not value:
        return 0.0
    try:
        return max(float(value), 0.0)
    except ValueError:
        pass
    try:
        when = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max((when - (now or datetime.now(UTC))).total_seconds(), 0.0)


class ViewerCache:
    """The answers on disk: one file a position, whole or absent."""

    def __init__(self, work: str | Path, settings: Settings) -> None:
        self.folder = Path(work) / f"viewer-{settings.digest[:16]}"
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.glob(".new-*"):
            try:
                os.kill(int(path.name.split("-")[1]), 0)
            except ProcessLookupError:
                path.unlink(missing_ok=True)
            except PermissionError:
                continue

    def body(self, galaxy_id: str) -> bytes | None:
        """The answer, if there is one."""
        try:
            return (self.folder / f"{galaxy_id}.fits").read_bytes()
        except FileNotFoundError:
            return None

    def refusal(self, galaxy_id: str) -> dict[str, Any] | None:
        """``reason, detail, final`` of an answer that was not taken."""
        try:
            found: dict[str, Any] = json.loads((self.folder / f"{galaxy_id}.json").read_text())
        except FileNotFoundError:
            return None
        return found

    def settled(self, galaxy_id: str) -> bool:
        """Whether asking again would be pointless."""
        if (self.folder / f"{galaxy_id}.fits").is_file():
            return True
        refused = self.refusal(galaxy_id)
        return refused is not None and bool(refused["final"])

    def keep(self, galaxy_id: str, body: bytes) -> None:
        """Store an answer."""
        self._write(f"{galaxy_id}.fits", body)
        (self.folder / f"{galaxy_id}.json").unlink(missing_ok=True)

    def refuse(self, galaxy_id: str, refusal: Refusal, *, final: bool) -> None:
        """Store why there is none."""
        text = json.dumps({"reason": refusal.reason, "detail": refusal.detail, "final": final}, sort_keys=True)
        self._write(f"{galaxy_id}.json", text.encode())

    def _write(self, name: str, data: bytes) -> None:
        scratch = self.folder / f".new-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        with open(scratch, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(scratch, self.folder / name)


class Fetcher:
    """Fetches positions into a cache. ``sleep`` and ``clock`` are for tests."""

    def __init__(
        self,
        settings: Settings,
        cache: ViewerCache,
        sleep: Callable[[float], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings, self.cache = settings, cache
        self._lock, self._failures, self._end = threading.Lock(), 0, threading.Event()
        self.sleep = sleep = sleep or self._end.wait  # a run that ends does not wait out its pauses
        v = settings.viewer
        self.bucket = TokenBucket(v.rate, v.burst, clock, sleep)
        self.pool = urllib3.PoolManager(
            maxsize=v.workers,
            timeout=urllib3.Timeout(connect=v.connect_timeout, read=v.read_timeout),
            headers={"User-Agent": f"lens-assets/{__version__}", "Accept": "image/fits, application/fits, */*"},
        )
        self.requests = 0

    def fetch(self, positions: Sequence[Position], progress: Progress | None = None) -> None:
        """Settle every position that is not settled yet.

        Raises :class:`BadInput` when the run cannot go on (unknown layer, a server that fails or asks for a longer rest
        than is allowed); what was answered until then is kept.
        """
        waiting = [p for p in positions if not self.cache.settled(p.galaxy_id)]
        done = len(positions) - len(waiting)
        with ThreadPoolExecutor(self.settings.viewer.workers) as pool:
            futures = [pool.submit(self._settle, p) for p in waiting]
            try:
                for future in futures:
                    future.result()
                    done += 1
                    if progress:
                        progress(done, len(positions))
            except BaseException:
                self._end.set()
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def _settle(self, position: Position) -> None:
        if self._end.is_set():
            return
        try:
            refuse_by_position(position, self.settings)
            body = self._persist(position)
        except Refusal as refusal:
            self.cache.refuse(position.galaxy_id, refusal, final=not refusal.again)
            self._count(refusal.again)
        except BadInput:
            self._end.set()
            raise
        else:
            self.cache.keep(position.galaxy_id, body)
            self._count(False)

    def _count(self, failed: bool) -> None:
        with self._lock:
            self._failures = self._failures + 1 if failed else 0
            n = self._failures
        if n >= self.settings.viewer.give_up_after:
            self._end.set()
            raise BadInput(
                f"the viewer failed {n} positions in a row; what was answered is kept, start again later",
                file=self.settings.viewer.base_url,
            )

    def _persist(self, position: Position) -> bytes:
        """Try until there is an answer, it is ruled out, or the attempts are used up."""
        last = Refusal(UNANSWERED, again=True)
        for attempt in range(self.settings.viewer.attempts):
            if attempt:
                self.sleep(wait_before(attempt, position.galaxy_id, self.settings.viewer))
            self.bucket.take()
            if self._end.is_set():
                break
            try:
                return self._ask(position)
            except Refusal as refusal:
                if not refusal.again:
                    raise
                last = refusal
        raise last

    def _ask(self, position: Position) -> bytes:
        with self._lock:
            self.requests += 1
        try:
            # No retries of urllib3's own: ours are counted, paced and recorded.
            retries = urllib3.Retry(total=None, connect=0, read=0, status=0, other=0, redirect=3)
            answer = self.pool.request("GET", url_of(position, self.settings), retries=retries, preload_content=False)
            try:
                body = answer.read(_MOST_BYTES + 1)
            except BaseException:
                answer.close()
                raise
            if len(body) > _MOST_BYTES:
                answer.close()
                raise Refusal(SIZE, f"more than {_MOST_BYTES} bytes")
            answer.release_conn()
        except urllib3.exceptions.HTTPError as fault:
            raise Refusal(UNANSWERED, type(fault).__name__, again=True) from fault
        if answer.status == 200:
            parse_cutout(body, answer.headers, position, self.settings)
            return body
        words = " ".join(body[:200].decode("utf-8", "replace").split())[:120]
        if answer.status in (429, 503):
            pause = retry_after(answer.headers.get("Retry-After"))
            if pause > self.settings.viewer.retry_after_max:
                raise BadInput(
                    f"the viewer asks to wait {pause:.0f} s; what was answered is kept, start again later",
                    file=self.settings.viewer.base_url,
                )
            self.bucket.hold(pause)
            raise Refusal(UNANSWERED, f"status {answer.status}", again=True)
        if answer.status == 500:
            if "no overlap" in words.lower():
                raise Refusal(OUTSIDE, words)
            raise Refusal(FAILED, words, again=True)
        if 400 <= answer.status < 500:
            raise BadInput(
                f"the viewer refuses the request with status {answer.status}: {words!r}",
                file=url_of(position, self.settings),
            )
        raise Refusal(UNANSWERED, f"status {answer.status}", again=True)
