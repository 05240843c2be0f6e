"""Columns of the cutouts room: where each stamp came from, what was wrong with those left out, what a shortcut could
use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from lens_assets.science.columns.lenses import REASON
from lens_assets.science.columns.registry import Column, Table
from lens_assets.science.columns.surveys import COLUMNS as _SURVEY_COLUMNS
from lens_assets.science.surveys.layout import BANDS

_SURVEY = {column.name: column for column in _SURVEY_COLUMNS}
_KNOWN = {
    name: replace(_SURVEY[name], nullable=True, variant="of a stamp")
    for name in ("ebv", *(f"{stem}_{band}" for stem in ("psfdepth", "galdepth") for band in BANDS))
}
"""What the catalogue says of the place, so that a shard that is moved says it too; null where the rows asked for did not."""
_CUT = "cutouts.cut"
_AUC = "cutouts.shortcut"
_QC = "cutouts.quality"
_TWICE = "cutouts.pairs"


def _per_band(band: str) -> tuple[Column, ...]:
    return (
        Column(f"nexp_{band}", pl.Int32, "", f"exposures at the centre pixel in {band}", "DR10 coadd nexp map", lo=0),
        Column(
            f"invalid_fraction_{band}", pl.Float32, "", f"share of the stamp's {band} pixels that are invalid "
            "(invvar <= 0 or not finite, or the image not finite)", _QC, lo=0, hi=1,
        ),
        Column(f"nan_count_{band}", pl.Int32, "pixel", f"non-finite pixels of the {band} image", _QC, lo=0),
        Column(
            f"image_digest_{band}", pl.String, "", f"SHA-256 of the file with the {band} image: the "
            "brick's, or the viewer's answer", "the file",
            nullable=True,
        ),
        Column(
            f"invvar_digest_{band}", pl.String, "", f"SHA-256 of the file with the {band} inverse variance", "the file",
            nullable=True,
        ),
    )  # fmt: skip


_PLACE = (
    Column(
        "x",
        pl.Float64,
        "pixel",
        "0-based column of the catalogue position in the brick image (source viewer: in the stamp)",
        _CUT,
        ucd="pos.cartesian.x",
    ),
    Column(
        "y",
        pl.Float64,
        "pixel",
        "0-based line of the catalogue position in the brick image (source viewer: in the stamp)",
        _CUT,
        ucd="pos.cartesian.y",
    ),
    Column(
        "dx", pl.Float32, "pixel", "catalogue position minus the centre pixel, along columns", _CUT, lo=-0.5, hi=0.5
    ),
    Column("dy", pl.Float32, "pixel", "catalogue position minus the centre pixel, along lines", _CUT, lo=-0.5, hi=0.5),
)
_STAMP = (
    Column(
        "maskbits_fraction", pl.Float32, "", "share of pixels with a MASKBITS bit other than NPRIMARY (bit 0); null where the "
        "source has no such map", "DR10 coadd maskbits map", lo=0, hi=1, nullable=True,
    ),
    Column(
        "source", pl.String, "", "reader of the pixels: brick, viewer-native (the viewer's slices of the coadds; one "
        "resampling as a brick) or viewer (its resampled stamps; two)", _CUT,
    ),
    Column("stamp_digest", pl.String, "", "SHA-256 of the stamp's little-endian float32 bytes", "cutouts.fingerprint"),
)  # fmt: skip
_REASON = (
    REASON,  # the first rule that the stamp breaks
    Column("detail", pl.String, "", "every rule that the stamp breaks, with its bands", _QC),
)
_SHORTCUT = (
    Column("feature", pl.String, "", "name of the stamp feature", "cutouts.features"),
    Column("direction", pl.String, "", "higher or lower: where positives lie", _AUC, nullable=True),
    Column(
        "auc",
        pl.Float64,
        "",
        "AUC of positives against negatives, oriented to be >= 0.5",
        _AUC,
        0.5,
        1,
        True,
    ),
    *(
        Column(
            f"{side}{level}",
            pl.Float64,
            "",
            f"{word} bound of the {level} % bootstrap interval",
            _AUC,
            0,
            1,
            True,
        )
        for level in (68, 95)
        for side, word in (("lo", "lower"), ("hi", "upper"))
    ),
    _SURVEY["n"],  # stamps with a finite value
    Column("n_pos", pl.Int64, "", "positives among them", _AUC, lo=0),
    Column("colour", pl.String, "", "green, yellow (lo68 > 0.60), red (lo68 > 0.70) or insufficient", _AUC),
)
_PAIR = (
    *(
        Column(side, pl.String, "", f"galaxy_id of the {side} stamp of a pair", _TWICE)
        for side in ("first", "second")
    ),
    Column(
        "kind",
        pl.String,
        "",
        "identical (the same bytes), overlap (positions closer than a stamp) or alike (the same picture elsewhere)",
        _TWICE,
        variant="duplicate",
    ),
    *(Column(f"{side}_split", pl.String, "", f"split of the {side} stamp", _TWICE) for side in ("first", "second")),
    Column("separation_arcsec", pl.Float64, "arcsec", "distance of the two positions", _TWICE, lo=0, ucd="pos.angDistance"),
    Column("shared", pl.Float64, "", "share of the pixels that both stamps cover, by position", _TWICE, 0, 1, True),
    Column(
        "likeness", pl.Float64, "", "(agreeing - disagreeing) / sqrt(compared) blocks outside the objects: a standard "
        "normal deviate for unrelated skies", "cutouts.duplicates", nullable=True,
    ),
    Column(
        "agreement", pl.Float64, "", "correlation of the high-passed r pixels outside the objects, best of shifts up to "
        "2 px", "cutouts.duplicates", -1, 1.0001, True,
    ),
)  # fmt: skip


def index_table(bands: Sequence[str] = BANDS) -> Table:
    """The index of a shard for stamps of ``bands``."""
    per_band = {band: {column.name.rsplit("_", 1)[0]: column for column in _per_band(band)} for band in bands}
    columns = [_SURVEY[name] for name in ("galaxy_id", "row", "release", "brickname", "ra", "dec")]  # row of image.npy
    columns += _PLACE
    columns += [_SURVEY[f"psfsize_{band}"] for band in bands]
    columns += [_KNOWN[f"{stem}_{band}"] for stem in ("psfdepth", "galdepth") for band in bands] + [_KNOWN["ebv"]]
    for stem in ("nexp", "invalid_fraction", "nan_count"):
        columns += [per_band[band][stem] for band in bands]
    columns += _STAMP[:2]
    for stem in ("image_digest", "invvar_digest"):
        columns += [per_band[band][stem] for band in bands]
    return Table("cutouts", "one stamp of a shard", (*columns, *_STAMP[2:]), ("galaxy_id",))


CUTOUTS = index_table()
CUTOUT_REJECTED = Table(
    "cutout_rejected",
    "one object without a stamp",
    (_SURVEY["galaxy_id"], _SURVEY["brickname"], *_REASON),
    ("galaxy_id",),
)
SHORTCUTS = Table("shortcuts", "one stamp feature", _SHORTCUT, ("feature",))
DUPLICATES = Table("duplicates", "two stamps that share pixels, or look like the same", _PAIR, ("first", "second"))
COLUMNS = (
    *_KNOWN.values(),
    *_PLACE,
    *_STAMP,
    *(column for band in BANDS for column in _per_band(band)),
    *_REASON,
    *_SHORTCUT,
    *_PAIR,
)
TABLES = (CUTOUTS, CUTOUT_REJECTED, SHORTCUTS, DUPLICATES)
