"""The command line as a person meets it: help, what is missing, and errors that say what to do."""

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from lens_assets.cli import bench, demo, doctor, lookup, mock, release, ui
from lens_assets.cli.doctor import Finding

COMMANDS = {
    "demo": demo,
    "ui": ui,
    "lookup": lookup,
    "release": release,
    "mock": mock,
    "bench": bench,
    "doctor": doctor,
}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Invoke the command line in an empty folder with no installation."""
    monkeypatch.chdir(tmp_path)
    for name in ("HOME", "RELEASE", "CATALOGUES", "PROFILE"):
        monkeypatch.delenv(f"LENS_ASSETS_{name}", raising=False)
    for name, value in bench._MALLOC.items():
        monkeypatch.setenv(name, value)  # else `bench` replaces this very process
    app = typer.Typer()
    for module in COMMANDS.values():
        module.register(app)
    runner = CliRunner()
    return lambda *words: runner.invoke(app, [str(word) for word in words])


def intact_release(folder: Path) -> Path:
    """The smallest folder that counts as a release."""
    folder.mkdir(parents=True)
    (folder / "surface-toy.json").write_text('{"name": "toy", "version": "1.0.0", "verdict": "GO: looks real"}\n')
    (folder / "README.md").write_text("A toy.\n")
    from lens_assets.science.storage import sha256_file

    lines = [f"{sha256_file(p)}  {p.name}\n" for p in sorted(folder.iterdir())]
    (folder / "SHA256SUMS").write_text("".join(lines))
    return folder


def test_help_names_every_command_and_where_to_start():
    done = subprocess.run(
        [sys.executable, "-m", "lens_assets.cli", "--help"], capture_output=True, text=True, check=True
    )
    for name in COMMANDS:
        assert re.search(rf"^\s*{name}\s+\S", done.stdout, flags=re.M), name
    assert "Start with `lens-assets demo`" in " ".join(done.stdout.split())


def test_the_command_line_is_imported_without_anything_heavy():
    program = (
        "import sys\nfor n in ('torch', 'dagster', 'polars', 'astropy', 'mlflow'): sys.modules[n] = None\n"
        "from lens_assets.cli import bench, demo, doctor, lookup, mock, release, ui"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize(("levels", "status"), [(["ok", "note"], 0), (["ok", "missing", "note"], 1)])
def test_doctor_exits_with_an_error_only_when_something_is_missing(run, monkeypatch, levels, status):
    findings = [Finding(level, f"subject {i}", f"text {i}") for i, level in enumerate(levels)]
    monkeypatch.setattr(doctor, "examine", lambda home: findings)
    done = run("doctor")
    assert done.exit_code == status
    for finding in findings:
        assert re.search(rf"^{finding.level}\s+{finding.subject}\s+{finding.text}$", done.output, flags=re.M)
    assert f"{len(levels)} looked at, {levels.count('missing')} missing" in done.output


def test_doctor_looks_at_this_machine_and_finds_each_subject_once_or_more(tmp_path):
    found = doctor.examine(tmp_path / "not" / "yet")
    assert {f.level for f in found} <= {"ok", "note", "missing"}
    subjects = {f.subject for f in found}
    assert subjects == {
        "Python", "packages", "memory", "storage", "port 3000", "port 5000", "Java", "GPU", "browser",
    }  # fmt: skip
    assert not (tmp_path / "not").exists()


def test_doctor_names_a_package_that_the_lock_asks_for_and_is_not_there(tmp_path):
    lock = tmp_path / "requirements.lock"
    lock.write_text(f"# a comment==1\ntyper=={_version('typer')}\nno-such-package-of-ours==1.2.3\nnumpy==0.0.1 ; x\n")
    found = {f.level: f.text for f in doctor.packages(lock)}
    assert found["ok"] == "1 of 3 as pinned"
    assert "no-such-package-of-ours" in found["missing"]
    assert "make setup" in found["missing"]
    assert re.search(r"numpy \S+ \(pinned 0\.0\.1\)", found["note"])


def test_doctor_is_content_when_everything_is_as_pinned(tmp_path):
    lock = tmp_path / "requirements.lock"
    lock.write_text(f"typer=={_version('typer')}\n")
    assert [f.level for f in doctor.packages(lock)] == ["ok"]


def test_doctor_says_so_when_there_is_no_lock_to_compare_with(tmp_path):
    (found,) = doctor.packages(tmp_path / "none")
    assert (found.level, "not compared" in found.text) == ("note", True)


def test_doctor_notes_a_port_that_is_taken_and_how_to_choose_another(monkeypatch):
    monkeypatch.setattr(ui, "port_free", lambda host, port: port != 5000)
    by_subject = {f.subject: f for f in doctor.ports()}
    assert by_subject["port 3000"].level == "ok"
    assert by_subject["port 5000"].level == "note"
    assert "--mlflow-port" in by_subject["port 5000"].text


def test_a_port_somebody_listens_on_is_not_free():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert not ui.port_free("127.0.0.1", port)
    assert ui.port_free("127.0.0.1", port)


def test_ui_refuses_a_taken_port_and_names_the_option(run, tmp_path):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        done = run("ui", "--home", tmp_path / "home", "--dagster-port", port)
    assert done.exit_code == 2
    assert f"Port {port} on 127.0.0.1 is taken; choose another with --dagster-port" in done.output


def test_a_look_up_without_a_release_says_how_to_make_one(run):
    done = run("lookup", "--theta-e", 1.5, "--psf", 1.3, "--depth", 23.5)
    assert done.exit_code == 2
    assert "run `lens-assets demo`" in done.output
    assert "--release" in done.output


def test_a_look_up_in_a_folder_that_is_no_release_names_the_folder(run, tmp_path):
    done = run("lookup", "--theta-e", 1.5, "--psf", 1.3, "--depth", 23.5, "--release", tmp_path / "nowhere")
    assert done.exit_code != 0
    assert "nowhere" in done.output + str(done.exception)


def test_an_unknown_benchmark_exits_with_2_and_names_the_known(run):
    done = run("bench", "no-such-bench")
    assert done.exit_code == 2
    assert "no benchmark 'no-such-bench'" in done.output
    for name in bench.benches():
        assert name in done.output


def test_a_benchmark_prints_one_json_line_and_keeps_it(run, monkeypatch, tmp_path):
    line = {"ours": 2.0, "theirs": 1.0, "ratio": 2.0, "reference": "the other", "spread": 0.1, "threads": 1}
    monkeypatch.setattr(bench, "benches", lambda: {"toy": lambda repeats: {**line, "repeats": repeats}})
    done = run("bench", "toy", "--json", "--repeats", 3)
    assert done.exit_code == 0
    import json

    printed = json.loads(done.output)
    assert printed | {"name": "toy", "repeats": 3, **line} == printed
    assert printed["versions"]["python"]
    assert json.loads((tmp_path / "bench" / "toy.json").read_text()) == printed


def test_a_benchmark_that_fails_is_named_and_the_others_are_measured(run, monkeypatch):
    def broken(repeats: int) -> dict:
        raise RuntimeError("no Java")

    line = {"value": 1.0, "spread": 0.1, "threads": 1}
    monkeypatch.setattr(bench, "benches", lambda: {"broken": broken, "fine": lambda repeats: line})
    done = run("bench", "all")
    assert done.exit_code == 1
    assert "broken: could not measure: no Java" in done.output
    assert "fine: 1" in done.output


def test_an_intact_release_is_listed_with_its_verdict(run, tmp_path):
    intact_release(tmp_path / ".lens_assets" / "releases" / "toy-1.0.0")
    done = run("release")
    assert done.exit_code == 0
    assert "2 files intact; toy 1.0.0; GO: looks real" in done.output


def test_a_single_changed_byte_of_a_release_is_found_and_its_file_named(run, tmp_path):
    place = intact_release(tmp_path / "toy-1.0.0")
    assert run("release", place).exit_code == 0
    data = bytearray((place / "README.md").read_bytes())
    data[0] ^= 1
    (place / "README.md").write_bytes(data)
    done = run("release", place)
    assert done.exit_code == 1
    assert "README.md" in done.output
    assert "differ from SHA256SUMS" in done.output


def test_a_file_that_was_slipped_into_a_release_is_found(run, tmp_path):
    place = intact_release(tmp_path / "toy-1.0.0")
    (place / "more.txt").write_text("x")
    done = run("release", place)
    assert (done.exit_code, "more.txt" in done.output) == (1, True)


def test_without_any_release_the_command_says_how_to_make_one(run):
    done = run("release")
    assert (done.exit_code, "lens-assets demo" in done.output) == (2, True)


def test_a_demo_with_an_unknown_profile_names_the_profiles_there_are(run, tmp_path):
    done = run("demo", "--profile", "huge", "--home", tmp_path / "home")
    assert done.exit_code == 2
    for name in ("tiny", "demo", "paper"):
        assert name in done.output


def _version(name: str) -> str:
    import importlib.metadata

    return importlib.metadata.version(name)
