"""The artefact store: complete or absent, whoever dies, reads or writes meanwhile."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import polars as pl
import pytest

from lens_assets.science.errors import BadInput
from lens_assets.science.storage import MANIFEST, Store, safe_key, sha256_file, verify


def write(store, value, n=1000, **made_from):
    with store.draft("thing", "p1", made_from=made_from) as draft:
        draft.table(pl.DataFrame({"a": [value] * n}))
        draft.table(pl.DataFrame({"a": [value] * n}), "second")
        draft.json("note", {"value": value})


def home(store):
    return store.root / "thing" / "p1"


def folders(store):
    return sorted(p.name for p in home(store).iterdir() if p.is_dir())


def test_what_was_written_is_read_back_with_its_facts(tmp_path):
    store = Store(tmp_path)
    assert store.find("thing", "p1") is None
    with pytest.raises(FileNotFoundError, match="not been materialised"):
        store.get("thing", "p1")
    write(store, 1, code="x")
    got = store.get("thing", "p1")
    assert got.read()["a"].to_list() == [1] * 1000
    assert got.scan("second").select(pl.len()).collect().item() == 1000
    assert (got.json("note"), got.facts["rows"]) == ({"value": 1}, 1000)
    assert store.partitions("thing") == ["p1"]
    verify(got)
    store.delete("thing", "p1")
    assert store.find("thing", "p1") is None
    assert store.partitions("thing") == []


def test_the_same_content_has_the_same_digest_in_another_place_and_other_makers_another_fingerprint(tmp_path):
    a, b = Store(tmp_path / "a"), Store(tmp_path / "b")
    write(a, 1, code="x")
    write(b, 1, code="y")
    assert a.get("thing", "p1").digest == b.get("thing", "p1").digest
    assert a.get("thing", "p1").fingerprint != b.get("thing", "p1").fingerprint
    write(b, 2, code="y")
    assert a.get("thing", "p1").digest != b.get("thing", "p1").digest


def test_a_maker_that_raises_leaves_the_old_artefact(tmp_path):
    store = Store(tmp_path)
    write(store, 1)

    def fails():
        with store.draft("thing", "p1") as draft:
            draft.table(pl.DataFrame({"a": [2]}))
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        fails()
    verify(store.get("thing", "p1"))
    assert store.get("thing", "p1").json("note") == {"value": 1}
    assert not list(home(store).glob(".draft-*"))


DIES = """
import sys, time, polars as pl
from lens_assets.science.storage import Store
with Store(sys.argv[1]).draft("thing", "p1") as draft:
    draft.table(pl.DataFrame({"a": [2] * 10}))
    print("written", flush=True)
    time.sleep(60)
"""


def test_a_process_killed_in_the_middle_leaves_the_old_artefact_and_its_litter_is_swept(tmp_path):
    store = Store(tmp_path)
    write(store, 1)
    child = subprocess.Popen([sys.executable, "-c", DIES, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "written\n"
        assert list(home(store).glob(".draft-*"))
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
    verify(store.get("thing", "p1"))
    assert store.get("thing", "p1").json("note") == {"value": 1}
    assert store.partitions("thing") == ["p1"]
    write(store, 3)
    assert not list(home(store).glob(".draft-*"))
    assert store.get("thing", "p1").json("note") == {"value": 3}


@pytest.mark.parametrize("moment", ["rename", "manifest"])
def test_death_while_publishing_leaves_the_old_artefact_whole(tmp_path, monkeypatch, moment):
    """Killed before the new folder is in place, or before the manifest names it; also with the same bytes."""
    store = Store(tmp_path)
    write(store, 1)

    def dies(*_):
        raise KeyboardInterrupt

    for value in (1, 2):
        with monkeypatch.context() as patch:
            target = "os.replace" if moment == "rename" else "lens_assets.science.storage.local._write"
            patch.setattr(target, dies)
            with pytest.raises(KeyboardInterrupt):
                write(store, value)
        verify(store.get("thing", "p1"))
        assert store.get("thing", "p1").json("note") == {"value": 1}


def test_rewriting_the_same_bytes_leaves_the_folder_that_readers_use_alone(tmp_path):
    store = Store(tmp_path)
    write(store, 1, code="x")
    before = store.get("thing", "p1")
    inode = os.stat(before.file("data.parquet")).st_ino
    write(store, 1, code="y")
    after = store.get("thing", "p1")
    assert os.stat(after.file("data.parquet")).st_ino == inode
    assert (after.digest, after.fingerprint == before.fingerprint) == (before.digest, False)


def test_a_reader_that_found_the_old_artefact_can_still_read_it_after_a_write(tmp_path):
    store = Store(tmp_path)
    write(store, 1)
    old = store.get("thing", "p1")
    write(store, 2)
    assert old.read()["a"][0] == 1
    assert store.get("thing", "p1").read()["a"][0] == 2
    write(store, 3)
    assert len(folders(store)) == 2  # the generation before the last is gone


def test_readers_see_the_old_artefact_or_the_new_one_and_never_a_mixture(tmp_path):
    store = Store(tmp_path)
    write(store, 0)
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

    readers = [threading.Thread(target=read) for _ in range(3)]
    for r in readers:
        r.start()
    for value in range(1, 15):
        write(store, value)
        time.sleep(0.05)  # a reader may take as long as one write, not as long as two
    done.set()
    for r in readers:
        r.join()
    assert faults == []
    assert len(seen) > 3


def test_writers_that_race_leave_one_whole_artefact(tmp_path):
    store = Store(tmp_path)
    faults = []

    def work(value):
        try:
            for i in range(6):
                write(store, 100 * value + i, n=10)
        except Exception as fault:
            faults.append(fault)

    writers = [threading.Thread(target=work, args=(v,)) for v in range(4)]
    for w in writers:
        w.start()
    for w in writers:
        w.join()
    assert faults == []
    got = store.get("thing", "p1")
    verify(got)
    assert got.read()["a"][0] == got.json("note")["value"]


def test_changed_bytes_are_found_and_healed_by_writing_again(tmp_path):
    store = Store(tmp_path)
    write(store, 1)
    file = store.get("thing", "p1").file("data.parquet")
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(bytes(raw))
    with pytest.raises(BadInput, match="differ from the manifest") as fault:
        verify(store.get("thing", "p1"))
    assert fault.value.file == str(file)
    write(store, 1)
    verify(store.get("thing", "p1"))
    assert store.get("thing", "p1").read()["a"][0] == 1


def test_a_missing_file_and_a_torn_manifest_are_named(tmp_path):
    store = Store(tmp_path)
    write(store, 1)
    with pytest.raises(BadInput, match=r"no file 'third\.parquet'"):
        store.get("thing", "p1").read("third")
    path = home(store) / MANIFEST
    path.write_text(path.read_text()[:50])
    with pytest.raises(BadInput, match="not JSON") as fault:
        store.find("thing", "p1")
    assert fault.value.file == str(path)


@pytest.mark.parametrize(
    "key", ["", ".", "..", "a/b", "../x", ".hidden", "a\\b", "a\x00b", "x" * 129, "a..b", "é", "a b"]
)
def test_a_key_that_could_leave_the_store_is_refused(tmp_path, key):
    with pytest.raises(BadInput, match="not a valid"):
        safe_key(key)
    with pytest.raises(BadInput, match="not a valid"):
        Store(tmp_path).find("thing", key)
    with Store(tmp_path).draft("thing", "p") as draft, pytest.raises(BadInput, match="not a valid"):
        draft.path(key)


@pytest.mark.parametrize("key", ["000m005", "resnet18|x".replace("|", "-"), "a", "sis+clumps_1.50", "x" * 128])
def test_ordinary_keys_are_kept(key):
    assert safe_key(key) == key


def test_nan_is_refused_in_json(tmp_path):
    with pytest.raises(ValueError, match="JSON"), Store(tmp_path).draft("thing", "p") as draft:
        draft.json("x", {"a": float("nan")})
    assert Store(tmp_path).find("thing", "p") is None


def test_the_manifest_lists_every_file_with_its_digest(tmp_path):
    store = Store(tmp_path)
    write(store, 1)
    manifest = json.loads((home(store) / MANIFEST).read_text())
    assert [f["name"] for f in manifest["files"]] == ["data.parquet", "note.json", "second.parquet"]
    for f in manifest["files"]:
        path = store.get("thing", "p1").file(f["name"])
        assert (f["bytes"], f["sha256"]) == (path.stat().st_size, sha256_file(path))
