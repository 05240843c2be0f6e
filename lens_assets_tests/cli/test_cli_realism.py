"""``lens-assets realism``: what it says when something is missing, and its figure."""

import struct

import pytest
import typer
from typer.testing import CliRunner

from lens_assets.cli import realism
from lens_assets.science.injections.variants import Variant
from lens_assets.science.realism.overview import Entry
from lens_assets.science.realism.overview_figure import _over_bar, overview_figure


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Invoke the command in an empty folder with no installation."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LENS_ASSETS_HOME", raising=False)
    app = typer.Typer()
    realism.register(app)
    return lambda *words: CliRunner().invoke(app, [*words, "--home", str(tmp_path / "home")])


def test_without_a_report_it_says_what_to_run_and_writes_no_page(run, tmp_path):
    done = run()
    assert done.exit_code == 1
    assert "make a surface first" in done.output
    assert not (tmp_path / "realism.html").exists()


def test_a_variant_needs_a_profile_and_a_name_that_exists(run):
    assert "--variant needs --make" in run("--variant", "sersic-population").output
    done = run("--make", "realism", "--variant", "sersic-populations")
    assert done.exit_code == 2
    assert "no such variants: sersic-populations" in done.output
    assert "sersic-population" in done.output


def test_reports_of_a_detector_that_is_not_there_are_refused(run):
    done = run("--make", "realism", "--variant", "sersic-population")
    assert done.exit_code == 1
    assert "no detector compact-s1 yet" in done.output


def gate(name, value, lo, hi, bar, better="low", status="measured", **more):
    return {
        "name": name, "value": value, "lo95": lo, "hi95": hi, "bar": bar, "better": better, "unit": "mag", "status": status,
        "n_real": 60, "n_injected": 200, "detail": {}, **more,
    }  # fmt: skip


def test_a_gate_is_drawn_on_the_side_of_its_bar_it_is_on():
    assert _over_bar(gate("arc_colour", 0.1, 0.05, 0.3, 0.2)) == pytest.approx((0.5, 0.25, 1.5))
    value, lo, hi = _over_bar(gate("background_ks", 0.5, 0.25, 1.0, 0.05, better="high"))
    assert (value, lo, hi) == pytest.approx((0.1, 0.05, 0.2)), "a large p passes"
    value, lo, hi = _over_bar(gate("background_ks", 0.01, None, None, 0.05, better="high"))
    assert value == lo == hi == 5


def test_the_figure_grows_with_its_variants_and_is_the_same_bytes_again(tmp_path):
    def entry(name):
        probe = gate("feature_probe", 0.6, 0.5, 0.7, 0.7, detail={"controls": {"real_real_halves": {"mean": 0.5}}})
        report = {"verdict": "go", "gates": [probe, gate("arc_colour", 0.1, 0.0, 0.2, 0.2, status="insufficient")],
                  "facts": {"blocking": ["arc_colour"]}}  # fmt: skip
        return Entry("net-s1", Variant(name=name, summary="x"), report)

    def height(path):
        return struct.unpack(">II", path.read_bytes()[16:24])[1]

    one = overview_figure([entry("a")], tmp_path / "one.png")
    three = overview_figure([entry(n) for n in "abc"], tmp_path / "three.png")
    assert height(three) > 1.5 * height(one)
    assert overview_figure([entry(n) for n in "abc"], tmp_path / "again.png").read_bytes() == three.read_bytes()
