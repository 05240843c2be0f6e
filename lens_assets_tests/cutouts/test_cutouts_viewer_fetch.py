"""Asking politely, once, and to the end: pace, waits, a server that misbehaves, kills, and the shard that results."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lens_assets.science.columns.cutouts import CUTOUT_REJECTED, CUTOUTS
from lens_assets.science.cutouts import viewer, viewer_fetch
from lens_assets.science.cutouts.settings import Settings, ViewerSettings
from lens_assets.science.cutouts.shard import Shard, write_shard
from lens_assets.science.cutouts.viewer import Position
from lens_assets.science.cutouts.viewer_fetch import Fetcher, TokenBucket, ViewerCache, retry_after, wait_before
from lens_assets.science.cutouts.viewer_shard import write_viewer_shard
from lens_assets.science.errors import BadInput
from lens_assets.science.storage import Draft
from lens_assets.science.surveys.release import DataRelease

QUICK = {"rate": 50.0, "burst": 50, "workers": 4, "backoff": 0.01, "backoff_max": 0.05, "read_timeout": 5.0}


def settings_of(url: str, **over) -> Settings:
    return Settings(source="viewer", viewer=ViewerSettings(base_url=url, **(QUICK | over)))


@pytest.fixture(scope="module")
def wanted(practice) -> tuple[str, pl.DataFrame]:
    """The practice release, and its objects with what the catalogue knows of their conditions."""
    root, rows = practice
    conditions = {f"psfsize_{b}": pl.lit(1.2 + 0.1 * k) for k, b in enumerate("grz")}
    conditions |= {f"nobs_{b}": pl.lit(4 + k) for k, b in enumerate("grz")}
    return str(root), rows.with_columns(**conditions)


@pytest.fixture
def service(wanted, viewer_server):
    running = []

    def start(behave=None, **more):
        running.append(viewer_server.Service(wanted[0], behave, **more))
        return running[-1]

    yield start
    for one in running:
        one.close()


def make(folder, rows, settings, **more):
    (folder / "shard").mkdir(parents=True)
    draft = Draft(folder / "shard")
    facts = write_viewer_shard(draft, rows, settings, folder / "work", **more)
    return Shard.open(draft.folder), facts


def positions_of(rows: pl.DataFrame) -> list[Position]:
    return [Position(*r) for r in rows.sort("galaxy_id").select("galaxy_id", "ra", "dec", "brickname").iter_rows()]


def test_a_shard_of_native_slices_equals_the_shard_cut_from_bricks_but_for_its_source(wanted, service, tmp_path):
    root, rows = wanted
    got, facts = make(tmp_path / "v", rows, settings_of(service().url))
    (tmp_path / "b").mkdir()
    draft = Draft(tmp_path / "b")
    write_shard(draft, DataRelease(root), rows, Settings(), work=tmp_path / "bw")
    cut = Shard.open(draft.folder)
    assert got.index["galaxy_id"].equals(cut.index["galaxy_id"])
    np.testing.assert_array_equal(got.images(), cut.images())
    np.testing.assert_array_equal(got.invvar(), cut.invvar())
    same = ["x", "y", "dx", "dy", "stamp_digest", "psfsize_g", "nexp_z", "invalid_fraction_r"]
    for name in same:
        np.testing.assert_allclose(*(s.index[name].to_physical().to_numpy() for s in (got, cut)), atol=2e-6) if (
            name != "stamp_digest"
        ) else None
    assert got.index["stamp_digest"].equals(cut.index["stamp_digest"])
    assert set(got.index["source"]) == {"viewer-native"}
    assert got.index["maskbits_fraction"].null_count() == len(got)
    assert got.index["image_digest_g"].null_count() == 0
    CUTOUTS.conform(got.index)
    CUTOUT_REJECTED.conform(got.rejected)
    assert facts["source"] == "viewer-native"
    assert facts["rows_in"] == rows.height == facts["rows"] + sum(facts["rejected"].values())
    missing = {"band z missing"}
    assert (
        missing
        <= set(facts["rejected"])
        == set(cut.rejected["reason"]) - {"off the edge of the brick image"} | {viewer.SIZE}
    )
    assert not (tmp_path / "v" / "work").exists()


def test_resampled_stamps_are_marked_and_their_noise_is_not_a_bricks(wanted, service, tmp_path):
    from lens_assets.science.cutouts.features import noise_lags

    _, rows = wanted
    got, facts = make(tmp_path, rows, settings_of(service().url, mode="cutout"))
    assert set(got.index["source"]) == {"viewer"} == {facts["source"]}
    assert got.index["dx"].abs().max() < 0.01
    lag = noise_lags(got.images(), got.invvar())["noise_lag1_r"].median()
    assert lag > 0.05  # the practice bricks hold white noise, lag 0


def test_every_position_is_accounted_for_whatever_the_server_does(wanted, service, tmp_path):
    _, rows = wanted
    whole = [p for p in positions_of(rows) if p.brickname != rows["brickname"].sort()[-1]]
    plan = {
        0: (200, {"Content-Type": "text/html"}, b"<html>sorry</html>"),
        1: (500, {}, b"No overlap"),
        2: (500, {}, b"<h1>Server Error (500)</h1>"),
        3: "reset",
        4: "cut",
        5: (429, {"Retry-After": "0"}, b"slow down"),
        6: (502, {}, b"bad gateway"),
        7: (200, {"Content-Type": "image/fits"}, b""),
    }
    by_place = {(p.ra, p.dec): plan[k] for k, p in enumerate(whole[: len(plan)])}
    server = service(lambda n, query, honest: by_place.get((float(query["ra"]), float(query["dec"]))))
    got, facts = make(tmp_path, rows, settings_of(server.url, attempts=2, give_up_after=99, max_unanswered=1.0))
    reasons = dict(got.rejected.select("galaxy_id", "reason").iter_rows())
    expected = [viewer.TEXT, viewer.OUTSIDE, viewer_fetch.FAILED, *[viewer_fetch.UNANSWERED] * 4, viewer.BROKEN]
    assert [reasons[p.galaxy_id] for p in whole[: len(plan)]] == expected
    assert facts["rows"] + sum(facts["rejected"].values()) == rows.height
    tried = [server.asked.count((p.ra, p.dec)) for p in whole[: len(plan)]]
    assert tried == [2, 1, 2, 2, 2, 2, 2, 2]
    assert set(got.index["galaxy_id"]).isdisjoint(reasons)


@pytest.mark.parametrize("fault", ["reset", "cut", (429, {}, b""), (503, {}, b""), (200, {}, b"busy"), (504, {}, b"")])
def test_a_fault_that_passes_costs_a_try_and_nothing_else(wanted, service, tmp_path, fault):
    _, rows = wanted
    some = positions_of(rows)[:2]
    server = service(lambda n, query, honest: fault if n == 0 else None)
    cache = ViewerCache(tmp_path, settings_of(server.url))
    Fetcher(settings_of(server.url), cache).fetch(some)
    assert all(cache.body(p.galaxy_id) for p in some)
    assert len(server.asked) == 4


def test_a_slow_answer_is_given_up_and_asked_again(wanted, service, tmp_path):
    _, rows = wanted
    some = positions_of(rows)[:1]
    server = service(lambda n, query, honest: "slow" if n == 0 else None)
    settings = settings_of(server.url, read_timeout=0.3)
    cache = ViewerCache(tmp_path, settings)
    Fetcher(settings, cache).fetch(some)
    assert cache.body(some[0].galaxy_id)
    assert len(server.asked) == 2


def test_retry_after_holds_back_every_worker(wanted, service, tmp_path):
    _, rows = wanted
    some = positions_of(rows)[:4]
    starts = []
    lock = threading.Lock()

    def behave(n, query, honest):
        with lock:
            starts.append(time.monotonic())
            return (429, {"Retry-After": "1"}, b"") if len(starts) == 1 else None

    server = service(behave)
    settings = settings_of(server.url, workers=2, burst=1, rate=10.0)
    Fetcher(settings, ViewerCache(tmp_path, settings)).fetch(some)
    later = [t - starts[0] for t in starts[1:]]
    assert len(starts) == 5
    assert sum(t < 0.95 for t in later) <= 1  # the one that may have started before the answer was read


def test_a_server_that_asks_for_a_long_rest_ends_the_run_and_keeps_what_it_gave(wanted, service, tmp_path):
    _, rows = wanted
    some = positions_of(rows)[:3]
    rest = (some[2].ra, some[2].dec)
    long = (503, {"Retry-After": "86400"}, b"")
    server = service(lambda n, query, honest: long if (float(query["ra"]), float(query["dec"])) == rest else None)
    settings = settings_of(server.url, workers=1)
    cache = ViewerCache(tmp_path, settings)
    with pytest.raises(BadInput, match="asks to wait 86400 s"):
        Fetcher(settings, cache).fetch(some)
    assert [cache.body(p.galaxy_id) is not None for p in some] == [True, True, False]


def test_a_server_that_fails_position_after_position_is_left_alone(wanted, service, tmp_path):
    _, rows = wanted
    some = positions_of(rows)
    server = service(lambda n, query, honest: (502, {}, b""))
    settings = settings_of(server.url, workers=1, attempts=2, give_up_after=3)
    with pytest.raises(BadInput, match="failed 3 positions in a row"):
        Fetcher(settings, ViewerCache(tmp_path, settings)).fetch(some)
    assert len(server.asked) == 6


@pytest.mark.parametrize("status", [400, 404, 403])
def test_a_request_that_is_refused_as_such_ends_the_run_and_shows_the_request(wanted, service, tmp_path, status):
    _, rows = wanted
    server = service(lambda n, query, honest: (status, {}, b"what?"))
    settings = settings_of(server.url, workers=1)
    with pytest.raises(BadInput, match=rf"fits-cutout\?ra=.*status {status}: 'what\?'"):
        Fetcher(settings, ViewerCache(tmp_path, settings)).fetch(positions_of(rows))
    assert len(server.asked) == 1


def test_an_unknown_layer_ends_the_run_at_the_first_answer(wanted, service, tmp_path):
    _, rows = wanted
    server = service()
    settings = settings_of(server.url, layer="ls-dr11", workers=1)
    with pytest.raises(BadInput, match="no layer 'ls-dr11'"):
        Fetcher(settings, ViewerCache(tmp_path, settings)).fetch(positions_of(rows))
    assert len(server.asked) == 1


def test_too_many_lost_to_the_server_make_no_shard_and_the_next_run_asks_only_for_them(wanted, service, tmp_path):
    _, rows = wanted
    whole = rows.filter(pl.col("brickname") != rows["brickname"].sort()[-1])
    bad = {(p.ra, p.dec) for p in positions_of(whole)[:3]}
    ill = [True]
    server = service(
        lambda n, query, honest: (502, {}, b"") if ill[0] and (float(query["ra"]), float(query["dec"])) in bad else None
    )
    settings = settings_of(server.url, attempts=1)
    with pytest.raises(BadInput, match=r"3 of 18 positions have no answer"):
        make(tmp_path / "a", whole, settings)
    asked = len(server.asked)
    ill[0] = False
    (tmp_path / "a" / "shard").rename(tmp_path / "a" / "old")
    got, facts = make(tmp_path / "a", whole, settings)
    assert len(server.asked) - asked == 3
    assert viewer_fetch.UNANSWERED not in facts["rejected"]
    clean, _ = make(tmp_path / "b", whole, settings)
    for name in ("image.npy", "invvar.npy", "index.parquet", "rejected.parquet"):
        assert (got.folder / name).read_bytes() == (clean.folder / name).read_bytes()


def test_a_second_run_asks_for_nothing(wanted, service, tmp_path):
    _, rows = wanted
    server = service()
    settings = settings_of(server.url, give_up_after=99)
    cache = ViewerCache(tmp_path, settings)
    Fetcher(settings, cache).fetch(positions_of(rows))
    n = len(server.asked)
    Fetcher(settings, ViewerCache(tmp_path, settings)).fetch(positions_of(rows))
    assert len(server.asked) == n
    assert server.agents == {next(iter(server.agents))}
    assert next(iter(server.agents)).startswith("lens-assets/")


def test_other_settings_never_meet_the_answers_of_these(tmp_path):
    a = ViewerCache(tmp_path, settings_of("http://127.0.0.1:9"))
    b = ViewerCache(tmp_path, settings_of("http://127.0.0.1:9", mode="cutout"))
    a.keep("10000-1-1", b"x")
    assert a.settled("10000-1-1")
    assert not b.settled("10000-1-1")


KILLED = """
import json, sys
import polars as pl
from lens_assets.science.cutouts.settings import Settings
from lens_assets.science.cutouts.viewer import Position
from lens_assets.science.cutouts.viewer_fetch import Fetcher, ViewerCache
settings = Settings.model_validate_json(sys.argv[1])
rows = pl.read_parquet(sys.argv[2])
positions = [Position(*r) for r in rows.select("galaxy_id", "ra", "dec", "brickname").iter_rows()]
Fetcher(settings, ViewerCache(sys.argv[3], settings)).fetch(positions)
"""


def test_after_a_kill_nothing_answered_is_asked_again_and_the_shard_is_that_of_an_undisturbed_run(
    wanted, service, tmp_path
):
    _, rows = wanted
    whole = rows.filter(pl.col("brickname") != rows["brickname"].sort()[-1])
    server = service(delay=0.15)
    settings = settings_of(server.url, workers=2)
    whole.write_parquet(tmp_path / "rows.parquet")
    folder = ViewerCache(tmp_path / "killed" / "work", settings).folder
    words = [settings.model_dump_json(), str(tmp_path / "rows.parquet"), str(tmp_path / "killed" / "work")]
    process = subprocess.Popen([sys.executable, "-c", KILLED, *words])
    deadline = time.monotonic() + 60
    while len(list(folder.glob("*.fits"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    answered = {p.stem for p in folder.glob("*.fits")}
    assert 5 <= len(answered) < whole.height
    before = len(server.asked)
    got, _ = make(tmp_path / "killed", whole, settings)
    again = {(p.ra, p.dec) for p in positions_of(whole) if p.galaxy_id in answered} & set(server.asked[before:])
    assert not again
    assert len(server.asked) <= whole.height + 2  # what was under way when it died
    clean, _ = make(tmp_path / "clean", whole, settings)
    for name in ("image.npy", "invvar.npy", "index.parquet", "rejected.parquet"):
        assert (got.folder / name).read_bytes() == (clean.folder / name).read_bytes()
    assert not list(folder.glob(".new-*"))


def test_scratch_files_of_a_dead_process_are_removed_and_those_of_a_live_one_kept(tmp_path):
    settings = settings_of("http://127.0.0.1:9")
    folder = ViewerCache(tmp_path, settings).folder
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (folder / f".new-{dead.pid}-a").write_bytes(b"half")
    (folder / f".new-{os.getpid()}-b").write_bytes(b"half")
    ViewerCache(tmp_path, settings)
    assert [p.name for p in folder.iterdir()] == [f".new-{os.getpid()}-b"]


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


@given(st.floats(0.1, 40), st.integers(1, 5), st.integers(1, 40))
def test_the_bucket_never_lets_more_through_than_its_rate(rate, burst, n):
    clock = Clock()
    bucket = TokenBucket(rate, burst, clock, clock.sleep)
    starts = []
    for _ in range(n):
        bucket.take()
        starts.append(clock.now)
    for i in range(n):
        for j in range(i, n):
            assert j - i + 1 <= burst + (starts[j] - starts[i]) * rate + 1e-6
    assert starts[-1] - starts[0] == pytest.approx(max(n - burst, 0) / rate, abs=1e-6)


def test_a_held_bucket_gives_nothing_until_the_time_is_over():
    clock = Clock()
    bucket = TokenBucket(10.0, 1, clock, clock.sleep)
    bucket.hold(7.0)
    bucket.hold(3.0)
    bucket.take()
    assert clock.now == pytest.approx(107.0)


@given(st.integers(1, 12), st.integers(1, 9999))
def test_waits_double_within_their_jitter_are_bounded_and_the_same_for_the_same_object(attempt, objid):
    v = ViewerSettings(backoff=2.0, backoff_max=120.0)
    wait = wait_before(attempt, f"10000-1-{objid}", v)
    assert wait == wait_before(attempt, f"10000-1-{objid}", v)
    assert min(2.0 ** (attempt - 1), 120) <= wait <= min(3.0 * 2.0 ** (attempt - 1), 120)


def test_neighbours_do_not_knock_together():
    v = ViewerSettings()
    waits = {round(wait_before(3, f"10000-1-{k}", v), 6) for k in range(100)}
    assert len(waits) == 100


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(None, 0), ("12", 12), ("1.5", 1.5), ("-3", 0), ("soon", 0), ("Mon, 23 Nov 2026 10:00:30 GMT", 30)],
)
def test_retry_after_is_a_number_or_a_date_and_nonsense_is_no_wait(value, seconds):
    assert retry_after(value, datetime(2026, 11, 23, 10, 0, 0, tzinfo=UTC)) == seconds


def test_rows_that_cannot_be_fetched_are_refused_with_their_column(wanted, tmp_path):
    _, rows = wanted
    settings = settings_of("http://127.0.0.1:9")
    draft = Draft(tmp_path)
    with pytest.raises(BadInput, match="psfsize_r"):
        write_viewer_shard(draft, rows.drop("psfsize_r"), settings, tmp_path / "w")
    with pytest.raises(BadInput, match="twice"):
        write_viewer_shard(draft, pl.concat([rows, rows[:1]]), settings, tmp_path / "w")
    with pytest.raises(BadInput, match=r"nobs_z.*null"):
        write_viewer_shard(draft, rows.with_columns(nobs_z=pl.lit(None, pl.Int64)), settings, tmp_path / "w")


def test_a_refusal_on_disk_says_why(tmp_path):
    settings = settings_of("http://127.0.0.1:9", layer="ls-dr10")
    cache = ViewerCache(tmp_path, settings)
    Fetcher(settings, cache).fetch([Position("10000-1-1", 200.0, 33.0, "x")])
    told = json.loads((cache.folder / "10000-1-1.json").read_text())
    assert told == {"reason": viewer.NORTH, "detail": "dec +33.0000 in layer ls-dr10", "final": True}
