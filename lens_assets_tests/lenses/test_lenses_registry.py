"""The registry: order-free, balanced, stable names, tiers and independence by rule."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta

from lens_assets.science import sphere
from lens_assets.science.columns.lenses import LENS_CHANNEL, LENS_CONFLICTS, LENS_REGISTRY
from lens_assets.science.errors import BadInput
from lens_assets.science.lenses.channels import note
from lens_assets.science.lenses.conflicts import conflicts
from lens_assets.science.lenses.independence import ancestors, independent_channels
from lens_assets.science.lenses.mapping import ChannelMapping
from lens_assets.science.lenses.names import keep_names
from lens_assets.science.lenses.overlap import overlap_matrix, summary, tier_b
from lens_assets.science.lenses.registry import build_registry, tier_of
from lens_assets.science.lenses.settings import Settings
from lens_assets.science.lenses.values import SEVERAL

ARCSEC = 1 / 3600


def rules(channel, role="train", derived=(), **more):
    shape = {"columns": {"ra": ["ra"], "dec": ["dec"]}, "labels": {"default": "candidate"}, "year": 2020}
    return ChannelMapping.model_validate(
        {"channel": channel, "role": role, "derived_from": list(derived), **shape, **more}
    )


def rows(*members):
    made = []
    for k, member in enumerate(members):
        base = {"channel": "img", "lens_id": f"n{k}", "ra": 10.0, "dec": 0.0, "z_lens": None, "z_source": None,
                "theta_e": None,
                "grade": None, "kind": "galaxy", "reference": "r", "label": "visual_A", "notes": [], "row": k}  # fmt: skip
        made.append(base | member)
    return pl.DataFrame(made, schema={c.name: c.dtype for c in LENS_CHANNEL.columns})


MAPPINGS = [
    rules("img", derived=["pixels"]), rules("late", derived=["pixels"], year=2030),
    rules("spec", "evaluation", ["spectra"], redshifts="spectroscopic"), rules("follow", "label-truth", ["img"]),
    rules("nobody", "evaluation", ["unknown"]), rules("hst", "evaluation", imaging="hst"),
]  # fmt: skip


def one(*members, **more):
    frame = build_registry(rows(*members), MAPPINGS, Settings(**more))
    assert frame.height == 1
    return frame.row(0, named=True)


def test_rows_within_the_radius_are_one_system_and_beyond_it_two():
    assert build_registry(rows({}, {"ra": 10 + 2.9 * ARCSEC}), MAPPINGS).height == 1
    assert build_registry(rows({}, {"ra": 10 + 3.1 * ARCSEC}), MAPPINGS).height == 2


def test_systems_unite_across_the_zero_meridian_and_at_the_pole():
    assert build_registry(rows({"ra": 0.0}, {"ra": 360 - ARCSEC}), MAPPINGS).height == 1
    assert build_registry(rows({"ra": 0.0, "dec": 89.9999}, {"ra": 180.0, "dec": 89.9999}), MAPPINGS).height == 1


def test_a_system_remembers_every_channel_and_row():
    found = one({"lens_id": "a"}, {"channel": "spec", "lens_id": "b"}, {"lens_id": "c"})
    assert found["channels"] == ["img", "spec"]
    assert found["lens_ids"] == ["img:a", "img:c", "spec:b"]
    assert found["n_members"] == 3


sky = st.lists(
    st.tuples(
        st.integers(0, 6), st.integers(0, 6), st.sampled_from(["img", "late", "spec", "follow"]),
        st.sampled_from(["visual_A", "visual_B", "visual_C", "candidate", "not_lens", "spec_both_z"]),
        st.one_of(st.none(), st.floats(0.1, 2)),
    ),
    min_size=1, max_size=25,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(sky, st.randoms(use_true_random=False))
def test_the_registry_does_not_depend_on_the_order_of_rows(members, random):
    table = rows(*(
        {"ra": 10 + 2 * i * ARCSEC, "dec": 2 * j * ARCSEC, "channel": c, "label": label, "z_lens": z}
        for i, j, c, label, z in members
    ))  # fmt: skip
    order = list(range(table.height))
    random.shuffle(order)
    a, b = build_registry(table, MAPPINGS), build_registry(table[order], MAPPINGS[::-1])
    assert a.equals(b)
    assert a["n_members"].sum() == table.height
    assert not LENS_REGISTRY.violations(a)


def test_groups_are_those_of_a_brute_force_search():
    rng = np.random.default_rng(3)
    ra, dec = 359.999 + rng.random(150) * 0.004, -0.002 + rng.random(150) * 0.004
    apart = sphere.separation(ra[:, None], dec[:, None], ra[None], dec[None]) <= 3
    reach = apart.copy()
    for _ in range(8):
        reach = reach @ reach
    expected = len({tuple(np.flatnonzero(r)) for r in reach})
    table = rows(*({"ra": r % 360, "dec": d} for r, d in zip(ra, dec, strict=True)))
    assert build_registry(table, MAPPINGS).height == expected


def test_a_later_list_does_not_rename_or_move_a_system_it_confirms():
    before = one({"lens_id": "z"})
    after = one({"lens_id": "z"}, {"channel": "late", "lens_id": "a", "ra": 10 + ARCSEC})
    assert (after["system_id"], after["ra"]) == (before["system_id"], before["ra"])


def test_a_systems_position_is_that_of_its_most_central_member():
    found = one({"ra": 10 + 2 * ARCSEC}, {"ra": 10.0}, {"ra": 10 + 4 * ARCSEC})
    assert found["ra"] == 10 + 2 * ARCSEC
    assert found["extent_arcsec"] == pytest.approx(2, abs=1e-3)


def test_two_neighbours_with_one_truncated_name_stay_two_systems():
    table = rows({"ra": 10.0, "dec": 0.0}, {"ra": 10.0, "dec": 0.09 * ARCSEC, "lens_id": "m"})
    frame = build_registry(table, MAPPINGS, Settings(fof_radius_arcsec=0.01))
    assert frame.height == 2
    assert frame["system_id"].n_unique() == 2


@pytest.mark.parametrize(
    ("labels", "tier", "weight"),
    [
        (["visual_A"], "A", 1.0), (["visual_B"], "B", 0.5), (["visual_C"], "none", 0.0), (["candidate"], "none", 0.0),
        (["spec_both_z"], "confirmed", 1.0), (["visual_B", "visual_A"], "A", 1.0), (["spec_lens_z"], "none", 0.0),
        (["visual_C", "spec_lens_z"], "none", 0.0), (["visual_B", "spec_lens_z"], "B", 0.5),
        (["visual_A", "not_lens"], "none", 0.0), (["spec_both_z", "not_lens"], "none", 0.0),
    ],
)  # fmt: skip
def test_tiers_and_weights_follow_the_rules(labels, tier, weight):
    found = one(*({"label": label} for label in labels))
    assert (found["tier"], found["weight"]) == (tier, weight)


def test_a_visual_grade_is_never_a_confirmation():
    assert tier_of("visual_A") == "A"
    assert tier_of("spec_lens_z") == "none"


def test_an_hst_channel_confirms():
    assert one({"label": "candidate"}, {"channel": "hst", "label": "visual_A"})["tier"] == "confirmed"


@pytest.mark.parametrize("label", ["candidate", "visual_B", "visual_C", "not_lens"])
def test_a_candidate_is_not_confirmed_by_having_been_observed_with_hst(label):
    assert one({"channel": "hst", "label": label})["tier"] != "confirmed"


def test_what_hst_saw_is_not_confirmed_against_a_list_that_says_otherwise():
    assert one({"channel": "hst", "label": "visual_A"}, {"channel": "follow", "label": "not_lens"})["tier"] == "none"


COMPILED = [*MAPPINGS, rules("sum", derived=["img"], year=2031, compiles=True)]


@pytest.mark.parametrize(
    ("own", "compiled", "lifted", "kept"),
    [
        ("visual_C", "visual_B", ("visual_B", "B"), ("visual_C", "none")),
        ("visual_C", "visual_A", ("visual_A", "A"), ("visual_C", "none")),
        ("visual_A", "visual_B", ("visual_A", "A"), ("visual_A", "A")),
        ("candidate", "visual_B", ("visual_B", "B"), ("visual_B", "B")),
        ("spec_lens_z", "visual_B", ("visual_B", "B"), ("visual_B", "B")),
        (None, "visual_B", ("visual_B", "B"), ("visual_B", "B")),
    ],
)
def test_a_compilation_lifts_a_grade_by_the_contract_and_does_not_where_the_profile_says_so(
    own, compiled, lifted, kept
):
    members = [{"channel": "sum", "label": compiled, "lens_id": "s"}]
    members += [] if own is None else [{"label": own, "lens_id": "o"}]
    for lifts, expected in ((True, lifted), (False, kept)):
        system = build_registry(rows(*members), COMPILED, Settings(compilations_lift=lifts)).row(0, named=True)
        assert (system["label"], system["tier"]) == expected
        assert system["conflict_grade"] == (own in ("visual_A", "visual_C"))


def test_what_tier_b_is_made_of_is_told_with_the_share_that_rests_on_a_compilations_word():
    members = [{"channel": "sum", "label": "visual_B", "lens_id": f"s{k}", "dec": k} for k in range(10)]
    members += [{"label": "visual_C", "lens_id": f"c{k}", "dec": k} for k in range(3)]
    members += [{"label": "visual_B", "lens_id": f"b{k}", "dec": k} for k in range(2, 6)]  # one in both lists
    members += [{"label": "candidate", "lens_id": "x", "dec": 9}, {"label": "visual_A", "lens_id": "a", "dec": 30}]
    channels = rows(*members)
    found = tier_b(channels, build_registry(channels, COMPILED), COMPILED)
    assert (found["graded_A"], found["graded_B"], found["graded_C"], found["ungraded"]) == (0, 4, 2, 4)
    share = found["ungraded_share"]
    assert (share["n"], share["value"]) == (10, 0.4)
    assert (share["lo"], share["hi"]) == pytest.approx(beta.ppf([0.16, 0.84], 4.5, 6.5))
    assert tier_b(channels.clear(), build_registry(channels.clear(), COMPILED), COMPILED)["ungraded_share"]["n"] == 0


def test_the_weight_of_tier_b_is_configurable_within_its_range():
    assert one({"label": "visual_B"}, weight_b=0.3)["weight"] == 0.3
    with pytest.raises(ValueError, match="weight_b"):
        Settings(weight_b=0.9)
    with pytest.raises(ValueError, match="match_radius"):
        Settings(match_radius_arcsec=720)


def test_conflicts_are_flagged_and_agreement_is_not():
    found = one({"z_lens": 0.5, "theta_e": 1.0}, {"z_lens": 0.7, "theta_e": 2.0, "label": "visual_B", "kind": "quasar"})
    assert found["conflict_z"]
    assert found["conflict_theta_e"]
    assert found["conflict_grade"]
    assert found["conflict_kind"]
    assert not found["conflict_label"]
    calm = one({"z_lens": 0.5, "theta_e": 1.0}, {"z_lens": 0.52, "theta_e": 1.1}, {})
    assert not any(calm[name] for name in calm if name.startswith("conflict"))
    assert one({}, {"label": "not_lens", "channel": "follow"})["conflict_label"]


def test_a_spectroscopic_redshift_is_preferred_to_an_earlier_photometric_one():
    found = one({"z_lens": 0.50}, {"z_lens": 0.55, "channel": "spec"})
    assert found["z_lens"] == 0.55


def test_of_several_fibres_of_one_spectroscopic_list_the_deflectors_redshift_is_the_lowest():
    found = one({"z_lens": 1.3, "channel": "spec", "lens_id": "a"}, {"z_lens": 0.4, "channel": "spec", "lens_id": "b"})
    assert (found["z_lens"], found["conflict_z"]) == (0.4, True)
    assert one({"z_lens": 0.7, "lens_id": "a"}, {"z_lens": 0.4, "lens_id": "b"})["z_lens"] == 0.7


def test_independence_needs_every_channel_to_share_no_ancestor_with_training():
    named = {m.channel: m for m in MAPPINGS}
    assert ancestors("follow", named) == {"follow", "img", "pixels"}
    assert independent_channels(named) == {"spec", "hst"}
    assert one({"channel": "spec"})["independent"]
    both = one({"channel": "spec"}, {"channel": "img"})
    assert (both["independent"], both["trains"]) == (False, True)
    truth = one({"channel": "spec"}, {"channel": "follow"})
    assert (truth["independent"], truth["trains"]) == (False, False)
    assert not one({"channel": "nobody"})["independent"]


def test_a_circle_of_derivations_is_refused():
    circle = [rules("img", derived=["late"]), rules("late", derived=["img"])]
    with pytest.raises(BadInput, match="circle"):
        build_registry(rows({}), circle)


def test_a_channel_without_a_mapping_or_with_two_is_refused():
    with pytest.raises(BadInput, match="'img'"):
        build_registry(rows({}), [rules("other")])
    with pytest.raises(BadInput, match="two catalogues"):
        build_registry(rows({}), [rules("img"), rules("img", "evaluation")])


def test_an_empty_set_of_channels_gives_an_empty_registry():
    assert build_registry(rows().head(0), []).columns == LENS_REGISTRY.names


places = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from([0.0, 1.0, 2.0]), st.sampled_from(["img", "late", "spec", "hst"])),
    min_size=1, max_size=7,
)  # fmt: skip
"""Members at four places a degree apart, each within two arcsec of its place; too few to pass for a copied list."""


def members_at(found, start=0):
    return [
        {"ra": 10.0 + place + shift * ARCSEC, "channel": channel, "lens_id": f"m{start + k:03d}"}
        for k, (place, shift, channel) in enumerate(found)
    ]


def ids_by_member(frame):
    return {name: row["system_id"] for row in frame.iter_rows(named=True) for name in row["lens_ids"]}


@settings(deadline=None)
@given(places, st.randoms(use_true_random=False))
def test_an_id_does_not_change_when_rows_are_reordered_or_lists_are_added_elsewhere(found, random):
    before = members_at(found)
    shuffled = before[:]
    random.shuffle(shuffled)
    elsewhere = [{"ra": 200.0, "dec": 30.0, "channel": "img", "lens_id": "far"}, {"dec": -60.0, "channel": "spec"}]
    a = ids_by_member(build_registry(rows(*before), MAPPINGS))
    b = ids_by_member(build_registry(rows(*shuffled, *elsewhere), MAPPINGS))
    assert {name: b[name] for name in a} == a


@settings(deadline=None)
@given(places, places)
def test_an_id_does_not_change_when_a_system_gains_members_that_are_published_later(found, more):
    before = members_at(found)
    later = [m | {"channel": "late"} for m in members_at(more, 500)]
    a = ids_by_member(build_registry(rows(*before), MAPPINGS))
    b = ids_by_member(build_registry(rows(*before, *later), MAPPINGS))
    assert {name: b[name] for name in a} == a


@settings(deadline=None)
@given(places, places)
def test_names_that_were_published_are_kept_whatever_is_added(found, more):
    before = build_registry(rows(*members_at(found)), MAPPINGS)
    earlier = [m | {"channel": "old"} for m in members_at(more, 500)]
    table = rows(*members_at(found), *earlier)
    after = build_registry(table, [*MAPPINGS, rules("old", year=1990)])
    kept, changed = keep_names(after, before)
    a, b = ids_by_member(before), ids_by_member(kept)
    assert {name: b[name] for name in a} == a
    assert kept["system_id"].n_unique() == after.height
    assert set(changed["made"]) <= set(after["system_id"])


def test_an_earlier_list_renames_a_system_and_the_published_name_can_be_kept():
    before = build_registry(rows({"lens_id": "a"}), MAPPINGS)
    table = rows({"lens_id": "a"}, {"lens_id": "b", "channel": "old", "ra": 10 + ARCSEC})
    after = build_registry(table, [*MAPPINGS, rules("old", year=1990)])
    assert after["system_id"][0] != before["system_id"][0]
    kept, changed = keep_names(after, before)
    assert kept["system_id"].to_list() == before["system_id"].to_list()
    assert changed.row(0) == (before["system_id"][0], after["system_id"][0], [])


def test_two_systems_that_become_one_keep_one_name_and_tell_the_other():
    apart = [{"lens_id": "a"}, {"lens_id": "b", "ra": 10 + 4 * ARCSEC}, {"lens_id": "c", "ra": 10 + 4.2 * ARCSEC}]
    before = build_registry(rows(*apart), MAPPINGS)
    assert before.height == 2
    joined = build_registry(rows(*apart, {"lens_id": "z", "channel": "late", "ra": 10 + 2 * ARCSEC}), MAPPINGS)
    first, second = before["system_id"].to_list()
    assert joined["system_id"].to_list() == [first]
    kept, changed = keep_names(joined, before)
    assert kept["system_id"].to_list() == [second]  # most members were known under this name
    assert changed.row(0) == (second, first, [first])


def conflicts_of(*members, **more):
    table = rows(*members)
    found = build_registry(table, MAPPINGS, Settings(**more))
    report = conflicts(table, found, MAPPINGS, Settings(**more))
    assert not LENS_CONFLICTS.violations(report)
    return {row["field"]: row for row in report.iter_rows(named=True)}


def test_conflicting_redshifts_are_reported_with_every_value_its_list_and_the_tolerance():
    found = conflicts_of({"z_lens": 0.5, "lens_id": "a"}, {"z_lens": 0.7, "channel": "late", "lens_id": "b"})
    assert list(found) == ["z_lens"]
    row = found["z_lens"]
    assert (row["values"], row["channels"], row["lens_ids"]) == (["0.5", "0.7"], ["img", "late"], ["img:a", "late:b"])
    assert (row["tolerance"], row["used"]) == (0.05, "0.5")


def test_two_spectroscopic_lists_must_agree_more_closely():
    rough = conflicts_of({"z_lens": 0.50}, {"z_lens": 0.52, "channel": "late"})
    assert not rough
    exact = conflicts_of({"z_lens": 0.50, "channel": "spec"}, {"z_lens": 0.52, "channel": "spec", "lens_id": "b"})
    assert exact["z_lens"]["tolerance"] == 0.005
    assert not conflicts_of(
        {"z_lens": 0.50, "channel": "spec"}, {"z_lens": 0.52, "channel": "spec"}, z_conflict_spec=0.05
    ).get("z_lens")


def test_the_values_of_one_cell_count_one_by_one():
    remark = note("z_source", SEVERAL, "1.2/2.1")
    found = conflicts_of({"z_source": 1.2, "notes": [remark]})
    assert found["z_source"]["values"] == ["1.2", "2.1"]
    assert found["cell"]["values"] == [remark]
    close = conflicts_of({"z_lens": 0.50, "notes": [note("z_lens", SEVERAL, "0.50 | 0.51")]})
    assert list(close) == ["cell"]
    spec = conflicts_of({"z_lens": 0.50, "channel": "spec", "notes": [note("z_lens", SEVERAL, "0.50 | 0.52")]})
    assert list(spec) == ["cell"]  # two values of one cell are not two measurements


def test_a_source_before_its_deflector_two_kinds_two_rows_and_a_chain_are_reported():
    assert conflicts_of({"z_lens": 0.9, "z_source": 0.5})["z_order"]["values"] == ["0.9 >= 0.5"]
    assert conflicts_of({}, {"kind": "quasar", "channel": "late"})["kind"]["values"] == ["galaxy", "quasar"]
    assert conflicts_of({"lens_id": "a"}, {"lens_id": "b"})["twice"]["values"] == ["img: a", "img: b"]
    chain = [{"ra": 10 + 2.9 * k * ARCSEC, "lens_id": f"c{k}"} for k in range(4)]
    assert conflicts_of(*chain)["extent"]["used"].startswith("5.8")


def test_a_lens_to_one_list_and_none_to_another_is_reported_and_neither_positive_nor_confirmed():
    found = one({"label": "spec_both_z", "channel": "spec"}, {"label": "not_lens", "channel": "follow"})
    assert (found["label"], found["tier"], found["conflict_label"]) == ("not_lens", "none", True)
    report = conflicts_of({"label": "visual_A"}, {"label": "not_lens", "channel": "follow"})
    assert report["label"]["values"] == ["not_lens", "visual_A"]
    assert report["label"]["used"] == "not_lens"
    assert "label" not in conflicts_of({"label": "candidate"}, {"label": "not_lens", "channel": "follow"})


def test_flags_of_the_registry_and_rows_of_the_report_agree():
    table = rows(
        {"z_lens": 0.5, "theta_e": 1.0}, {"z_lens": 0.9, "theta_e": 2.0, "label": "visual_C", "channel": "late"},
        {"ra": 20.0}, {"ra": 20.0, "label": "not_lens", "channel": "follow", "kind": "quasar"}, {"ra": 30.0},
    )  # fmt: skip
    found = build_registry(table, MAPPINGS)
    report = conflicts(table, found, MAPPINGS)
    fields = {s: set(part["field"]) for (s,), part in report.group_by("system_id")}
    for row in found.iter_rows(named=True):
        reported = fields.get(row["system_id"], set())
        assert row["conflict_z"] == bool(reported & {"z_lens", "z_source", "z_order"})
        for name in ("theta_e", "grade", "label", "kind"):
            assert row[f"conflict_{name}"] == (name in reported)


def test_a_report_on_rows_that_the_registry_does_not_hold_is_refused():
    found = build_registry(rows({"lens_id": "a"}), MAPPINGS)
    with pytest.raises(BadInput, match="img:b"):
        conflicts(rows({"lens_id": "b"}), found, MAPPINGS)


def test_one_redshift_of_the_source_confirms_nothing():
    found = one({"label": "spec_source_z", "channel": "spec", "z_source": 1.2})
    assert (found["label"], found["tier"]) == ("spec_source_z", "none")


def test_the_overlap_matrix_counts_systems_of_each_pair_of_channels():
    table = rows(
        {"lens_id": "a"}, {"lens_id": "b", "channel": "late"}, {"lens_id": "c", "channel": "spec"},
        {"lens_id": "d", "ra": 20.0}, {"lens_id": "e", "ra": 20.0, "channel": "spec"}, {"lens_id": "f", "ra": 30.0},
        {"lens_id": "g", "ra": 30.0 + ARCSEC},
    )  # fmt: skip
    found = build_registry(table, MAPPINGS)
    matrix = overlap_matrix(found)
    assert matrix.columns == ["channel", "img", "late", "spec"]
    assert matrix.rows() == [("img", 3, 1, 2), ("late", 1, 1, 1), ("spec", 2, 1, 2)]
    report = summary(found, conflicts(table, found, MAPPINGS))
    assert (report["systems"], report["rows"]) == (3, 7)
    assert report["by_channels"] == {"1": 1, "2": 1, "3": 1}
    assert report["conflicts"] == {"twice": 1}
