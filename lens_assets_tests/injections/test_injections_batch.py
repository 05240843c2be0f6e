"""Priors, hosts, batches, noise and truth: determinism, pairing, and the guards against known mistakes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as hyp
from hypothesis import strategies as st
from scipy.stats import kstest, poisson

from lens_assets.science.ahead import ahead
from lens_assets.science.columns.injections import INJECTION_BATCH, INJECTION_HOSTS
from lens_assets.science.errors import BadInput
from lens_assets.science.injections import noise
from lens_assets.science.injections.batch import inject, one, plan_batch
from lens_assets.science.injections.hosts import bin_of, choose_hosts
from lens_assets.science.injections.priors import load_priors, prior_set
from lens_assets.science.injections.settings import Settings
from lens_assets.science.injections.tables import paper_table
from lens_assets.science.injections.truth import arc_snr, measure_truth
from lens_assets.science.injections.variants import Variant, load_variants

SIGMA = np.array([0.0017, 0.0023, 0.0079])
SMALL = Settings(per_cell=6, max_host_reuse=3, psf_centres=(1.2, 1.35), depth_centres=(23.5, 24.0), chunk=5)


def sample(n: int = 400, seed: int = 0) -> pl.DataFrame:
    g = np.random.default_rng(seed)
    return pl.DataFrame({
        "galaxy_id": [f"10002-{1000 + i % 37}-{i}" for i in range(n)], "tile": "000m005",
        "type": g.choice(["SER", "DEV", "REX"], n),
        "split": "test", "role": "host", "label": 0, "gr": g.uniform(0.2, 2.2, n), "sersic": g.uniform(0.5, 6, n),
        "shape_e1": g.normal(0, 0.2, n), "shape_e2": g.normal(0, 0.2, n),
        **{f"psfsize_{b}": g.uniform(1.0, 1.6, n) for b in "grz"},
        **{f"depth_{b}": g.uniform(23, 24.5, n) for b in "grz"},
        **{f"mag_{b}": g.uniform(17, 22, n) for b in "grz"},
    })  # fmt: skip


class Stamps:
    """White noise of the measured level, one stamp per galaxy, with the inverse variance that describes it."""

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    def images(self, galaxy_ids: Sequence[str]) -> np.ndarray:
        seeds = [int(i.split("-")[2]) for i in galaxy_ids]
        return np.stack(
            [np.random.default_rng(s).normal(0, SIGMA[:, None, None], (3, 101, 101)) for s in seeds]
        ).astype("f4") * np.float32(self.factor)

    def invvar(self, galaxy_ids: Sequence[str]) -> np.ndarray:
        white = (SIGMA / noise.RESAMPLED_SIGMA["brick"] * self.factor) ** -2
        return np.broadcast_to(white[:, None, None], (len(galaxy_ids), 3, 101, 101)).astype("f4")


@pytest.fixture(scope="module")
def hosts() -> pl.DataFrame:
    return choose_hosts(sample(), SMALL).hosts


@pytest.fixture(scope="module")
def variants() -> dict[str, Variant]:
    return load_variants()


def images(rows: pl.DataFrame, settings: Settings = SMALL, stamps: Stamps | None = None) -> np.ndarray:
    return np.concatenate([c.images for c in inject(rows, stamps or Stamps(), settings)])


# --- priors and variants ---------------------------------------------------------------------------------------------


def test_beta_is_area_weighted() -> None:
    hosts = choose_hosts(sample(4000), Settings(per_cell=500)).hosts
    for name in ("sersic-population", "sersic-published"):
        variant = load_variants()[name]
        prior = prior_set(variant.prior_set).beta
        beta = plan_batch(hosts, variant, 1.5, Settings(per_cell=500))["beta"].to_numpy()
        uniform = (beta**2 - prior.lo**2) / (prior.hi**2 - prior.lo**2)
        assert kstest(uniform, "uniform").pvalue > 0.01
        assert kstest((beta - prior.lo) / (prior.hi - prior.lo), "uniform").pvalue < 1e-6  # the mistake would show


def test_draws_follow_the_priors_and_colours_are_correlated_as_stated(variants: dict[str, Variant]) -> None:
    settings = Settings(per_cell=400)
    rows = plan_batch(choose_hosts(sample(4000), settings).hosts, variants["sersic-population"], 1.0, settings)
    prior = prior_set("population")
    g_r = (rows["source_mag_g"] - rows["source_mag_r"]).to_numpy()
    r_z = (rows["source_mag_r"] - rows["source_mag_z"]).to_numpy()
    assert abs(np.median(g_r) - prior.g_r.mean) < 0.03
    assert np.corrcoef(g_r, r_z)[0, 1] == pytest.approx(prior.colour_correlation, abs=0.06)
    assert (
        kstest(
            rows["source_re"].to_numpy(),
            lambda x: np.interp(x, prior.re.ppf(np.linspace(0, 1, 5001)), np.linspace(0, 1, 5001)),
        ).pvalue
        > 0.01
    )
    angle = np.arctan2(rows["source_y"].to_numpy(), rows["source_x"].to_numpy())
    assert kstest((angle + np.pi) / (2 * np.pi), "uniform").pvalue > 0.01


@given(u=st.floats(0, 1, exclude_max=True))
@hyp(max_examples=60, deadline=None)
def test_quantiles_of_every_prior_are_finite_and_inside_its_bounds(u: float) -> None:
    for priors in load_priors().values():
        for name in ("r_mag", "g_r", "r_z", "re", "sersic_n", "source_q", "beta"):
            distribution = getattr(priors, name)
            value = float(distribution.ppf(np.array([u]))[0])
            assert np.isfinite(value)
            assert (
                getattr(distribution, "lo", -np.inf) - 1e-9
                <= value
                <= getattr(distribution, "hi", 1.0 if name == "source_q" else np.inf) + 1e-9
            )


def test_a_calibrated_prior_is_refused_until_it_is_fitted() -> None:
    with pytest.raises(BadInput, match="not been fitted"):
        prior_set("calibrated")


def test_the_paper_table_is_made_from_the_yaml_that_the_code_reads() -> None:
    table = paper_table()
    assert "| source g - r | mag | N(1.15, 0.3) | N(0.05, 0.3) in [-0.5, 1.5] |" in table
    for priors in load_priors().values():
        assert priors.digest[:12] in table


def test_prior_digests_change_with_a_number() -> None:
    prior = prior_set("published")
    assert prior.model_copy(update={"colour_correlation": 0.1}).digest != prior.digest == prior_set("published").digest


def test_the_shipped_variants_are_the_promised_ones_and_their_pairs_exist(variants: dict[str, Variant]) -> None:
    assert set(variants) >= {
        "sersic-population", "clumpy-population", "sersic-published", "point-source", "sersic-nonoise",
        "sersic-gaussian-psf", "null-gain",
    }  # fmt: skip
    digests = [v.digest for v in variants.values()]
    assert len(set(digests)) == len(digests)


# --- hosts -----------------------------------------------------------------------------------------------------------


def test_a_host_belongs_to_the_half_open_cell_of_its_own_conditions() -> None:
    edges = [0.8249, 0.825, 0.9749, 0.975, 1.8749, 1.875, np.nan, np.inf]
    np.testing.assert_array_equal(bin_of(edges, Settings().psf_centres, 0.15), [-1, 0, 0, 1, 6, -1, -1, -1])


@given(v=st.floats(0.5, 2.5))
@hyp(max_examples=200, deadline=None)
def test_no_value_is_snapped(v: float) -> None:
    centres = (0.9, 1.2, 1.8)  # with gaps
    i = int(bin_of([v], centres, 0.15)[0])
    inside = [k for k, c in enumerate(centres) if round(c - 0.075, 9) <= v < round(c + 0.075, 9)]
    assert inside == ([i] if i >= 0 else [])


def test_hosts_and_rejections_add_up_and_outside_is_counted() -> None:
    table = sample()
    table = table.with_columns(
        pl.when(pl.col("galaxy_id").str.ends_with("7")).then(1).otherwise(0).alias("label"),
        pl.when(pl.col("galaxy_id").str.ends_with("3")).then(pl.lit("report")).otherwise(pl.lit("host")).alias("role"),
    )
    choice = choose_hosts(table, SMALL)
    assert choice.hosts.height + choice.rejections.total == table.height
    assert choice.rejections.counts["a lens or candidate"] == 40
    assert choice.rejections.counts["role is not host"] == 40
    assert choice.rejections.counts["outside the grid"] > 50
    assert choice.hosts["psfsize_r"].min() >= 1.125
    assert choice.hosts["psfsize_r"].max() < 1.425
    assert INJECTION_HOSTS.violations(choice.hosts) == []
    assert choice.cells["n_hosts"].sum() == choice.hosts.height
    assert choice.cells.height == 4


def test_a_training_galaxy_can_never_host() -> None:
    table = sample(20)
    with pytest.raises(BadInput, match="training"):
        choose_hosts(
            table.with_columns(
                split=pl.when(pl.col("galaxy_id") == table["galaxy_id"][3]).then(pl.lit("train")).otherwise("split")
            ),
            SMALL,
        )
    double = pl.concat([table, table[:1].with_columns(split=pl.lit("train"), role=pl.lit("train"))])
    with pytest.raises(BadInput, match="training"):
        choose_hosts(double, SMALL)


def test_matched_hosts_are_massive_early_types() -> None:
    table = sample(4000)
    matched = choose_hosts(table, SMALL, "matched").hosts.join(table.select("galaxy_id", "sersic"), on="galaxy_id")
    assert 0 < matched.height < choose_hosts(table, SMALL).hosts.height
    assert (
        matched.filter((pl.col("type") == "REX") | ((pl.col("type") == "SER") & (pl.col("sersic") <= 2.5))).height == 0
    )
    assert matched["gr"].min() >= 1.17
    assert matched["mag_r"].max() <= 21.32


def test_hosts_do_not_depend_on_the_order_of_rows() -> None:
    table = sample()
    capped = SMALL.model_copy(update={"max_hosts_per_cell": 7})
    assert choose_hosts(table, capped).hosts.equals(
        choose_hosts(table.sample(fraction=1, shuffle=True, seed=1), capped).hosts
    )


# --- batches ---------------------------------------------------------------------------------------------------------


def test_a_batch_fills_each_cell_and_says_how_often_a_host_is_used(
    hosts: pl.DataFrame, variants: dict[str, Variant]
) -> None:
    rows = plan_batch(hosts, variants["sersic-population"], 1.25, SMALL)
    assert rows.group_by("psf_bin", "depth_bin").len()["len"].to_list() == [6] * 4
    few = hosts.group_by("psf_bin", "depth_bin").head(1)
    short = plan_batch(few, variants["sersic-population"], 1.25, SMALL)
    assert short.height == 4 * 3  # one host, three uses: nothing is invented
    assert short["host_reuse"].to_list() == [3] * 12
    assert rows["injection_id"].is_unique().all()
    assert rows["injection_id"].is_sorted()


def test_a_plan_is_the_same_whatever_the_order_of_hosts(hosts: pl.DataFrame, variants: dict[str, Variant]) -> None:
    v = variants["clumpy-population"]
    assert plan_batch(hosts, v, 0.5, SMALL).equals(plan_batch(hosts.reverse(), v, 0.5, SMALL))


def test_paired_variants_share_hosts_geometry_and_source(hosts: pl.DataFrame, variants: dict[str, Variant]) -> None:
    base = plan_batch(hosts, variants["sersic-population"], 1.0, SMALL)
    shared = [
        c
        for c in base.columns
        if c not in ("injection_id", "variant", "noise", "family", "inner_image", "prior_digest") and "clump" not in c
    ]
    for name in (
        "sersic-nonoise",
        "null-gain",
        "sersic-gaussian-psf",
        "point-source",
        "clumpy-population",
        "sersic-noinner",
    ):
        assert plan_batch(hosts, variants[name], 1.0, SMALL).select(shared).equals(base.select(shared)), name
    other = plan_batch(hosts, variants["sersic-population"], 1.0, SMALL, seed=5)
    assert not np.any(other["source_mag_r"].to_numpy() == base["source_mag_r"].to_numpy())


def test_the_lens_follows_its_host_on_the_sky(variants: dict[str, Variant]) -> None:
    """A host elongated north-south (PA 0) has its lens along +y, one elongated north-east (PA 45) towards -x, +y."""
    table = sample(600)
    angles = {}
    for name, e1, e2 in (("north", 0.4, 0.0), ("north-east", 0.0, 0.4)):
        rows = plan_batch(
            choose_hosts(table.with_columns(shape_e1=pl.lit(e1), shape_e2=pl.lit(e2)), SMALL).hosts,
            variants["sersic-population"],
            1.0,
            SMALL,
        )
        angles[name] = np.degrees(0.5 * np.angle(np.mean(np.exp(2j * rows["phi_lens"].to_numpy())))) % 180
        assert rows["q_lens"].mean() == pytest.approx(0.6 / 1.4, abs=0.05)
    assert angles["north"] == pytest.approx(90, abs=6)
    assert angles["north-east"] == pytest.approx(135, abs=6)


def test_one_injection_by_its_id_is_the_batch_bit_for_bit(hosts: pl.DataFrame, variants: dict[str, Variant]) -> None:
    for name in ("sersic-population", "clumpy-population", "point-source"):
        rows = plan_batch(hosts, variants[name], 1.5, SMALL)
        batch = images(rows)
        for threads in (0, 1, 3):
            again = images(rows, SMALL.model_copy(update={"chunk": 64, "threads": threads}))
            assert again.tobytes() == batch.tobytes()
        chunk = one(rows["injection_id"][9], hosts, Stamps(), SMALL)
        assert chunk.images[0].tobytes() == batch[9].tobytes()
    with pytest.raises(BadInput, match="no injection"):
        one("sersic-population|1.50|0|0|9999", hosts, Stamps(), SMALL)


def test_a_batch_of_another_host_set_is_refused(hosts: pl.DataFrame, variants: dict[str, Variant]) -> None:
    with pytest.raises(BadInput, match="matched"):
        plan_batch(hosts, variants["sersic-matched"], 1.0, SMALL)


def test_no_hosts_give_an_empty_batch_with_all_columns(hosts: pl.DataFrame, variants: dict[str, Variant]) -> None:
    empty = measure_truth(plan_batch(hosts.clear(), variants["sersic-population"], 1.0, SMALL), Stamps(), SMALL)
    assert empty.height == 0
    assert empty.columns == INJECTION_BATCH.names


# --- noise -----------------------------------------------------------------------------------------------------------


def test_the_measured_gain_reproduces_the_sky_and_scales_with_depth() -> None:
    ids = [f"1-1-{i}" for i in range(40)]
    shallow, deep = Stamps(2.0), Stamps(1.0)
    gain = noise.measure_gain(deep.images(ids), deep.invvar(ids))
    assert noise.check_gain(deep.images(ids), deep.invvar(ids), gain).passed
    np.testing.assert_allclose(noise.measure_gain(shallow.images(ids), shallow.invvar(ids)), gain / 4, rtol=1e-5)
    assert (gain > 1e4).all()
    assert (gain < 6e4).all()
    by_scatter = noise.measure_gain(deep.images(ids), deep.invvar(ids), method="mad")
    np.testing.assert_allclose(by_scatter / gain, 1, atol=0.15)


def test_a_constant_gain_of_150_fails_the_self_test() -> None:
    ids = [f"1-1-{i}" for i in range(10)]
    check = noise.check_gain(Stamps().images(ids), Stamps().invvar(ids), np.full((10, 3), 150.0))
    assert not check.passed
    assert max(check.ratio) < 0.02


def test_a_stamp_without_background_is_named() -> None:
    weight = np.array(Stamps().invvar(["1-1-1", "1-1-2"]))
    weight[1, 2] = 0
    with pytest.raises(BadInput, match="band z"):
        noise.measure_gain(Stamps().images(["1-1-1", "1-1-2"]), weight)


@pytest.mark.parametrize("mean", [0.01, 0.7, 8.0, 39.0, 41.0, 900.0])
def test_photon_noise_has_the_mean_and_variance_of_poisson(mean: float) -> None:
    u = np.random.default_rng(8).random(40_000)
    excess = noise.poisson_excess(np.full(u.size, mean), u)
    assert abs(excess.mean()) < 5 * np.sqrt(mean / u.size)
    kurtosis = np.sqrt((2 + 1 / mean) / u.size)
    assert excess.var() / mean == pytest.approx(1, abs=5 * kurtosis + 0.003)
    if mean < noise.MANY:
        np.testing.assert_allclose(excess[:500] + mean, poisson.ppf(u[:500], mean), atol=1e-9)
    else:  # a continuous stand-in of the same ranks
        assert np.abs(excess[:500] + mean - poisson.ppf(u[:500], mean)).max() < 1.1


def test_noise_is_exactly_zero_where_no_arc_is_and_the_background_keeps_its_variance() -> None:
    host, weight = Stamps().images(["1-1-4"])[0], Stamps().invvar(["1-1-4"])[0]
    arc = np.zeros((3, 101, 101), "f4")
    arc[:, 40:60, 40:60] = 0.02
    image, new = noise.add_arc(host, weight, arc, np.full(3, 3e4), np.random.default_rng(0))
    outside = arc == 0
    assert image[outside].tobytes() == host[outside].tobytes()
    assert new[outside].tobytes() == weight[outside].tobytes()
    added = (image - host - arc)[~outside].astype(float)
    assert added.var() == pytest.approx(0.02 / 3e4, rel=0.15)
    np.testing.assert_allclose(1 / new[~outside] - 1 / weight[~outside], 0.02 / 3e4, rtol=2e-2)


def test_invalid_pixels_stay_invalid() -> None:
    host, weight = Stamps().images(["1-1-4"])[0], np.array(Stamps().invvar(["1-1-4"])[0])
    weight[0, 50, 50] = 0
    _, new = noise.add_arc(host, weight, np.full((3, 101, 101), 0.01, "f4"), np.full(3, 3e4), np.random.default_rng(0))
    assert new[0, 50, 50] == 0
    assert (new > 0).sum() == weight.size - 1


def test_zero_flux_returns_the_host_bit_for_bit(hosts: pl.DataFrame, variants: dict[str, Variant]) -> None:
    rows = plan_batch(hosts, variants["sersic-population"], 1.0, SMALL).with_columns(
        pl.lit(np.inf).alias(f"source_mag_{b}") for b in "grz"
    )
    for name in ("sersic-population", "sersic-nonoise", "null-gain"):
        same = rows.with_columns(variant=pl.lit(name))
        for chunk in inject(same, Stamps(), SMALL):
            ids = chunk.rows["galaxy_id"].to_list()
            assert chunk.images.tobytes() == Stamps().images(ids).tobytes()
            assert chunk.invvar.tobytes() == Stamps().invvar(ids).tobytes()


def test_the_null_gain_is_the_noiseless_variant_and_a_low_gain_is_not(
    hosts: pl.DataFrame, variants: dict[str, Variant]
) -> None:
    clean = images(plan_batch(hosts, variants["sersic-nonoise"], 1.5, SMALL))
    null = images(plan_batch(hosts, variants["null-gain"], 1.5, SMALL))
    noisy = images(plan_batch(hosts, variants["sersic-population"], 1.5, SMALL))
    arcs = np.concatenate(
        [c.arcs.images for c in inject(plan_batch(hosts, variants["sersic-nonoise"], 1.5, SMALL), Stamps(), SMALL)]
    )
    assert np.abs(null - clean).max() <= 6e-6 * np.sqrt(arcs.max()) + 1e-6
    np.testing.assert_array_equal(null[arcs == 0], clean[arcs == 0])
    assert np.abs(noisy - clean).max() > 1e-4


def test_variants_share_their_photon_deviates(hosts: pl.DataFrame, variants: dict[str, Variant]) -> None:
    """With the effect switched off, two conditions are the same bytes: a renamed copy of a variant is the variant."""
    base = variants["sersic-population"]
    copy = replace_name(base, "copy")
    a = next(inject(plan_batch(hosts, base, 2.0, SMALL), Stamps(), SMALL))
    b = next(inject(plan_batch(hosts, copy, 2.0, SMALL), Stamps(), SMALL, copy))
    assert a.images.tobytes() == b.images.tobytes()
    assert a.invvar.tobytes() == b.invvar.tobytes()


def replace_name(variant: Variant, name: str) -> Variant:
    return variant.model_copy(update={"name": name})


# --- truth -----------------------------------------------------------------------------------------------------------


def test_truth_is_measured_complete_and_in_range(hosts: pl.DataFrame, variants: dict[str, Variant]) -> None:
    rows = plan_batch(hosts, variants["sersic-population"], 1.25, SMALL)
    table = measure_truth(rows, Stamps(), SMALL)
    assert table.height == rows.height
    assert INJECTION_BATCH.violations(table) == []
    lensed = 22.5 - 2.5 * np.log10(10 ** (0.4 * (22.5 - table["source_mag_r"])) * table["magnification"])
    np.testing.assert_allclose(table["lensed_mag_r"], lensed, atol=1e-6)
    assert (table["magnification"] > 1).all()
    shuffled = measure_truth(rows.sample(fraction=1, shuffle=True, seed=3), Stamps(), SMALL)
    assert shuffled.equals(table)
    assert (
        measure_truth(plan_batch(hosts, variants["sersic-nonoise"], 1.25, SMALL), Stamps(), SMALL)[
            "gain_r"
        ].null_count()
        == rows.height
    )


def test_the_arc_snr_is_that_of_a_matched_filter() -> None:
    """Against its definition by simulation: white noise, a known template, the scatter of the filtered flux."""
    g = np.random.default_rng(9)
    arc = np.zeros((1, 3, 101, 101), "f4")
    arc[0, :, 42:60, 60:64] = 0.01
    weight = np.full_like(arc, 0.005**-2)
    template = arc[0, 1].astype(float)
    flux = [
        (template * (template + g.normal(0, 0.005, template.shape))).sum() / (template**2).sum() for _ in range(400)
    ]
    assert arc_snr(arc, weight, (4, 16))[0, 1] == pytest.approx(1 / np.std(flux), rel=0.12)


def test_bigger_settings_are_validated() -> None:
    with pytest.raises(ValueError, match="overlap"):
        Settings(psf_centres=(1.0, 1.1))
    with pytest.raises(ValueError, match="not in the grid"):
        Settings().theta_key(0.6)
    assert len(Settings().theta_e) * len(Settings().psf_centres) * len(Settings().depth_centres) == 385


# --- rendering ahead -------------------------------------------------------------------------------------------------


def test_what_is_made_ahead_comes_in_order_raises_in_its_place_and_stops_with_its_reader() -> None:
    made: list[int] = []

    def source(n: int, bad: int = -1) -> Iterator[int]:
        for i in range(n):
            if i == bad:
                raise KeyError("in the maker")
            made.append(i)
            yield i

    assert list(ahead(source(50))) == list(range(50))
    broken = ahead(source(9, bad=4))
    assert [next(broken) for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(KeyError, match="in the maker"):
        next(broken)
    made.clear()
    reader = ahead(source(1000), depth=2)
    assert next(reader) == 0
    reader.close()  # joins the maker
    assert len(made) <= 5
