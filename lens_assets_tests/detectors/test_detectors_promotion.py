"""Who becomes champion, what MLflow is told, and the page that compares two detectors."""

import re

import numpy as np
import polars as pl
import pytest
from mlflow.utils.validation import _validate_metric_name
from typer.testing import CliRunner

from lens_assets.science.columns.detectors import DIFFERENCES, SCORES, THRESHOLDS
from lens_assets.science.columns.gates import STANDING
from lens_assets.science.detectors import logged, shortcuts
from lens_assets.science.detectors.compare_figure import differences, gates, save
from lens_assets.science.detectors.compare_page import page
from lens_assets.science.detectors.evaluate import evaluate
from lens_assets.science.detectors.promotion import Candidate, promote
from lens_assets.science.detectors.settings import Settings
from lens_assets.science.errors import BadInput
from lens_assets.science.storage import Store

QUICK = Settings(draws=100, fpr_targets=(0.1,))
N = 3000


@pytest.fixture(scope="module")
def sample():
    rng = np.random.default_rng(0)
    label = (rng.random(N) < 0.2).astype(np.int8)
    role = np.where(np.arange(N) % 2 == 0, "report", "threshold")
    role[(label == 1) & (role == "threshold")] = "calibrate"
    return pl.DataFrame({
        "galaxy_id": [f"g{i:05d}" for i in range(N)], "label": label, "role": role,
        "type": np.where(rng.random(N) < 0.5, "DEV", "SER"), "psfsize_r": rng.uniform(0.9, 1.8, N),
        "independent": [None] * N, "system_id": [None] * N,
    }, schema_overrides={"independent": pl.Boolean, "system_id": pl.String})  # fmt: skip


def gate_table(colour):
    gate = shortcuts.Gate("core_only_matched", 0.5, 0.49, 0.51, 0.4, 0.6, 0.55, 0.7, "AUC", "low", colour, True, 50, 20)
    return shortcuts.table_of([gate])


@pytest.fixture(scope="module")
def candidates(sample):
    """Three detectors, each worse than the one before."""
    rng = np.random.default_rng(1)
    common = rng.normal(size=N)
    made = {}
    for key, gain in (("good-s1", 3.0), ("fair-s1", 2.0), ("poor-s1", 1.0)):
        logit = (common + gain * sample["label"].to_numpy() + 0.3 * rng.normal(size=N) - 2).astype(np.float32)
        scores = pl.DataFrame({"galaxy_id": sample["galaxy_id"], "logit": logit, "score": 1 / (1 + np.exp(-logit))})
        scores = SCORES.conform(scores)
        found = evaluate(sample.join(scores, on="galaxy_id"), QUICK)
        made[key] = Candidate(key, gate_table("green"), found.metrics, found.thresholds, scores)
    return made


def with_gates(candidates, **colours):
    return {
        k: Candidate(k, gate_table(colours.get(k.removesuffix("-s1"), "green")), c.metrics, c.thresholds, c.scores)
        for k, c in candidates.items()
    }


def test_the_best_lower_bound_is_champion_and_the_others_stand_against_it(candidates, sample):
    found = promote(candidates, sample, QUICK)
    assert found.champion == found.reference == "good-s1"
    assert STANDING.violations(found.standing) == []
    rows = {r["detector"]: r for r in found.standing.iter_rows(named=True)}
    assert [k for k, r in rows.items() if r["champion"]] == ["good-s1"]
    assert rows["poor-s1"]["metric_difference"] == pytest.approx(rows["poor-s1"]["value"] - rows["good-s1"]["value"])
    assert rows["poor-s1"]["p_paired"] < 1e-4
    assert rows["good-s1"]["metric_difference"] is None
    assert rows["fair-s1"]["n_candidates"] == 3
    assert set(found.differences["detector_a"]) == {"fair-s1", "poor-s1"}


@pytest.mark.parametrize("colour", ["red", "insufficient"])
def test_a_red_gate_is_never_passed_over_however_good_the_detector(candidates, sample, colour):
    found = promote(with_gates(candidates, good=colour), sample, QUICK)
    assert found.champion == "fair-s1"
    reason = dict(found.standing.select("detector", "standing_reason").iter_rows())["good-s1"]
    assert reason.startswith(f"may not be champion: core_only_matched is {colour}")
    nobody = promote(with_gates(candidates, good=colour, fair="red", poor="red"), sample, QUICK)
    assert nobody.champion is None
    assert nobody.reference == "good-s1"
    assert not nobody.standing["champion"].any()


def test_yellow_is_told_and_does_not_forbid(candidates, sample):
    found = promote(with_gates(candidates, good="yellow"), sample, QUICK)
    assert found.champion == "good-s1"
    assert "core_only_matched is yellow" in found.standing.filter("champion")["standing_reason"][0]


def test_no_detector_at_all_is_an_error(sample):
    with pytest.raises(BadInput, match="no detector"):
        promote({}, sample, QUICK)


def test_names_are_the_same_for_every_detector_and_accepted_by_mlflow(candidates):
    told = [logged.metrics_of(c.metrics) for c in candidates.values()]
    assert set(told[0]) == set(told[1]) == set(told[2])
    for name in (*told[0], *logged.gates_of(gate_table("red"))):
        _validate_metric_name(name)
    for name in ("held-out.auc", "held-out.auc.type.SER", "held-out.auc.type.SER.lo95", "held-out.auc.psf_r.lt1.05",
                 "held-out.auc.psf_r.ge1.65.n_pos", "held-out.recall.fpr1e-01.type.DEV", "held-out.ece_change"):  # fmt: skip
        assert name in told[0] or name == "held-out.ece_change", name
    row = candidates["good-s1"].metrics.filter(
        (pl.col("metric") == "recall") & (pl.col("threshold_name") == "fpr1e-01") & (pl.col("stratum") == "all")
        & (pl.col("interval") == "bootstrap-with-threshold") & (pl.col("set") == "held-out")
    ).row(0, named=True)  # fmt: skip
    assert told[0]["held-out.recall.fpr1e-01.lo95"] == row["lo95"], "the interval that holds the threshold's own error"
    assert logged.plain("a.nobs_z.11+") == "a.nobs_z.11plus"


def test_differences_are_told_with_the_p_that_counts(candidates, sample):
    found = promote(candidates, sample, QUICK)
    part = found.differences.filter(pl.col("detector_a") == "poor-s1")
    told = logged.differences_of(part)
    row = part.filter((pl.col("metric") == "auc") & (pl.col("stratum") == "SER")).row(0, named=True)
    name = "versus-champion.held-out.auc.type.SER"
    assert told[name] == row["metric_difference"]
    assert told[f"{name}.p"] == row["p_holm"]
    for name in told:
        _validate_metric_name(name)


def test_the_champion_differs_from_itself_by_nothing_under_every_name_its_challengers_have(candidates, sample):
    found = promote(candidates, sample, QUICK)
    own = logged.against_itself(found.differences)
    for challenger in found.differences["detector_a"].unique():
        assert set(logged.differences_of(found.differences.filter(pl.col("detector_a") == challenger))) <= set(own)
    assert {v for name, v in own.items() if name.endswith(".p")} == {1.0}
    assert {v for name, v in own.items() if not name.endswith(".p")} == {0.0}


def test_parameters_hold_the_mixture_that_was_realised():
    spec = {
        "about": "prose", "recipe": {"schedule": {"lr": 0.1}, "mixture": {"n2": 0.3}},
        "training": {"epoch_positives": 20, "epoch_n1": 60, "epoch_n2": 20, "loss_weights": {"0.5": 3}},
    }  # fmt: skip
    told = logged.params_of(spec)
    assert told["recipe.schedule.lr"] == 0.1
    assert told["training.loss_weights.0.5"] == 3
    assert told["realised.positive_fraction"] == "0.20000"
    assert told["realised.n2_share"] == "0.25000"
    assert "about" not in told
    assert logged.params_of({"members": ["a-s1", "b-s1"]}) == {"members": ["a-s1", "b-s1"]}


def test_the_page_says_first_which_is_better_and_its_numbers_have_intervals(candidates, sample, tmp_path):
    found = promote(candidates, sample, QUICK)
    part = found.differences.filter(pl.col("detector_a") == "poor-s1")
    made = page(part, {"poor-s1": {"gates": "green", "parameters": 7}, "good-s1": {"gates": "red"}})
    assert "good-s1 ranks better than poor-s1: AUC" in made
    assert made.index("ranks better") < made.index("<h2>held-out")
    assert 'class="word red"' in made
    assert not re.search(r"<script|https?://", made)
    assert made.count("<img") == part["set"].n_unique()
    assert page(part, {}) == page(part, {})
    for name, figure in (("a", differences(part)), ("b", gates(gate_table("red"), "x"))):
        png = save(figure, tmp_path / f"{name}.png").read_bytes()
        assert len(png) > 8000


def test_the_command_compares_two_detectors_of_a_home(candidates, sample, tmp_path, monkeypatch):
    import typer

    from lens_assets.cli import compare_detectors

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LENS_ASSETS_PROFILE", "tiny")
    monkeypatch.delenv("LENS_ASSETS_STORE", raising=False)
    store = Store(tmp_path / "home" / "store")

    def put(asset, key, tables, facts=None):
        with store.draft(asset, key, made_from={"test": key}) as draft:
            for name, frame in tables.items():
                draft.table(frame, name)
            draft.facts.update(facts or {})

    put("splits", "all", {"data": sample.drop("independent")})
    put("positives", "all", {"data": sample.select("galaxy_id", "independent")})
    for key in ("good-s1", "poor-s1"):
        c = candidates[key]
        put("detector", key, {"data": c.scores.head(1)}, {"parameters": 12})
        put("detector_scores", key, {"data": c.scores})
        put("evaluation", key, {"data": c.metrics, "thresholds": THRESHOLDS.conform(c.thresholds)})
    app = typer.Typer()
    compare_detectors.register(app)
    runner = CliRunner()
    done = runner.invoke(app, ["good-s1", "poor-s1", "--home", "home", "--out", "c.html"])
    assert done.exit_code == 0, done.output
    assert done.output.startswith("good-s1 ranks better than poor-s1")
    assert "insufficient" in (tmp_path / "c.html").read_text()
    absent = runner.invoke(app, ["good-s1", "nobody-s1", "--home", "home"])
    assert absent.exit_code == 1
    assert "there are: good-s1, poor-s1" in absent.output
    assert runner.invoke(app, ["good-s1", "good-s1", "--home", "home"]).exit_code == 1


def test_the_table_of_differences_is_registered(candidates, sample):
    found = promote(candidates, sample, QUICK)
    assert DIFFERENCES.violations(found.differences) == []
