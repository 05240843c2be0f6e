"""Two readers in one sample are found out, by their column and by their noise."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy import ndimage

from lens_assets.science.cutouts.features import noise_lags
from lens_assets.science.cutouts.source import BAR, compare_sources, mixed_sources, noise_classifier
from lens_assets.science.errors import BadInput
from lens_assets.science.hashing import generator


def lanczos(x: np.ndarray) -> np.ndarray:
    return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0.0)


def noise(n: int, passes: int, *name: object) -> np.ndarray:
    """White noise of (n, 3, 101, 101), resampled ``passes`` times by Lanczos-3 at random phase."""
    draw = generator("source-noise", *name)
    out = draw.normal(0, 2e-3, (n, 3, 101, 101))
    for _ in range(passes):
        for i in range(n):
            for axis in (-1, -2):
                kernel = lanczos(np.arange(-3, 4) - draw.uniform(-0.5, 0.5))
                out[i] = ndimage.convolve1d(out[i], kernel / kernel.sum(), axis=axis)
    return out.astype(np.float32)


def judged(images: np.ndarray, y: np.ndarray, cells: np.ndarray | None = None):
    lags = noise_lags(images, np.ones_like(images))
    return noise_classifier(lags, y, np.arange(len(y)) // 2 if cells is None else cells, draws=200)


def test_one_source_for_all_is_no_problem():
    assert mixed_sources({"0: brick": 7138, "1: brick": 755}) == []
    assert mixed_sources({}) == []


@pytest.mark.parametrize(
    "counts",
    [
        {"0: brick": 100, "1: viewer": 10},
        {"0: brick": 100, "0: viewer": 1, "1: brick": 10},
        {"0: brick": 50, "0: viewer": 50, "1: brick": 5, "1: viewer": 5},
        {"0: brick": 100, "1: viewer-native": 10},
    ],
)
def test_two_sources_are_a_problem_even_when_both_classes_share_them(counts):
    (told,) = mixed_sources(counts)
    assert "from 2 sources" in told
    assert "positives: " in told


def test_the_noise_of_one_reader_against_another_is_told_apart_and_fails():
    images = np.concatenate([noise(60, 1, "a"), noise(60, 2, "b")])
    found = judged(images, np.repeat([0, 1], 60), np.arange(120) % 60)
    assert found.verdict == "fail"
    assert found.auc > 0.8
    assert found.lo68 > BAR
    assert (found.n, found.n_pos) == (120, 60)


def test_the_noise_of_one_reader_is_at_chance_and_passes():
    images = noise(120, 1, "same")
    found = judged(images, np.arange(120) % 2)
    assert found.verdict == "pass"
    assert found.lo68 <= BAR
    assert found.lo68 <= found.auc <= found.hi68


def test_folds_keep_cells_together():
    """Each cell has noise of its own kind and both classes: a fold that shared cells could not learn more than chance."""
    images = np.concatenate([noise(12, k % 3, "cell", k) for k in range(10)])
    found = judged(images, np.arange(120) % 2, np.repeat(np.arange(10), 12))
    assert found.verdict == "pass"


def test_missing_lags_are_filled_and_rows_without_any_left_out():
    lags = noise_lags(noise(80, 1, "missing"), np.ones((80, 3, 101, 101), np.float32))
    rows = pl.int_range(80, eager=True)
    holes = lags.with_columns(
        noise_lag1_g=pl.when(rows % 3 > 0).then("noise_lag1_g"),
        **{n: pl.when(rows >= 4).then(n) for n in lags.columns if n != "noise_lag1_g"},
    ).with_columns(noise_lag1_g=pl.when(rows >= 4).then("noise_lag1_g"))
    found = noise_classifier(holes, np.arange(80) % 2, np.arange(80), draws=100)
    assert (found.n, found.verdict) == (76, "pass")


def test_too_few_stamps_are_not_judged():
    lags = noise_lags(noise(30, 1, "few"), np.ones((30, 3, 101, 101), np.float32))
    found = noise_classifier(lags, (np.arange(30) < 5).astype(int), np.arange(30))
    assert (found.verdict, found.auc, found.n_pos) == ("insufficient", None, 5)
    assert noise_classifier(pl.DataFrame(), np.empty(0), np.empty(0)).verdict == "insufficient"
    with pytest.raises(BadInput, match="29 labels"):
        noise_classifier(lags, np.zeros(29), np.arange(30))


class Held:
    """What ``compare_sources`` needs of a set of shards."""

    def __init__(self, ids: list[str], images: np.ndarray) -> None:
        self.index, self._images = pl.DataFrame({"galaxy_id": ids}), dict(zip(ids, images, strict=True))

    def has(self, ids) -> np.ndarray:
        return np.array([i in self._images for i in ids])

    def images(self, ids) -> np.ndarray:
        return np.stack([self._images[i] for i in ids])


def test_stamps_of_two_readers_are_compared_object_by_object():
    y, x = np.mgrid[:101, :101] - 50
    galaxy = (0.1 * np.exp(-np.hypot(x, y) / 4)).astype(np.float32)
    images = noise(3, 1, "compare") + galaxy
    moved = ndimage.shift(images, (0, 0, 0.3, 0.3), order=3, mode="reflect")
    table = compare_sources(
        Held(["a", "b", "c"], images), Held(["b", "c", "d"], np.stack([images[1], moved[2], images[0]]))
    )
    same, resampled = (table.filter(pl.col("galaxy_id") == name) for name in "bc")
    assert table.height == 6
    assert same["largest"].max() == 0.0
    assert same["correlation"].min() == pytest.approx(1.0)
    assert resampled["largest"].min() > 0
    assert resampled["correlation"].min() > 0.9
    assert resampled["flux_ratio"].to_list() == pytest.approx([1.0] * 3, abs=0.05)
    with pytest.raises(BadInput, match="no object in common"):
        compare_sources(Held(["a"], images[:1]), Held(["b"], images[:1]))
