"""Each benchmark at a toy size: it runs, both sides agree, and the line holds what is promised. Speed is not asserted."""

import json
import math
import os
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from lens_assets.bench import catalogue, partition, shards, stamps
from lens_assets.bench.timing import interleaved, line
from lens_assets.cli import bench as command

SIZE = 33  # of stamps


def assert_line(found, name, *extras):
    numbers = ("ours", "theirs", "ratio") if "ratio" in found else ("value",)
    assert found["name"] == name
    assert all(math.isfinite(found[key]) and found[key] > 0 for key in numbers)
    assert {"spread", "threads", *extras} <= set(found)
    command.check(found)
    json.dumps(found, default=float)


def test_the_sides_of_a_benchmark_take_turns_and_alternate_who_goes_first():
    calls = []
    took = interleaved(lambda: calls.append("o"), lambda: calls.append("t"), 3)
    assert "".join(calls) == "ottoot"
    assert [len(t) for t in took] == [3, 3]
    with pytest.raises(ValueError, match="measure nothing"):
        interleaved(lambda: None, lambda: None, 0)


def test_a_line_states_medians_of_rates_and_half_the_range_of_the_ratio():
    found = line("x", "them", ([1.0, 2.0, 4.0], [10.0, 10.0, 10.0]), (20, 2), "things/s", 1, extra=7)
    assert (found["ours"], found["theirs"], found["ratio"], found["spread"]) == (10.0, 0.2, 50.0, 37.5)
    assert (found["reference"], found["repeats"], found["extra"]) == ("them", 3, 7)


@pytest.mark.parametrize(
    ("seconds", "work"), [(([0.0], [1.0]), (1, 1)), (([1.0], [math.nan]), (1, 1)), (([1.0], [1.0]), (0, 1))]
)
def test_what_was_not_measured_gives_no_line(seconds, work):
    with pytest.raises(RuntimeError, match="nothing was measured"):
        line("x", "them", seconds, work, "things/s", 1)


def test_stamps_read_written_archived():
    found = shards.bench_stamps_read(1, n=200, n_theirs=130, size=SIZE)
    assert_line(found, "stamps-read", "n", "megabytes")
    for side in ("shard", "npz", "fits"):
        assert all(found["rates"][side][what] > 0 for what in ("write", "sequential", "random"))
    assert all(found["rates"]["archive"][what] > 0 for what in ("write", "restore", "random"))
    sizes = found["bytes_per_stamp"]
    assert sizes["shard"] == pytest.approx(3 * SIZE**2 * 4, abs=2)
    assert sizes["archive"] < 0.4 * sizes["npz"] < 0.4 * sizes["fits"]
    assert max(found["archive_rms_sigma"]) < 0.0185


def test_stamps_cut():
    found = stamps.bench_stamps_cut(1, n=10, n_theirs=2, side=300, size=33)
    assert_line(found, "stamps-cut", "stamps_per_brick", "ratio_sections")
    assert list(found["by_count"]) == ["1", "10"]
    assert all(rate > 0 for way in found["by_count"].values() for rate in way.values())


def test_stamps_cut_refuses_sides_that_do_not_cut_the_same_pixels(monkeypatch):
    cut = stamps._Astropy.cut
    monkeypatch.setattr(stamps._Astropy, "cut", lambda self, ra, dec: cut(self, ra, dec + 1e-3))
    with pytest.raises(RuntimeError, match="same pixels"):
        stamps.bench_stamps_cut(1, n=3, n_theirs=1, side=300, size=33)


def test_catalogue():
    found = catalogue.bench_catalogue(1, n=20_000, n_lenses=200, processes=False)
    ways = ("every_row", "memmap", "guarded")
    kinds = ("cpu", *ways, *(f"{way}_cpu" for way in ways), "two_steps", "without_datasum", "bound")
    ratios = [f"ratio_{kind}" for kind in kinds]
    assert_line(
        found,
        "catalogue",
        "negatives",
        "seconds_read",
        "seconds_proof",
        "seconds_rest",
        "spread_cpu",
        "ratio_pool",
        "spread_pool_cpu",
        "dr10_assumes",
        *ratios,
    )
    assert all(found[name] > 0 for name in (*ratios, "rows_per_core", "dr10_core_hours"))
    assert found["dr10_core_hours"] > found["dr10_rows"] / found["rows_per_core"] / 3600


@pytest.mark.slow
def test_catalogue_in_two_processes():
    found = catalogue.bench_catalogue(1, n=20_000, n_lenses=200)
    assert 0 < found["scaling"] == found["rows_2_processes"] / found["rows_1_process"]


def test_the_guarded_reference_of_the_catalogue_finds_a_flipped_bit(tmp_path):
    path, settings = tmp_path / catalogue.TILE.file, catalogue.Settings(selection=catalogue.SELECTION)
    rows = catalogue.make_rows(500)
    catalogue.make_file(path, rows)
    registry = catalogue.make_registry(rows, 30)
    content = bytearray(path.read_bytes())
    content[-9000] ^= 1
    path.write_bytes(content)
    catalogue.astropy_way(path, registry, settings)
    with pytest.raises(RuntimeError, match="not sound"):
        catalogue.astropy_way(path, registry, settings, guards=True)


def test_catalogue_refuses_sides_that_find_other_negatives(monkeypatch):
    monkeypatch.setattr(catalogue, "astropy_way", lambda *a, **k: ({1}, {}))
    with pytest.raises(RuntimeError, match="same negatives"):
        catalogue.bench_catalogue(1, n=5_000, n_lenses=50, processes=False)


def test_the_synthetic_registry_removes_some_objects_so_that_exclusion_is_tested():
    rows = catalogue.make_rows(20_000)
    registry = catalogue.make_registry(rows, 100)
    ra, dec = registry["ra"].to_numpy()[:20], registry["dec"].to_numpy()[:20]
    away = np.hypot((rows["RA"][:, None] - ra) * np.cos(np.radians(dec)), rows["DEC"][:, None] - dec).min(axis=0) * 3600
    assert 5 < (away < 11).sum() <= 20


def test_partition():
    found = partition.bench_partition(1, n=2)
    assert_line(found, "partition", "value", "single_run", "single_run_cpu", "cpu")
    assert found["spread"][0] <= found["value"] <= found["spread"][1]


@pytest.fixture(scope="module")
def network():
    pytest.importorskip("torch")
    from lens_assets.bench.network import trained

    return trained(SIZE, 1, 64)


def test_the_network_of_the_benchmarks_has_learnt_something_before_its_drift_is_measured(network):
    assert network.drift >= 0
    assert network.logit_range > 0
    assert {"drift", "drift_measured_on", "auc"} <= set(network.facts())


def test_scoring(network):
    from lens_assets.bench.scoring import bench_scoring

    found = bench_scoring(1, n=8, size=SIZE, steps=1, held_out=64)
    assert_line(found, "scoring", "drift", "precision")
    assert found["difference"] <= max(2 * found["drift"], 1e-2)


@pytest.mark.filterwarnings("ignore:`axes` should not be:DeprecationWarning")  # of lenstronomy
def test_injection(network):
    from lens_assets.bench.injection import bench_injection

    found = bench_injection(1, n=6, n_theirs=2, size=SIZE, steps=1, held_out=64)
    assert_line(found, "injection", "drift", "precision", "flux_error", "ratio_cpu", "ours_cpu", "theirs_cpu")
    assert found["ratio_cpu"] == pytest.approx(found["ours_cpu"] / found["theirs_cpu"], rel=1e-9)  # one round


@pytest.mark.slow
@pytest.mark.parametrize("name", command.possible(sorted(command.benches())))
@pytest.mark.filterwarnings("ignore:`axes` should not be:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # of py4j, when a session of Spark ends
@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")
def test_every_benchmark_runs_at_full_size(name):
    found = command.benches()[name](1)
    assert_line(found, name)


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def invoke(monkeypatch, tmp_path):
    """Run the command in this process: the allocator's settings are given, so it does not start itself anew."""
    for key, value in command._MALLOC.items():
        monkeypatch.setenv(key, value)

    def run(lines, *arguments):
        monkeypatch.setattr(command, "benches", lambda: lines)
        import typer

        app = typer.Typer()
        command.register(app)
        return CliRunner().invoke(app, [*arguments, "--out", str(tmp_path)])

    return run


GOOD = {"name": "good", "reference": "r", "ours": 2.0, "theirs": 1.0, "ratio": 2.0, "spread": 0.1, "threads": 1}


def test_the_command_prints_exactly_one_line_of_json_whatever_the_benchmark_prints(invoke, tmp_path):
    def noisy(repeats):
        sys.stdout.write("chatter\n")
        return GOOD | {"repeats": repeats}

    done = invoke({"good": noisy}, "good", "--json", "--repeats", "3")
    assert done.exit_code == 0
    (text,) = done.stdout.splitlines()
    found = json.loads(text)
    assert found["repeats"] == 3
    assert {"name", "reference", "ours", "theirs", "ratio", "spread", "threads", "versions"} <= set(found)
    assert found["versions"]["numpy"] == np.__version__
    assert json.loads((tmp_path / "good.json").read_text()) == found


def test_a_benchmark_that_cannot_measure_fails_the_command_and_leaves_the_others_their_line(invoke):
    def broken(repeats):
        raise RuntimeError("no clock")

    lines = {"broken": broken, "nan": lambda r: GOOD | {"ratio": math.nan}, "bare": lambda r: {"value": 1.0}}
    done = invoke(lines | {"good": lambda r: GOOD}, "all", "--json")
    assert done.exit_code == 1
    assert len(done.stdout.splitlines()) == 1
    assert "broken: could not measure: no clock" in done.stderr
    assert "nan: could not measure: ratio is nan" in done.stderr
    assert "bare: could not measure: the line lacks spread, threads" in done.stderr


def test_an_unknown_name_is_refused_with_the_known_ones(invoke):
    done = invoke({"good": lambda r: GOOD}, "god")
    assert done.exit_code == 2
    assert "there are good" in done.stderr


def test_the_command_starts_itself_anew_once_with_the_allocator_settings_and_does_not_loop(monkeypatch):
    started = []

    def execve(path, arguments, environment):
        started.append((arguments, environment))
        raise SystemExit(0)

    for key in command._MALLOC:
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setattr(os, "execve", execve)
    with pytest.raises(SystemExit):
        command.bench("lookup")
    ((arguments, environment),) = started
    assert arguments[1:3] == ["-m", "lens_assets.cli"]
    assert all(environment[key] == value for key, value in command._MALLOC.items())
    monkeypatch.setattr(os, "environ", environment)
    monkeypatch.setattr(command, "benches", dict)
    with pytest.raises(command.typer.Exit):
        command.bench("lookup")
    assert len(started) == 1


def test_every_benchmark_of_the_contract_is_registered():
    assert list(command.benches()) == [
        "arcs", "arcs-tight", "scoring", "injection", "stamps-read", "stamps-cut", "catalogue", "spark", "partition",
        "lookup", "arcs-gpu", "scoring-gpu", "injection-gpu", "training-gpu",
    ]  # fmt: skip
