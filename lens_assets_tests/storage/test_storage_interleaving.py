"""Writers, readers, a deleter and a collector that come between each other's requests to S3, in any order."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lens_assets.science.hashing import generator
from lens_assets.science.storage import Store, artefact, remote
from lens_assets.science.storage.cache import Cache
from lens_assets.science.storage.objects import Content, Found

EPOCH = datetime(2026, 11, 23, tzinfo=UTC)


class Bucket:
    """Objects in memory with a clock; before each request whatever the script says next happens."""

    def __init__(self, script: list[tuple[str, int]]) -> None:
        self.held: dict[str, tuple[bytes, datetime]] = {}
        self.now, self.script, self.depth = EPOCH, list(script), 0
        self.act: dict[str, Callable[[int], object]] = {}
        self.patience = 0

    def between(self) -> None:
        """Let the next thing of the script happen, whole, between two requests of what is going on."""
        if self.script and self.depth < 2:
            what, value = self.script.pop(0)
            if what != "go on":
                self.depth += 1
                self.act[what](value)
                self.depth -= 1

    def read(self, key: str) -> Content | None:
        self.between()
        if key not in self.held:
            return None
        data, at = self.held[key]
        return Content(data, hashlib.md5(data).hexdigest(), at)

    def head(self, key: str) -> Found | None:
        self.between()
        if key not in self.held:
            return None
        data, at = self.held[key]
        return Found(key, len(data), at, hashlib.sha256(data).hexdigest())

    def upload(self, path: Path, key: str, sha256: str) -> None:
        self.between()
        self.held[key] = (path.read_bytes(), self.now)

    def put(self, key: str, data: bytes, replaces: str | None) -> bool:
        self.between()
        there = self.held.get(key)
        if (hashlib.md5(there[0]).hexdigest() if there else None) != replaces:
            return False
        self.held[key] = (data, self.now)
        return True

    def listing(self, below: str = "") -> Iterator[Found]:
        self.between()
        return iter([Found(k, len(d), at) for k, (d, at) in self.held.items() if k.startswith(below)])

    def delete(self, keys: list[str]) -> None:
        for key in keys:
            self.between()
            self.held.pop(key, None)

    def unfinished(self) -> Iterator[tuple[str, str, datetime]]:
        return iter(())

    def uri(self, key: str = "") -> str:
        return f"s3://memory/{key}"


def content(value: int) -> list[bytes]:
    """The files of a content: the first differs, the second is shared by pairs of contents."""
    return [b"a%d" % value, b"b%d" % (value // 2)]


def whole(bucket: Bucket, manifest: dict) -> bool:
    """Whether everything that a manifest names is there with its bytes."""
    for f in manifest["files"]:
        key = f"thing/p1/{manifest['folder']}/{f['name']}"
        if key not in bucket.held or hashlib.sha256(bucket.held[key][0]).hexdigest() != f["sha256"]:
            return False
    return True


ACTS = ["write", "write", "write", "collect", "wait", "wait", "find", "delete"]
FREQUENT = [0.4, 0.25, 0.1, 0.03]  # of something between two requests: several at once hide what one alone breaks


def story(seed: int) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """What happens between requests, and what happens in the open, drawn from a seed."""
    rng = generator("interleaving", seed)
    rate = FREQUENT[seed % len(FREQUENT)]

    def one(chance: float) -> tuple[str, int]:
        return (
            ACTS[rng.integers(len(ACTS) - int(seed % 3 > 0))] if rng.random() < chance else "go on",
            int(rng.integers(4)),
        )

    return [one(rate) for _ in range(200)], [one(1.0) for _ in range(12)]


LATE = ([], [("write", 1), ("wait", 3), ("find", 0), ("write", 2), ("collect", 0)])
"""A reader holds what was just superseded when the collector comes."""


GONE = (
    [*[("go on", 0)] * 8, ("delete", 0), ("go on", 0), ("collect", 0)],
    [("write", 1), ("wait", 3), ("write", 1)],
)
"""What a writer had found in place is deleted and collected before it puts its manifest."""


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(told=st.integers(0, 2**32).map(story))
@example(told=LATE)
@example(told=GONE)
@example(told=story(533))  # two collectors at once
def test_what_the_manifest_names_is_always_there_and_stays_for_a_day_for_whoever_found_it(tmp_path, told):
    script, first = told
    bucket = Bucket(script)
    store = Store("s3://memory", cache=tmp_path)
    store.objects, store.cache = bucket, Cache(tmp_path / "cache")
    found: list[tuple[datetime, dict]] = []

    def write(value: int) -> None:
        with store.draft("thing", "p1", made_from={"code": len(bucket.script) % 5}) as draft:
            for name, data in zip(("one", "two"), content(value), strict=True):
                draft.path(name).write_bytes(data)

    def wait(value: int) -> None:
        # When nothing runs, up to two days; in the middle of what runs, five hours in all: it ends within half a day.
        hours = 16 * value if bucket.depth == 0 else min(value, bucket.patience)
        bucket.patience -= hours if bucket.depth else 0
        bucket.now += timedelta(hours=hours)

    def find(_: int) -> None:
        seen = store.find("thing", "p1")
        if seen is not None:
            found.append((bucket.now, dict(seen.manifest)))

    def delete(_: int) -> None:
        found.clear()  # what is deleted may go at once: no promise to those who hold it
        store.delete("thing", "p1")
        found.clear()

    def collect(_: int) -> None:
        with contextlib.suppress(BlockingIOError):  # another is at work
            store.collect_garbage()

    bucket.act = {"write": write, "wait": wait, "delete": delete, "find": find, "collect": collect}
    was, remote._age = remote._age, lambda moment: max((bucket.now - moment).total_seconds(), 0.0)
    synced, artefact.sync = artefact.sync, lambda path: None  # the disk's part of the promise is not looked at here
    try:
        for what, value in first:
            bucket.patience = 5
            if what != "go on":
                bucket.act[what](value)
            named = bucket.held.get("thing/p1/manifest.json")
            assert named is None or whole(bucket, json.loads(named[0]))
            for moment, manifest in found:
                assert bucket.now - moment >= timedelta(hours=18) or whole(bucket, manifest)
    finally:
        remote._age, artefact.sync = was, synced
