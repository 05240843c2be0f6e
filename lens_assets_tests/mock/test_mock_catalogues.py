"""Lens catalogues of the mock: dialects, overlaps, disagreements, contaminants and faults."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from lens_assets.science.hashing import generator
from lens_assets.science.mock import catalogues
from lens_assets.science.mock.catalogues import (
    imaging,
    late_catalogue,
    pairwise,
    quasars,
    single_fibre,
    write_catalogues,
)
from lens_assets.science.mock.settings import Settings
from lens_assets.science.sphere import nearest


@pytest.fixture(scope="module")
def truth() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Truth of a large sky, drawn without images: lenses of all visibilities, galaxies of all classes."""
    rng = generator("test truth")
    n = 1500
    lenses = pl.DataFrame(
        {
            "lens": [f"b-L{i:05d}" for i in range(n)], "ra": rng.uniform(10, 40, n), "dec": rng.uniform(-20, 20, n),
            "theta_e": 1.2 * np.exp(0.4 * rng.normal(size=n)), "z_lens": rng.uniform(0.2, 0.8, n),
            "z_source": rng.uniform(1.0, 3.0, n), "beta": rng.uniform(0, 0.8, n), "visibility": rng.normal(0, 0.5, n),
            "kind": np.where(rng.random(n) < 0.1, "quasar", "galaxy"), "images": rng.integers(2, 5, n),
            "lensed_mag_r": rng.uniform(19, 23, n),
        }
    )  # fmt: skip
    m = 6000
    objects = pl.DataFrame(
        {
            "object": [f"b-{i:05d}" for i in range(m)], "galaxy_id": [f"10000-1-{i}" for i in range(m)],
            "ra": rng.uniform(10, 40, m), "dec": rng.uniform(-20, 20, m), "z": rng.uniform(0.05, 0.7, m),
            "class": rng.choice(["early", "ring", "spiral", "merger", "star"], m), "mag_r": rng.uniform(16, 22, m),
        }
    )  # fmt: skip
    return lenses, objects


def positions(rows, ra, dec):
    good = [r for r in rows if r[ra] not in ("", "nan") and abs(float(r[dec])) < 90]
    return np.array([float(r[ra]) for r in good]), np.array([float(r[dec]) for r in good]), good


def test_each_channel_is_written_in_its_own_dialect(written):
    expected = {
        "mock-imaging.csv": "name,RA,DEC,grade,probability,tractor_type,z_lens",
        "mock-single-fibre.csv": "TARGETID,TARGET_RA,TARGET_DEC,Z_LENS,Z_OII,QUALITY",
        "mock-pairwise.csv": "group_id,RA_lens,DEC_lens,Z_lens,Z_src,sep_arcsec,theta_E_arcsec,class_algo",
        "mock-quasars.csv": "Name,RAJ2000,DEJ2000,Grade,zq,sep",
    }
    assert sorted(p.name for p in written.catalogues.iterdir()) == sorted(expected)
    for name, header in expected.items():
        lines = (written.catalogues / name).read_text().splitlines()
        assert lines[0] == header
        assert len(lines) - 1 == written.summary.catalogues[name]


def test_channels_overlap_and_none_contains_another(truth):
    lenses, objects = truth
    s = Settings()
    a = positions(imaging(lenses, objects, s, 1), "RA", "DEC")
    b = positions(single_fibre(lenses, objects, s, 1), "TARGET_RA", "TARGET_DEC")
    c = positions(pairwise(lenses, s, 1), "RA_lens", "DEC_lens")
    for left, right in ((a, b), (a, c), (b, c)):
        shared = (nearest(left[0], left[1], right[0], right[1])[1] < 2).mean()
        assert 0.02 < shared < 0.9
        back = (nearest(right[0], right[1], left[0], left[1])[1] < 2).mean()
        assert 0.02 < back < 0.9


def test_channels_disagree_on_redshift_and_position(truth):
    lenses, objects = truth
    s = Settings()
    ra, dec, rows = positions(imaging(lenses, objects, s, 1), "RA", "DEC")
    pra, pdec, pairs = positions(pairwise(lenses, s, 1), "RA_lens", "DEC_lens")
    index, sep = nearest(pra, pdec, ra, dec)
    both = [
        (float(rows[i]["z_lens"]), float(p["Z_lens"]))
        for i, d, p in zip(index, sep, pairs, strict=True)
        if d < 2 and rows[i]["z_lens"] not in ("", "-")
    ]
    difference = np.abs([a - b for a, b in both])
    assert len(both) > 20
    assert np.median(difference) > 0.01
    assert sep[sep < 3].max() > 0.3


def test_grades_follow_what_can_be_seen_and_the_share_of_dubious_rows_is_as_set(truth):
    lenses, objects = truth
    s = Settings()
    ra, dec, rows = positions(imaging(lenses, objects, s, 1), "RA", "DEC")
    index, sep = nearest(ra, dec, lenses["ra"], lenses["dec"])
    grade, real = np.array([r["grade"] for r in rows]), sep < 6
    seen = lenses["visibility"].to_numpy()[index]
    assert np.median(seen[(grade == "A") & real]) > np.median(seen[(grade == "B") & real]) + 0.2
    assert 1 - real[grade == "B"].mean() == pytest.approx(s.dubious_b, abs=0.05)
    assert 1 - real[grade == "A"].mean() == pytest.approx(s.wrong_a, abs=0.03)


def test_a_spectroscopic_search_finds_lenses_that_no_eye_can_see(truth):
    lenses, objects = truth
    ra, dec, rows = positions(single_fibre(lenses, objects, Settings(), 1), "TARGET_RA", "TARGET_DEC")
    index, sep = nearest(ra, dec, lenses["ra"], lenses["dec"])
    real = sep < 2
    assert (lenses["visibility"].to_numpy()[index[real]] < 0).mean() > 0.35
    assert {r["QUALITY"] for r in rows} == {1, 2, 3}
    assert (~real).sum() > 0


def test_quasars_come_with_stars_taken_for_them(truth):
    lenses, objects = truth
    ra, dec, _ = positions(quasars(lenses, objects, Settings(), 1), "RAJ2000", "DEJ2000")
    star = objects.filter(pl.col("class") == "star")
    assert (nearest(ra, dec, star["ra"], star["dec"])[1] < 0.1).sum() >= 5
    assert (nearest(ra, dec, lenses["ra"], lenses["dec"])[1] < 4).sum() >= 20


def test_faulty_rows_are_there_to_be_found(truth):
    lenses, objects = truth
    rows = imaging(lenses, objects, Settings(), 1)
    assert sum(r["RA"] == "" for r in rows) == 1
    assert sum(float(r["DEC"]) < -90 for r in rows) == 1
    assert sum(r["grade"] not in "ABC" for r in rows) == 1
    ra, dec, _ = positions(rows, "RA", "DEC")
    from lens_assets.science.sphere import friends_of_friends

    label = friends_of_friends(ra, dec, 3.0)
    assert len(np.unique(label)) < len(label)  # duplicates
    assert any(r["TARGET_RA"] == "nan" for r in single_fibre(lenses, objects, Settings(), 1))
    assert any(r["theta_E_arcsec"] == "-1" for r in pairwise(lenses, Settings(), 1))


def test_a_lens_has_the_same_grade_whatever_else_is_in_the_sky(truth):
    lenses, objects = truth
    few = lenses.head(40)
    all_rows = {(r["RA"], r["DEC"]): r["grade"] for r in imaging(lenses, objects, Settings(), 1)}
    contaminants_free = [
        r
        for r in imaging(few, objects.head(0), Settings(), 1)
        if not r["name"].startswith("MOCK-b") and r["grade"] in "ABC"
    ]
    assert len(contaminants_free) > 5
    assert all(
        all_rows[(r["RA"], r["DEC"])] == r["grade"] for r in contaminants_free if r["name"] != "MOCK-beyond-pole"
    )


def test_a_late_catalogue_brings_new_lenses_and_old_ones(truth, tmp_path):
    lenses, objects = truth
    folder = tmp_path / "truth"
    folder.mkdir()
    for name, frame in (("lenses", lenses), ("objects", objects)):
        frame.rename({c: f"true_{c}" for c in frame.columns if c not in ("ra", "dec")}).write_parquet(
            folder / f"{name}.parquet"
        )
    n = late_catalogue(folder, tmp_path / "mock-late-imaging.csv", 1)
    with open(tmp_path / "mock-late-imaging.csv") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == n
    assert list(rows[0]) == list(catalogues.IMAGING)
    ra, dec, _ = positions(rows, "RA", "DEC")
    first = positions(imaging(lenses, objects, Settings(), 1), "RA", "DEC")
    known = (nearest(ra, dec, first[0], first[1])[1] < 3).mean()
    assert 0.2 < known < 0.9


def test_catalogues_of_a_sky_without_lenses_can_be_written(truth, tmp_path: Path):
    lenses, objects = truth
    counts = write_catalogues(lenses.head(0), objects.head(0), tmp_path, Settings(), 1)
    assert set(counts.values()) <= {0, 1, 2, 3}
