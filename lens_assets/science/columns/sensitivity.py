"""Columns of sensitivity bands and of surfaces compared in pairs."""

from __future__ import annotations

import polars as pl

from lens_assets.science.columns.completeness import (
    AT,
    AXIS,
    CELL,
    CENTRES,
    HOSTS,
    I_KEPT,
    POINT,
    S7,
    TOTAL,
    WEIGHTING,
    WHERE_DEPTH,
    WHERE_PSF,
    WHERE_THETA,
    C,
    bounds,
    fraction,
)
from lens_assets.science.columns.registry import Column, Table

FAMILY = Column("band_family", pl.String(), "", "what the surfaces differ in: variants, detectors, or all", S7)
N_SURFACES = Column("n_surfaces", pl.Int64(), "", "surfaces with a value here", S7, lo=0, ucd="meta.number")
LOWEST = fraction("band_lowest", "lowest completeness of any surface of the family")
MEDIAN = fraction("band_median", "median completeness of the surfaces of the family")
HIGHEST = fraction("band_highest", "highest completeness of any surface of the family")
LOWEST_NAME = Column("lowest_surface", pl.String(), "", "surface with the lowest completeness; null without a value", S7,
                     nullable=True, ucd="meta.id")  # fmt: skip
HIGHEST_NAME = Column("highest_surface", pl.String(), "", "surface with the highest completeness", S7, nullable=True,
                      ucd="meta.id")  # fmt: skip
SURFACE_A = Column("surface_a", pl.String(), "", "first surface of the pair", S7, ucd="meta.id")
SURFACE_B = Column("surface_b", pl.String(), "", "second surface of the pair", S7, ucd="meta.id")
PAIR_SCOPE = Column("pair_scope", pl.String(), "", "all: all shared injections; theta_e: of one theta_E; cell: one cell",
                    S7)  # fmt: skip
N_PAIRS = Column("n_pairs", pl.Int64(), "", "injections both surfaces share: same identity and host", S7, lo=0,
                 ucd="meta.number")  # fmt: skip
N_BRICKS = Column("n_unique_bricks", pl.Int64(), "", "bricks that the hosts of these injections lie in", S7, lo=0,
                  ucd="meta.number")  # fmt: skip
N_ONLY_A = Column("n_only_a", pl.Int64(), "", "of these, found in the first surface alone", S7, lo=0, ucd="meta.number")
N_ONLY_B = Column(
    "n_only_b", pl.Int64(), "", "of these, found in the second surface alone", S7, lo=0, ucd="meta.number"
)
C_A = fraction("completeness_a", "completeness of the first surface on the shared injections")
C_B = fraction("completeness_b", "completeness of the second surface on the shared injections")
PAIRED = Column("paired_difference", pl.Float64(), "", "first minus second completeness, on the shared injections",
                "completeness.paired", lo=-1, hi=1, nullable=True, ucd="stat.probability;arith.diff")  # fmt: skip
B_PAIRED = tuple(
    Column(c.name, c.dtype, c.unit, c.meaning, c.source, lo=-1, hi=1, nullable=True, ucd=c.ucd)
    for c in bounds("paired", "of paired_difference", "Bonett & Price 2012, doi:10.3102/1076998611411915")
)
PAIRED_METHOD = Column("paired_method", pl.String(), "", "how the interval of the difference was made",
                       "completeness.paired", ucd="meta.note")  # fmt: skip
P_PAIRED = tuple(
    Column(name, pl.Float64(), "", meaning, source, lo=0, hi=1, nullable=True, ucd="stat.probability")
    for name, meaning, source in (
        ("p_mcnemar", "two-sided exact probability of so uneven a split of the discordant injections", "McNemar 1947"),
        ("p_host", "the same with hosts as units: exact clustered test", "science.clusters"),
        ("p_brick", "the same with bricks as units; 1 for a single brick", "science.clusters"),
        ("p_mcnemar_holm", "p_mcnemar after Holm's allowance for all pairs and places of the scope", "Holm 1979"),
        ("p_host_holm", "p_host after Holm's allowance", "Holm 1979"),
        ("p_brick_holm", "p_brick after Holm's allowance", "Holm 1979"),
    )
)
DIFFERS = Column("differs", pl.Boolean(), "", "whether all three adjusted probabilities are below the family error", S7)

COLUMNS: tuple[Column, ...] = (
    FAMILY, N_SURFACES, LOWEST, MEDIAN, HIGHEST, LOWEST_NAME, HIGHEST_NAME, SURFACE_A, SURFACE_B, PAIR_SCOPE, N_PAIRS,
    N_BRICKS, N_ONLY_A, N_ONLY_B, C_A, C_B, PAIRED, *B_PAIRED, PAIRED_METHOD, *P_PAIRED, DIFFERS,
)  # fmt: skip

_BAND = (N_SURFACES, LOWEST, MEDIAN, HIGHEST, LOWEST_NAME, HIGHEST_NAME, C, *TOTAL)
BAND_CELLS = Table(
    "completeness_band_cells",
    "one cell at one operating point: the range of the surfaces of a family, and the reference's own value",
    (FAMILY, POINT, *CELL, *CENTRES, *_BAND),
    ("band_family", "operating_point", "i_theta", "i_psf", "i_depth"),
)
BAND_MARGINALS = Table(
    "completeness_band_marginals",
    "one value along one axis at one operating point: the range of the surfaces of a family",
    (FAMILY, POINT, WEIGHTING, AXIS, I_KEPT, AT, *_BAND),
    ("band_family", "operating_point", "weighting", "axis", "i_axis"),
)
PAIRS = Table(
    "completeness_pairs",
    "two surfaces on the injections they share, over all of them, at one theta_E, or in one cell",
    (
        POINT, PAIR_SCOPE, SURFACE_A, SURFACE_B, WHERE_THETA, WHERE_PSF, WHERE_DEPTH, N_PAIRS, HOSTS, N_BRICKS, N_ONLY_A, N_ONLY_B,
        C_A, C_B, PAIRED, *B_PAIRED, PAIRED_METHOD, *P_PAIRED, DIFFERS,
    ),
    ("operating_point", "pair_scope", "surface_a", "surface_b", "at_theta_e", "at_psf", "at_depth"),
)  # fmt: skip

TABLES: tuple[Table, ...] = (
    BAND_CELLS,
    BAND_MARGINALS,
    PAIRS,
)
