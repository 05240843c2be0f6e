"""Matches to the survey: the nearest object, one system an object, a reason for each that has none."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_assets.science import sphere
from lens_assets.science.columns.lenses import LENS_MATCHES, LENS_REGISTRY, UNMATCHED
from lens_assets.science.columns.surveys import SWEEPS
from lens_assets.science.lenses.crossmatch import (
    DISPUTED,
    NO_BRICK,
    NO_TILE,
    OUTSIDE,
    TAKEN,
    WRONG_TYPE,
    crossmatch,
    nearest_objects,
    no_object,
    positives,
)  # fmt: skip
from lens_assets.science.lenses.settings import Settings

ARCSEC = 1 / 3600
TILE = "010m005"


def registry(*systems):
    made = []
    for k, system in enumerate(systems):
        base = {c.name: None for c in LENS_REGISTRY.columns} | {
            "system_id": f"S{k}", "ra": 12.0, "dec": -3.0, "kind": "galaxy", "label": "visual_A", "tier": "A",
            "weight": 1.0,
            "channels": ["img"], "lens_ids": [f"img:{k}"], "n_members": 1, "extent_arcsec": 0.0, "trains": True,
            "independent": False,
        } | {c.name: False for c in LENS_REGISTRY.columns if c.name.startswith("conflict")}  # fmt: skip
        made.append(base | system)
    return LENS_REGISTRY.conform(pl.DataFrame(made, schema={c.name: c.dtype for c in LENS_REGISTRY.columns}))


def sweeps(ra, dec, tile=TILE, types=None):
    n = len(ra)
    data = {}
    for column in SWEEPS.columns:
        text = column.dtype == pl.String
        data[column.name] = pl.Series([None if column.nullable else "x" if text else 0] * n, dtype=column.dtype)
    frame = pl.DataFrame(data).with_columns(
        galaxy_id=pl.Series([f"10000-1-{i:06d}" for i in range(n)], dtype=pl.String), tile=pl.lit(tile),
        type=pl.Series(types or ["SER"] * n, dtype=pl.String),
        ra=pl.Series(ra, dtype=pl.Float64), dec=pl.Series(dec, dtype=pl.Float64),
        cell=pl.Series(sphere.cell_of(ra, dec)),
    )  # fmt: skip
    return SWEEPS.conform(frame)


def test_matches_are_the_nearest_objects_of_a_brute_force_search():
    rng = np.random.default_rng(5)
    ra, dec = 12 + rng.random(4000) * 0.05, -3 + rng.random(4000) * 0.05
    systems = [{"ra": float(12 + x), "dec": float(-3 + y)} for x, y in rng.random((60, 2)) * 0.05]
    table = registry(*systems)
    found = crossmatch(table, sweeps(ra, dec))
    apart = sphere.separation(table["ra"].to_numpy()[:, None], table["dec"].to_numpy()[:, None], ra[None], dec[None])
    near = apart.min(axis=1) <= 3
    assert 0 < near.sum() < 60
    assert found["system_id"].to_list() == table["system_id"].filter(pl.Series(near)).to_list()
    assert found["sep_arcsec"].to_numpy() == pytest.approx(apart.min(axis=1)[near], abs=1e-6)
    assert not LENS_MATCHES.violations(found.drop("release", "brickid", "objid").with_columns(
        release=pl.lit(10000), brickid=pl.lit(1), objid=pl.lit(1)))  # fmt: skip


@pytest.mark.parametrize("dec", [-89.0, -3.0, 45.0, 88.0])
def test_no_object_is_lost_at_the_border_of_a_cell(dec):
    rng = np.random.default_rng(8)
    ra = rng.uniform(0, 360, 3000)
    decs = dec + rng.uniform(-0.5, 0.5, 3000)
    shift = 2.9 * ARCSEC * np.sign(rng.normal(size=3000))
    objects = sweeps(ra, decs + shift)
    found = crossmatch(
        registry(*({"ra": float(r), "dec": float(d)} for r, d in zip(ra[:400], decs[:400], strict=True))), objects
    )
    assert found["system_id"].n_unique() == 400


def test_the_radius_is_kept_and_the_separation_with_it():
    objects = sweeps([12.0], [-3 + 2.9 * ARCSEC])
    assert crossmatch(registry({}), objects)["sep_arcsec"][0] == pytest.approx(2.9, abs=1e-6)
    assert crossmatch(registry({}), objects, Settings(match_radius_arcsec=2)).height == 0


def test_an_empty_tile_or_registry_matches_nothing():
    assert crossmatch(registry({}), sweeps([], [])).columns == LENS_MATCHES.names
    assert crossmatch(registry(), sweeps([12.0], [-3.0])).height == 0


def test_every_system_is_a_positive_or_has_a_reason():
    table = registry(
        {}, {"ra": 12 + 2 * ARCSEC}, {"ra": 12.5}, {"ra": 200.0}, {"ra": 13.0, "label": "not_lens", "tier": "none"},
        {"ra": 13.2, "label": "visual_C", "tier": "none"},
    )  # fmt: skip
    objects = sweeps([12.0, 13.0, 13.2], [-3.0, -3.0, -3.0])
    matched, unmatched = positives(crossmatch(table, objects), table, [TILE])
    assert matched["system_id"].to_list() == ["S0"]
    assert dict(unmatched.select("system_id", "reason").iter_rows()) == {
        "S1": TAKEN, "S2": no_object(Settings()), "S3": NO_TILE, "S4": "labelled not_lens",
        "S5": "label visual_C has no tier: it neither trains nor evaluates",
    }  # fmt: skip


def test_an_object_near_the_edge_of_two_tiles_is_matched_once_to_the_nearest():
    table = registry({"ra": 15.0})
    left = crossmatch(table, sweeps([15 - 2 * ARCSEC], [-3.0]))
    right = crossmatch(table, sweeps([15 + 1 * ARCSEC], [-3.0], "015m005"))
    for order in ([left, right], [right, left]):
        matched, _ = positives(pl.concat(order), table, ["010m005", "015m005"])
        assert matched["tile"].to_list() == ["015m005"]


def test_the_use_of_a_positive_follows_role_tier_kind_and_independence():
    table = registry(
        {}, {"trains": False, "independent": True, "tier": "confirmed", "label": "spec_both_z"},
        {"trains": False, "independent": False}, {"kind": "quasar"},
        {"trains": False, "independent": True, "tier": "none", "label": "candidate"},
    ).with_columns(ra=pl.Series([12.0, 12.1, 12.2, 12.3, 12.4]))  # fmt: skip
    matched, unmatched = positives(
        crossmatch(table, sweeps(table["ra"].to_list(), table["dec"].to_list())), table, [TILE]
    )
    assert dict(matched.select("system_id", "use").iter_rows()) == {
        "S0": "train", "S1": "evaluation", "S2": "evaluation", "S3": "evaluation",
    }  # fmt: skip
    assert unmatched["system_id"].to_list() == ["S4"]


def reason_of(table, objects, **more):
    near = nearest_objects(table, objects)
    _, unmatched = positives(crossmatch(table, objects), table, [TILE], nearest=near, **more)
    return unmatched.row(0, named=True)


def test_a_system_in_a_brick_without_objects_says_so():
    assert reason_of(registry({}), sweeps([], []), bricks=[1])["reason"] == NO_BRICK


def test_outside_the_survey_and_in_a_tile_that_was_not_read_are_told_apart():
    nothing = sweeps([], [])
    assert reason_of(registry({"dec": 41.0}), nothing)["reason"] == OUTSIDE
    assert reason_of(registry({"ra": 200.0}), nothing)["reason"] == NO_TILE
    assert reason_of(registry({"ra": 200.0}), nothing, footprint=[TILE])["reason"] == OUTSIDE
    assert reason_of(registry({"ra": 200.0}), nothing, footprint=["200m005"])["reason"] == NO_TILE


def test_an_object_too_far_is_named_with_its_separation():
    found = reason_of(registry({}), sweeps([12.0, 12.0], [-3 + 5 * ARCSEC, -3 - 9 * ARCSEC]))
    assert found["reason"] == no_object(Settings())
    assert (found["nearest_id"], found["nearest_type"]) == ("10000-1-000000", "SER")
    assert found["nearest_arcsec"] == pytest.approx(5, abs=1e-6)
    empty = reason_of(registry({}), sweeps([12.0], [-3 + 40 * ARCSEC]))
    assert (empty["reason"], empty["nearest_id"], empty["nearest_arcsec"]) == (no_object(Settings()), None, None)


def test_a_duplicate_is_no_object_of_its_own_and_another_type_only_where_it_is_allowed():
    only = reason_of(registry({}), sweeps([12.0], [-3.0], types=["DUP"]))
    assert (only["reason"], only["nearest_type"], only["nearest_arcsec"]) == (WRONG_TYPE, "DUP", 0.0)
    both = sweeps([12.0, 12.0], [-3.0, -3 + ARCSEC], types=["DUP", "DEV"])
    assert crossmatch(registry({}), both)["type"].to_list() == ["DEV"]
    star = sweeps([12.0], [-3.0], types=["PSF"])
    assert crossmatch(registry({}), star).height == 1
    assert crossmatch(registry({}), star, Settings(match_types=("SER", "DEV"))).height == 0


def test_the_system_that_took_the_object_is_named():
    table = registry({}, {"ra": 12 + 2 * ARCSEC})
    found = reason_of(table, sweeps([12.0], [-3.0]))
    assert (found["system_id"], found["reason"], found["taken_by"]) == ("S1", TAKEN, "S0")
    assert found["nearest_arcsec"] == pytest.approx(2 * np.cos(np.radians(3)), abs=1e-3)


def test_a_system_that_channels_dispute_is_no_positive_whatever_its_label():
    table = registry({"conflict_label": True, "label": "spec_both_z", "tier": "confirmed"})
    assert reason_of(table, sweeps([12.0], [-3.0]))["reason"] == DISPUTED


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([12.0, 12.001, 12.003, 17.0, 200.0]), st.sampled_from([-3.0, -3.001, 45.0]),
            st.sampled_from(["visual_A", "not_lens", "candidate"]), st.booleans(),
        ),
        max_size=12,
    )
)  # fmt: skip
def test_every_system_comes_out_once_as_matched_or_with_a_reason(places):
    table = registry(
        *({"ra": ra, "dec": dec, "label": label, "tier": "A" if label == "visual_A" else "none", "conflict_label": odd}
          for ra, dec, label, odd in places)
    )  # fmt: skip
    objects = sweeps([12.0, 12.0011, 12.5], [-3.0, -3.001, -3.0], types=["SER", "DUP", "PSF"])
    matched, unmatched = positives(
        crossmatch(table, objects), table, [TILE], bricks=[1], nearest=nearest_objects(table, objects)
    )
    assert sorted([*matched["system_id"], *unmatched["system_id"]]) == table["system_id"].to_list()
    assert unmatched["reason"].null_count() == 0
    assert matched["galaxy_id"].is_unique().all()
    assert not UNMATCHED.violations(unmatched)
