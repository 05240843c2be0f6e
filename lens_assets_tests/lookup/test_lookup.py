"""The look-up of a release: values of cells, flags, sky positions, products; numpy and pyarrow alone."""

import shutil
import subprocess
import sys
from importlib.metadata import version

import healpy as hp
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_assets import lookup
from lens_assets.science.completeness.continuous import fit
from lens_assets.science.release.sky import sky_of
from lens_assets.science.release.write import write_release
from lens_assets.science.storage import Draft

SKY_CELL = int(hp.ang2pix(128, 30.0, 2.0, nest=True, lonlat=True))


@pytest.fixture(scope="session")
def release(surface, simulated, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lookup") / "release"
    folder.mkdir()
    sky = sky_of(pl.DataFrame({"cell": [SKY_CELL], "psfsize_r": [1.21], "depth_r": [23.1]}))
    write_release(
        Draft(folder), surface, name="practice", version="0.1.0", realism=simulated.NO_GO, priors={}, detector={"a": 1},
        lineage={}, citation={"title": "t", "authors": [{"name": "n"}]}, sky=sky,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="session")
def f(release):
    return lookup.load(release)


def row(surface, point, t, p, d):
    return surface.cells.filter(
        (pl.col("operating_point") == point)
        & (pl.col("i_theta") == t)
        & (pl.col("i_psf") == p)
        & (pl.col("i_depth") == d)
    ).row(0, named=True)


def test_a_look_up_returns_the_cell_that_holds_the_conditions(f, surface):
    for point in ("fixed_0.5", "fpr_1e-3"):
        for level, tag in ((0.68, 68), (0.95, 95)):
            cell = row(surface, point, 1, 1, 2)
            r = f.completeness(theta_e=1.1, psf=1.1, depth=23.7, threshold=point, level=level)
            assert float(r.value) == cell["completeness"]
            assert (float(r.lo), float(r.hi)) == (cell[f"total_lo{tag}"], cell[f"total_hi{tag}"])
            assert int(r.n) == cell["n_injections"]
            assert r.flag == "in support"
            assert r.verdict.startswith("NO-GO")


def test_all_cells_are_where_the_surface_has_them(f, surface):
    c = surface.cells.filter(pl.col("operating_point") == "fpr_1e-3")
    r = f.completeness(theta_e=c["cell_theta_e"], psf=c["cell_psf"], depth=c["cell_depth"])
    np.testing.assert_array_equal(r.value, c["completeness"].fill_null(np.nan).to_numpy())
    np.testing.assert_array_equal(r.n, c["n_injections"].to_numpy())
    assert [x == "in support" for x in r.flag] == (c["support"] == "supported").to_list()


@pytest.mark.parametrize(
    "where",
    [
        {"theta_e": 3.0, "psf": 1.2, "depth": 23.0},
        {"theta_e": 1.0, "psf": 0.1, "depth": 23.0},
        {"theta_e": 1.0, "psf": 1.2, "depth": 25.15},
        {"theta_e": np.nan, "psf": 1.2, "depth": 23.0},
        {"theta_e": np.inf, "psf": 1.2, "depth": 23.0},
    ],
)
def test_outside_the_grid_is_nan_and_flagged(f, where):
    r = f.completeness(**where)
    assert np.isnan([r.value, r.lo, r.hi]).all()
    assert r.flag == "outside"
    assert r.n == 0


def test_an_insufficient_cell_is_flagged_and_an_empty_one_has_no_value(f, surface):
    few = f.completeness(theta_e=1.0, psf=1.5, depth=22.5)
    assert few.flag == "insufficient"
    assert float(few.value) == row(surface, "fpr_1e-3", 1, 2, 0)["completeness"]
    none = f.completeness(theta_e=1.0, psf=1.5, depth=23.5)
    assert none.flag == "insufficient"
    assert np.isnan(none.value)
    assert none.n == 0


@settings(max_examples=200, deadline=None)
@given(st.floats(0, 4), st.floats(0.5, 2), st.floats(22, 24.5))
def test_the_look_up_and_the_grid_agree_on_every_cell(f, surface, t, p, d):
    g = surface.grid
    cell = int(g.flat(g.theta_e.index(t), g.psf.index(p), g.depth.index(d)))
    assert int(f._cells(*(np.array([x]) for x in (t, p, d)))[0]) == (cell if cell >= 0 else g.size)


def test_edges_agree_with_the_grid_to_the_last_bit(f, surface):
    for k, axis in enumerate(surface.grid.axes):
        x = np.concatenate([axis.edges, np.nextafter(axis.edges, -np.inf), np.nextafter(axis.edges, np.inf)])
        at = [np.full(x.size, a.centres[0]) for a in surface.grid.axes]
        at[k] = x
        index = [a.index(v) for a, v in zip(surface.grid.axes, at, strict=True)]
        expected = surface.grid.flat(*index)
        np.testing.assert_array_equal(f._cells(*at), np.where(expected >= 0, expected, surface.grid.size))


def test_arguments_broadcast(f):
    r = f.completeness(theta_e=np.array([[1.0], [2.0]]), psf=[0.9, 1.2, 1.5], depth=23.0)
    assert r.value.shape == r.flag.shape == (2, 3)
    assert float(r.value[1, 2]) == float(f.completeness(theta_e=2.0, psf=1.5, depth=23.0).value)


@pytest.mark.parametrize("nside", [1, 2, 128, 1024])
def test_nested_cells_are_those_of_healpy(nside):
    rng = np.random.default_rng(nside)
    ra, dec = rng.uniform(-10, 370, 50_000), np.degrees(np.arcsin(rng.uniform(-1, 1, 50_000)))
    ra, dec = np.append(ra, [0, 0, 360, 90, 45, 123]), np.append(dec, [90, -90, 0, 0, 41.8103148957786, 89.999999])
    np.testing.assert_array_equal(
        lookup.ang2pix_nest(nside, ra, dec), hp.ang2pix(nside, ra, dec, nest=True, lonlat=True)
    )
    assert lookup.ang2pix_nest(nside, [np.nan, 10.0], [0.0, 91.0]).tolist() == [-1, -1]


def test_a_sky_position_is_looked_up_under_the_conditions_of_its_cell(f):
    r = f.at([30.0, 200.0, np.nan], [2.0, 2.0, 0.0], 1.0)
    assert list(r.flag) == ["in support", "outside", "outside"]
    assert float(r.value[0]) == float(f.completeness(theta_e=1.0, psf=1.21, depth=23.1).value)


def test_the_expected_number_is_the_weighted_sum_and_says_what_it_left_out(f, surface):
    r = f.expected_found(theta_e=[1.0, 2.0, 1.0, 9.0], psf=[1.2, 1.2, 1.5, 1.2], depth=[23.0, 23.0, 23.5, 23.0],
                         weights=[2.0, 3.0, 5.0, 7.0])  # fmt: skip
    a, b = row(surface, "fpr_1e-3", 1, 1, 1), row(surface, "fpr_1e-3", 3, 1, 1)
    assert r.value == pytest.approx(2 * a["completeness"] + 3 * b["completeness"])
    assert (r.weight, r.insufficient, r.outside) == (5.0, 5.0, 7.0)
    widths = [(x["total_hi68"] - x["total_lo68"]) / 2 for x in (a, b)]
    assert np.hypot(2 * widths[0], 3 * widths[1]) * 0.99 < r.error < (2 * widths[0] + 3 * widths[1]) * 1.01


def test_the_error_of_an_expected_number_covers_the_truth(build, simulated):
    hits = []
    for seed in range(25):
        s = build(simulated.injections(seed=seed, per_cell=110), thresholds=simulated.THRESHOLDS.head(1))
        f = lookup.SelectionFunction(_header(s), "s", {c: s.cells[c].to_numpy() for c in s.cells.columns})
        r = f.expected_found(theta_e=[0.5, 1.0, 1.5, 2.0], psf=1.2, depth=[22.5, 22.5, 23.0, 23.5])
        truth = sum(simulated.true_completeness(t, 1.2, d) for t, d in ((0.5, 22.5), (1, 22.5), (1.5, 23), (2, 23.5)))
        hits.append(abs(r.value - truth) < 2 * r.error)
    assert np.mean(hits) >= 0.84


def _header(s):
    about = {
        "verdict": {"go": True, "title": "GO"},
        "default_point": "fixed_0.5",
        "operating_points": [{"name": "fixed_0.5", "cut": 0.5}],
    }
    return {"name": "n", "version": "0.0.1", "grid": s.grid.to_json(), "surfaces": {"s": about}}


def test_a_product_multiplies_values_and_keeps_the_worse_flag_and_verdict(f):
    both = f * f
    one, two = (
        x.completeness(theta_e=[1.5, 1.0, 9.0], psf=[1.2, 1.5, 1.2], depth=[23.0, 22.5, 23.0]) for x in (f, both)
    )
    np.testing.assert_allclose(two.value, one.value**2)
    assert list(two.flag) == ["in support", "insufficient", "outside"]
    assert two.verdict.startswith("NO-GO")
    assert two.lo[0] < two.value[0] < two.hi[0]
    relative = (two.hi[0] - two.value[0]) / two.value[0]
    assert relative == pytest.approx(np.sqrt(2) * (one.hi[0] - one.value[0]) / one.value[0])
    assert (both * f).completeness(theta_e=1.5, psf=1.2, depth=23.0).value == pytest.approx(one.value[0] ** 3)


def test_the_expected_number_of_a_product_is_the_sum_of_its_values_and_its_error_no_smaller_than_a_factors(f):
    where = {"theta_e": [1.5, 1.0, 9.0, 1.5], "psf": [1.2, 1.5, 1.2, 0.9], "depth": [23.0, 22.5, 23.0, 23.0]}
    one, both = (x.expected_found(**where, weights=[2.0, 3.0, 4.0, 1.0]) for x in (f, f * f))
    values = f.completeness(**where).value
    assert both.value == pytest.approx(2 * values[0] ** 2 + values[3] ** 2)
    assert (both.weight, both.insufficient, both.outside) == (one.weight, one.insufficient, one.outside) == (3, 3, 4)
    assert both.error / both.value > one.error / one.value
    with pytest.raises(ValueError, match="not negative"):
        (f * f).expected_found(**where, weights=-1)


def test_the_text_holds_value_interval_n_flag_and_verdict(f):
    text = f.describe(theta_e=1.5, psf=1.2, depth=23.0)
    for part in (
        "value",
        "interval",
        "(68 %)",
        "120 injections",
        "in support",
        "NO-GO: injections separable",
        "practice-no-go 0.1.0",
    ):
        assert part in text
    assert "nan" in f.describe(theta_e=7, psf=1.2, depth=23.0)
    assert "outside" in f.describe(theta_e=7, psf=1.2, depth=23.0)


def test_wrong_questions_are_refused_with_what_there_is(f, release, tmp_path):
    with pytest.raises(ValueError, match=r"fixed_0\.5, fpr_1e-3"):
        f.completeness(theta_e=1, psf=1.2, depth=23, threshold="fpr_1e-4")
    with pytest.raises(ValueError, match=r"0\.68 and 0\.95"):
        f.completeness(theta_e=1, psf=1.2, depth=23, level=0.9)
    with pytest.raises(ValueError, match="resnet"):
        lookup.load(release, surface="other")
    with pytest.raises(FileNotFoundError, match="holds 0 files"):
        lookup.load(tmp_path)


BLOCKED = ["polars", "astropy", "dagster", "scipy", "healpy", "pandas", "pydantic", "torch", "matplotlib", "yaml"]


@pytest.mark.parametrize(
    "how", ["from lens_assets.lookup import load", "import sys; sys.path.insert(0, 'R'); from lookup import load"]
)
def test_a_release_loads_where_everything_else_is_blocked(f, release, how, tmp_path):
    copy = tmp_path / "release"
    shutil.copytree(release, copy)
    code = (
        f"import sys\nclass Block:\n  def find_spec(self, name, path=None, target=None):\n"
        f"    if name.split('.')[0] in {BLOCKED}: raise ModuleNotFoundError(name)\n"
        f"sys.meta_path.insert(0, Block())\n{how.replace('R', str(copy))}\n"
        f"r = load({str(copy)!r}).completeness(theta_e=1.5, psf=1.2, depth=23.0)\nprint(repr(float(r.value)), r.flag)\n"
        f"print(load({str(copy)!r}).at(30.0, 2.0, 1.0).flag)"
    )
    done = subprocess.run([sys.executable, "-B", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    value = float(f.completeness(theta_e=1.5, psf=1.2, depth=23.0).value)
    assert done.stdout.split() == [repr(value), "in", "support", "in", "support"]


ASK = """
import importlib.util, sys
for name in ("polars", "scipy", "astropy", "lens_assets", "pandas"):
    assert importlib.util.find_spec(name) is None, name
sys.path.insert(0, {folder!r})
from lookup import load
f = load({folder!r})
r = f.completeness(theta_e=1.5, psf=1.2, depth=23.0)
m = f.completeness(theta_e=1.5, psf=1.2, depth=23.0, model=True)
e = f.expected_found(theta_e=[1.0, 1.5], psf=1.2, depth=23.0)
print(repr(float(r.value)), repr(float(m.value)), repr(e.value), f.at(30.0, 2.0, 1.0).flag, (f * f).completeness(
    theta_e=9, psf=1, depth=23).flag, sep=",")
"""


@pytest.mark.slow
def test_a_release_loads_in_an_environment_that_holds_only_numpy_and_pyarrow(surface, simulated, tmp_path):
    tool = shutil.which("uv")
    if tool is None:
        pytest.skip("needs uv to make an environment")
    made = subprocess.run([tool, "venv", "-q", "--python", sys.executable, tmp_path / "env"], capture_output=True,
                          text=True, check=False)  # fmt: skip
    assert made.returncode == 0, made.stderr
    python = tmp_path / "env" / "bin" / "python"
    pins = [f"{name}=={version(name)}" for name in ("numpy", "pyarrow")]
    got = subprocess.run([tool, "pip", "install", "-q", "--python", python, *pins], capture_output=True, text=True,
                         check=False)  # fmt: skip
    if got.returncode:
        pytest.skip(f"no package index: {got.stderr[-200:]}")
    folder = tmp_path / "release"
    folder.mkdir()
    sky = sky_of(pl.DataFrame({"cell": [SKY_CELL], "psfsize_r": [1.21], "depth_r": [23.1]}))
    write_release(
        Draft(folder), surface, name="practice", version="0.1.0", realism=simulated.NO_GO, priors={}, detector={"a": 1},
        lineage={}, citation={"title": "t", "authors": [{"name": "n"}]}, sky=sky,
        models={"fpr_1e-3": fit(surface, "fpr_1e-3", draws=5)},
    )  # fmt: skip
    done = subprocess.run([python, "-I", "-B", "-c", ASK.format(folder=str(folder))], capture_output=True, text=True,
                          check=False, cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    f = lookup.load(folder)
    where = {"theta_e": 1.5, "psf": 1.2, "depth": 23.0}
    table, model, number, flag, outside = done.stdout.strip().split(",")
    assert float(table) == float(f.completeness(**where).value)
    assert float(model) == pytest.approx(float(f.completeness(**where, model=True).value), rel=1e-12)
    assert float(number) == f.expected_found(theta_e=[1.0, 1.5], psf=1.2, depth=23.0).value
    assert (flag, outside) == ("in support", "outside")
