"""The pairs of stamps of a sample that are, or look like, the same pixels: table ``duplicates`` and its facts.

``duplicates`` says how a pair is recognised; here stamps are read, pairs joined to splits and sorted into kinds. Every
pair of stamps is of at most one kind: identical, else overlap, else alike.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from lens_assets.science import sphere
from lens_assets.science.columns.cutouts import DUPLICATES
from lens_assets.science.cutouts.calibration import MOST_LIKELY, calibrate
from lens_assets.science.cutouts.duplicates import (
    AGREEMENT,
    Prints,
    agreement,
    fingerprint,
    high_pass,
    likely_pairs,
    sky_of,
)
from lens_assets.science.cutouts.quality import valid_pixels
from lens_assets.science.cutouts.shard import ShardSet
from lens_assets.science.hashing import mix64, seed_of
from lens_assets.science.splits.settings import SHAPING
from lens_assets.science.surveys.layout import PIXEL_SCALE

I64 = npt.NDArray[np.int64]
KINDS = ("identical", "overlap", "alike")
_CHUNK = 512
_SAMPLE = 400
"""Stamps the search is calibrated on."""


def compared(
    images: npt.NDArray[np.float32], invvar: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """The planes (n, h, w) of stamps that are compared, the second band's (r), and their valid pixels."""
    band = min(1, images.shape[1] - 1)
    return images[:, band], valid_pixels(images[:, [band]], invvar[:, [band]])[:, 0]


def duplicate_pairs(
    stamps: ShardSet, here: pl.DataFrame, prints: Prints | None = None
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """All pairs of ``here`` (``galaxy_id, split, ra, dec, stamp_digest, position``) that share or repeat pixels.

    ``prints``: fingerprints of the rows of ``here``, in its order, where they are known already.

    Returns
    -------
    Table ``duplicates``, and facts: pairs by kind, those across splits, stamps that could not be compared, and the
    calibration of the search (:class:`calibration.Calibration`).
    """
    order = here["galaxy_id"].arg_sort().to_numpy()
    here = here[order]
    empty = pl.DataFrame(schema={c.name: c.dtype for c in DUPLICATES.columns})
    if here.height < 2:
        return empty, {name: dict.fromkeys(KINDS, 0) for name in ("kinds", "across_splits", "with_train_or_val")}
    positions = here["position"].to_numpy()

    def fetch(rows: I64) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        return compared(stamps.images(positions[rows]), stamps.invvar(positions[rows]))

    if prints is None:
        chunks = (np.arange(k, min(k + _CHUNK, here.height)) for k in range(0, here.height, _CHUNK))
        prints = Prints(np.concatenate([fingerprint(*sky_of(*fetch(rows))).sign for rows in chunks]))
    else:
        prints = Prints(prints.sign[order])
    order = np.argsort(mix64(np.array([seed_of("duplicates", g) for g in here["galaxy_id"]], np.uint64)), kind="stable")
    chosen = np.sort(order[:_SAMPLE])
    measured = calibrate(chosen, here["galaxy_id"].gather(chosen).to_list(), prints, fetch)

    overlap = _overlaps(here, stamps.shards[0].shape[-1])
    i, j, z = likely_pairs(prints, None, measured.likeness)
    most = np.argsort(-z, kind="stable")[:MOST_LIKELY]  # a sky full of duplicates: the likeliest are looked at
    likely = pl.DataFrame({"i": i[most], "j": j[most], "likeness": z[most]}).sort("i", "j")
    likely = likely.join(overlap, on=("i", "j"), how="anti")
    same = _identical(here)
    likely = likely.join(same, on=("i", "j"), how="anti", maintain_order="left")
    values = _agreements(likely["i"].to_numpy(), likely["j"].to_numpy(), fetch)
    alike = likely.with_columns(agreement=pl.Series(values, dtype=pl.Float64), kind=pl.lit("alike"))
    alike = alike.filter(pl.col("agreement") >= AGREEMENT)
    found = pl.concat(
        [
            same.with_columns(kind=pl.lit("identical")),
            overlap.join(same, on=("i", "j"), how="anti").with_columns(kind=pl.lit("overlap")),
            alike,
        ],
        how="diagonal_relaxed",
    )
    table = _table(found, here)
    return table, _facts(table, measured.facts(), prints, len(i) - len(most))


def _facts(table: pl.DataFrame, calibration: dict[str, Any], prints: Prints, unseen: int) -> dict[str, Any]:
    across = table.filter(pl.col("first_split") != pl.col("second_split"))
    leaking = across.filter(pl.col("first_split").is_in(list(SHAPING)) | pl.col("second_split").is_in(list(SHAPING)))

    def counts(frame: pl.DataFrame) -> dict[str, int]:
        return {kind: frame.filter(pl.col("kind") == kind).height for kind in KINDS}

    return {
        "kinds": counts(table),
        "across_splits": counts(across),
        "with_train_or_val": counts(leaking),
        "not_comparable": int((~prints.usable).sum()),
        "likely_not_looked_at": unseen,
        "calibration": calibration,
    }


def _identical(here: pl.DataFrame) -> pl.DataFrame:
    """Pairs of the same bytes: each further stamp with the first of its digest."""
    rows = here.select("stamp_digest").with_row_index("j").with_columns(pl.col("j").cast(pl.Int64))
    first = rows.group_by("stamp_digest").agg(pl.col("j").min().alias("i"))
    return rows.join(first, on="stamp_digest").filter(pl.col("i") < pl.col("j")).select("i", "j").sort("i", "j")


def _overlaps(here: pl.DataFrame, size: int) -> pl.DataFrame:
    """Pairs of positions less than a stamp apart in both axes, with the share of pixels in common."""
    ra, dec = here["ra"].to_numpy(), here["dec"].to_numpy()
    side = size * PIXEL_SCALE
    pairs = sphere.tree(ra, dec).query_pairs(sphere.chord(side * 2**0.5), output_type="ndarray")
    i, j = pairs.min(axis=1).astype(np.int64), pairs.max(axis=1).astype(np.int64)
    east = ((ra[i] - ra[j] + 180) % 360 - 180) * np.cos(np.radians((dec[i] + dec[j]) / 2)) * 3600
    north = (dec[i] - dec[j]) * 3600
    shared = np.clip(1 - np.abs(east) / side, 0, 1) * np.clip(1 - np.abs(north) / side, 0, 1)
    frame = pl.DataFrame({"i": i, "j": j, "shared": shared})
    return frame.filter(pl.col("shared") > 0).sort("i", "j")


def _agreements(i: I64, j: I64, fetch: Any) -> npt.NDArray[np.float64]:
    out = np.empty(len(i))
    for start in range(0, len(i), 256):
        part = slice(start, min(start + 256, len(i)))
        rows, place = np.unique(np.concatenate([i[part], j[part]]), return_inverse=True)
        sky, known = sky_of(*fetch(rows))
        sharp = high_pass(sky, known)
        half = part.stop - start
        out[part] = [
            agreement(sharp[a], known[a], sharp[b], known[b]) for a, b in zip(place[:half], place[half:], strict=True)
        ]
    return out


def _table(found: pl.DataFrame, here: pl.DataFrame) -> pl.DataFrame:
    columns = {"likeness": pl.Float64, "agreement": pl.Float64, "shared": pl.Float64}
    found = found.with_columns(
        pl.lit(None, dtype=dtype).alias(name) for name, dtype in columns.items() if name not in found.columns
    )
    ids, split = here["galaxy_id"], here["split"]
    ra, dec = here["ra"].to_numpy(), here["dec"].to_numpy()
    i, j = found["i"].to_numpy(), found["j"].to_numpy()
    return DUPLICATES.conform(
        found.with_columns(
            first=ids.gather(i),
            second=ids.gather(j),
            first_split=split.gather(i),
            second_split=split.gather(j),
            separation_arcsec=pl.Series(sphere.separation(ra[i], dec[i], ra[j], dec[j]), dtype=pl.Float64),
        )
    )
