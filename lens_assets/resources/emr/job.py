"""A job on EMR as its two kinds share it: submit, look, cancel, read the logs. And the loop that waits for one.

The loop is our own: botocore's waiters give up after 30 minutes while the cluster goes on (and on being paid for).
"""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

Phase = Literal["waiting", "running", "succeeded", "failed", "cancelled"]
PATIENCE_SECONDS = 600.0
"""How long the service may fail to answer before waiting is given up."""


@dataclass(frozen=True)
class State:
    """What the service says of a job; ``detail`` in its own words."""

    phase: Phase
    detail: str

    @property
    def over(self) -> bool:
        """Whether it will not change any more."""
        return self.phase in ("succeeded", "failed", "cancelled")


@dataclass(frozen=True)
class Handle:
    """A submitted job: ``owner`` is its cluster or application, ``metadata`` for the UI."""

    owner: str
    job: str
    metadata: dict[str, Any]


class Target(Protocol):
    """Where jobs run."""

    kind: str

    def submit(self, name: str, arguments: Sequence[str], tags: dict[str, str]) -> Handle:
        """Start the driver with ``arguments``; starts what it runs on when there is none."""

    def state(self, handle: Handle) -> State:
        """Its state now."""

    def cancel(self, handle: Handle) -> None:
        """Ask for its end."""

    def log_prefixes(self, handle: Handle) -> list[str]:
        """Key prefixes below the log URI under which its logs appear, the most telling first."""


class TookTooLong(RuntimeError):
    """The job did not end within ``max_hours``."""


def wait(
    target: Target,
    handle: Handle,
    *,
    max_hours: float,
    poll_seconds: float,
    say: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> State:
    """Look every ``poll_seconds`` until the job is over.

    Raises :class:`TookTooLong` after ``max_hours``. A service that does not answer is asked again for
    :data:`PATIENCE_SECONDS`: a job of hours is not given up for a failed look.
    """
    from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

    started = silent_since = clock()
    last = ""
    while True:
        try:
            state = target.state(handle)
            silent_since = clock()
            if state.detail != last:
                say(f"{target.kind} {handle.owner} {handle.job}: {state.detail}")
                last = state.detail
            if state.over:
                return state
        except (BotoCoreError, ClientError) as fault:
            if clock() - silent_since > PATIENCE_SECONDS:
                raise
            say(f"{target.kind}: no answer, asking again ({fault})")
        if clock() - started > 3600 * max_hours:
            raise TookTooLong(f"{target.kind} {handle.owner} {handle.job}: not over after {max_hours:g} h ({last})")
        sleep(poll_seconds)


def read_logs(s3: Any, bucket: str, prefixes: Sequence[str], *, since: datetime, lines: int = 60) -> str:
    """The last ``lines`` of every stdout and stderr (plain or gzipped) under the prefixes written after ``since``.

    Of YARN containers only the driver's (``..._000001``) are read. Empty while there is none.
    """
    found = []
    for prefix in prefixes:
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for item in page.get("Contents", []):
                key = str(item["Key"])
                if (
                    key.rsplit("/", 1)[-1].removesuffix(".gz") not in ("stdout", "stderr")
                    or item["LastModified"] < since
                ):
                    continue
                if "/containers/" in key and "_000001/" not in key:
                    continue
                body = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
                text = (gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body).decode("utf-8", "replace").strip()
                if text:
                    found.append(f"--- {key}\n" + "\n".join(text.splitlines()[-lines:]))
    return "\n".join(found)
