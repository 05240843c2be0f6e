"""Figures carry the verdict, show what is unknown, and are the same bytes each time."""

import hashlib

import pytest

from lens_assets.science.completeness import figures
from lens_assets.science.completeness.bench import bench_lookup


def texts(figure):
    return " ".join(t.get_text() for t in figure.findobj(lambda a: hasattr(a, "get_text")))


@pytest.mark.parametrize("draw", [figures.surface_map, figures.against_theta_e, figures.two_factor])
def test_every_figure_says_no_go_and_why(surface, draw):
    assert "NO-GO: injections separable from real lenses, probe AUC 0.871" in texts(draw(surface))


def test_the_map_hatches_insufficient_cells_and_gives_their_n(surface):
    figure = figures.surface_map(surface)
    hatched = [p for ax in figure.axes for p in ax.patches if p.get_hatch()]
    assert len(hatched) == 4
    assert texts(figure).count("n=10") == 4


def test_figures_are_reproducible(surface, tmp_path):
    digests = set()
    for i in range(2):
        figures.save(figures.surface_map(surface), tmp_path / f"{i}.png")
        digests.add(hashlib.sha256((tmp_path / f"{i}.png").read_bytes()).hexdigest())
    assert len(digests) == 1


def test_there_is_no_two_factor_figure_without_the_gate(build, simulated):
    assert figures.two_factor(build(simulated.injections().drop("observable"))) is None


def test_a_look_up_is_fast_enough():
    line = bench_lookup(2)
    assert line["value"] > 1e6
    assert {"name", "value", "spread", "threads", "n"} <= set(line)
