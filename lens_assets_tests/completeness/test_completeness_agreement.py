"""A continuous model stands beside its table only while the two agree: hosts as clusters, the level kept, a wrong shape seen."""

import json

import numpy as np
import polars as pl
import pytest
from scipy.stats import chi2

from lens_assets.lookup import load
from lens_assets.science.completeness.agreement import misfit
from lens_assets.science.completeness.continuous import fit, models_of, save_models

POINT = "fixed_0.5"


def counts(rng, hosts, cells, per_pair, spread, shift=None):
    """Every host in every cell, its rate moved by one effect that all its cells share."""
    host, cell = (a.ravel() for a in np.meshgrid(np.arange(hosts), np.arange(cells), indexing="ij"))
    host, cell = np.repeat(host, per_pair), np.repeat(cell, per_pair)
    p = np.clip(0.4 + rng.normal(0, spread, hosts)[host], 0.01, 0.99)
    seen = p if shift is None else np.clip(p + shift[cell], 0.01, 0.99)
    return cell, host, (rng.random(host.size) < seen).astype(float)


@pytest.mark.parametrize("spread", [0.0, 0.25])
def test_a_right_model_is_refused_no_more_often_than_stated_although_cells_share_hosts(spread):
    p_cluster, p_alone = [], []
    for seed in range(300):
        cell, host, found = counts(np.random.default_rng(seed), 150, 12, 2, spread)
        p_cluster.append(misfit(cell, host, found, np.full(found.size, 0.4), 0.0)[1])
        total = np.bincount(cell, found - 0.4)
        p_alone.append(chi2.sf(np.sum(total**2 / np.bincount(cell, np.full(found.size, 0.24))), 12))
    assert np.mean(np.array(p_cluster) < 0.01) <= 0.03
    assert np.mean(np.array(p_cluster) < 0.5) == pytest.approx(0.5, abs=0.12)
    if spread:
        assert np.mean(np.array(p_alone) < 0.01) > 0.08


def test_a_wrong_pattern_over_cells_is_seen():
    shift = np.where(np.arange(12) % 2, 0.07, -0.07)
    cell, host, found = counts(np.random.default_rng(1), 150, 12, 2, 0.2, shift)
    assert misfit(cell, host, found, np.full(found.size, 0.4), 0.0)[1] < 1e-4


def test_cells_in_which_nothing_was_found_are_no_contradiction_where_the_model_expects_little():
    cell, host = np.repeat(np.arange(5), 100), np.tile(np.arange(100), 5)
    assert misfit(cell, host, np.zeros(500), np.full(500, 0.01), 0.0)[1] > 0.1
    assert misfit(cell, host, np.zeros(500), np.full(500, 0.08), 0.0)[1] < 1e-4


def falling(simulated, seed=0):
    """Injections of a finder that loses lenses in the deepest fields: no surface that rises with depth is right."""
    rows = simulated.injections(seed=seed)
    lost = (pl.col("depth_r") > 23.2) & (pl.col("galaxy_id").hash(3) % 3 > 0)
    return rows.with_columns(pl.when(lost).then(0.01).otherwise(pl.col("score")).alias("score"))


def test_a_model_of_the_wrong_shape_refuses_itself_and_a_right_one_does_not(build, simulated, surface):
    wrong = fit(build(falling(simulated), thresholds=simulated.THRESHOLDS.head(1)), POINT, draws=0)
    assert "contradicts the table" in wrong.agreement["refused"]
    assert wrong.agreement["p_misfit"] < 0.01
    right = fit(surface, POINT, draws=0)
    assert right.agreement["refused"] == ""
    assert right.agreement["p_misfit"] > 0.01


def test_a_refused_model_is_not_published_and_the_look_up_says_why(build, simulated, tmp_path):
    from lens_assets.science.release.write import write_release
    from lens_assets.science.storage import Draft

    settings = simulated.SMALL.model_copy(update={"model_draws": 2})
    surface = build(falling(simulated), thresholds=simulated.THRESHOLDS.head(1), settings=settings)
    models = models_of(surface)
    save_models(tmp_path / "model.npz", models)
    assert not (tmp_path / "model.npz").exists()
    folder = tmp_path / "release"
    folder.mkdir()
    write_release(Draft(folder), surface, name="it", version="1.0.0", realism=None, priors={}, detector={}, lineage={},
                  citation={"title": "t", "authors": [{"name": "n"}]}, models=models)  # fmt: skip
    assert not list(folder.glob("model*.npz"))
    assert json.loads((folder / "MODEL.json").read_text())[POINT]["refused"]
    assert "refused" in (folder / "MODEL_CARD.md").read_text()
    with pytest.raises(ValueError, match=r"was refused: it contradicts the table.*take the table"):
        load(folder).completeness(theta_e=1.0, psf=1.2, depth=23.0, model=True)
