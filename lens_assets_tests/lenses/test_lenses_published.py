"""Every published list through its mapping: a few rows in the layout of the table, with its quirks."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from astropy.table import MaskedColumn, Table

from lens_assets.science.errors import BadInput
from lens_assets.science.lenses import mapping
from lens_assets.science.lenses.channels import read_channel
from lens_assets.science.lenses.independence import independent_channels
from lens_assets.science.lenses.registry import build_registry
from lens_assets.science.lenses.settings import SPECTROSCOPIC, VISUAL

PUBLISHED = [n for n in mapping.mapping_names() if n != "generic" and not n.startswith("mock-")]


def write(tmp_path, name, content):
    path = tmp_path / name
    if isinstance(content, Table):
        content.write(path)
    elif isinstance(content, pl.DataFrame):
        content.write_parquet(path)
    else:
        path.write_text(content)
    return path


DESI_SL = Table(
    {
        "TARGETID": np.array([39627646584524987, 39627646584524988, 39627646584524989, 39627646584524987, 5], ">i8"),
        "TARGET_RA": [221.4063, 221.4066, 218.1147, 221.4063, 10.0],
        "TARGET_DEC": [4.9046, 4.9046, 28.7213, 4.9046, 1.0],
        "Z": [0.422, 1.31, 0.37, 0.4221, 0.0001],
        "ZWARN": np.array([0, 0, 4, 0, 0], ">i8"),
        "SPECTYPE": ["GALAXY", "GALAXY", "GALAXY", "GALAXY", "STAR"],
        "COEFF": np.zeros((5, 10)),
        "ZCAT_PRIMARY": [True, True, True, False, True],
    }
)
SILO = Table(
    {
        "SDSS_TARGET_NAME": ["J0001+0001", "J0002-0002 "], "RA": [0.25, 0.5], "DEC": [0.02, -0.03],
        "Z_NOQSO": MaskedColumn([0.45, 0.5]), "DETECTION_Z": [0.81, 0.9], "TOTAL_GRADE": ["A-", "C+"],
    }
)  # fmt: skip
VIZIER_SLACS = """#
#   VizieR Astronomical Server
#Column\tSDSS\t(a10)\tSDSS name
SDSS\tRAJ2000\tDEJ2000\tzlens\tzsrc\tRE
 \t"h:m:s"\t"d:m:s"\t \t \t
----------\t-----------\t-----------\t------\t------\t-----
J0008-0004\t00 08 02.96\t-00 04 08.2\t0.4400\t1.1924\t6.59
J1430+4105\t14 30 04.10\t+41 05 57.1\t0.2850\t0.5753\t6.53
"""
# name -> (file, content, {lens_id: (ra, dec, label, z_lens, z_source)}, rejected)
CASES = {
    "desi-dr1-sl": (
        "desi-sl-vac-v1.fits",
        DESI_SL,
        {
            "39627646584524987": (221.4063, 4.9046, "spec_lens_z", 0.422, None),
            "39627646584524988": (221.4066, 4.9046, "spec_lens_z", 1.31, None),
            "39627646584524989": (218.1147, 28.7213, "candidate", None, None),
            "5": (10.0, 1.0, "candidate", None, None),
        },
        {"ZCAT_PRIMARY without True or 1": 1},
    ),
    "karp2025": (
        "karp2025.csv",
        "TARGETID,TARGET_RA,TARGET_DEC,Z_LENS,Z_OII\n39,10,1,0.5,1.1\n40,11,1,0.6,\n",
        {"39": (10, 1, "candidate", 0.5, 1.1), "40": (11, 1, "candidate", 0.6, None)},
        {},
    ),
    "silo": (
        "silo_eboss_detections-1.0.1.fits",
        SILO,
        {
            "J0001+0001": (0.25, 0.02, "spec_both_z", 0.45, 0.81),
            "J0002-0002": (0.5, -0.03, "candidate", 0.5, 0.9),
        },
        {},
    ),
    "slacs": (
        "slacs.tsv",
        VIZIER_SLACS,
        {
            "J0008-0004": (2.012333, -0.068944, "spec_both_z", 0.44, 1.1924),
            "J1430+4105": (217.517083, 41.099194, "spec_both_z", 0.285, 0.5753),
        },
        {"position missing or not a number": 2},
    ),
    "s4tm": (
        "s4tm.csv",
        "_RA,_DE,Target,Class\n10.5,1.5,J0042+0130,E-S-A\n11.5,1.5,J0046+0130,L-M-X\n12.5,1,J0050+0100,E-S-B\n",
        {
            "J0042+0130": (10.5, 1.5, "visual_A", None, None),
            "J0046+0130": (11.5, 1.5, "candidate", None, None),
            "J0050+0100": (12.5, 1, "visual_B", None, None),
        },
        {},
    ),
    "bells": (
        "bells.csv",
        "name,ra,dec,z_lens,z_source,theta_e,grade\nJ0151+0049,27.94,0.83,0.517,1.364,0.68,A\n",
        {"J0151+0049": (27.94, 0.83, "visual_A", 0.517, 1.364)},
        {},
    ),
    "bells-gallery": (
        "bells-gallery.csv",
        "SDSS,RAJ2000,DEJ2000\n002927.38+254401.7,00 29 27.38,+25 44 01.7\n",
        {"002927.38+254401.7": (7.364083, 25.733806, "visual_A", None, None)},
        {},
    ),
    "sl2s": (
        "sl2s.csv",
        "name,ra,dec,z_lens,z_source,theta_e,grade\nSL2SJ021411-040502,33.5467,-4.0839,0.609,1.88,1.41,A\nb,34,-4,>0.5,,,X\n",
        {"SL2SJ021411-040502": (33.5467, -4.0839, "visual_A", 0.609, 1.88), "b": (34, -4, "candidate", None, None)},
        {},
    ),
    "hsu2025": (
        "hsu2025.csv",
        "name,ra,dec,z_lens,z_source,grade\np1,10,1,0.3,0.9,A\np2,11,1,0.3,0.9,dimple\np3,12,1,0.3,0.9,rejected\n",
        {
            "p1": (10, 1, "visual_A", 0.3, 0.9),
            "p2": (11, 1, "candidate", 0.3, 0.9),
            "p3": (12, 1, "not_lens", 0.3, 0.9),
        },
        {},
    ),
    "hsu2025-pairs": (
        "classified_pairs.parquet",
        pl.DataFrame(
            {
                "group_id": [1, 2, 2], "RA_lens": [10.0, 11.0, 11.01], "DEC_lens": [1.0, 1.0, 1.0],
                "Z_lens": [0.3, 0.4, 0.4], "Z_src": [0.9, 1.0, 1.0], "theta_E_arcsec": [0.68, None, None],
                "class_algo": ["conventional", "dimple_proxy", "dimple_proxy"],
            }
        ),
        {
            "1": (10, 1, "candidate", 0.3, 0.9),
            "2 @J004400.00+010000.0": (11, 1, "candidate", 0.4, 1.0),
            "2 @J004402.40+010000.0": (11.01, 1, "candidate", 0.4, 1.0),
        },
        {},
    ),
    "lemon2023": (
        "lemon2023.csv",
        "Name,RAJ2000,DEJ2000,Class,zl,zs\nJ0011-0845,2.83435,-8.7643,lens,,1.7\nJ1,10,1,quad,0.5,2.1\n"
        "J2,11,1,proj. QSOs,,0.9/1.4\nJ3,12,1,lens (?),,1.2\nJ4,13,1,QSO+star,,~0.8\nJ5,14,1,UQP,,1.5\n",
        {
            "J0011-0845": (2.83435, -8.7643, "spec_source_z", None, 1.7),
            "J1": (10, 1, "spec_both_z", 0.5, 2.1),
            "J2": (11, 1, "not_lens", None, 0.9),
            "J3": (12, 1, "candidate", None, 1.2),
            "J4": (13, 1, "not_lens", None, 0.8),
            "J5": (14, 1, "candidate", None, 1.5),
        },
        {},
    ),
    "sled-quasars": (
        "sled-2014AJ....147..153I.csv".replace("....", "-"),
        "name,ra,dec,paper_id,z_source,z_source_secure,z_lens,z_lens_secure,source_type,flag_confirmed,original_score,"
        "flag_contaminant\nSDSSJ0743+2457,115.9692,24.96212,2014AJ,2.165,True,0.381,True,QUASAR,True,,\n"
        "SDSSJ1405+0959,211.3142,9.99203,2014AJ,1.81,True,0.66,False,QUASAR,True,,\n"
        "J3,10,1,2014AJ,1.8,True,,,QUASAR,,,True\nJ4,11,1,2014AJ,1.8,True,0.3,True,GALAXY,True,,\n",
        {
            "SDSSJ0743+2457": (115.9692, 24.96212, "spec_both_z", 0.381, 2.165),
            "SDSSJ1405+0959": (211.3142, 9.99203, "spec_source_z", None, 1.81),
            "J3": (10, 1, "not_lens", None, 1.8),
        },
        {"source_type without QUASAR": 1},
    ),
    "lensed-supernovae": (
        "lensed-supernovae.csv",
        "name,ra,dec,z_lens,z_source\niPTF16geu,319.114,40.918,0.216,0.409\n",
        {"iPTF16geu": (319.114, 40.918, "candidate", 0.216, 0.409)},
        {},
    ),
    "foundry": (
        "foundry.csv",
        "name,ra,dec,z_lens,z_source,verdict\na,10,1,0.5,1.5,both\nb,11,1,0.5,,lens_only\nc,12,1,,,not_lens\n"
        "d,13,1,0.5,,both\n",
        {
            "a": (10, 1, "spec_both_z", 0.5, 1.5), "b": (11, 1, "spec_lens_z", 0.5, None),
            "c": (12, 1, "not_lens", None, None), "d": (13, 1, "spec_lens_z", 0.5, None),
        },
        {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_published_table_reads_as_its_layout_says(tmp_path, name):
    file, content, expected, rejected = CASES[name]
    path = write(tmp_path, file, content)
    rules = mapping.mapping_for_file(path)
    assert rules.channel == name
    frame, rejections = read_channel(path, rules)
    assert rejections.counts == rejected
    assert set(frame["lens_id"]) == set(expected)
    for row in frame.iter_rows(named=True):
        ra, dec, label, z_lens, z_source = expected[row["lens_id"]]
        assert (row["ra"], row["dec"]) == pytest.approx((ra, dec), abs=2e-6)
        assert (row["label"], row["z_lens"], row["z_source"]) == (label, z_lens, z_source)


def test_every_published_mapping_is_tried_on_a_table():
    with_real_table = {"huang2020", "huang2021", "storfer2024", "inchausti2025", "literature", "lenscat"}
    assert set(CASES) | with_real_table == set(PUBLISHED)


def test_the_einstein_radius_of_the_practice_and_pair_lists_is_read_and_that_of_slacs_is_not(tmp_path):
    pairs = read_channel(write(tmp_path, *CASES["hsu2025-pairs"][:2]), mapping.load_mapping("hsu2025-pairs"))[0]
    assert pairs["theta_e"].to_list() == [0.68, None, None]
    slacs = read_channel(write(tmp_path, *CASES["slacs"][:2]), mapping.load_mapping("slacs"))[0]
    assert slacs["theta_e"].null_count() == 2


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_mapping_says_where_its_column_names_come_from(name):
    rules = mapping.load_mapping(name)
    assert rules.source
    assert rules.reference
    assert rules.derived_from
    assert rules.year < 9999


def test_the_columns_of_which_a_mapping_is_unsure_may_be_absent_and_the_others_not(tmp_path):
    path = write(tmp_path, "karp2025.csv", "TARGETID,TARGET_RA,TARGET_DEC\n1,2,3\n")
    assert read_channel(path, mapping.load_mapping("karp2025"))[0].height == 1
    path = write(tmp_path, "silo_eboss_detections.csv", "SDSS_TARGET_NAME,RA,DEC,TOTAL_GRADE\na,1,2,A\n")
    with pytest.raises(BadInput, match="z_lens column") as caught:
        read_channel(path, mapping.load_mapping("silo"))
    assert caught.value.column == "Z_NOQSO"


@pytest.mark.parametrize("name", mapping.mapping_names())
def test_a_visual_grade_never_becomes_a_spectroscopic_label(name):
    rules = mapping.load_mapping(name)
    assert rules.evidence == "spectroscopic" or not rules.labels.labels & SPECTROSCOPIC
    assert rules.evidence == "visual" or not rules.labels.labels & VISUAL
    if rules.redshifts == "photometric":
        assert not rules.labels.labels & SPECTROSCOPIC


def test_a_mapping_that_calls_a_visual_grade_spectroscopic_is_refused():
    text = "channel: x\nrole: train\ncolumns: {ra: [a], dec: [b]}\nlabels: {map: {confident: spec_both_z}}\n"
    with pytest.raises(BadInput, match="spec_both_z need evidence: spectroscopic"):
        mapping.parse_mapping(text, "x.yaml")
    with pytest.raises(BadInput, match="not photometric"):
        mapping.parse_mapping(text + "evidence: spectroscopic\nredshifts: photometric\n", "x.yaml")
    assert mapping.parse_mapping(text + "evidence: spectroscopic\n", "x.yaml").labels.map


def test_searches_by_spectra_are_independent_of_imaging_and_follow_ups_are_not():
    rules = {name: mapping.load_mapping(name) for name in PUBLISHED}
    assert independent_channels(rules) == {
        "karp2025", "silo", "slacs", "s4tm", "bells", "bells-gallery", "hsu2025", "hsu2025-pairs", "lemon2023",
        "sled-quasars",
    }  # fmt: skip
    assert {n for n, r in rules.items() if r.role == "train"} == {
        "huang2020", "huang2021", "storfer2024", "inchausti2025", "lenscat",
    }  # fmt: skip


def test_two_fibres_of_one_system_are_united_and_their_redshifts_reported(tmp_path):
    rules = mapping.load_mapping("desi-dr1-sl")
    frame, _ = read_channel(write(tmp_path, *CASES["desi-dr1-sl"][:2]), rules)
    system = build_registry(frame, [rules]).filter(pl.col("n_members") == 2).row(0, named=True)
    assert system["conflict_z"]
    assert (system["label"], system["tier"]) == ("spec_lens_z", "none")


def test_the_rejected_pairs_of_the_practice_list_are_kept_as_no_lenses(tmp_path):
    header = "group_id,RA_lens,DEC_lens,Z_lens,Z_src,sep_arcsec,theta_E_arcsec,class_algo\n"
    path = write(tmp_path, "mock-pairwise.csv", header + "1,10,1,.3,.9,1,.6,rejected\n2,11,1,.3,,1,.6,conventional\n")
    rules = mapping.load_mapping("mock-pairwise")
    frame, _ = read_channel(path, rules)
    assert frame["label"].to_list() == ["not_lens", "spec_lens_z"]
    assert build_registry(frame, [rules])["tier"].to_list() == ["none", "none"]
