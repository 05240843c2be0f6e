"""Order, mixture and augmentation of an epoch."""

import numpy as np
import polars as pl
import pytest
import torch
from detectors_rings import Rings
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from lens_assets.science.cutouts.shard import ShardSet
from lens_assets.science.detectors.dataset import Epoch, Normalised, epoch_plan, move, moves
from lens_assets.science.detectors.recipes import Augmentation, Mixture
from lens_assets.science.detectors.rows import N1, N2, POSITIVE, Rows, epoch_counts, prior_shift, rows_of
from lens_assets.science.errors import BadInput
from lens_assets.science.hashing import mix64


def rows(positives, n1, n2):
    n = positives + n1 + n2
    group = np.repeat([POSITIVE, N1, N2], [positives, n1, n2]).astype(np.int8)
    label = (group == POSITIVE).astype(np.float32)
    return Rows(tuple(map(str, range(n))), mix64(np.arange(n)), label, label, np.ones(n, np.float32), group)


@pytest.fixture(scope="module")
def train_rows(sample, recipe):
    return rows_of(sample, "train", recipe)


@pytest.fixture(scope="module")
def pixels(train_rows, stamps, recipe):
    return Normalised(train_rows.galaxy_ids, stamps, recipe.normalisation)


def test_two_epochs_show_the_same_galaxy_differently(train_rows, recipe):
    still = np.zeros(len(train_rows), np.int64)
    a, b = (moves(train_rows.keys, still, recipe.augmentation, 1, epoch) for epoch in (0, 1))
    same = (a.turns == b.turns) & (a.mirror == b.mirror) & (a.down == b.down) & (a.right == b.right)
    assert same.mean() < 0.05  # 8 orientations x 25 shifts: 0.5 % by chance
    assert not np.array_equal(
        epoch_plan(train_rows, recipe.mixture, 1, 0), epoch_plan(train_rows, recipe.mixture, 1, 1)
    )


def test_copies_of_one_galaxy_in_one_epoch_differ(train_rows, recipe):
    keys = np.repeat(train_rows.keys[:50], 2)
    m = moves(keys, np.tile([0, 1], 50), recipe.augmentation, 1, 0)
    assert (
        (m.turns[::2] == m.turns[1::2]) & (m.down[::2] == m.down[1::2]) & (m.right[::2] == m.right[1::2])
    ).mean() < 0.1


@pytest.fixture(scope="module")
def on_disk(train_rows, stamps, tmp_path_factory):
    """The same stamps in two shards, rows in no particular order."""
    root = tmp_path_factory.mktemp("shards")
    ids = np.random.default_rng(4).permutation(train_rows.galaxy_ids)
    for number, part in enumerate(np.array_split(ids, 2)):
        folder = root / str(number)
        folder.mkdir()
        np.save(folder / "image.npy", stamps.images(part).astype("<f4"))
        np.save(folder / "invvar.npy", stamps.invvar(part).astype("<f4"))
        index = pl.DataFrame({"galaxy_id": part, "row": np.arange(len(part))})
        index.with_columns(invalid_fraction_r=pl.lit(0.0)).write_parquet(folder / "index.parquet")
    return ShardSet([root / "0", root / "1"])


@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes")  # two cores are enough for three
@pytest.mark.parametrize("in_memory", [True, False])
def test_batches_do_not_depend_on_the_number_of_workers(train_rows, pixels, on_disk, recipe, in_memory):
    """Kept in memory, or read from memory-mapped shards by each worker for itself: the same stamps in the same order."""
    source = pixels if in_memory else Normalised(train_rows.galaxy_ids, on_disk, recipe.normalisation, cache_bytes=0)
    assert source.digest == pixels.digest
    epoch = Epoch(train_rows, source, recipe, 3)
    expected = list(DataLoader(epoch, batch_size=None))
    assert len(expected) == len(epoch)
    for workers in (1, 2, 3):
        loader = DataLoader(epoch, batch_size=None, num_workers=workers, multiprocessing_context="fork")
        for a, b in zip(expected, loader, strict=True):
            assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert not torch.equal(expected[0][0], Epoch(train_rows, source, recipe, 4)[0][0])


def test_the_order_of_the_sample_plays_no_part(sample, stamps, recipe, train_rows, pixels):
    shuffled = rows_of(sample.sample(fraction=1, shuffle=True, seed=5), "train", recipe)
    assert shuffled.galaxy_ids == train_rows.galaxy_ids
    a = Epoch(shuffled, Normalised(shuffled.galaxy_ids, stamps, recipe.normalisation), recipe, 0)[0]
    assert all(torch.equal(x, y) for x, y in zip(a, Epoch(train_rows, pixels, recipe, 0)[0], strict=True))


def test_stamps_read_again_every_epoch_are_those_kept_in_memory(train_rows, stamps, recipe, pixels):
    streamed = Normalised(train_rows.galaxy_ids, stamps, recipe.normalisation, cache_bytes=0)
    assert pixels.cached
    assert not streamed.cached
    assert streamed.digest == pixels.digest
    some = np.array([5, 3, 99])
    np.testing.assert_array_equal(streamed[some], pixels[some])


def test_invalid_pixels_are_background_for_the_network(pixels):
    assert (pixels[np.arange(4)][..., 0, 0] == 0).all()


@given(st.integers(1, 40), st.integers(1, 400), st.integers(1, 60), st.floats(0.02, 0.6), st.integers(100, 900))
def test_an_epoch_has_the_mixture_it_was_asked_for(positives, n1, n2, fraction, size):
    mixture = Mixture(positive_fraction=fraction, epoch_size=size)
    r = rows(positives, n1, n2)
    row, copy = epoch_plan(r, mixture, 1, 0)
    assert len(row) == size
    counts = np.bincount(r.group[row], minlength=3)
    assert tuple(counts) == epoch_counts(r, mixture)
    assert abs(counts[POSITIVE] / size - fraction) <= 1 / size
    assert abs(counts[N2] / (counts[N1] + counts[N2]) - 0.15) <= 1 / (counts[N1] + counts[N2])
    assert len(set(zip(row, copy, strict=True))) == size, "a copy was drawn twice"
    for group in (POSITIVE, N1, N2):
        times = np.bincount(row[r.group[row] == group], minlength=len(r))[r.group == group]
        assert times.max() - times.min() <= 1, "oversampling is even"


def test_every_large_pool_is_seen_over_some_epochs():
    r = rows(5, 200, 40)
    mixture = Mixture(positive_fraction=0.1, epoch_size=100)
    seen = np.unique(np.concatenate([epoch_plan(r, mixture, 1, e)[0] for e in range(30)]))
    assert len(seen) == len(r)


def test_the_natural_mixture_shows_every_positive_once():
    r = rows(10, 170, 30)
    row, _ = epoch_plan(r, Mixture(), 1, 0)
    assert np.bincount(row)[:10].tolist() == [1] * 10
    assert prior_shift(r, Mixture()) == pytest.approx(0, abs=1e-12)


def test_the_prior_that_oversampling_adds_is_the_log_of_the_odds_ratio():
    r = rows(10, 850, 140)
    shift = prior_shift(r, Mixture(positive_fraction=0.2))
    assert shift == pytest.approx(np.log((200 / 800) / (10 / 990)))


def test_a_shift_moves_the_centre_and_reflects_at_the_edge():
    image = np.arange(3 * 7 * 7, dtype=np.float32).reshape(3, 7, 7)
    moved = move(image, 0, False, 2, -1, 7)
    assert moved[0, 5, 2] == image[0, 3, 3]
    np.testing.assert_array_equal(moved[:, 1, :6], image[:, 1, 1:])  # row -1 is row 1 again
    np.testing.assert_array_equal(
        move(image, 0, False, 1, 0, 3), image[:, 1:4, 2:5]
    )  # a crop shifts without reflection


def test_turns_and_mirror_make_the_eight_orientations():
    image = np.arange(9, dtype=np.float32).reshape(1, 3, 3)
    seen = {move(image, t, m, 0, 0, 3).tobytes() for t in range(4) for m in (False, True)}
    assert len(seen) == 8


def test_augmentation_can_be_switched_off(train_rows):
    m = moves(
        train_rows.keys, np.zeros(len(train_rows), np.int64), Augmentation(flips=False, rotations=False, shift=0), 1, 0
    )
    assert not m.turns.any()
    assert not m.mirror.any()
    assert not m.down.any()
    assert not m.right.any()


def test_no_stamp_of_an_epoch_is_lost_to_the_last_batch(train_rows, pixels, recipe):
    epoch = Epoch(train_rows, pixels, recipe, 0)
    sizes = [len(epoch[b][1]) for b in range(len(epoch))]
    assert sum(sizes) == len(train_rows)
    assert max(sizes) - min(sizes) <= 1


def test_repeated_ids_and_other_labels_are_refused(sample, recipe):
    with pytest.raises(BadInput, match="more than once"):
        rows_of(pl.concat([sample, sample]), "train", recipe)
    with pytest.raises(BadInput, match="labels other than 0 and 1"):
        rows_of(sample.with_columns(label=pl.lit(2)), "train", recipe)


def test_a_stamp_without_scatter_is_named(sample, recipe):
    class Flat(Rings):
        def images(self, galaxy_ids):
            return np.zeros((len(galaxy_ids), 3, 33, 33), np.float32)

    with pytest.raises(BadInput, match="cannot be normalised"):
        Normalised(sample["galaxy_id"][:3], Flat([]), recipe.normalisation)
