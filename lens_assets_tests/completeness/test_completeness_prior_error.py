"""The error of fitted priors: the plain counts where nothing moves, and an interval that covers where the fit is off."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as hyp
from hypothesis import strategies as st

from lens_assets.science.columns.completeness import MARGINALS, SURFACE
from lens_assets.science.completeness.counting import members
from lens_assets.science.completeness.density import latents_of, log_ratio
from lens_assets.science.completeness.grid import Grid
from lens_assets.science.completeness.marginals import survey_weighted
from lens_assets.science.completeness.model import Surface
from lens_assets.science.completeness.prior_error import PriorDraws
from lens_assets.science.completeness.recount import Weights, remaining
from lens_assets.science.errors import BadInput
from lens_assets.science.intervals import jeffreys
from lens_assets.science.storage import Store

spec = importlib.util.spec_from_file_location("fitted_survey", Path(__file__).with_name("fitted.py"))
survey = importlib.util.module_from_spec(spec)
spec.loader.exec_module(survey)
FIT = survey.FIT
OTHER = survey.OTHER
GRID = survey.GRID
fitted = survey.fitted
table = survey.table
draws = survey.draws
about = survey.about
injections = survey.injections
surface = survey.surface


@pytest.fixture(scope="module")
def plain() -> pl.DataFrame:
    return injections(FIT, 150, 1, hosts=40)


def test_a_surface_under_draws_that_are_the_fit_itself_has_the_plain_counts_and_the_published_interval(plain):
    s = surface(plain, draws([FIT] * 20))
    for frame in (s.cells.drop_nulls("completeness"), s.marginals.drop_nulls("completeness")):
        frame = frame.filter(pl.col("completeness").is_between(0, 1, closed="none"))
        assert frame.height > 5
        for side in ("lo68", "hi68", "lo95", "hi95"):
            assert frame[f"full_{side}"].equals(frame[f"total_{side}"], check_names=False)
            np.testing.assert_allclose(frame[f"prior_{side}"], frame["completeness"], rtol=1e-13)
        assert (frame["prior_refused"] == 0).all()
        assert (frame["prior_beyond"] == 0).all()
    assert np.array_equal(
        s.cells["prior_effective"].drop_nulls(), s.cells.drop_nulls("prior_effective")["n_injections"]
    )
    assert s.cells.filter(pl.col("operating_point") == "half")["prior_lo68"].to_list() == (
        s.cells.filter(pl.col("operating_point") == "half")["completeness"].to_list()
    )


def test_priors_without_a_fit_have_no_error_rather_than_none(plain):
    s = surface(plain, None)
    for frame, of in ((s.cells, SURFACE), (s.marginals, MARGINALS)):
        mine = [c for c in of.names if c.startswith(("prior_", "full_"))]
        assert len(mine) == 11
        assert frame.select(pl.col(mine).is_null().all()).row(0) == (True,) * 11


def test_the_error_of_the_fit_widens_what_is_published_and_changes_nothing_else(plain):
    rows = about(30, np.random.default_rng(5))
    s, bare = surface(plain, draws(rows)), surface(plain, None)
    rest = [c for c in s.cells.columns if not c.startswith(("prior_", "full_"))]
    assert s.cells.select(rest).equals(bare.cells.select(rest))
    assert SURFACE.violations(s.cells) == MARGINALS.violations(s.marginals) == []
    known = s.cells.drop_nulls("full_lo68")
    assert (known["full_lo68"] <= known["total_lo68"]).all()
    assert (known["full_hi68"] >= known["total_hi68"]).all()
    assert (known["full_hi68"] - known["full_lo68"] > known["total_hi68"] - known["total_lo68"]).mean() > 0.9
    # one cell by hand
    x = latents_of(s.members)
    here = (
        (s.members["i_theta"] == 1).to_numpy()
        & (s.members["i_psf"] == 0).to_numpy()
        & (s.members["i_depth"] == 1).to_numpy()
    )
    found = s.members["injection_score"].to_numpy()[here] >= 0.5
    c, n = [], []
    for values in rows:
        w = np.exp(log_ratio(x, fitted(values), fitted(FIT), mixture=True, colours="normal")[0])[here]
        c.append(np.sum(w * found) / w.sum())
        n.append(w.sum() ** 2 / np.sum(w**2))
    assert min(n) > GRID.prior_min_effective
    row = s.cells.filter(
        (pl.col("operating_point") == "half")
        & (pl.col("i_theta") == 1)
        & (pl.col("i_psf") == 0)
        & (pl.col("i_depth") == 1)
    ).row(0, named=True)
    assert row["prior_lo68"] == pytest.approx(np.quantile(c, 0.16), abs=1e-6)
    assert row["prior_hi95"] == pytest.approx(np.quantile(c, 0.975), abs=1e-6)
    assert row["prior_effective"] == pytest.approx(np.median(n), rel=1e-5)
    down = np.hypot(
        *(np.arcsin(np.sqrt(row["completeness"])) - np.arcsin(np.sqrt(row[b])) for b in ("total_lo68", "prior_lo68"))
    )
    assert row["full_lo68"] == pytest.approx(np.sin(np.arcsin(np.sqrt(row["completeness"])) - down) ** 2, abs=1e-9)


def test_rows_in_another_order_give_the_same_numbers(plain):
    prior = draws(about(20, np.random.default_rng(6)))
    assert surface(plain, prior).cells.equals(surface(plain.reverse(), prior).cells)


def test_a_surface_keeps_its_draws_and_counts_a_survey_with_them(plain, tmp_path):
    s = surface(plain, draws(about(20, np.random.default_rng(7))))
    store = Store(tmp_path)
    with store.draft("surface", "all", made_from={}) as draft:
        s.save(draft)
    again = Surface.load(store.get("surface", "all"))
    conditions = pl.DataFrame({"psf_bin": [0, 1, -1], "depth_bin": [1, 1, -1], "n": [300, 100, 50]})
    before, after = (survey_weighted(x, conditions) for x in (s, again))
    assert before.equals(after)
    one = before.filter((pl.col("operating_point") == "half") & (pl.col("i_axis") == 0)).row(0, named=True)
    assert one["prior_lo68"] < one["completeness"] < one["prior_hi68"]
    assert one["full_lo95"] < one["total_lo95"]


@hyp(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=5, max_size=60), st.integers(0, 8), st.sampled_from([0.16, 0.025, 0.25]))
def test_refused_draws_count_as_beyond_either_end(values, refused, tail):
    v = np.array(values)
    bad = np.zeros(v.size, bool)
    bad[: min(refused, v.size - 1)] = True
    lo, hi = remaining(v[None], bad[None], tail)
    place = tail * (v.size - 1)
    if bad.sum() > place:
        assert np.isnan([lo[0], hi[0]]).all()
        return
    if not bad.any():
        assert [lo[0], hi[0]] == pytest.approx(np.quantile(v, [tail, 1 - tail]))
    below, above = (np.sort(np.where(bad, far, v)) for far in (-1.0, 2.0))
    at = place, (v.size - 1) - place
    assert below[int(np.floor(at[0]))] - 1e-12 <= lo[0] <= below[int(np.ceil(at[0]))] + 1e-12
    assert above[int(np.floor(at[1]))] - 1e-12 <= hi[0] <= above[int(np.ceil(at[1]))] + 1e-12


def test_too_uneven_weights_take_the_bound_away_and_say_so(plain):
    far = FIT | {"r_mean": 25.5, "r_sigma": 0.3}
    s = surface(plain, draws([FIT] * 19 + [far]))
    cells = s.cells.drop_nulls("completeness")
    assert (cells["prior_refused"] == 0.05).all()
    assert (
        cells["prior_lo95"].null_count() == cells["full_hi95"].null_count() == cells.height
    )  # 0.05 is more than 0.025
    assert cells["prior_lo68"].null_count() == 0


def test_where_none_are_found_weights_tell_no_shift_and_the_bound_is_that_of_fewer_injections(plain):
    none = plain.with_columns(score=pl.lit(0.1))
    cells = surface(none, draws(about(20, np.random.default_rng(10)))).cells.drop_nulls("completeness")
    assert (cells["completeness"] == 0).all()
    assert cells["prior_hi68"].null_count() == cells.height
    assert (cells["full_lo95"] == 0).all()
    assert (cells["full_hi95"] > cells["total_hi95"]).all()


def test_injections_of_another_fit_or_without_what_they_were_drawn_with_are_refused(plain):
    with pytest.raises(BadInput, match="other priors than the fit"):
        surface(plain, draws([FIT], OTHER))
    with pytest.raises(BadInput, match="drawn with"):
        surface(plain.drop("source_re"), draws([FIT]))
    with pytest.raises(BadInput, match="draws without clumpy"):
        PriorDraws.of(
            fitted(FIT), table([FIT]).filter(pl.col("parameter") != "clumpy"), mixture=True, colours="normal"
        ).sets()
    moved = plain.with_columns(source_mag_r=pl.col("source_mag_r") + 6)
    with pytest.raises(BadInput, match="outside the range"):
        surface(moved, draws([OTHER]))


def coverage(runs: int, n: int, n_draws: int, seed: int) -> dict[str, float]:
    """How often the truth lies inside: priors are fitted with a known error round the true ones, injections drawn from the fit."""
    rng = np.random.default_rng(seed)
    truth = members(injections(FIT, 4_000, 999), Grid.of(GRID))[0]
    p = float(np.mean(truth["injection_score"].to_numpy() >= 0.5))
    inside: dict[str, list[bool]] = {f"{k}{level}": [] for k in ("total", "full") for level in (68, 95)}
    for run in range(runs):
        at = about(1, rng)[0]
        seen = members(injections(at, n // 8, 10_000 + run), Grid.of(GRID))[0]
        found = int((seen["injection_score"] >= 0.5).sum())
        c, m = np.array([found / seen.height]), np.array([float(seen.height)])
        total = {level: jeffreys([found], [seen.height], level) for level in (0.68, 0.95)}
        weights = PriorDraws.of(fitted(at), table(about(n_draws, rng, at)), mixture=True, colours="normal").weights(
            seen
        )
        one = weights.counted(seen, [0.5]).grouped(
            seen.select("i_theta", "i_psf", "i_depth").unique().sort(pl.all()), ["i_theta", "i_psf", "i_depth"], np.ones(8),
            np.zeros(8, int), 1, 0,
        )  # fmt: skip
        own = one.columns(c, m, total, 20.0)
        for level in (68, 95):
            inside[f"total{level}"].append(bool(total[level / 100].lo[0] <= p <= total[level / 100].hi[0]))
            inside[f"full{level}"].append(bool(own[f"full_lo{level}"][0] <= p <= own[f"full_hi{level}"][0]))
    return {k: float(np.mean(v)) for k, v in inside.items()}


def test_where_the_fit_is_off_by_its_error_only_the_interval_with_it_covers_the_truth():
    share = coverage(80, 640, 30, 12)
    assert share["total68"] < 0.45
    assert share["total95"] < 0.75
    assert share["full68"] == pytest.approx(0.68, abs=0.12)
    assert share["full95"] > 0.88


@pytest.mark.slow
def test_the_interval_with_the_error_of_the_fit_covers_at_its_nominal_rate():
    share = coverage(500, 1600, 100, 13)
    assert share["total68"] < 0.4
    assert share["full68"] == pytest.approx(0.68, abs=0.06)
    assert share["full95"] == pytest.approx(0.95, abs=0.03)


def test_weights_of_no_members_are_no_counts():
    empty = Weights(np.zeros((3, 0), np.float32), np.zeros(3)).counted(
        members(injections(FIT, 8, 15), Grid.of(GRID))[0].clear(), [0.5]
    )
    assert empty.keys.height == 0
