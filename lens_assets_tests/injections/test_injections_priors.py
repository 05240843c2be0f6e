"""Prior sets: mixtures, slopes, spectra, tables, fitted sets, and the tables that are generated from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as hyp
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import binom, kstest

from lens_assets.science.errors import BadInput
from lens_assets.science.injections.batch import plan_batch
from lens_assets.science.injections.colours import BAND_EDGES, ColourTable, reddening, transmission
from lens_assets.science.injections.hosts import choose_hosts
from lens_assets.science.injections.priors import FAMILIES, PriorSet, prior_set, read_priors
from lens_assets.science.injections.settings import Settings
from lens_assets.science.injections.tables import page, paper_table
from lens_assets.science.injections.variants import Variant, load_variants
from lens_assets_tests.injections.test_injections_batch import sample

MANY = Settings(per_cell=200, psf_centres=(1.2, 1.35), depth_centres=(23.5, 24.0))


@pytest.fixture(scope="module")
def hosts() -> pl.DataFrame:
    return choose_hosts(sample(2000), MANY).hosts


def plan(hosts: pl.DataFrame, name: str | Variant, priors: PriorSet | None = None) -> pl.DataFrame:
    variant = load_variants()[name] if isinstance(name, str) else name
    return plan_batch(hosts, variant, 1.5, MANY, None, priors)


def test_a_mixture_draws_families_in_their_shares_and_changes_nothing_else(hosts: pl.DataFrame) -> None:
    rows, base = plan(hosts, "mixture-population"), plan(hosts, "sersic-population")
    counts = dict(rows["family"].value_counts().iter_rows())
    for family, share in prior_set("population").families.items():
        assert 1e-4 < binom.cdf(counts[family], rows.height, share) < 1 - 1e-4
    assert rows.select((pl.col("clump_x").list.len() > 0) == (pl.col("family") == "clumpy")).to_series().all()
    own = ("injection_id", "variant", "family", "clump_fraction", "clump_x", "clump_y", "clump_re", "clump_share")
    assert rows.drop(own).equals(base.drop(own))
    clumpy = plan(hosts, "clumpy-population").filter(rows["family"] == "clumpy")
    assert clumpy.drop("injection_id", "variant").equals(
        rows.filter(pl.col("family") == "clumpy").drop("injection_id", "variant")
    )


def test_a_row_of_a_mixture_does_not_depend_on_the_other_rows(hosts: pl.DataFrame) -> None:
    whole = plan(hosts, "mixture-population")
    cell = hosts.filter((pl.col("psf_bin") == 0) & (pl.col("depth_bin") == 1))
    part = plan(cell, "mixture-population")
    assert whole.filter((pl.col("psf_bin") == 0) & (pl.col("depth_bin") == 1)).equals(part)


@given(shares=st.lists(st.floats(0, 1), min_size=4, max_size=4).filter(lambda s: sum(s) > 0.1))
@hyp(max_examples=50, deadline=None)
def test_no_family_without_a_share_is_ever_drawn(shares: list[float]) -> None:
    families = {f: s / sum(shares) for f, s in zip(FAMILIES, shares, strict=True)}
    mixed = prior_set("population").model_copy(update={"families": families})
    drawn = set(mixed.family_at(np.concatenate([np.linspace(0, 1, 4001)[:-1], [0.0, 1 - 2.0**-53]])).tolist())
    assert drawn <= {f for f, s in families.items() if s > 0}


def test_shares_that_are_no_shares_and_a_mixture_without_any_are_refused(hosts: pl.DataFrame) -> None:
    body = prior_set("population").model_dump()
    with pytest.raises(ValueError, match="add up to one"):
        PriorSet(**{**body, "families": {"sersic": 0.5, "clumpy": 0.4}})
    with pytest.raises(BadInput, match="families"):
        plan(hosts, "mixture-population", prior_set("published"))


def test_slopes_are_drawn_for_power_laws_alone(hosts: pl.DataFrame) -> None:
    rows, base = plan(hosts, "epl-population"), plan(hosts, "sersic-population")
    assert (base["lens_slope"] == 2.0).all()
    prior = prior_set("population").slope
    u = np.linspace(0, 1, 4001)
    assert kstest(rows["lens_slope"].to_numpy(), lambda x: np.interp(x, prior.ppf(u), u)).pvalue > 0.01
    own = ("injection_id", "variant", "lens_slope")
    assert rows.drop(own).equals(base.drop(own))


# --- colours ---------------------------------------------------------------------------------------------------------


def test_the_dust_law_is_calzettis_and_the_forest_is_madaus() -> None:
    assert float(reddening(5500.0)) == pytest.approx(4.05, abs=0.02)  # R_V
    assert float(reddening(1600.0)) == pytest.approx(9.97, abs=0.05)  # Calzetti et al. 2000
    seen = transmission(np.array([1100.0 * 4, 1300.0 * 4, 800.0 * 4]), np.array([3.0]))
    assert seen[0] == pytest.approx(np.exp(-3.6e-3 * (4400 / 1215.67) ** 3.46), rel=1e-12)
    assert (seen[1], seen[2]) == (1.0, 0.0)


def test_the_colours_of_a_spectrum_are_its_integrals_over_the_bands() -> None:
    spectra = prior_set("population").spectra
    assert spectra is not None
    one = [np.array([v]) for v in (0.9, -2.0, 1.0, 0.0, 0.0)]  # flat f_nu, no dust: no colour at any redshift
    assert np.abs(np.ravel(spectra.colours(*one))).max() < 1e-12
    z, slope, ebv = 2.4, -1.7, 0.15  # all bands below 4000 A at rest: a power law under dust, and the forest in g

    def band(name: str) -> float:
        lo, hi = BAND_EDGES[name]

        def f(w: float) -> float:
            rest = w / (1 + z)
            t = float(transmission(np.array([w]), np.array([z]))[0])
            return float(rest ** (slope + 2) * 10 ** (-0.4 * ebv * float(reddening(rest))) * t / w)

        breaks = [1215.67 * (1 + z)] if name == "g" else None
        return quad(f, lo, hi, points=breaks)[0] / np.log(hi / lo)

    g_r, r_z = spectra.colours(*(np.array([v]) for v in (z, slope, 1.0, slope + 2, ebv)))
    assert g_r[0] == pytest.approx(-2.5 * np.log10(band("g") / band("r")), abs=2e-3)
    assert r_z[0] == pytest.approx(-2.5 * np.log10(band("r") / band("z")), abs=2e-3)


def test_colours_of_spectra_are_those_of_lenspops_sources_and_hang_together(hosts: pl.DataFrame) -> None:
    """LensPop, DES-detectable: g - r median -0.01 (16-84 % -0.14..0.39). Redshift makes colours, and is stored."""
    rows = plan(hosts, "spectra-population")
    g_r = (rows["source_mag_g"] - rows["source_mag_r"]).to_numpy()
    assert abs(np.median(g_r) + 0.01) < 0.2
    assert 0.1 < np.percentile(g_r, 84) - np.percentile(g_r, 16) < 0.6
    far = rows["source_z"].to_numpy() > 3.2  # the forest and the break are in g: redder
    assert np.median(g_r[far]) > np.median(g_r[~far]) + 0.15
    own = ("injection_id", "variant", "source_mag_g", "source_mag_z", "source_z")
    base = plan(hosts, "sersic-population")
    assert rows.drop(own).equals(base.drop(own))
    assert base["source_z"].null_count() == base.height


def test_rows_of_a_table_are_drawn_whole_by_weight_and_another_file_is_refused(
    hosts: pl.DataFrame, tmp_path: Path
) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("r_mag,g_r,r_z,re,weight\n23.0,0.1,0.2,0.3,1\n24.5,0.6,0.9,0.15,3\n")
    table = ColourTable(file=str(file), reference="a test")
    body = prior_set("population")
    priors = body.model_copy(update={"table": table})
    variant = Variant(name="t", summary="", colours="table")
    rows = plan(hosts, variant, priors)
    quads = rows.select(
        r=pl.col("source_mag_r"), g=(pl.col("source_mag_g") - pl.col("source_mag_r")).round(9),
        z=(pl.col("source_mag_r") - pl.col("source_mag_z")).round(9), re="source_re",
    )  # fmt: skip
    assert set(quads.unique().iter_rows()) == {(23.0, 0.1, 0.2, 0.3), (24.5, 0.6, 0.9, 0.15)}
    faint = int((quads["r"] > 24).sum())
    assert 1e-4 < binom.cdf(faint, rows.height, 0.75) < 1 - 1e-4
    moved = tmp_path / "elsewhere.csv"
    moved.write_bytes(file.read_bytes())
    same = ColourTable(file=str(moved), reference="a test")
    assert body.model_copy(update={"table": same}).digest == priors.digest != body.digest  # content, not the place
    changed = tmp_path / "changed.csv"
    changed.write_text("r_mag,g_r,r_z,re\n20.0,0.1,0.2,0.3\n")
    with pytest.raises(BadInput, match="another one"):
        ColourTable(file=str(changed), sha256=table.sha256, reference="a test").rows(np.array([0.5]))
    with pytest.raises(BadInput, match="no `table`"):
        plan(hosts, variant)


# --- fitted sets, and tables -----------------------------------------------------------------------------------------


def test_a_fitted_set_is_read_from_json_and_answers_to_calibrated(hosts: pl.DataFrame, tmp_path: Path) -> None:
    fitted = prior_set("population").model_copy(
        update={"name": "calibrated", "families": {"sersic": 0.2, "clumpy": 0.8}, "colour_correlation": 0.7}
    )
    file = tmp_path / "priors.json"
    file.write_text(fitted.model_dump_json())
    read = read_priors(file)
    assert read == fitted
    assert read.digest == fitted.digest != prior_set("population").digest
    assert prior_set("calibrated", read) is read
    variant = Variant(name="fitted", summary="", source="mixture", prior_set="calibrated")
    rows = plan(hosts, variant, read)
    assert set(rows["family"]) == {"sersic", "clumpy"}
    assert set(rows["prior_digest"]) == {fitted.digest}
    with pytest.raises(BadInput, match="not been fitted"):
        plan(hosts, variant)


@pytest.mark.parametrize("text", ["", "[]", '{"r_mag": 1}'])
def test_a_file_that_is_no_prior_set_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "priors.json"
    file.write_text(text)
    with pytest.raises(BadInput, match=r"priors\.json"):
        read_priors(file)


def test_the_page_of_priors_is_current() -> None:
    root = Path(__file__).resolve().parents[2]
    assert (root / "docs" / "priors.md").read_text() == page(), "run `lens-assets priors --page > docs/priors.md`"


def test_the_latex_table_has_the_numbers_of_the_markdown_one_and_is_valid() -> None:
    latex, markdown = paper_table("latex"), paper_table()
    assert latex.count(r"\\") == markdown.count("\n") - 1
    assert "N(0.05, 0.3) in [-0.5, 1.5]" in latex
    assert r"$\theta_\mathrm{E}$" in latex
    inside = latex.split(r"\midrule")[1].replace(r"\_", "").replace(r"\%", "").replace(r"$\theta_\mathrm{E}$", "")
    assert "_" not in inside
    assert "%" not in inside
    assert all(line.count("&") == 3 for line in inside.splitlines() if "&" in line)
