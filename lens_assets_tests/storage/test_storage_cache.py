"""The local copies of remote files: verified, shared, repaired, and never taken from under a process that uses them."""

import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lens_assets.science.errors import BadInput
from lens_assets.science.storage import Store, cache, verify
from lens_assets.science.storage.cache import Cache


def write(store, value, partition="p1", n=1000):
    with store.draft("thing", partition) as draft:
        np.save(draft.path("image.npy"), np.full(n, value, np.float32))
        draft.json("note", {"value": value})
    return store.get("thing", partition)


@pytest.mark.parametrize("damage", [b"", b"x" * 10, b"x" * 5000])
def test_a_copy_that_was_cut_short_or_grew_is_fetched_again(bucket, damage):
    write(bucket.open("writer"), 1)
    got = bucket.open().get("thing", "p1")
    path = got.file("image.npy")
    path.chmod(0o644)
    path.write_bytes(damage)
    assert np.load(got.file("image.npy")).tolist() == [1.0] * 1000
    path.unlink()
    assert np.load(bucket.open().get("thing", "p1").folder / "image.npy")[0] == 1.0


def test_a_copy_with_other_bytes_of_the_same_size_is_found_by_verify_and_fetched_again(bucket):
    write(bucket.open("writer"), 1)
    got = bucket.open().get("thing", "p1")
    path = got.file("image.npy")
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(raw)
    verify(got)
    assert np.load(got.file("image.npy"))[-1] == 1.0


@pytest.mark.parametrize("same_size", [True, False])
def test_an_object_that_is_not_what_the_manifest_names_never_reaches_a_reader(bucket, same_size):
    made = write(bucket.open("writer"), 1)
    name = made.uri.removeprefix(f"{bucket.root}/") + "/image.npy"
    raw = bytearray(bucket.read(name))
    raw[-1] ^= 1
    bucket.write(name, bytes(raw if same_size else raw[:-1]))
    reader = bucket.open()
    with pytest.raises(BadInput, match="differ from the manifest") as fault:
        reader.get("thing", "p1").file("image.npy")
    assert fault.value.file == f"{bucket.root}/{name}"
    assert not list(reader.cache.folder.rglob("*.npy"))
    assert not list((reader.cache.folder / "incoming").iterdir())


def test_an_object_that_is_gone_is_named(bucket):
    made = write(bucket.open("writer"), 1)
    store = bucket.open()
    store.objects.delete([made.uri.removeprefix(f"{bucket.root}/") + "/image.npy"])
    with pytest.raises(BadInput, match="is gone") as fault:
        store.get("thing", "p1").file("image.npy")
    assert fault.value.file == f"{made.uri}/image.npy"
    with pytest.raises(BadInput, match=r"no file 'image\.npy'"):
        verify(store.get("thing", "p1"))


def test_many_threads_and_stores_that_want_one_file_fetch_it_once(bucket):
    write(bucket.open("writer"), 1, n=200_000)
    found, faults = [], []

    def read():
        try:
            found.append(float(np.load(bucket.open().get("thing", "p1").file("image.npy")).sum()))
        except Exception as fault:
            faults.append(fault)

    readers = [threading.Thread(target=read) for _ in range(8)]
    with bucket.server.counting() as asked:
        for r in readers:
            r.start()
        for r in readers:
            r.join()
    assert (faults, found) == ([], [200_000.0] * 8)
    assert asked.count("GET file") == 1


READER = """
import sys, time
import numpy as np
from lens_assets.science.storage import Store
got = Store(sys.argv[1], cache=sys.argv[2]).get("thing", sys.argv[3])
path = got.file("image.npy")
print("holds", flush=True)
sys.stdin.readline()
print(float(np.load(path, mmap_mode="r").sum()), flush=True)
"""


def reader_of(bucket, partition):
    """Another process that was handed the path of a file and will open it when it is told to."""
    child = subprocess.Popen(
        [sys.executable, "-c", READER, bucket.root, str(bucket.home / "cache-here"), partition],
        env={**os.environ, **bucket.server.environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "holds\n"
    return child


def close(child):
    child.stdin.close()
    child.stdout.close()
    child.wait()


def test_processes_share_the_copies_and_none_is_evicted_under_a_living_one(bucket):
    writer, store = bucket.open("writer"), bucket.open()
    for value, partition in enumerate(("p1", "p2")):
        write(writer, value + 1.0, partition)
    store.get("thing", "p1").file("image.npy")
    store.release()
    with bucket.server.counting() as asked:
        child = reader_of(bucket, "p1")
    assert "GET file" not in asked  # the copy that the first process had fetched
    store.get("thing", "p2").file("image.npy")
    store.release()
    assert store.evict(0) > 0
    assert [p.parent.name for p in store.cache.folder.rglob("*.npy")] == [store.get("thing", "p1").digest]
    child.stdin.write("\n")
    child.stdin.flush()
    assert child.stdout.readline() == "1000.0\n"
    close(child)
    assert store.evict(0) > 0
    assert not list(store.cache.folder.rglob("*.npy"))


def test_a_process_that_was_killed_holds_nothing(bucket):
    write(bucket.open("writer"), 1)
    child = reader_of(bucket, "p1")
    store = bucket.open()
    assert store.evict(0) == 0
    child.send_signal(signal.SIGKILL)
    close(child)
    assert store.evict(0) > 0
    assert not list((store.cache.folder / "leases").iterdir())


def test_a_process_keeps_what_it_was_handed_until_it_says_that_it_is_done(bucket):
    write(bucket.open("writer"), 1)
    store = bucket.open()
    got = store.get("thing", "p1")
    path = got.file("image.npy")
    assert store.evict(0) == 0
    mapped = np.load(path, mmap_mode="r")
    store.release()
    assert store.evict(0) > 0
    assert not path.exists()
    assert mapped.sum() == 1000.0  # a map outlives its name
    assert np.load(got.file("image.npy")).sum() == 1000.0  # and the path is fetched again when asked for
    assert store.evict(0) == 0


def test_the_bound_is_kept_by_dropping_what_was_used_longest_ago(bucket):
    writer = bucket.open("writer")
    for value in range(6):
        write(writer, value, f"p{value}", n=25_000)  # 100 kB each
    store = Store(bucket.root, cache=bucket.home / "bounded", max_cache_bytes=350_000)
    for value in range(6):
        store.get("thing", f"p{value}").file("image.npy")
        os.utime(store.cache.place(store.get("thing", f"p{value}").digest), (value, value))
        store.release()
    held = {path.parent.name for path in store.cache.folder.rglob("*.npy")}
    assert held == {store.get("thing", f"p{value}").digest for value in (3, 4, 5)}
    assert store.cache.size() <= 350_000


def test_what_is_used_again_counts_as_new(bucket, monkeypatch):
    monkeypatch.setattr(cache, "_TOUCH", 0.0)
    writer, store = bucket.open("writer"), bucket.open()
    for value in range(3):
        write(writer, value, f"p{value}", n=25_000)
        store.get("thing", f"p{value}").file("image.npy")
        os.utime(store.cache.place(store.get("thing", f"p{value}").digest), (value, value))
    store.get("thing", "p0").file("image.npy")
    store.release()
    store.evict(150_000)
    assert [p.parent.name for p in store.cache.folder.rglob("*.npy")] == [store.get("thing", "p0").digest]


def test_the_remains_of_a_fetch_that_was_killed_are_removed(bucket):
    write(bucket.open("writer"), 1)
    store = bucket.open()
    store.get("thing", "p1").file("image.npy")
    dead = store.cache.folder / "incoming" / "999999999-abc"
    mine = store.cache.folder / "incoming" / f"{os.getpid()}-abc"
    for path in (dead, mine):
        path.write_bytes(b"x")
    store.evict(1 << 40)
    assert (dead.exists(), mine.exists()) == (False, True)


def test_a_cache_removed_by_hand_is_begun_anew(bucket):
    import shutil

    store = bucket.open()
    write(store, 1)
    shutil.rmtree(store.cache.folder)
    assert np.load(store.get("thing", "p1").file("image.npy")).sum() == 1000.0
    write(store, 2)
    assert np.load(store.get("thing", "p1").file("image.npy")).sum() == 2000.0


def test_without_a_folder_the_cache_is_private_to_the_user(monkeypatch, tmp_path):
    monkeypatch.delenv("LENS_ASSETS_CACHE", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = Cache().folder
    assert folder.parent == tmp_path
    assert folder.stat().st_mode & 0o077 == 0
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    (tmp_path / "lens-assets-cache-12345").mkdir()
    with pytest.raises(BadInput, match="another user"):
        Cache()
    monkeypatch.setenv("LENS_ASSETS_CACHE", str(tmp_path / "named"))
    assert Cache().folder == tmp_path / "named" / "store"


def test_a_local_store_has_no_copies_to_keep(tmp_path):
    store = Store(tmp_path / "store", cache=tmp_path / "cache", max_cache_bytes=1)
    write(store, 1)
    store.release()
    assert store.evict(0) == 0
    assert not (tmp_path / "cache").exists()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("use"), st.integers(0, 5)),
            st.tuples(st.just("release"), st.just(0)),
            st.tuples(st.just("evict"), st.integers(0, 5)),
        ),
        max_size=14,
    )
)
def test_whatever_is_used_released_and_evicted_the_least_recent_go_and_what_is_held_stays(tmp_path, steps):
    made, held, order = Cache(tmp_path / str(time.time_ns())), set(), []

    def fetch(path: Path):
        path.write_bytes(b"x" * 100)

    sha = hashlib.sha256(b"x" * 100).hexdigest()
    for what, n in steps:
        if what == "use":
            digest = f"{n:064x}"
            path = made.file(digest, {"name": "a", "bytes": 100, "sha256": sha}, fetch, "x")
            assert path.read_bytes() == b"x" * 100
            order = [d for d in order if d != digest] + [digest]
            held.add(digest)
            for i, d in enumerate(order):
                os.utime(made.place(d), (i + 1, i + 1))
        elif what == "release":
            made.release()
            held = set()
        else:
            freed, expected = made.evict(100 * n), list(order)
            for d in order:
                if len(expected) > n and d not in held:
                    expected.remove(d)
            assert freed == 100 * (len(order) - len(expected))
            order = expected
        assert {p.name for p in made.folder.glob("artefacts/*")} == set(order)
        assert made.size() == 100 * len(order)
