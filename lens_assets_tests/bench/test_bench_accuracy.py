"""The tables of the renderer's accuracy: the page is that of the kept errors, and these are what is measured today."""

import json

import numpy as np
import pytest

from lens_assets.bench import accuracy
from lens_assets.science.injections.parity import differences

KEPT = json.loads(accuracy.KEPT.read_text())


def kept(truth, draws):
    return {row["setting"]: row for row in KEPT[truth] if row["draws"] == draws}


def same(found, row, n):
    """Errors of the first ``n`` draws as they are kept, but for the last bits of another processor."""
    for error, values in found.items():
        np.testing.assert_allclose(values, row[error][:n], rtol=0.03, atol=3e-6)


def test_the_tables_of_the_page_are_those_of_the_kept_errors():
    page = accuracy.PAGE.read_text()
    assert accuracy.written(page, KEPT) == page, "run `python -m lens_assets.bench.accuracy --page`"


def test_every_row_has_its_number_of_draws():
    assert [len(row["relative"]) for row in KEPT["lenstronomy"]] == [accuracy.N_THEIRS] * 6
    assert [len(row["relative"]) for row in KEPT["truth"]] == [200] * 2 + [accuracy.N_OURS] * 6


def test_the_kept_errors_are_those_of_the_renderer_as_it_is():
    for name, scene in accuracy.scenes_beside_truth(first=3).items():
        for setting, found in accuracy.beside_truth(scene).items():
            same(found, kept("truth", name)[setting], 3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`axes` should not be `None`:DeprecationWarning")  # inside lenstronomy
def test_the_kept_differences_to_lenstronomy_are_those_of_today():
    for name, scene in accuracy.scenes_beside_lenstronomy().items():
        for setting, found in differences(scene.part(0, 2)).items():
            same(found, kept("lenstronomy", name)[setting], 2)


def test_the_interval_of_a_quantile_covers_it_as_often_as_it_says():
    rng = np.random.default_rng(5)
    for n, q in ((40, 0.5), (40, 0.9), (300, 0.99)):
        lo, hi = np.array([accuracy.order_interval(rng.random(n).tolist(), q) for _ in range(2000)]).T
        assert 0.68 - 0.03 < np.mean((lo <= q) & (q <= hi)) < 0.68 + 0.2


def test_draws_above_the_bar_are_counted_by_the_error_that_the_setting_promises():
    row = {"draws": "some", "setting": "tight", "relative": [2e-3] * 10, "of_peak": [2e-3, *[1e-4] * 9]}
    rows = accuracy.tables({"lenstronomy": [{**row, "magnification": [1e-4]}], "truth": [row]})
    for table in rows.values():
        assert "| 1 [1.1, 38.1 %] |" in table  # Jeffreys, 95 %: Beta(1.5, 9.5)
        assert "| 10 |" in table
