"""The closure experiment's parts: a sky apart, twins that mean the same to both codes, steps with honest intervals."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from lens_assets.science.audits import steps
from lens_assets.science.audits.closure import closure, expected_inside
from lens_assets.science.audits.instrument import Instrument
from lens_assets.science.audits.machinery import fresh_hosts, fresh_like_own
from lens_assets.science.audits.settings import ClosureSettings
from lens_assets.science.audits.sky import closure_size
from lens_assets.science.audits.steps import ALIKE, EXACT, ORDINARY, PUBLISHED, SKY, Arm, steps_table
from lens_assets.science.audits.twins import ExactArcs, Twins, alike_hosts, draw_twins, engine_plan
from lens_assets.science.completeness.grid import Grid
from lens_assets.science.completeness.settings import Settings
from lens_assets.science.injections.psf import PsfSpec
from lens_assets.science.injections.render import render
from lens_assets.science.injections.settings import Settings as InjectionSettings
from lens_assets.science.injections.variants import load_variants
from lens_assets.science.mock.deflectors import Deflector
from lens_assets.science.mock.footprint import plan, tiles_of
from lens_assets.science.mock.lensing import Lens
from lens_assets.science.mock.settings import load_size
from lens_assets.science.surveys.layout import BANDS

FEW = ClosureSettings(per_cell=40, tiles=2, bricks_per_tile=2)
GRID = Grid.of(Settings())


@pytest.mark.parametrize("name", ["demo", "tiny", "survey"])
def test_the_closure_sky_shares_no_brick_with_the_practice_sky_and_is_as_crowded(name):
    practice = load_size(name)
    size = closure_size(practice, 5, ClosureSettings())
    own = {p.cell.brickid for p in plan(size, 71)}
    assert own.isdisjoint(p.cell.brickid for p in plan(practice, 5))
    assert {t.key for t in tiles_of(size, 71)}.isdisjoint(t.key for t in tiles_of(practice, 5))
    assert size.lenses + size.galaxies == practice.lenses + practice.galaxies
    assert (size.faint, size.stars, size.brick_pixels) == (practice.faint, practice.stars, practice.brick_pixels)
    changed = {k for k, v in size.settings.model_dump().items() if v != practice.settings.model_dump()[k]}
    assert changed <= {"theta_e", "quasar_share"}


def test_twins_lie_in_their_cells_and_are_the_same_whatever_else_is_drawn():
    size = closure_size(load_size("demo"), 5, FEW)
    cells = pl.DataFrame({"i_theta": [0, 4, 10], "i_psf": [3, 3, 3], "i_depth": [2, 2, 2]})
    twins = draw_twins(size, cells, GRID, FEW)
    assert twins.rows.height == 3 * FEW.per_cell
    np.testing.assert_array_equal(
        GRID.theta_e.index(twins.rows["theta_e"].to_numpy()), twins.rows["i_theta"].to_numpy()
    )
    alone = draw_twins(size, cells.filter(pl.col("i_theta") == 4), GRID, FEW)
    mine = twins.rows.filter(pl.col("i_theta") == 4)
    assert alone.rows["theta_e"].to_list() == mine["theta_e"].to_list()
    assert [twins.lenses[n].truth for n in mine["twin"]] == [x.truth for x in alone.lenses]


def isothermal(e=0.12, angle=0.7, q=0.6, pa=1.1, flux=(3.0, 4.0, 5.0)):
    """A lens that the engine can say: an isothermal ellipsoid with shear, and an exponential disc."""
    d = Deflector(1.6, 0.5, 2.0, 250.0, np.array([20.0, 60.0, 100.0]), 1.0, 0.8, 0.3, 4.0)
    beta = (0.35, -0.2)
    mass = {"theta_E": 1.6, "gamma": 2.0, "e1": e * np.cos(2 * angle), "e2": e * np.sin(2 * angle), "center_x": 0.03,
            "center_y": -0.02, "a3_a": 0.0, "delta_phi_m3": 0.0, "a4_a": 0.0, "delta_phi_m4": 0.0}  # fmt: skip
    flux = np.array(flux)
    return Lens(d, ["EPL_MULTIPOLE_M3M4", "SHEAR"], [mass, {"gamma1": 0.04, "gamma2": -0.03}],
                [(*beta, 0.4, q, pa, 1.0, flux)], beta, flux, {"source_re": 0.4})  # fmt: skip


def test_where_the_engine_can_say_the_lens_its_arcs_are_those_of_the_skys_own_code():
    """Two codes, two conventions (axes, angles, radii, centres, extinction): the same image, or a sign is wrong."""
    size = closure_size(load_size("demo"), 5, FEW)
    brick = plan(size, 71)[0]
    lens = isothermal()
    rows = pl.DataFrame({"twin": [0], "theta_e": [1.6], "i_theta": [4], "i_psf": [3], "i_depth": [2], "index": [0]})
    twins = Twins(rows, [lens], np.zeros((1, 5)))
    host = pl.DataFrame({"galaxy_id": ["1-1-1"], "tile": "a", "psfsize_g": 1.3, "psfsize_r": 1.2, "psfsize_z": 1.1,
                         "depth_r": 23.5, "ebv": 0.08, "brickname": brick.cell.name})  # fmt: skip
    chosen = pl.DataFrame({"twin": [0], "galaxy_id": ["1-1-1"]})
    params = engine_plan(twins, chosen, host, "arm", 1)
    exact = ExactArcs(size, 71, 101)
    own = exact.images([lens], params)[0].astype(float)
    seen = exact._seen[brick.cell.name]
    for k, band in enumerate(BANDS):
        engine = render(params, PsfSpec(beta=seen[band].beta, pixel="included")).images[0, k].astype(float)
        assert engine.sum() == pytest.approx(own[k].sum(), rel=0.01)
        assert np.corrcoef(engine.ravel(), own[k].ravel())[0, 1] > 0.995  # the sky's PSF is elliptical by 3 %
        assert np.abs(engine - own[k]).max() < 0.12 * own[k].max()
        turned = np.corrcoef(engine[::-1].ravel(), own[k].ravel())[0, 1]
        assert turned < 0.9


def test_hosts_are_like_their_deflectors_and_lie_in_their_cell():
    size = closure_size(load_size("demo"), 5, FEW)
    cells = pl.DataFrame({"i_theta": [3, 5], "i_psf": [3, 4], "i_depth": [2, 2]})
    twins = draw_twins(size, cells, GRID, FEW)
    rng = np.random.default_rng(1)
    n = 3000
    galaxies = pl.DataFrame(
        {"galaxy_id": [f"1-1-{i}" for i in range(n)], "psf_bin": rng.integers(3, 5, n), "depth_bin": 2, "ebv": 0.0,
         **{f"true_mag_{b}": m + rng.normal(0, 0.8, n) for b, m in (("g", 21.5), ("r", 19.9), ("z", 18.8))},
         "true_re": 10 ** rng.normal(0.1, 0.2, n), "true_q": rng.uniform(0.4, 1, n)}
    )  # fmt: skip
    chosen, apart = alike_hosts(twins, galaxies, FEW)
    assert chosen["twin"].to_list() == twins.rows["twin"].to_list()
    where = chosen.join(galaxies, on="galaxy_id").join(twins.rows, on="twin")
    assert (where["psf_bin"] == where["i_psf"]).all()
    mag = where.select(pl.col("true_mag_r")).to_series().to_numpy()
    of = {n: 22.5 - 2.5 * np.log10(x.deflector.flux[1]) for n, x in enumerate(twins.lenses)}
    assert np.median(np.abs(mag - [of[n] for n in where["twin"]])) < 0.35
    assert abs(apart["mag_r"]) < 0.3


def scored(rng, rates, hosts, per_cell, cells=6, spread=0.0):
    """Injections with rate ``rates`` (a number or one a cell), hosts shared by all cells."""
    effect = rng.normal(0, spread, hosts)
    rows = []
    for c in range(cells):
        h = rng.integers(0, hosts, per_cell)
        p = np.clip(np.broadcast_to(rates, cells)[c] + effect[h], 0, 1)
        found = rng.random(per_cell) < p
        rows += [
            (f"{c}-{m}", f"1-1-{h[m]}", c, 3, 2, 1.35, 23.5, float(found[m]), bool(found[m])) for m in range(per_cell)
        ]
    columns = ["injection_id", "galaxy_id", "i_theta", "i_psf", "i_depth", "psfsize_r", "depth_r", "score", "found"]
    return Arm(pl.DataFrame(rows, schema=columns, orient="row"))


def sky_lenses(rng, rate, n=900, cells=6):
    theta = np.array(GRID.theta_e.centres)[rng.integers(0, cells, n)]
    return pl.DataFrame(
        {"theta_e": theta, "psfsize_r": 1.35, "depth_r": 23.5, "score": (rng.random(n) < rate).astype(float)}
    )


def test_steps_add_up_and_their_intervals_hold_the_true_change_at_the_nominal_rate():
    truth = {PUBLISHED: 0.2, ORDINARY: 0.5, ALIKE: 0.45, EXACT: 0.6}
    inside = {68: [], 95: []}
    for seed in range(150):
        rng = np.random.default_rng(seed)
        arms = {name: scored(rng, p, 60, 60, spread=0.1) for name, p in truth.items()}
        table = steps_table(arms, sky_lenses(rng, 0.6), GRID, 0.5, ClosureSettings(draws=200, seed=seed))
        rows = {r["closure_step"][0]: r for r in table.iter_rows(named=True)}
        total = sum(rows[i]["step_difference"] for i in "1234")
        assert total == pytest.approx(rows["a"]["step_difference"])
        assert rows["a"]["step_to_arm"] == SKY
        for i, step in (("1", 0.3), ("2", -0.05), ("3", 0.15), ("4", 0.0)):
            for level, hits in inside.items():
                hits.append(rows[i][f"step_lo{level}"] <= step <= rows[i][f"step_hi{level}"])
    assert np.mean(inside[68]) == pytest.approx(0.67, abs=0.06)
    assert np.mean(inside[95]) == pytest.approx(0.945, abs=0.03)


def _brick_arm(rng, rate, effect, first, hosts=8, per_host=15):
    """Injections of one surface in two cells, on bricks that differ by ``effect`` (n_bricks,), named from ``first``."""
    brick = np.repeat(np.arange(effect.size), hosts * per_host)
    host = np.repeat(np.arange(effect.size * hosts), per_host)
    found = rng.random(brick.size) < np.clip(rate + effect[brick], 0, 1)
    return Arm(pl.DataFrame({
        "injection_id": [str(i) for i in range(brick.size)],
        "galaxy_id": [f"1-{first + b}-{h}" for b, h in zip(brick, host, strict=True)],
        "i_theta": np.arange(brick.size) % 2, "i_psf": 3, "i_depth": 2, "psfsize_r": 1.35, "depth_r": 23.5,
        "score": found.astype(float), "found": found,
    }))  # fmt: skip


def test_where_bricks_differ_the_interval_of_a_step_holds_the_change_that_hosts_alone_would_miss(monkeypatch):
    """Practice sky and closure sky have ten bricks each; what lies on the same bricks is compared on the same bricks."""
    inside, kept = {"both": [], "hosts": []}, {"both": [], "hosts": []}
    for seed in range(80):
        rng = np.random.default_rng(seed)
        practice, sky = rng.normal(0, 0.1, (2, 10))
        arms = {
            PUBLISHED: _brick_arm(rng, 0.3, practice, 100), ORDINARY: _brick_arm(rng, 0.5, practice, 100),
            ALIKE: _brick_arm(rng, 0.5, sky, 200), EXACT: _brick_arm(rng, 0.5, sky, 200),
        }  # fmt: skip
        lenses = _brick_arm(rng, 0.5, sky, 200, hosts=60, per_host=1).rows.with_columns(
            theta_e=pl.Series(np.array(GRID.theta_e.centres)[np.arange(600) % 2]), galaxy_id=pl.col("galaxy_id") + "9"
        )
        for name in inside:
            with monkeypatch.context() as changed:
                if name == "hosts":
                    changed.setattr(steps, "_by_brick", lambda ids, at, found, w, s: (1, np.zeros(s.draws)))
                table = steps_table(arms, lenses, GRID, 0.5, ClosureSettings(draws=200, seed=seed))
            rows = {r["closure_step"][0]: r for r in table.iter_rows(named=True)}
            inside[name].append(rows["2"]["step_lo68"] <= 0 <= rows["2"]["step_hi68"])
            kept[name].append(rows["4"]["step_lo68"] <= 0 <= rows["4"]["step_hi68"])
    assert np.mean(inside["hosts"]) < 0.5
    assert 0.58 < np.mean(inside["both"]) < 0.85
    assert np.mean(kept["both"]) > 0.6


def test_steps_on_the_same_hosts_are_paired():
    rng = np.random.default_rng(2)
    first = scored(rng, 0.4, 20, 80, spread=0.3)
    other = Arm(first.rows.with_columns(galaxy_id=pl.col("galaxy_id").str.replace("1-1", "1-2")))
    lenses = sky_lenses(rng, 0.4)
    width = {}
    for name, second in (("same", first), ("other", other)):
        arms = {PUBLISHED: first, ORDINARY: first, ALIKE: first, EXACT: second}
        row = (
            steps_table(arms, lenses, GRID, 0.5, FEW)
            .filter(pl.col("closure_step").str.starts_with("3"))
            .row(0, named=True)
        )
        width[name] = row["step_hi68"] - row["step_lo68"]
    assert width["same"] == 0
    assert width["other"] > 0.05


def test_fresh_hosts_have_the_mix_of_the_surfaces_own_and_none_is_taken_twice():
    rng = np.random.default_rng(3)
    n = 2000
    galaxies = pl.DataFrame(
        {"galaxy_id": [f"1-7-{i}" for i in range(n)], "tile": "000m005",
         "type": rng.choice(["SER", "DEV", "REX"], n, p=[0.4, 0.3, 0.3]), "pool": rng.choice(["N1", "N2"], n),
         "psf_bin": 3, "depth_bin": 2, "ebv": 0.03,
         **{f"{c}_{b}": v for b in "grz" for c, v in (("psfsize", 1.35), ("depth", 23.5), ("mag", 19.0))}, "gr": 1.0,
         "shape_e1": 0.1, "shape_e2": 0.0, "sersic": 4.0}
    )  # fmt: skip
    like = galaxies.head(400).with_columns(
        type=pl.Series(rng.choice(["SER", "DEV", "REX"], 400, p=[0.7, 0.28, 0.02])), pool=pl.lit("N1")
    )
    chosen, short = fresh_hosts(galaxies, like, InjectionSettings(), 1)
    assert chosen["galaxy_id"].is_unique().all()
    shares = {t: (chosen["type"] == t).mean() for t in ("SER", "DEV")}
    asked = {t: (like["type"] == t).mean() for t in ("SER", "DEV")}
    assert shares == pytest.approx(asked, abs=0.01)
    assert short == {}


def test_fresh_galaxies_of_a_variant_that_chooses_by_light_are_chosen_by_light_too():
    """The surface's hosts are early types with bright red cores; the fresh ones that are kept are like them, others are not."""
    rng = np.random.default_rng(4)

    def table(n, brick, early, bright):
        return pl.DataFrame(
            {"galaxy_id": [f"1-{brick}-{i}" for i in range(n)], "tile": "000m005",
             "type": np.where(rng.random(n) < early, "DEV", "REX"), "pool": "N1", "psf_bin": 3, "depth_bin": 2, "ebv": 0.03,
             **{f"{c}_{b}": v for b in "grz" for c, v in (("psfsize", 1.35), ("depth", 23.5), ("mag", 19.0))}, "gr": 1.0,
             "shape_e1": 0.1, "shape_e2": 0.0, "sersic": 4.0, "bright": bright + rng.normal(0, 0.3, n)}
        )  # fmt: skip

    own, galaxies = table(120, 5, 1.0, 2.5), table(900, 7, 0.6, 2.0)

    class Stamps:
        """Cores as bright as the table says, with a tenth of their light as scatter in colour."""

        def images(self, ids):
            light = {
                **dict(galaxies.select("galaxy_id", "bright").rows()),
                **dict(own.select("galaxy_id", "bright").rows()),
            }
            made = np.zeros((len(ids), 3, 21, 21), np.float32)
            for i, g in enumerate(ids):
                made[i, :, 8:13, 8:13] = 10 ** light[g] * np.array([0.2, 0.5, 1.0])[:, None, None]
            return made * np.random.default_rng(len(ids)).lognormal(0, 0.1, (len(ids), 3, 1, 1)).astype(np.float32)

    instrument = Instrument(
        None, None, load_variants()["mixture-calibrated"], None, own, own, Stamps(), InjectionSettings(), {}
    )
    fresh, facts = fresh_like_own(galaxies, instrument, Stamps(), 1)
    rows = fresh.join(galaxies.select("galaxy_id", "bright"), on="galaxy_id")
    assert set(rows["type"]) == {"DEV"}
    assert facts["chosen"] == fresh.height >= 40
    assert galaxies["bright"].mean() < 2.05
    assert rows["bright"].mean() > 2.15
    assert set(facts["difference"]) == {"core_z", "core_gr", "core_rz", "core_concentration", "early_type"}
    ordinary = replace(instrument, variant=load_variants()["sersic-population"])
    assert set(fresh_like_own(galaxies, ordinary, Stamps(), 1)[1]) == {"chosen", "strata_short"}


def test_the_expected_share_of_a_right_surface_is_what_simulation_gives(surface, simulated):
    rows = closure(surface, simulated.lenses(n=3000), "fixed_0.5").filter(pl.col("closure_level") == "cell")
    expected = expected_inside(surface, rows)
    assert (expected[68] >= 0.68 - 1e-9).all()
    assert (expected[95] >= 0.95 - 1e-9).all()
    assert expected[68].mean() < 0.80


def test_another_seed_of_the_sky_is_the_profile_with_nothing_else_changed(tmp_path):
    from lens_assets.cli.closure import _with_sky
    from lens_assets.science.profile import load_profile

    demo = load_profile("demo")
    own = load_profile(_with_sky(demo, 72, tmp_path / "72"))
    assert own.closure.seed == 72
    assert own.model_copy(update={"closure": demo.closure}) == demo
