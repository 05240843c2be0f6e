"""What a store promises, in a folder and in a bucket: complete or absent, whoever dies, reads or writes meanwhile."""

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lens_assets.science.errors import BadInput
from lens_assets.science.storage import MANIFEST, Store, safe_key, sha256_file, verify


def write(store, value, n=1000, **made_from):
    with store.draft("thing", "p1", made_from=made_from) as draft:
        draft.table(pl.DataFrame({"a": [value] * n}))
        draft.table(pl.DataFrame({"a": [value] * n}), "second")
        draft.json("note", {"value": value})


def test_what_was_written_is_read_back_with_its_facts(backend):
    store = backend.open()
    assert store.find("thing", "p1") is None
    with pytest.raises(FileNotFoundError, match=r"thing\[p1\] has not been materialised"):
        store.get("thing", "p1")
    assert (store.partitions("thing"), store.assets()) == ([], [])
    write(store, 1, code="x")
    for reader in (store, backend.open("elsewhere"), pickle.loads(pickle.dumps(store))):  # noqa: S301
        got = reader.get("thing", "p1")
        assert got.read()["a"].to_list() == [1] * 1000
        assert got.scan("second").select(pl.len()).collect().item() == 1000
        assert (got.json("note"), got.facts["rows"]) == ({"value": 1}, 1000)
        assert sorted(p.name for p in got.folder.iterdir()) == ["data.parquet", "note.json", "second.parquet"]
        assert got.uri == f"{backend.root}/thing/p1/{got.digest[:16]}"
        verify(got)
    assert (store.partitions("thing"), store.assets()) == (["p1"], ["thing"])
    assert [a and a.digest for a in store.find_all("thing", ["p0", "p1", "p1"])] == [None, got.digest, got.digest]
    store.delete("thing", "p1")
    assert store.find("thing", "p1") is None
    assert store.partitions("thing") == []
    store.delete("thing", "p1")


def test_a_store_is_the_same_bytes_in_a_folder_and_in_a_bucket_and_may_be_copied_over(bucket, tmp_path):
    near, far = Store(tmp_path / "near"), bucket.open()
    write(near, 1, code="x")
    write(far, 1, code="x")
    names = [str(p.relative_to(near.root)) for p in near.root.rglob("*") if p.is_file() and p.name != ".lock"]
    assert sorted(names) == bucket.names()
    assert all(bucket.read(name) == (near.root / name).read_bytes() for name in names)
    copied = Store(f"{bucket.root}-copied", cache=tmp_path / "cache")
    for name in names:  # as `aws s3 sync` would, without our metadata
        copied.objects.upload(near.root / name, name, sha256_file(near.root / name))
    verify(copied.get("thing", "p1"))


def test_other_makers_give_another_fingerprint_and_other_content_another_digest(backend):
    store = backend.open()
    found = []
    for value, code in ((1, "x"), (1, "y"), (2, "y")):
        write(store, value, code=code)
        found.append(store.get("thing", "p1"))
    assert found[0].digest == found[1].digest != found[2].digest
    assert found[0].fingerprint != found[1].fingerprint == found[2].fingerprint


def test_a_maker_that_raises_leaves_the_old_artefact(backend):
    store = backend.open()
    write(store, 1)
    before = backend.names()

    def fails():
        with store.draft("thing", "p1") as draft:
            draft.table(pl.DataFrame({"a": [2]}))
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        fails()
    verify(store.get("thing", "p1"))
    assert store.get("thing", "p1").json("note") == {"value": 1}
    assert backend.names() == before
    assert not list(store._workshop("thing", "p1").glob(".draft-*"))


DIES = """
import sys, time, polars as pl
from lens_assets.science.storage import Store
with Store(sys.argv[1], cache=sys.argv[2]).draft("thing", "p1") as draft:
    draft.table(pl.DataFrame({"a": [2] * 10}))
    print("written", flush=True)
    time.sleep(60)
"""


def test_a_process_killed_while_making_leaves_the_old_artefact_and_its_litter_is_swept(backend):
    store = backend.open()
    write(store, 1)
    litter = store._workshop("thing", "p1")
    command = [sys.executable, "-c", DIES, backend.root, str(backend.home / "cache-here")]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "written\n"
        assert list(litter.glob(".draft-*"))
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
    verify(store.get("thing", "p1"))
    assert store.get("thing", "p1").json("note") == {"value": 1}
    assert store.partitions("thing") == ["p1"]
    assert store.resume("thing", "p1", {}) is None  # it was not whole
    write(store, 3)
    assert not list(litter.glob(".draft-*"))
    assert store.get("thing", "p1").json("note") == {"value": 3}


def test_rewriting_the_same_bytes_leaves_the_files_that_readers_use_alone(backend):
    store = backend.open()
    write(store, 1, code="x")
    before = store.get("thing", "p1")
    names, inode = backend.names(), os.stat(before.file("data.parquet")).st_ino
    write(store, 1, code="y")
    after = store.get("thing", "p1")
    assert os.stat(after.file("data.parquet")).st_ino == inode
    assert (after.digest, after.fingerprint == before.fingerprint, backend.names()) == (before.digest, False, names)


def test_a_reader_that_found_the_old_artefact_can_still_read_it_after_a_write(backend):
    store = backend.open()
    write(store, 1)
    old = backend.open("reader").get("thing", "p1")
    write(store, 2)
    assert old.read()["a"][0] == 1
    assert backend.open("reader").get("thing", "p1").read()["a"][0] == 2


def test_readers_see_the_old_artefact_or_the_new_one_and_never_a_mixture(backend):
    store = backend.open()
    write(store, 0, n=10)
    seen, faults, done = set(), [], threading.Event()

    def read():
        while not done.is_set():
            try:
                got = store.get("thing", "p1")
                values = {got.read()["a"][0], got.read("second")["a"][0], got.json("note")["value"]}
                if len(values) != 1:
                    faults.append(values)
                seen.update(values)
            except Exception as fault:
                faults.append(fault)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for r in readers:
        r.start()
    for value in range(1, 9):
        write(store, value, n=10)
        time.sleep(0.05)  # a reader may take as long as one write, not as long as two
    done.set()
    for r in readers:
        r.join()
    assert faults == []
    assert len(seen) > 3


def test_writers_that_race_leave_one_whole_artefact(backend):
    faults = []

    def work(value):
        try:
            for i in range(4):
                write(backend.open(f"machine-{value}"), 100 * value + i, n=10)
        except Exception as fault:
            faults.append(fault)

    writers = [threading.Thread(target=work, args=(v,)) for v in range(3)]
    for w in writers:
        w.start()
    for w in writers:
        w.join()
    assert faults == []
    got = backend.open().get("thing", "p1")
    verify(got)
    assert got.read()["a"][0] == got.read("second")["a"][0] == got.json("note")["value"]
    assert got.json("note")["value"] % 100 == 3  # somebody's last, not an earlier one that came late


def test_changed_bytes_are_found_and_healed_by_writing_again(backend):
    store = backend.open()
    write(store, 1)
    name = f"thing/p1/{store.get('thing', 'p1').digest[:16]}/data.parquet"
    raw = bytearray(backend.read(name))
    raw[len(raw) // 2] ^= 1
    backend.write(name, bytes(raw))
    with pytest.raises(BadInput, match="differ from the manifest") as fault:
        verify(store.get("thing", "p1"))
    assert fault.value.file == f"{backend.root}/{name}"
    write(store, 1)
    for reader in (store, backend.open("elsewhere")):
        verify(reader.get("thing", "p1"))
        assert reader.get("thing", "p1").read()["a"][0] == 1


def test_a_missing_file_and_a_torn_manifest_are_named(backend):
    store = backend.open()
    write(store, 1)
    with pytest.raises(BadInput, match=r"no file 'third\.parquet'") as fault:
        store.get("thing", "p1").read("third")
    assert fault.value.file == store.get("thing", "p1").uri
    for torn, message in ((50, "not JSON"), (0, "not JSON")):
        text = backend.read(f"thing/p1/{MANIFEST}")
        backend.write(f"thing/p1/{MANIFEST}", text[:torn])
        with pytest.raises(BadInput, match=message) as fault:
            store.find("thing", "p1")
        assert fault.value.file == f"{backend.root}/thing/p1/{MANIFEST}"
    for text in (b'{"a": 1}', b"[]", b'{"digest": "abc", "folder": 7}'):
        backend.write(f"thing/p1/{MANIFEST}", text)
        with pytest.raises(BadInput, match="not the manifest"):
            store.find("thing", "p1")
    write(store, 2)
    verify(store.get("thing", "p1"))


def test_a_manifest_that_points_out_of_its_partition_is_refused(backend):
    store = backend.open()
    write(store, 1)
    manifest = json.loads(backend.read(f"thing/p1/{MANIFEST}"))
    backend.write(f"thing/p1/{MANIFEST}", json.dumps({**manifest, "folder": "../p2"}).encode())
    with pytest.raises(BadInput, match="not a valid"):
        store.find("thing", "p1")


@pytest.mark.parametrize("key", ["", ".", "..", "a/b", "../x", ".hidden", "a\x00b", "x" * 129, "a..b", "é", "a b"])
def test_a_key_that_could_leave_the_store_is_refused(backend, key):
    store = backend.open()
    for act in (
        lambda: safe_key(key),
        lambda: store.find("thing", key),
        lambda: store.find(key),
        lambda: store.partitions(key),
        lambda: store.delete("thing", key),
        lambda: store.delete(key, "p1"),
        lambda: store.resume(key, "p1", {}),
        lambda: store.draft("thing", key).__enter__(),
        lambda: store.draft(key).__enter__(),
    ):
        with pytest.raises(BadInput, match="not a valid"):
            act()


def test_nan_is_refused_in_json_and_a_file_name_must_be_a_plain_one(backend):
    store = backend.open()
    with pytest.raises(ValueError, match="JSON"), store.draft("thing", "p1") as draft:
        draft.json("x", {"a": float("nan")})
    with pytest.raises(BadInput, match="not a valid"), store.draft("thing", "p1") as draft:
        draft.path("a/b")
    assert store.find("thing", "p1") is None


def test_the_manifest_lists_every_file_with_its_digest(backend):
    store = backend.open()
    write(store, 1)
    got = store.get("thing", "p1")
    assert [f["name"] for f in got.manifest["files"]] == ["data.parquet", "note.json", "second.parquet"]
    for f in got.manifest["files"]:
        path = got.file(f["name"])
        assert (f["bytes"], f["sha256"]) == (path.stat().st_size, sha256_file(path))


@pytest.mark.parametrize(
    "root", ["gs://a/b", "http://x/y", "s3a://b/c", "s3://", "s3:///x", "s3://UP/x", "s3://b/../x"]
)
def test_a_root_that_is_neither_a_folder_nor_a_bucket_is_refused(root):
    with pytest.raises(BadInput, match="s3://bucket/prefix"):
        Store(root)


def test_a_file_url_is_its_folder(tmp_path):
    write(Store((tmp_path / "a b").as_uri()), 1)
    assert Store(tmp_path / "a b").get("thing", "p1").json("note") == {"value": 1}


names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+\-]{0,20}", fullmatch=True).filter(
    lambda name: ".." not in name and name not in ("manifest.json",)
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=st.dictionaries(names, st.binary(max_size=300), min_size=1, max_size=4), key=names, asset=names)
def test_any_files_under_any_key_come_back_and_have_one_digest_in_either_store(bucket, tmp_path, files, key, asset):
    digests = set()
    for store in (bucket.open(), Store(tmp_path / "near")):
        with store.draft(asset, key) as draft:
            for name, data in files.items():
                draft.path(name).write_bytes(data)
        digests.add(store.get(asset, key).digest)
    got = bucket.open(f"fresh-{time.time_ns()}").get(asset, key)
    assert {name: got.file(name).read_bytes() for name in files} == files
    verify(got)
    assert len(digests) == 1
