"""A release near and far: the same tables, honest listings, atomic downloads."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import os
import pickle
import threading

import pytest

from lens_assets.science.errors import BadInput
from lens_assets.science.surveys.layout import SWEEP_DIR, brick_at
from lens_assets.science.surveys.release import DataRelease
from lens_assets.science.surveys.remembered import sha256_remembered

CELL = brick_at(12.0, -3.0)
TILE = "010m005"


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder with listings; can be told to fail."""

    fail: int | None = None
    requests: list[str] = []  # noqa: RUF012

    def log_message(self, *_):
        pass

    def send_head(self):
        type(self).requests.append(f"{self.command} {self.path}")
        if self.fail:
            self.send_error(self.fail)
            return None
        return super().send_head()


@pytest.fixture
def server(tmp_path):
    folder = tmp_path / "served"
    folder.mkdir()
    handler = type("Fresh", (Handler,), {"requests": [], "fail": None})
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(handler, directory=str(folder))
    ) as service:
        thread = threading.Thread(target=service.serve_forever, daemon=True)
        thread.start()
        yield folder, f"http://127.0.0.1:{service.server_port}", handler
        service.shutdown()
        thread.join()


def test_a_local_release_lists_its_tiles_sorted(tmp_path, sweep_builder):
    columns, write = sweep_builder
    for tile in ("350p000", "010m005"):
        write(tmp_path, columns(3, tile), tile)
    (tmp_path / SWEEP_DIR / "sweep-010m005-015p000.fits.part").write_bytes(b"half")
    (tmp_path / SWEEP_DIR / "legacysurvey_dr10_south_sweep_10.1.sha256sum").write_text("")
    assert DataRelease(str(tmp_path)).tiles() == ["010m005", "350p000"]
    assert DataRelease(f"file://{tmp_path}").tiles() == ["010m005", "350p000"]


def test_a_folder_that_is_not_there_is_an_error_and_not_an_empty_survey(tmp_path):
    with pytest.raises(BadInput, match="root of a DR10 release"):
        DataRelease(str(tmp_path)).tiles()
    (tmp_path / SWEEP_DIR).mkdir(parents=True)
    assert DataRelease(str(tmp_path)).tiles() == []


def test_the_identity_of_a_sweep_changes_with_the_file(tmp_path, sweep_builder):
    columns, write = sweep_builder
    path, release = write(tmp_path, columns(3)), DataRelease(str(tmp_path))
    before = release.sweep_identity(TILE)
    assert release.sweep_identity(TILE) == before
    os.utime(path, ns=(1, 1))
    assert release.sweep_identity(TILE) != before
    with pytest.raises(BadInput, match="no such file"):
        release.sweep_identity("000m005")


def test_an_unknown_scheme_or_a_missing_cache_is_refused():
    with pytest.raises(BadInput, match="s3:// or https://"):
        DataRelease("ftp://somewhere/dr10")
    with pytest.raises(BadInput, match="cache"):
        DataRelease("https://somewhere/dr10")


def test_a_release_on_a_server_reads_as_the_local_one(tmp_path, server, sweep_builder, brick_builder):
    folder, url, _ = server
    columns, write = sweep_builder
    write(folder, columns(50))
    brick_builder(folder, CELL, bands="gr")
    near, far = DataRelease(str(folder)), DataRelease(url + "/", tmp_path / "cache")
    assert far.tiles() == near.tiles() == [TILE]
    assert far.sweep(TILE)[0].equals(near.sweep(TILE)[0])
    assert far.sweep_digest(TILE) == near.sweep_digest(TILE)
    a, b = far.brick(CELL.name), near.brick(CELL.name)
    assert a.missing_bands == b.missing_bands == ("z",)
    assert a.files == b.files
    assert (a.image("r") == b.image("r")).all()


def test_a_remote_file_is_fetched_once_and_again_when_it_changes(tmp_path, server, sweep_builder):
    folder, url, handler = server
    columns, write = sweep_builder
    path = write(folder, columns(50))
    release = DataRelease(url, tmp_path / "cache")
    identity = release.sweep_identity(TILE)
    release.sweep(TILE)
    release.sweep(TILE)
    assert sum(r.startswith("GET") and r.endswith(".fits") for r in handler.requests) == 1
    write(folder, columns(60))
    os.utime(path, (2e9, 2e9))
    assert release.sweep_identity(TILE) != identity
    assert release.sweep(TILE)[0].height == 60


def test_a_failing_server_is_not_an_empty_survey_nor_a_missing_band(tmp_path, server, sweep_builder, brick_builder):
    folder, url, handler = server
    columns, write = sweep_builder
    write(folder, columns(5))
    brick_builder(folder, CELL)
    handler.fail = 503
    release = DataRelease(url, tmp_path / "cache")
    for call in (release.tiles, lambda: release.sweep_identity(TILE), lambda: release.brick(CELL.name)):
        with pytest.raises(Exception, match="503") as caught:
            call()
        assert not isinstance(caught.value, BadInput)
    assert not list((tmp_path / "cache").rglob("*.fits*"))
    handler.fail = None
    assert release.brick(CELL.name).missing_bands == ()


def test_a_server_without_listing_asks_for_the_tiles(tmp_path, server, sweep_builder):
    folder, url, _ = server
    columns, write = sweep_builder
    write(folder, columns(5))
    (folder / SWEEP_DIR / "index.html").write_text("<html>welcome</html>")
    with pytest.raises(BadInput, match="by name"):
        DataRelease(url, tmp_path / "cache").tiles()
    named = DataRelease(url, tmp_path / "cache", tiles=[TILE])
    assert named.tiles() == [TILE]
    assert named.sweep(TILE)[0].height == 5


def test_a_tile_the_server_does_not_have_is_named(tmp_path, server):
    folder, url, _ = server
    (folder / SWEEP_DIR).mkdir(parents=True)
    with pytest.raises(BadInput, match="sweep-000m005"):
        DataRelease(url, tmp_path / "cache").sweep("000m005")


def test_a_dead_connection_leaves_nothing_behind(tmp_path, server, sweep_builder, monkeypatch):
    folder, url, _ = server
    columns, write = sweep_builder
    write(folder, columns(50))
    release = DataRelease(url, tmp_path / "cache")

    def half(remote, local):
        with open(local, "wb") as stream:
            stream.write(b"SIMPLE  =")

    monkeypatch.setattr(release._fs, "get_file", half)
    with pytest.raises(OSError, match="stopped at 9 bytes"):
        release.sweep(TILE)
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]


def test_a_release_travels_to_another_process(tmp_path, server, sweep_builder):
    folder, url, _ = server
    columns, write = sweep_builder
    write(folder, columns(5))
    release = DataRelease(url, tmp_path / "cache")
    release.tiles()
    assert pickle.loads(pickle.dumps(release)).tiles() == [TILE]  # noqa: S301


# --- digests that are remembered ---------------------------------------------------------------------------------------


@pytest.fixture
def hashed(monkeypatch):
    """The paths that were really hashed."""
    from lens_assets.science.surveys import remembered

    paths, sha256 = [], remembered.sha256_file
    monkeypatch.setattr(remembered, "sha256_file", lambda path: (paths.append(path), sha256(path))[1])
    monkeypatch.setattr(remembered, "SETTLED_SECONDS", -1.0)
    return paths


def test_the_digest_of_a_file_is_computed_once_and_again_when_the_file_is_another(tmp_path, hashed):
    path, notes = tmp_path / "sweep.fits", tmp_path / "notes"
    path.write_bytes(b"one" * 1000)
    first = sha256_remembered(path, notes)
    assert [sha256_remembered(path, notes) for _ in range(3)] == [first] * 3
    assert len(hashed) == 1
    stat = path.stat()
    path.write_bytes(b"two" * 1000)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as `cp -p` or `rsync -t` would
    assert path.stat().st_mtime_ns == stat.st_mtime_ns
    assert sha256_remembered(path, notes) == hashlib.sha256(b"two" * 1000).hexdigest() != first
    other = tmp_path / "other"
    other.write_bytes(b"one" * 1000)
    os.replace(other, path)
    assert sha256_remembered(path, notes) == first
    assert len(hashed) == 3


def test_a_note_that_cannot_be_used_or_kept_costs_time_and_nothing_else(tmp_path, hashed, monkeypatch):
    path, notes = tmp_path / "sweep.fits", tmp_path / "notes"
    path.write_bytes(b"one")
    first = sha256_remembered(path, notes)
    (note,) = notes.iterdir()
    for torn in ("", "[]", '{"sha256": "x"}', json.dumps({**json.loads(note.read_text()), "file": "elsewhere"})):
        note.write_text(torn)
        assert sha256_remembered(path, notes) == first
    assert sha256_remembered(path, path / "no folder") == sha256_remembered(path, None) == first
    assert len(hashed) == 7
    monkeypatch.setattr("lens_assets.science.surveys.remembered.SETTLED_SECONDS", 3600.0)
    note.unlink()
    sha256_remembered(path, notes)
    assert not note.exists(), "a file of this moment may change again within the clock's tick"
