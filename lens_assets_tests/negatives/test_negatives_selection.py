"""Profiles and the screen: known answers, the same cuts for both classes, and exclusion round known lenses."""

import numpy as np
import polars as pl
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord

from lens_assets.science.errors import BadInput, UnbalancedCount
from lens_assets.science.negatives.attrition import merge_attrition, reconcile
from lens_assets.science.negatives.exclusion import exclude_known, near_known
from lens_assets.science.negatives.pool import build_pool
from lens_assets.science.negatives.selection import (
    MASKBITS,
    Cut,
    SelectionProfile,
    filters,
    list_selections,
    load_selection,
    screen,
)
from lens_assets.science.negatives.settings import Settings

NAMES = ["decals-strip", "deployment", "paper-iv"]


def test_the_named_profiles_are_there_and_say_what_the_paper_says():
    assert list_selections() == NAMES
    paper = load_selection("paper-iv")
    assert paper.types.negative == ("SER", "DEV", "REX")
    assert paper.types.positive == ("SER", "DEV", "REX", "EXP")
    assert (paper.dec_min, paper.dec_max, paper.mag_z_max) == (None, 32.0, 20.0)
    assert paper.nobs_min == {"g": 3, "r": 3, "z": 3}
    strip = load_selection("decals-strip")
    assert (strip.dec_min, strip.dec_max) == (-18.0, 32.0)
    assert strip.model_dump(exclude={"name", "description", "source", "dec_min"}) == paper.model_dump(
        exclude={"name", "description", "source", "dec_min"}
    )
    deployment = load_selection("deployment")
    assert "EXP" in deployment.types.negative
    assert deployment.maskbits_reject
    assert deployment.ebv_max is not None


@pytest.mark.parametrize("name", NAMES)
def test_no_profile_cuts_one_class_by_anything_but_type(name):
    profile = load_selection(name)
    negative, positive = (dict(filters(profile, role)) for role in ("negative", "positive"))
    assert list(negative) == list(positive)
    for step in negative:
        if step != "type":
            assert str(negative[step]) == str(positive[step])


def test_a_profile_cannot_express_a_cut_on_one_class(tmp_path):
    raw = load_selection("paper-iv").model_dump(mode="json")
    for key in ("negative_maskbits_reject", "dec_min_negative"):
        with pytest.raises(ValueError, match="Extra inputs"):
            SelectionProfile.model_validate({**raw, key: 1})
    with pytest.raises(ValueError, match="not MASKBITS"):
        SelectionProfile.model_validate({**raw, "maskbits_reject": ["NOSUCH"]})
    with pytest.raises(BadInput, match="no such selection profile; there are decals-strip"):
        load_selection("papre-iv")
    with pytest.raises(BadInput, match="not a valid"):
        load_selection("../paper-iv")
    (tmp_path / "mine.yaml").write_text("name: other\ndescription: x\nsource: y\ntypes: {negative: [SER]}")
    with pytest.raises(BadInput, match="not a selection profile") as fault:
        load_selection("mine", tmp_path)
    assert "mine.yaml" in fault.value.file


def known(sky):
    """Nine rows of which each but the first fails one filter, and the last three."""
    base = {"type": ["SER"] * 9, "nobs_g": [3] * 9, "nobs_r": [3] * 9, "nobs_z": [3] * 9, "flux_z": [10.001] * 9}
    base["dec"] = [-60.0, 32.0, 1, 1, 1, 1, 1, 1, 33.0]
    base["type"][2] = "EXP"
    base["nobs_g"][3], base["nobs_r"][4], base["nobs_z"][5] = 2, 0, 2
    base["flux_z"][6], base["flux_z"][7] = 10.0, -1.0
    base["type"][8], base["nobs_z"][8] = "PSF", 1
    return sky.sweeps(9, 1, **base)


def test_the_attrition_of_known_rows_is_exact(sky):
    kept, table = screen(known(sky), load_selection("paper-iv"), "negative")
    assert kept["objid"].to_list() == [0]
    assert table.select("step", "n_in", "removed", "n_left", "removed_alone").rows() == [
        ("finite_position", 9, 0, 9, 0),
        ("dec_max", 9, 2, 7, 2),
        ("type", 7, 1, 6, 2),
        ("nobs_g", 6, 1, 5, 1),
        ("nobs_r", 5, 1, 4, 1),
        ("nobs_z", 4, 1, 3, 2),
        ("mag_z", 3, 2, 1, 2),
    ]
    kept, table = screen(known(sky), load_selection("paper-iv"), "positive")
    assert kept["objid"].to_list() == [0, 2]
    kept, _ = screen(known(sky), load_selection("decals-strip"), "negative")
    assert kept.height == 0


def test_declination_bounds_are_exclusive(sky):
    frame = sky.eligible(4, 1, dec=[-18.0, -17.9999, 31.9999, 32.0])
    assert screen(frame, load_selection("decals-strip"), "negative")[0]["objid"].to_list() == [1, 2]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), None])
@pytest.mark.parametrize("column", ["flux_z", "ebv", "depth_r"])
def test_nan_infinity_and_null_fail_the_filter_they_touch(sky, column, bad):
    profile = load_selection("deployment").model_copy(update={"cuts": (Cut(column="depth_r", min=10.0),)})
    frame = sky.eligible(3, 1).with_columns(
        pl.when(pl.col("objid") == 1).then(pl.lit(bad, dtype=pl.Float64)).otherwise(pl.col(column)).alias(column)
    )
    kept, table = screen(frame, profile, "negative")
    assert kept["objid"].to_list() == [0, 2]
    step = {"flux_z": "mag_z", "ebv": "ebv", "depth_r": "cut:depth_r"}[column]
    assert table.filter(pl.col("removed") > 0)["step"].to_list() == [step]


@pytest.mark.parametrize("bit", load_selection("deployment").maskbits_reject)
def test_every_rejected_bit_is_looked_at_also_beyond_16(sky, bit):
    frame = sky.eligible(3, 1, maskbits=[0, 1 << MASKBITS[bit], 1 << MASKBITS["WISEM1"]])
    assert screen(frame, load_selection("deployment"), "negative")[0]["objid"].to_list() == [0, 2]
    assert screen(frame, load_selection("paper-iv"), "negative")[0].height == 3


def test_a_dereddened_profile_corrects_the_flux(sky):
    profile = load_selection("paper-iv").model_copy(update={"dereddened": True})
    frame = sky.eligible(2, 1, flux_z=9.5, mw_transmission_z=[0.9, 0.99])
    assert screen(frame, profile, "negative")[0]["objid"].to_list() == [0]


def test_a_missing_column_is_named(sky):
    with pytest.raises(BadInput) as fault:
        screen(sky.eligible(2, 1).drop("nobs_r"), load_selection("paper-iv"), "negative")
    assert fault.value.column == "nobs_r"


@pytest.mark.parametrize("place", [(10.0, 0.0), (0.0, 30.0), (123.0, 84.9), (45.0, 41.8103149)])
def test_exclusion_is_exact_at_the_radius_everywhere(sky, place):
    lens = SkyCoord(*place, unit="deg")
    near = lens.directional_offset_by(np.arange(0, 360, 20) * u.deg, 10.999 * u.arcsec)
    far = lens.directional_offset_by(np.arange(0, 360, 20) * u.deg, 11.001 * u.arcsec)
    ra, dec = (np.concatenate([getattr(near, c).deg, getattr(far, c).deg]) for c in ("ra", "dec"))
    frame = pl.DataFrame({"ra": ra, "dec": dec})
    hit = near_known(frame, sky.registry([place, (200.0, -50.0)]), 11.0)
    assert hit.tolist() == [True] * 18 + [False] * 18
    kept, removed = exclude_known(frame, sky.registry([(200.0, -50.0), place]), 11.0)
    assert (kept.height, removed.height) == (18, 18)
    assert removed["known_system"].unique().to_list() == ["S0001"]
    assert removed["known_sep_arcsec"].to_numpy() == pytest.approx(10.999, abs=1e-4)


@pytest.mark.parametrize("arcsec", [11.0, 300.0, 4000.0])
def test_exclusion_agrees_with_all_pairs_of_astropy(sky, arcsec):
    frame = sky.sweeps(3000, 9, ra=(150, 152), dec=(-1, 1))
    rng = np.random.default_rng(4)
    lenses = list(zip(rng.uniform(149, 153, 60), rng.uniform(-2, 2, 60), strict=True))
    lenses += [(a + rng.normal(0, 0.003), d + rng.normal(0, 0.003)) for a, d in frame[:60].select("ra", "dec").rows()]
    theirs = SkyCoord(frame["ra"].to_numpy(), frame["dec"].to_numpy(), unit="deg")[:, None].separation(
        SkyCoord(lenses, unit="deg")[None, :]
    )
    expected = (theirs.arcsec <= arcsec).any(axis=1)
    assert expected.any()
    assert np.array_equal(near_known(frame, sky.registry(lenses), arcsec), expected)
    assert np.array_equal(near_known(frame.drop("cell"), sky.registry(lenses), arcsec), expected)


def test_a_lens_without_a_position_stops_the_cleaning(sky):
    with pytest.raises(BadInput, match="cannot be kept out") as fault:
        near_known(sky.eligible(2, 1), sky.registry([(1.0, 2.0), (float("nan"), 2.0)]), 11.0)
    assert fault.value.row == 1
    assert not near_known(sky.eligible(2, 1), sky.registry([]), 11.0).any()


def test_a_pool_holds_no_known_lens_and_counts_what_it_removed(sky):
    frame = sky.eligible(200, 3)
    lenses = list(frame.head(5).select("ra", "dec").iter_rows())
    pool, table = build_pool(frame, sky.registry(lenses), load_selection("paper-iv"), Settings())
    assert not set(frame["galaxy_id"][:5]) & set(pool["galaxy_id"])
    row = table.row(by_predicate=pl.col("step") == "known_lens", named=True)
    assert (row["n_in"], row["removed"], row["n_left"], row["removed_alone"]) == (200, 5, 195, 5)
    assert pool["galaxy_id"].is_sorted()
    assert pool["selection"].unique().to_list() == ["paper-iv"]


def test_an_object_listed_twice_in_a_tile_is_refused(sky):
    frame = sky.eligible(5, 3)
    with pytest.raises(BadInput, match="more than once") as fault:
        build_pool(pl.concat([frame, frame[2:3]]), sky.registry([]), load_selection("paper-iv"), Settings())
    assert fault.value.column == "galaxy_id"


def test_tables_of_tiles_add_up_to_the_table_of_their_union(sky):
    frame = sky.sweeps(4000, 5)
    registry = sky.registry(list(frame.head(40).select("ra", "dec").iter_rows()))
    profile = load_selection("deployment")
    whole = build_pool(frame, registry, profile, Settings())[1]
    parts = [
        build_pool(part, registry, profile, Settings(), neighbours=frame)[1]
        for part in (frame[:7], frame[7:1500], frame[1500:])
    ]
    assert merge_attrition(parts).equals(merge_attrition([whole]))
    assert merge_attrition(parts[::-1]).equals(merge_attrition([whole]))
    strata = whole.filter(pl.col("stage") == "stratum")
    assert strata["n_in"].sum() == 4000
    assert {"PSF|1-2", "SER|11+"} <= set(strata["step"])


def test_a_table_that_does_not_add_up_is_refused(sky):
    whole = build_pool(sky.sweeps(500, 5), sky.registry([]), load_selection("paper-iv"), Settings())[1]
    for step, column in (("type", "removed"), ("nobs_g", "n_in"), ("SER|11+", "n_left"), ("N1", "n_left")):
        wrong = whole.with_columns(
            pl.when(pl.col("step") == step).then(pl.col(column) + 1).otherwise(pl.col(column)).alias(column)
        )
        with pytest.raises(UnbalancedCount):
            reconcile(wrong)
    other = build_pool(sky.sweeps(500, 6), sky.registry([]), load_selection("deployment"), Settings())[1]
    with pytest.raises(UnbalancedCount, match="different filters"):
        merge_attrition([whole, other])
    assert merge_attrition([]).height == 0
