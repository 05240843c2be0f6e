"""The same bytes always: any number of workers, any order, after a kill -9; and what happens in a folder that is
taken."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lens_assets.science.errors import BadInput
from lens_assets.science.mock.brick import files_of, make_brick
from lens_assets.science.mock.footprint import plan
from lens_assets.science.mock.writer import write_release

SEED = 20261123


def digests(root: Path) -> dict[str, str]:
    """Every file a user may see, by relative path."""
    found = {}
    for folder in ("release", "truth", "catalogues"):
        for path in sorted((root / folder).rglob("*")):
            if path.is_file():
                found[str(path.relative_to(root))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def folders(root: Path) -> tuple[Path, Path, Path]:
    return root / "release", root / "truth", root / "catalogues"


def test_two_workers_write_the_same_bytes_as_one(written, tmp_path):
    write_release(*folders(tmp_path), written.size, SEED, workers=2)
    assert digests(tmp_path) == digests(written.release.parent)


def test_any_brick_can_be_made_again_alone(written, tmp_path):
    p = plan(written.size, SEED)[2]
    make_brick(tmp_path, written.size, p, SEED)
    for name in files_of(p.cell, p.bands):
        assert (tmp_path / name).read_bytes() == (written.release / name).read_bytes(), name


def test_another_seed_gives_another_sky(written, tmp_path):
    p = plan(written.size, SEED)[2]
    make_brick(tmp_path, written.size, p, SEED + 1)
    name = p.cell.coadd("image", "r")
    assert (tmp_path / name).read_bytes() != (written.release / name).read_bytes()


def test_a_run_killed_with_signal_9_continues_to_the_same_bytes_without_writing_complete_bricks_again(
    written, tmp_path
):
    (tmp_path / "size.json").write_text(written.size.model_dump_json())
    script = (
        "import sys; from pathlib import Path\n"
        "from lens_assets.science.mock.settings import MockSize\n"
        "from lens_assets.science.mock.writer import write_release\n"
        "root = Path(sys.argv[1])\n"
        "size = MockSize.model_validate_json((root / 'size.json').read_text())\n"
        f"write_release(root / 'release', root / 'truth', root / 'catalogues', size, {SEED})\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])}
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], env=environment)
    parts = tmp_path / "truth" / "parts"
    deadline = time.time() + 120
    while not list(parts.glob("*.pickle")):  # until the first brick is complete; then in the middle of the next
        assert time.time() < deadline
        assert process.poll() is None, "the writer ended before it could be killed"
        time.sleep(0.005)
    time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "release" / "release.json").exists()
    first = {p: p.stat().st_mtime_ns for p in parts.glob("*.pickle")}
    images = {
        f: f.stat().st_mtime_ns
        for p in plan(written.size, SEED)
        if (parts / f"{p.cell.name}.pickle") in first
        for f in (tmp_path / "release" / name for name in files_of(p.cell, p.bands))
    }
    assert 1 <= len(first) < 4
    write_release(*folders(tmp_path), written.size, SEED)
    assert {p: p.stat().st_mtime_ns for p in first} == first
    assert {f: f.stat().st_mtime_ns for f in images} == images
    assert digests(tmp_path) == digests(written.release.parent)


def test_a_lost_file_is_written_again(written, tmp_path):
    write_release(*folders(tmp_path), written.size, SEED)
    p = plan(written.size, SEED)[1]
    (tmp_path / "release" / p.cell.coadd("invvar", "g")).unlink()
    (tmp_path / "release" / "release.json").unlink()
    write_release(*folders(tmp_path), written.size, SEED)
    assert digests(tmp_path) == digests(written.release.parent)


def test_scratch_files_of_a_dead_writer_are_removed_and_those_of_a_living_one_are_left(tmp_path, make):
    dead = subprocess.Popen([sys.executable, "-c", "pass"])
    dead.wait()
    size = make(
        tiles=("000m005",), deep_tiles=(), bricks_per_tile=1, galaxies=1, lenses=1, faint=1, stars=1, survey_edge=0
    )
    write_release(*folders(tmp_path), size, SEED)
    (tmp_path / "release" / "release.json").unlink()
    left, kept = (tmp_path / "release" / "south" / f".{pid}.image.fits.fz" for pid in (dead.pid, os.getpid()))
    left.write_bytes(b"half")
    kept.write_bytes(b"half")
    write_release(*folders(tmp_path), size, SEED)
    assert not left.exists()
    assert kept.exists()


def test_a_complete_release_is_recognised_at_once(written):
    before = {p: p.stat().st_mtime_ns for p in written.release.rglob("*")}
    started = time.perf_counter()
    again = write_release(written.release, written.truth, written.catalogues, written.size, SEED)
    assert time.perf_counter() - started < 1.0
    assert again == written.summary
    assert {p: p.stat().st_mtime_ns for p in written.release.rglob("*")} == before


def test_other_settings_in_the_same_folder_are_refused_and_named(written, make):
    with pytest.raises(BadInput, match="another seed"):
        write_release(written.release, written.truth, written.catalogues, written.size, SEED + 1)
    with pytest.raises(BadInput, match="another size"):
        write_release(written.release, written.truth, written.catalogues, make(lenses=5), SEED)


def test_a_foreign_folder_is_never_written_into(tmp_path, make):
    (tmp_path / "release").mkdir()
    (tmp_path / "release" / "thesis.txt").write_text("years of work")
    with pytest.raises(BadInput, match="not empty"):
        write_release(*folders(tmp_path), make(), SEED)
    assert (tmp_path / "release" / "thesis.txt").read_text() == "years of work"


def test_truth_inside_the_release_is_refused(tmp_path, make):
    with pytest.raises(BadInput, match="none inside another"):
        write_release(tmp_path / "a", tmp_path / "a" / "truth", tmp_path / "c", make(), SEED)


def test_replace_writes_the_new_release_over_the_old_one(tmp_path, make):
    tiny = make(
        tiles=("000m005",), deep_tiles=(), bricks_per_tile=1, galaxies=2, lenses=1, faint=2, stars=1, survey_edge=0
    )
    write_release(*folders(tmp_path), tiny, 1)
    old = digests(tmp_path)
    summary = write_release(*folders(tmp_path), tiny, 2, replace=True)
    assert summary.seed == 2
    assert json.loads((tmp_path / "release" / "release.json").read_text())["request"]["seed"] == 2
    assert digests(tmp_path) != old
