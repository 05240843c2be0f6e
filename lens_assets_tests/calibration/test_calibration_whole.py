"""Halves, hosts and the whole calibration with the real engine on simulated stamps."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from scipy.signal import fftconvolve

from lens_assets.science.calibration.calibrate import Calibration, calibrate
from lens_assets.science.calibration.hosts import MATCHED, PROPERTIES, core_properties, early_types, like_lenses
from lens_assets.science.calibration.judge import TOGETHER
from lens_assets.science.calibration.lenses import calibration_lenses, check_halves, half_of
from lens_assets.science.calibration.model import BROAD, prior_of
from lens_assets.science.calibration.sample import FAMILIES, campaign, proposal_hosts
from lens_assets.science.calibration.settings import Settings
from lens_assets.science.columns.calibration import CALIBRATION_DRAWS
from lens_assets.science.errors import BadInput
from lens_assets.science.injections.batch import inject, plan_batch
from lens_assets.science.injections.hosts import choose_hosts
from lens_assets.science.injections.priors import PriorSet, prior_set
from lens_assets.science.injections.settings import Settings as Injections
from lens_assets.science.injections.variants import Variant

SIGMA = np.array([0.0017, 0.0023, 0.0079])
INJECTIONS = Injections(theta_e=(1.0, 1.5, 2.0), per_cell=50)
SETTINGS = Settings(
    injections=360, rounds=2, bootstrap_draws=20, directions=16, min_lenses=20, min_hosts=10, wings=(3.5,)
)
TRUTH = {**BROAD, "r_mean": 22.6, "r_sigma": 0.6, "gr_mean": 0.55, "gr_sigma": 0.2, "rz_mean": 0.4, "rz_sigma": 0.2,
         "beta_hi": 0.6, "re_dex": 0.2}  # fmt: skip


class Stamps:
    """Red exponential galaxies in white noise, by id; lenses are put in by hand."""

    def __init__(self) -> None:
        y, x = np.mgrid[:101, :101] - 50
        light = np.exp(-np.hypot(x, y) / 3.0)
        self.galaxy = (light / light.sum() * np.array([4.0, 12.0, 28.0])[:, None, None]).astype(np.float32)
        self.own: dict[str, np.ndarray] = {}

    def images(self, galaxy_ids: Sequence[str]) -> np.ndarray:
        return np.stack([self.own[i] if i in self.own else self._bare(i) for i in galaxy_ids])

    def _bare(self, galaxy_id: str) -> np.ndarray:
        rng = np.random.default_rng(int(galaxy_id.split("-")[2]))
        return (self.galaxy * rng.uniform(0.6, 1.6) + rng.normal(0, SIGMA[:, None, None], (3, 101, 101))).astype("f4")

    def invvar(self, galaxy_ids: Sequence[str]) -> np.ndarray:
        return np.broadcast_to((SIGMA**-2.0)[:, None, None], (len(galaxy_ids), 3, 101, 101)).astype("f4")


def galaxies(ids: list[str], rng: np.random.Generator, **columns: object) -> pl.DataFrame:
    n = len(ids)
    return pl.DataFrame(
        {
            "galaxy_id": ids, "tile": "000m005", "type": "DEV", "sersic": 4.0, "gr": 1.2, "rz": 0.9, "shape_r": 1.0,
            "shape_e1": rng.normal(0, 0.1, n), "shape_e2": rng.normal(0, 0.1, n),
            **{f"psfsize_{b}": rng.uniform(1.2, 1.35, n) for b in "grz"},
            **{f"depth_{b}": rng.uniform(23.3, 23.9, n) for b in "grz"},
            **{f"mag_{b}": rng.uniform(18, 20, n) for b in "grz"},
            **columns,
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def world() -> tuple[pl.DataFrame, pl.DataFrame, Stamps]:
    """Hosts, and lenses that are injections of known priors on other galaxies; half of them found by spectra alone."""
    rng = np.random.default_rng(11)
    stamps = Stamps()
    hosts = galaxies([f"10002-7-{i}" for i in range(60)], rng, label=0, split="test", role="host")
    carriers = galaxies([f"10002-8-{i}" for i in range(130)], rng, label=0, split="test", role="host")
    on = proposal_hosts(carriers, INJECTIONS)
    rows = []
    for k, family in enumerate(FAMILIES):
        variant = Variant(name=f"truth-{family}", summary="x", source=family)  # type: ignore[arg-type]
        engine = campaign(INJECTIONS).model_copy(update={"per_cell": 200, "max_host_reuse": 1})
        plan = plan_batch(on[k::2], variant, 1.5, engine, 5, prior_of(TRUTH, prior_set("population"), "truth", "x"))
        for chunk in inject(plan, stamps, engine, variant):
            for name, image in zip(chunk.rows["galaxy_id"].to_list(), chunk.images, strict=True):
                stamps.own[name] = image
                rows.append(name)
    lenses = carriers.filter(pl.col("galaxy_id").is_in(rows)).with_columns(
        label=pl.lit(1), tier=pl.lit("confirmed"), role=pl.lit("report"),
        system_id=pl.concat_str(pl.lit("J"), "galaxy_id"),
        channels=pl.Series([["spectra"] if i % 2 else ["images"] for i in range(len(rows))]),
    )  # fmt: skip
    sample = pl.concat([hosts, lenses], how="diagonal")
    positives = lenses.select("galaxy_id", kind=pl.lit("galaxy"))
    return sample, positives, stamps


def calibrated(world: tuple[pl.DataFrame, pl.DataFrame, Stamps], order: int = 1) -> Calibration:
    sample, positives, stamps = world
    lenses = calibration_lenses(sample[::order], positives[::order], {"spectra"}, SETTINGS)
    return calibrate(sample[::order], lenses, stamps, INJECTIONS, SETTINGS)


@pytest.fixture(scope="module")
def found(world: tuple[pl.DataFrame, pl.DataFrame, Stamps]) -> Calibration:
    return calibrated(world)


def test_known_priors_are_recovered_within_their_intervals_through_the_engine(found: Calibration) -> None:
    rows = {r["parameter"]: r for r in found.parameters.iter_rows(named=True)}
    for name in ("r_mean", "gr_mean", "rz_mean"):
        r = rows[name]
        # 20 draws make a rough interval: half as much again on either side
        slack = 0.5 * (r["fitted_hi95"] - r["fitted_lo95"])
        assert r["fitted_lo95"] - slack < TRUTH[name] < r["fitted_hi95"] + slack, (name, r)
        assert r["identified"] is True
    assert abs(rows["r_mean"]["fitted_value"] - TRUTH["r_mean"]) < 0.4 * abs(
        rows["r_mean"]["base_value"] - TRUTH["r_mean"]
    )
    assert abs(rows["gr_mean"]["fitted_value"] - TRUTH["gr_mean"]) < 0.4 * abs(
        rows["gr_mean"]["base_value"] - TRUTH["gr_mean"]
    )


def test_lenses_that_took_no_part_agree_better_than_before(found: Calibration) -> None:
    whole = found.judgement.filter(pl.col("observable_name") == TOGETHER)
    assert set(whole["selection_group"]) == {"blind", "imaging"}
    assert (whole["distance_after"] < 0.6 * whole["distance_before"]).all()


def test_the_same_inputs_in_another_order_give_the_same_priors_to_the_last_digit(
    world: tuple[pl.DataFrame, pl.DataFrame, Stamps], found: Calibration
) -> None:
    again = calibrated(world, order=-1)
    assert again.priors.digest == found.priors.digest
    assert again.parameters.equals(found.parameters)
    assert again.draws.equals(found.draws)
    assert again.judgement.equals(found.judgement)
    assert again.keep == found.keep


def test_the_draws_of_the_fit_are_kept_and_give_the_intervals_that_are_stated(found: Calibration) -> None:
    assert CALIBRATION_DRAWS.violations(found.draws) == []
    assert found.draws.height == SETTINGS.bootstrap_draws * found.parameters.height
    by = found.draws.group_by("parameter").agg(
        pl.col("drawn_value").quantile(0.16, "linear").alias("lo"),
        pl.col("drawn_value").quantile(0.975, "linear").alias("hi"),
    )
    rows = found.parameters.join(by, on="parameter", validate="1:1")
    np.testing.assert_allclose(rows["lo"], rows["fitted_lo68"], rtol=1e-12)
    np.testing.assert_allclose(rows["hi"], rows["fitted_hi95"], rtol=1e-12)


def test_the_fitted_set_is_a_set_of_priors_like_any_other(found: Calibration) -> None:
    text = json.dumps(found.priors.model_dump(mode="json", exclude_defaults=True), allow_nan=False)  # as it is stored
    assert PriorSet.model_validate(json.loads(text)).digest == found.priors.digest
    assert found.priors.name == "calibrated"
    assert found.priors.sersic_n == prior_set("population").sersic_n
    clumpy = found.parameters.filter(pl.col("parameter") == "clumpy")["fitted_value"][0]
    assert found.priors.families["clumpy"] == pytest.approx(clumpy, abs=1e-5)
    assert set(found.priors.families) == {"sersic", "clumpy"}


def test_no_lens_fits_and_judges(found: Calibration) -> None:
    halves = [found.lenses.filter(pl.col("half") == h) for h in ("fit", "judge")]
    assert min(h.height for h in halves) > 30
    check_halves(*halves)
    with pytest.raises(BadInput, match="calibrate and judge"):
        check_halves(halves[0], pl.concat([halves[1], halves[0].head(1)]))


def test_a_system_keeps_its_half_when_others_come() -> None:
    ids = pl.Series([f"J{i}" for i in range(200)])
    halves = half_of(ids, SETTINGS)
    assert half_of(ids[::-1], SETTINGS).to_list() == halves.to_list()[::-1]
    assert half_of(ids.head(50), SETTINGS).to_list() == halves.to_list()[:50]
    assert 70 < (halves == "fit").sum() < 130


def lens_rows() -> tuple[pl.DataFrame, pl.DataFrame]:
    """40 lenses of both kinds of which a quarter is held out, 10 found by spectra alone, one quasar, one that trains."""
    rows = [
        {"galaxy_id": f"b{i}", "channels": ["images", "spectra"], "split": "test" if i % 4 == 0 else "train"}
        for i in range(40)
    ]
    rows += [{"galaxy_id": f"s{i}", "channels": ["spectra"], "split": "evaluation"} for i in range(10)]
    rows += [{"galaxy_id": "q", "channels": ["quasars"], "split": "evaluation"}]
    frame = pl.DataFrame(rows).with_columns(
        system_id=pl.concat_str(pl.lit("J"), "galaxy_id"), label=pl.lit(1), tier=pl.lit("confirmed")
    )
    kinds = frame.select(
        "galaxy_id", kind=pl.when(pl.col("galaxy_id") == "q").then(pl.lit("quasar")).otherwise(pl.lit("galaxy"))
    )
    return frame, kinds


def test_lenses_that_might_have_trained_stand_for_those_that_did() -> None:
    frame, kinds = lens_rows()
    lenses = calibration_lenses(frame, kinds, {"spectra"}, SETTINGS)
    rows = lenses.rows
    assert rows.height == 20
    assert lenses.rejected.counts["not a lensed galaxy"] == 1
    assert set(rows["split"]) == {"test", "evaluation"}
    both = rows.filter(pl.col("imaging"))
    assert both["sampling_weight"].unique().to_list() == [4.0]
    assert (rows.filter(~pl.col("imaging"))["sampling_weight"] == 1.0).all()
    assert rows["sampling_weight"].sum() == 50.0  # as many as there are lenses known to spectra


def test_too_few_lenses_are_refused(world: tuple[pl.DataFrame, pl.DataFrame, Stamps]) -> None:
    sample, positives, stamps = world
    few = SETTINGS.model_copy(update={"min_lenses": 500})
    lenses = calibration_lenses(sample, positives, {"spectra"}, few)
    with pytest.raises(BadInput, match="at least 500 are needed"):
        calibrate(sample, lenses, stamps, INJECTIONS, few)


def test_hosts_are_thinned_towards_lens_galaxies() -> None:
    rng = np.random.default_rng(3)
    # a red sequence; the lenses' g - r holds 0.4 mag of arcs
    lens_rz, host_rz = rng.normal(1.0, 0.1, 200), rng.normal(0.8, 0.25, 900)
    lens_cores = np.column_stack([rng.normal(19.0, 0.5, 200), lens_rz, rng.normal(1.2, 0.05, 200), 1.2 * lens_rz + 0.1])
    host_cores = np.column_stack([rng.normal(20.0, 1.0, 900), host_rz, rng.normal(1.2, 0.05, 900), 1.2 * host_rz + 0.5])
    frames = [galaxies([f"10002-{k}-{i}" for i in range(n)], rng) for k, n in ((1, 900), (2, 200))]
    match = like_lenses(frames[0], host_cores, frames[1], lens_cores, Settings(host_share=0.1))
    for name in ("core_z", "core_rz"):
        r = match.balance["properties"][name]
        assert abs(r["difference_after"]) < 0.4 * abs(r["difference_before"]), name
    assert host_cores[match.keep, 3].mean() == pytest.approx((1.2 * lens_rz + 0.5).mean(), abs=0.08)  # true, not seen
    order = np.random.default_rng(0).permutation(900)
    again = like_lenses(frames[0][order], host_cores[order], frames[1], lens_cores, Settings(host_share=0.1))
    assert set(frames[0].filter(pl.Series(match.keep))["galaxy_id"]) == set(
        frames[0][order].filter(pl.Series(again.keep))["galaxy_id"]
    )


def test_only_early_types_may_be_hosts_of_a_calibration() -> None:
    rng = np.random.default_rng(0)
    ids = [f"10002-1-{i}" for i in range(4)]
    sample = galaxies(ids, rng).with_columns(
        type=pl.Series(["DEV", "SER", "SER", "EXP"]), sersic=pl.Series([4.0, 3.0, 1.0, 1.0])
    )
    kept = early_types(sample.select("galaxy_id")[::-1], sample)
    assert sorted(kept["galaxy_id"].to_list()) == ids[:2]
    with pytest.raises(BadInput, match="chosen by a calibration"):
        choose_hosts(sample.with_columns(label=0, split=pl.lit("test"), role=pl.lit("host")), INJECTIONS, "calibrated")


def test_what_hosts_are_matched_in_does_not_see_a_lens_galaxys_arcs() -> None:
    """A red galaxy under a blue arc of 1.6", both through a seeing of 1.3": g - r sees it most."""
    psf = np.exp(-0.5 * (np.hypot(*(np.mgrid[:101, :101] - 50)) / (1.3 / 2.355 / 0.262)) ** 2)
    y, x = np.mgrid[:101, :101] - 50
    galaxy = np.exp(-1.68 * np.hypot(x, y) / 4.0) * 1.0
    ring = np.exp(-0.5 * ((np.hypot(x, y) - 6) / 0.8) ** 2) * (np.cos(np.arctan2(y, x)) > -0.2)

    def through(image: np.ndarray) -> np.ndarray:
        return np.asarray(fftconvolve(image / image.sum(), psf / psf.sum(), mode="same"))

    red, blue = np.array([2.4, 12.0, 30.0]), np.array([5.0, 5.2, 6.2])  # g - r = 1.75, r - z = 1; 0.05, 0.2
    bare = (red[:, None, None] * through(galaxy))[None].astype("f4")
    lensed = bare + (blue[:, None, None] * through(ring)).astype("f4")
    moved = dict(zip(PROPERTIES, (core_properties(lensed) - core_properties(bare))[0], strict=True))
    assert moved["core_gr"] < -0.15
    assert all(abs(moved[name]) < 0.1 for name in MATCHED), moved
    assert abs(moved["core_rz"]) < 0.05
