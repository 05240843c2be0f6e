"""Where the error of fitted priors is shown: closure, release, card and look-up."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from lens_assets import lookup
from lens_assets.checks.completeness import _fit_error as fit_error_known
from lens_assets.science.audits.closure import closure, summary
from lens_assets.science.audits.judge import fit_error
from lens_assets.science.audits.steps import STEPS
from lens_assets.science.columns.audits import CLOSURE
from lens_assets.science.completeness.density import latents_of, log_ratio
from lens_assets.science.release.write import write_release
from lens_assets.science.storage import Draft, Store

spec = importlib.util.spec_from_file_location("fitted_survey", Path(__file__).with_name("fitted.py"))
survey = importlib.util.module_from_spec(spec)
spec.loader.exec_module(survey)
FIT = survey.FIT
OTHER = survey.OTHER
fitted = survey.fitted
table = survey.table
draws = survey.draws
about = survey.about
injections = survey.injections
surface = survey.surface
true_lenses = survey.true_lenses


@pytest.fixture(scope="module")
def plain() -> pl.DataFrame:
    return injections(FIT, 150, 1, hosts=40)


def test_a_closure_says_whether_the_truth_lies_inside_with_and_without_the_error_of_the_fit(plain):
    truth = true_lenses(
        FIT | {"r_mean": FIT["r_mean"] + 0.4}, 300, 20
    )  # the fit is 0.4 mag too bright, for an error of 0.3
    rows = closure(surface(plain, draws(about(30, np.random.default_rng(21)))), truth)
    assert CLOSURE.violations(rows) == []
    whole = rows.filter(pl.col("closure_level") == "all").row(0, named=True)
    assert (whole["inside68"], whole["full_inside68"], whole["full_inside95"]) == (False, False, True)
    assert whole["p_closure_full"] > 1.2 * whole["p_closure"]
    assert whole["predicted_full_lo95"] < whole["predicted_lo95"] < whole["predicted_completeness"]
    assert whole["true_completeness"] == pytest.approx((truth["score"] >= 0.5).mean())
    said = summary(rows)["with_the_error_of_the_priors"]
    assert said["inside95"] >= summary(rows)["inside95"]["inside"]
    bare = closure(surface(plain, None), truth)
    assert bare["p_closure_full"].null_count() == bare.height
    assert "with_the_error_of_the_priors" not in summary(bare)
    rest = [c for c in bare.columns if "full" not in c]
    assert bare.select(rest).equals(rows.select(rest))


def test_a_row_of_a_closure_whose_cells_have_no_such_bound_has_none(plain):
    far = FIT | {"r_mean": 25.5, "r_sigma": 0.3}
    s = surface(plain, draws([FIT] * 7 + [far] * 3))
    rows = closure(s, true_lenses(FIT, 60, 22))
    assert rows["full_inside68"].null_count() == rows.height
    assert rows["inside68"].null_count() == 0


def test_the_experiment_says_whether_the_error_of_the_fit_holds_what_true_priors_gave(plain):
    s = surface(plain, draws(about(30, np.random.default_rng(23))))
    lenses = true_lenses(FIT, 40, 24)
    point = s.point("half")
    plain_mean = float(s.cells.filter(pl.col("operating_point") == "half")["completeness"].mean())
    for after, inside in ((plain_mean + 0.01, True), (plain_mean - 0.5, False)):
        steps = pl.DataFrame(
            {"closure_step": [STEPS[0][0]], "completeness_before": [plain_mean], "completeness_after": [after]}
        )
        said = fit_error(s, lenses, point, steps)
        assert (said["inside68"], said["inside95"]) == (inside, inside)
        assert said["lo95"] < said["lo68"] < plain_mean < said["hi68"] < said["hi95"]
        assert (said["draws"], said["refused"]) == (30, 0.0)
    assert fit_error(surface(plain, None), lenses, point, steps) is None


@pytest.fixture(scope="module")
def released(plain, tmp_path_factory):
    """A release of a surface of fitted priors and of the same injections as if they had not been fitted."""
    folder = tmp_path_factory.mktemp("fitted") / "release"
    folder.mkdir()
    both = {"a|fitted": surface(plain, draws(about(20, np.random.default_rng(30)))), "a|other": surface(plain, None)}
    for name, s in both.items():
        s.meta.update(zip(("detector", "variant"), name.split("|"), strict=True))
    write_release(
        Draft(folder), both, primary="a|fitted", name="x", version="0.1.0", realism=None, priors={}, detector={"d": 1}, lineage={},
        citation={"title": "t", "authors": [{"name": "n"}]},
    )  # fmt: skip
    return folder, both["a|fitted"]


def test_a_look_up_gives_the_interval_with_the_error_of_the_priors_where_they_were_fitted(released):
    folder, s = released
    f, other = lookup.load(folder), lookup.load(folder, "a|other")
    where = {"theta_e": 1.5, "psf": 1.2, "depth": 23.5}
    row = s.cells.filter(
        (pl.col("operating_point") == "half")
        & (pl.col("i_theta") == 1)
        & (pl.col("i_psf") == 0)
        & (pl.col("i_depth") == 1)
    ).row(0, named=True)
    for level in (68, 95):
        own = f.completeness(**where, threshold="half", level=level / 100, priors=True)
        assert (float(own.lo), float(own.hi)) == (row[f"full_lo{level}"], row[f"full_hi{level}"])
        assert float(own.value) == row["completeness"]
        bare = f.completeness(**where, threshold="half", level=level / 100)
        assert (float(bare.lo), float(bare.hi)) == (row[f"total_lo{level}"], row[f"total_hi{level}"])
    assert np.isnan(f.completeness(theta_e=9.0, psf=1.2, depth=23.5, priors=True).lo)
    assert f"{row['full_lo68']:.4f} to {row['full_hi68']:.4f}, with the error of the fitted priors" in f.describe(
        **where, threshold="half"
    )
    assert "fitted priors" not in other.describe(**where)
    with pytest.raises(ValueError, match="not fitted"):
        other.completeness(**where, priors=True)
    with pytest.raises(ValueError, match="does not know"):
        f.completeness(**where, model=True, priors=True)
    # common to all cells: the error of a population grows with it
    many = {"theta_e": [1.0, 1.5], "psf": 1.2, "depth": [23.5, 23.5]}
    assert (
        f.expected_found(**many, threshold="half", priors=True).error > f.expected_found(**many, threshold="half").error
    )
    with pytest.raises(ValueError, match="not fitted"):
        other.expected_found(**many, priors=True)


def test_a_population_with_a_cell_whose_bound_is_not_known_has_no_error_rather_than_a_small_one(plain, tmp_path):
    s = surface(plain, draws([FIT] * 7 + [FIT | {"r_mean": 25.5, "r_sigma": 0.3}] * 3))
    write_release(
        Draft(tmp_path), s, name="x", version="0.1.0", realism=None, priors={}, detector={"d": 1}, lineage={},
        citation={"title": "t", "authors": [{"name": "n"}]},
    )  # fmt: skip
    f = lookup.load(tmp_path)
    assert np.isnan(f.expected_found(theta_e=1.5, psf=1.2, depth=23.5, priors=True).error)
    assert "not known" in f.describe(theta_e=1.5, psf=1.2, depth=23.5)
    assert "| 0 of 8, 95 % | not known |" in (tmp_path / "MODEL_CARD.md").read_text()


def test_a_release_holds_the_draws_and_what_each_injection_was_drawn_with_and_the_card_says_what_they_do(released):
    folder, s = released
    drawn = pl.read_parquet(folder / "prior_draws.parquet")
    assert drawn["surface"].unique().to_list() == ["a|fitted"]
    assert drawn.drop("surface").equals(s.prior.table)
    card = (folder / "MODEL_CARD.md").read_text()
    assert "## Error of the fitted priors" in card
    assert "weighted to 20 draws" in card
    whole = s.marginals.filter((pl.col("axis") == "all") & (pl.col("operating_point") == s.point("default").name)).row(
        0, named=True
    )
    assert f"{whole['prior_effective']:,.0f} are effective" in card
    # another's priors: anybody can weight the released injections
    rows = pl.read_parquet(next(folder.glob("injections*.parquet"))).filter(pl.col("surface") == "a|fitted")
    log, _ = log_ratio(latents_of(rows), fitted(OTHER), fitted(FIT), mixture=True, colours="normal")
    assert np.isfinite(log).any()


@pytest.mark.parametrize(("far", "words"), [(0, 0), (2, 1), (4, 2)])
def test_the_check_says_where_most_cells_have_no_interval_with_the_error_of_the_fit(plain, tmp_path, far, words):
    s = surface(plain, draws([FIT] * (20 - far) + [FIT | {"r_mean": 25.5, "r_sigma": 0.3}] * far))
    store = Store(tmp_path)
    with store.draft("completeness_surface", "all", made_from={}) as draft:
        s.save(draft)
    found = fit_error_known(store.get("completeness_surface", "all"), None)
    assert len(found.problems) == words
    assert all("supported cells" in p for p in found.problems)
    assert found.figures["cells"] == 16  # two thresholds
