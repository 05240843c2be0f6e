"""Raw lens catalogues of the mock sky: one CSV a channel, each in a dialect of its own, overlapping and disagreeing
as real ones do.

=====================  ==========================================================================================
file                   columns
=====================  ==========================================================================================
mock-imaging.csv       name, RA, DEC (deg), grade (A, B, C), probability (0-1), tractor_type, z_lens (photometric;
empty or "-") mock-late-imaging.csv  the same; a later search, written only by :func:`late_catalogue`
mock-single-fibre.csv  TARGETID (int), TARGET_RA, TARGET_DEC (deg), Z_LENS, Z_OII (source), QUALITY (3 sure, 2 likely,
1 doubtful) mock-pairwise.csv      group_id, RA_lens, DEC_lens (deg), Z_lens, Z_src, sep_arcsec, theta_E_arcsec,
class_algo
                       (conventional, dimple, rejected)
mock-quasars.csv       Name, RAJ2000, DEJ2000 (deg), Grade (A, B, C), zq (quasar), sep (largest image separation,
arcsec)
=====================  ==========================================================================================

Faults on purpose, as in published tables: contaminants, duplicates a fraction of an arcsecond apart, positions of
arcs in place of galaxies, redshifts that conflict between channels, rows without a position, a declination beyond the
pole, an unknown grade.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from lens_assets.science.hashing import generator
from lens_assets.science.mock.coadds import replace_with
from lens_assets.science.mock.settings import Settings
from lens_assets.science.mock.truth import read_truth

IMAGING = ("name", "RA", "DEC", "grade", "probability", "tractor_type", "z_lens")
SINGLE_FIBRE = ("TARGETID", "TARGET_RA", "TARGET_DEC", "Z_LENS", "Z_OII", "QUALITY")
PAIRWISE = ("group_id", "RA_lens", "DEC_lens", "Z_lens", "Z_src", "sep_arcsec", "theta_E_arcsec", "class_algo")
QUASARS = ("Name", "RAJ2000", "DEJ2000", "Grade", "zq", "sep")
LOOKALIKES = {
    "ring": 6.0,
    "merger": 3.0,
    "spiral": 1.5,
    "clumpy": 0.4,
    "large": 0.6,
    "early": 0.4,
    "edge_on": 0.2,
    "disc": 0.1,
}
"""Odds of each class of galaxy to be taken for a lens by eye. Assumption."""
Row = dict[str, Any]


def write_catalogues(
    lenses: pl.DataFrame, objects: pl.DataFrame, folder: Path, s: Settings, seed: int
) -> dict[str, int]:
    """Write the four channels from the truth; return the number of rows of each file."""
    tables = {
        "mock-imaging.csv": (IMAGING, imaging(lenses, objects, s, seed)),
        "mock-single-fibre.csv": (SINGLE_FIBRE, single_fibre(lenses, objects, s, seed)),
        "mock-pairwise.csv": (PAIRWISE, pairwise(lenses, s, seed)),
        "mock-quasars.csv": (QUASARS, quasars(lenses, objects, s, seed)),
    }
    for name, (columns, rows) in tables.items():
        _write(folder / name, columns, rows)
    return {name: len(rows) for name, (_, rows) in tables.items()}


def late_catalogue(truth: Path, path: Path, seed: int = 20261123, settings: Settings | None = None) -> int:
    """Write one more imaging channel, as a later search with a better eye would: for "a new catalogue arrives".

    It shares about half of its lenses with ``mock-imaging``. ``truth`` is the truth folder of a complete release.
    Returns the number of rows.
    """
    s = (settings or Settings()).model_copy(update={"grade_a": 0.25, "grade_b": 0.15, "visibility_half": -0.15})
    lenses, objects = read_truth(truth, "lenses"), read_truth(truth, "objects")
    rows = imaging(lenses, objects, s, seed, search="late", share=0.7)
    _write(path, IMAGING, rows)
    return len(rows)


def graded(lens: Row, s: Settings, seed: int, search: str) -> tuple[str, float]:
    """Grade ("A", "B", "C" or "" for not found) and machine probability that a search gives to a true lens."""
    rng = generator("mock grade", search, seed, lens["lens"])
    seen = lens["visibility"] + s.grade_scatter * rng.normal()
    found = 1 / (1 + np.exp(-(seen - s.visibility_half) / 0.12)) > rng.random()
    probability = float(np.clip(1 / (1 + np.exp(-4 * (seen + 0.2 * rng.normal()))), 0.02, 0.9999))
    if not found:
        return "", probability
    return ("A" if seen > s.grade_a else "B" if seen > s.grade_b else "C"), probability


def imaging(
    lenses: pl.DataFrame, objects: pl.DataFrame, s: Settings, seed: int, search: str = "first", share: float = 1.0
) -> list[Row]:
    """A graded imaging search: what an eye can see, and what it takes for a lens."""
    rows: list[Row] = []
    counts = {"A": 0, "B": 0, "C": 0}
    types = ("SER", "SER", "SER", "DEV", "REX")
    for lens in lenses.sort("lens").iter_rows(named=True):
        grade, probability = graded(lens, s, seed, search)
        rng = generator("mock imaging", search, seed, lens["lens"])
        if not grade or rng.random() > share:
            continue
        counts[grade] += 1
        ra, dec = _offset(lens["ra"], lens["dec"], 0.15, rng)
        if rng.random() < 0.03:  # the position of the arc, not of the galaxy
            ra, dec = _offset(lens["ra"], lens["dec"], max(lens["theta_e"], 0.8), rng)
        z = (
            round(float(lens["z_lens"] + 0.03 * (1 + lens["z_lens"]) * rng.normal()), 3)
            if rng.random() < 0.6
            else rng.choice(["", "-"])
        )
        rows.append(_imaging_row(ra, dec, grade, probability, str(rng.choice(types)), z))
        if rng.random() < 0.02:  # the same system again, from another list, a little elsewhere
            again = _offset(ra, dec, 0.5, rng)
            rows.append(
                _imaging_row(*again, str(rng.choice(["A", "B"])), probability * 0.9, rows[-1]["tractor_type"], "")
            )
    wanted = {
        "A": round(counts["A"] * s.wrong_a / (1 - s.wrong_a)),
        "B": round(counts["B"] * s.dubious_b / (1 - s.dubious_b)),
        "C": round(counts["C"]),
    }
    rng = generator("mock contaminants", search, seed)
    pool = objects.filter(pl.col("class").is_in(list(LOOKALIKES)) & pl.col("galaxy_id").is_not_null()).sort("object")
    odds = np.array([LOOKALIKES[c] for c in pool["class"].to_list()])
    many = min(sum(wanted.values()), int((odds > 0).sum()))
    if many:
        chosen = rng.choice(len(pool), many, replace=False, p=odds / odds.sum())
        grades = [g for g, k in wanted.items() for _ in range(k)][:many]
        for i, grade in zip(chosen.tolist(), grades, strict=True):
            obj = pool.row(i, named=True)
            ra, dec = _offset(obj["ra"], obj["dec"], 0.15, rng)
            probability = float(np.clip(rng.beta(*{"A": (6, 2), "B": (4, 3), "C": (3, 4)}[grade]), 0.02, 0.999))
            z = round(float(obj["z"] + 0.03 * rng.normal()), 3) if rng.random() < 0.6 else ""
            rows.append(_imaging_row(ra, dec, grade, probability, str(rng.choice(types)), z))
    rows.sort(key=lambda row: (row["RA"], row["DEC"]))
    if rows:
        rows += [
            {**rows[0], "name": "MOCK-bad-position", "RA": "", "DEC": rows[0]["DEC"]},
            {**rows[0], "name": "MOCK-beyond-pole", "RA": "12.34560", "DEC": "-95.10000"},
            {**rows[0], "name": "MOCK-no-grade", "RA": "200.10000", "DEC": "-3.20000", "grade": "?"},
        ]
    return rows


def _imaging_row(ra: float, dec: float, grade: str, probability: float, kind: str, z: Any) -> Row:
    return {
        "name": f"MOCK-{ra:09.5f}{dec:+09.5f}", "RA": f"{ra:.5f}", "DEC": f"{dec:.5f}", "grade": grade,
        "probability": f"{probability:.4f}", "tractor_type": kind, "z_lens": z,
    }  # fmt: skip


def single_fibre(lenses: pl.DataFrame, objects: pl.DataFrame, s: Settings, seed: int) -> list[Row]:
    """Two redshifts in one fibre: independent of whether an eye can see the arc; small Einstein radii, star-forming
    sources."""
    rows: list[Row] = []
    for lens in lenses.sort("lens").iter_rows(named=True):
        rng = generator("mock single fibre", seed, lens["lens"])
        reach = (
            lens["z_source"] < 1.62 and lens["theta_e"] < 1.9 and lens["kind"] == "galaxy"
        )  # [O II] within DESI's range
        if not reach or rng.random() > 2.5 * s.single_fibre_share:
            continue
        ra, dec = _offset(lens["ra"], lens["dec"], 0.1, rng)
        z_l, z_s = lens["z_lens"] + 2e-4 * rng.normal(), lens["z_source"] + 3e-4 * rng.normal()
        if rng.random() < 0.03:  # another line taken for [O II]
            z_s = (1 + z_s) * 1.344 - 1
        rows.append(_fibre_row(rng, ra, dec, z_l, z_s, int(rng.choice([3, 2], p=[0.75, 0.25]))))
    rng = generator("mock fibre contaminants", seed)
    pool = objects.filter(pl.col("class").is_in(["early", "merger"]) & pl.col("galaxy_id").is_not_null()).sort("object")
    for i in rng.choice(len(pool), min(len(pool), len(rows) // 5), replace=False).tolist() if len(pool) else []:
        obj = pool.row(i, named=True)
        rows.append(
            _fibre_row(
                rng,
                obj["ra"],
                obj["dec"],
                obj["z"],
                obj["z"] + rng.uniform(0.2, 0.9),
                int(rng.choice([1, 2], p=[0.85, 0.15])),
            )
        )
    rows.sort(key=lambda row: row["TARGETID"])
    if rows:
        rows.append({**rows[0], "Z_LENS": f"{float(rows[0]['Z_LENS']) + 0.0004:.5f}"})  # one target observed twice
        rows.append({**rows[-1], "TARGETID": 1, "TARGET_RA": "nan", "TARGET_DEC": "nan"})
    return rows


def _fibre_row(rng: np.random.Generator, ra: float, dec: float, z_l: float, z_s: float, quality: int) -> Row:
    return {
        "TARGETID": 39_000_000_000_000_000 + int(rng.integers(1 << 48)),
        "TARGET_RA": f"{ra:.6f}", "TARGET_DEC": f"{dec:.6f}",
        "Z_LENS": f"{z_l:.5f}", "Z_OII": f"{z_s:.5f}", "QUALITY": quality,
    }  # fmt: skip


def pairwise(lenses: pl.DataFrame, s: Settings, seed: int) -> list[Row]:
    """Pairs of spectra within a few arcsec at different redshifts: knows theta_E from the velocity dispersion, sees
    no image."""
    rows: list[Row] = []
    for lens in lenses.sort("lens").iter_rows(named=True):
        rng = generator("mock pairwise", seed, lens["lens"])
        if rng.random() > s.pairwise_share:
            continue
        ra, dec = _offset(lens["ra"], lens["dec"], 0.1, rng)
        z_l = lens["z_lens"] + 2e-4 * rng.normal()
        if rng.random() < 0.05:  # the redshift of a neighbour in the group: conflicts with the other channels
            z_l += rng.normal(0, 0.05)
        theta = lens["theta_e"] * np.exp(0.12 * rng.normal())
        sep = lens["theta_e"] + lens["beta"] + 0.1 * rng.normal()
        kind = str(rng.choice(["conventional", "dimple", "rejected"], p=[0.85, 0.1, 0.05]))
        rows.append(
            {
                "group_id": f"PG{int(rng.integers(1 << 40)):013d}", "RA_lens": f"{ra:.6f}", "DEC_lens": f"{dec:.6f}",
                "Z_lens": f"{z_l:.5f}", "Z_src": f"{lens['z_source'] + 3e-4 * rng.normal():.5f}",
                "sep_arcsec": f"{sep:.3f}", "theta_E_arcsec": f"{theta:.3f}", "class_algo": kind,
            }
        )  # fmt: skip
    rows.sort(key=lambda row: row["group_id"])
    if len(rows) > 1:
        rows.append({**rows[0]})
        rows.append({**rows[1], "group_id": "PG-broken", "Z_src": "", "theta_E_arcsec": "-1"})
    return rows


def quasars(lenses: pl.DataFrame, objects: pl.DataFrame, s: Settings, seed: int) -> list[Row]:
    """Lensed quasars: by colour and image separation; doubles of stars among them."""
    rows: list[Row] = []
    for lens in lenses.filter(pl.col("kind") == "quasar").sort("lens").iter_rows(named=True):
        rng = generator("mock quasars", seed, lens["lens"])
        if lens["lensed_mag_r"] is None or lens["lensed_mag_r"] > 22.3 or rng.random() > 0.75:
            continue
        ra, dec = _offset(lens["ra"], lens["dec"], 0.5, rng)
        grade = "A" if lens["images"] >= 3 or lens["visibility"] > s.grade_b else str(rng.choice(["B", "C"]))
        rows.append(_quasar_row(ra, dec, grade, lens["z_source"], 2 * lens["theta_e"] * rng.uniform(0.9, 1.1)))
    rng = generator("mock quasar contaminants", seed)
    pool = objects.filter((pl.col("class") == "star") & (pl.col("mag_r").is_between(17.5, 21.5))).sort("object")
    for i in rng.choice(len(pool), min(len(pool), 1 + len(rows) // 3), replace=False).tolist() if len(pool) else []:
        obj = pool.row(i, named=True)
        rows.append(
            _quasar_row(
                obj["ra"], obj["dec"], str(rng.choice(["B", "C"])), rng.uniform(0.8, 2.8), rng.uniform(0.8, 3.0)
            )
        )
    rows.sort(key=lambda row: row["Name"])
    return rows


def _quasar_row(ra: float, dec: float, grade: str, z: float, sep: float) -> Row:
    hours, degrees = ra / 15, abs(dec)
    sign = "-" if dec < 0 else "+"
    name = f"MQ J{int(hours):02d}{int(hours * 60 % 60):02d}{sign}{int(degrees):02d}{int(degrees * 60 % 60):02d}"
    return {
        "Name": name,
        "RAJ2000": f"{ra:.5f}",
        "DEJ2000": f"{dec:.5f}",
        "Grade": grade,
        "zq": f"{z:.3f}",
        "sep": f"{sep:.2f}",
    }


def _offset(ra: float, dec: float, arcsec: float, rng: np.random.Generator) -> tuple[float, float]:
    """A position displaced by a Gaussian of ``arcsec`` a coordinate."""
    dx, dy = rng.normal(0, arcsec / 3600, 2)
    return float((ra + dx / np.cos(np.radians(dec))) % 360), float(dec + dy)


def _write(path: Path, columns: tuple[str, ...], rows: list[Row]) -> None:
    def save(scratch: Path) -> None:
        with open(scratch, "w", newline="") as stream:
            writer = csv.DictWriter(stream, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)

    replace_with(path, save)
