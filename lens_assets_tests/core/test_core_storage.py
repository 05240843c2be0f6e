"""What is peculiar to a store in a local folder; what every store promises is in ``storage/test_storage_contract.py``."""

import json

import polars as pl
import pytest

from lens_assets.science.storage import MANIFEST, Store, safe_key, sha256_file, verify


def write(store, value, n=1000, **made_from):
    with store.draft("thing", "p1", made_from=made_from) as draft:
        draft.table(pl.DataFrame({"a": [value] * n}))
        draft.json("note", {"value": value})


def home(store):
    return store.root / "thing" / "p1"


def folders(store):
    return sorted(p.name for p in home(store).iterdir() if p.is_dir())


@pytest.mark.parametrize("moment", ["rename", "manifest"])
def test_death_while_publishing_leaves_the_old_artefact_whole(tmp_path, monkeypatch, moment):
    """Killed before the new folder is in place, or before the manifest names it; also with the same bytes."""
    store = Store(tmp_path)
    write(store, 1)

    def dies(*_):
        raise KeyboardInterrupt

    for value in (1, 2):
        with monkeypatch.context() as patch:
            patch.setattr("os.replace" if moment == "rename" else "lens_assets.science.storage.local._write", dies)
            with pytest.raises(KeyboardInterrupt):
                write(store, value)
        verify(store.get("thing", "p1"))
        assert store.get("thing", "p1").json("note") == {"value": 1}


def test_the_generation_before_the_last_goes_and_damaged_bytes_are_replaced_beside_the_damaged(tmp_path):
    store = Store(tmp_path)
    for value in (1, 2, 3):
        write(store, value)
    assert len(folders(store)) == 2
    path = store.get("thing", "p1").file("data.parquet")
    path.write_bytes(b"x")
    write(store, 3)
    healed = store.get("thing", "p1")
    assert healed.folder != path.parent
    assert path.read_bytes() == b"x"  # whoever holds it is not robbed of it yet
    verify(healed)
    write(store, 3)
    assert store.get("thing", "p1").folder.name in folders(store)


def test_a_file_found_is_the_stores_own_and_not_a_copy(tmp_path):
    store = Store(tmp_path, cache=tmp_path / "cache")
    write(store, 1)
    manifest = json.loads((home(store) / MANIFEST).read_text())
    got = store.get("thing", "p1")
    assert got.folder == home(store) / manifest["folder"]
    assert got.file("data.parquet") == got.folder / "data.parquet"
    assert manifest["files"][0]["sha256"] == sha256_file(got.file("data.parquet"))


@pytest.mark.parametrize("key", ["000m005", "resnet18|x".replace("|", "-"), "a", "sis+clumps_1.50", "x" * 128])
def test_ordinary_keys_are_kept(key):
    assert safe_key(key) == key
