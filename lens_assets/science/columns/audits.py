"""Columns of the audits that compare with a known truth."""

from __future__ import annotations

import polars as pl

from lens_assets.science.columns.completeness import POINT, S7, WHERE_DEPTH, WHERE_PSF, WHERE_THETA, bounds, fraction
from lens_assets.science.columns.registry import Column, Table

LEVEL = Column(
    "closure_level", pl.String(), "", "all: all lenses; theta_e: all conditions of one theta_E; cell: one cell", S7
)
N_TRUE = Column("n_true_lenses", pl.Int64(), "", "true lenses in supported cells", "truth audit", lo=0)
K_TRUE = Column("n_true_found", pl.Int64(), "", "of these, found", "truth audit", lo=0)
N_OUT = Column(
    "n_true_unsupported", pl.Int64(), "", "true lenses outside the grid or in unsupported cells", "truth audit", lo=0
)
N_WORTH = Column(
    "n_true_effective",
    pl.Float64(),
    "",
    "independent lenses that they are worth, bricks as clusters",
    "truth audit",
    lo=0,
)
C_TRUE = fraction("true_completeness", "found / true lenses", "truth audit")
B_TRUE = bounds("true", "of true_completeness, Jeffreys on the effective number", "Brown, Cai & DasGupta 2001")
C_PRED = fraction("predicted_completeness", "the surface at the true lenses' own cells", "truth audit")
B_PRED = bounds("predicted", "of predicted_completeness", "truth audit")
DIFFERENCE = Column(
    "difference", pl.Float64(), "", "true minus predicted completeness", "truth audit", lo=-1, hi=1, nullable=True
)
INSIDE68 = Column(
    "inside68", pl.Boolean(), "", "found count inside the 68 % predictive interval", "truth audit", nullable=True
)
INSIDE95 = Column(
    "inside95", pl.Boolean(), "", "found count inside the 95 % predictive interval", "truth audit", nullable=True
)
P_CLOSURE = Column(
    "p_closure",
    pl.Float64(),
    "",
    "two-sided mid-p of the found count under the surface",
    "truth audit",
    lo=0,
    hi=1,
    nullable=True,
)

B_PRED_FULL = bounds(
    "predicted_full",
    "of predicted_completeness, error of the fitted priors included; null without a fit",
    "truth audit",
)
FULL_INSIDE = tuple(
    Column(
        f"full_inside{level}",
        pl.Boolean(),
        "",
        f"found count inside the {level} % interval with the error of the fitted priors; null without a fit",
        "truth audit",
        nullable=True,
    )
    for level in (68, 95)
)
P_FULL = Column(
    "p_closure_full",
    pl.Float64(),
    "",
    "two-sided mid-p of the found count, error of the fitted priors included; null without a fit",
    "truth audit",
    lo=0,
    hi=1,
    nullable=True,
)

_EXPERIMENT = "closure experiment"
ARM = Column("closure_arm", pl.String(), "", "the surface that predicts: whose sources, on which hosts", _EXPERIMENT)
AGAINST = Column("closure_against", pl.String(), "", "what it is compared with", _EXPERIMENT)
N_COMPARED = Column("n_compared", pl.Int64(), "", "cells with enough true lenses to compare", _EXPERIMENT, lo=0)
SHARES = tuple(
    column
    for level in (68, 95)
    for column in (
        Column(
            f"n_inside{level}", pl.Int64(), "", f"of these, inside the {level} % predictive interval", _EXPERIMENT, lo=0
        ),
        fraction(f"share_inside{level}", f"n_inside{level} / n_compared", _EXPERIMENT),
        fraction(f"share_inside{level}_lo95", "lower 95 % bound (Wilson), cells taken as independent", _EXPERIMENT),
        fraction(f"share_inside{level}_hi95", "upper 95 % bound (Wilson), cells taken as independent", _EXPERIMENT),
        fraction(
            f"expected_inside{level}",
            f"share a right surface would have: above 0.{level}, counts are whole",
            _EXPERIMENT,
        ),
    )
)
N_ARM = Column("n_injections_arm", pl.Int64(), "", "injections of the surface in the compared cells", _EXPERIMENT, lo=0)
HOSTS_ARM = Column("n_hosts_arm", pl.Int64(), "", "distinct hosts among them", _EXPERIMENT, lo=0)
STEP = Column("closure_step", pl.String(), "", "what is changed: one thing at a time", _EXPERIMENT)
FROM_ARM = Column("step_from_arm", pl.String(), "", "surface before", _EXPERIMENT)
TO_ARM = Column("step_to_arm", pl.String(), "", "surface after, or the sky itself", _EXPERIMENT)
C_STEP = (
    fraction("completeness_before", "at the true lenses' own cells, before", _EXPERIMENT),
    fraction("completeness_after", "at the true lenses' own cells, after", _EXPERIMENT),
)
STEP_DIFFERENCE = Column("step_difference", pl.Float64(), "", "after minus before", _EXPERIMENT, lo=-1, hi=1)
STEP_BOUNDS = tuple(
    Column(
        f"step_{side}{level}",
        pl.Float64(),
        "",
        f"{name} {level} % bound: bootstraps over hosts and over bricks, the hull",
        _EXPERIMENT,
        lo=-1,
        hi=1,
    )
    for level in (68, 95)
    for side, name in (("lo", "lower"), ("hi", "upper"))
)
N_STEP = (
    Column("n_before", pl.Int64(), "", "injections or lenses before", _EXPERIMENT, lo=0),
    Column("n_after", pl.Int64(), "", "injections or lenses after", _EXPERIMENT, lo=0),
)

COLUMNS: tuple[Column, ...] = (
    LEVEL, N_TRUE, K_TRUE, N_OUT, N_WORTH, C_TRUE, *B_TRUE, C_PRED, *B_PRED, DIFFERENCE, INSIDE68, INSIDE95, P_CLOSURE,
    *B_PRED_FULL, *FULL_INSIDE, P_FULL, ARM, AGAINST, N_COMPARED, *SHARES, N_ARM, HOSTS_ARM, STEP, FROM_ARM, TO_ARM,
    *C_STEP, STEP_DIFFERENCE, *STEP_BOUNDS,
    *N_STEP,
)  # fmt: skip

CLOSURE = Table(
    "completeness_closure",
    "true against predicted completeness: of all true lenses, of one theta_E, or of one cell",
    (
        POINT, LEVEL, WHERE_THETA, WHERE_PSF, WHERE_DEPTH, N_TRUE, K_TRUE, N_OUT, N_WORTH, C_TRUE, *B_TRUE, C_PRED, *B_PRED,
        DIFFERENCE, INSIDE68, INSIDE95, P_CLOSURE, *B_PRED_FULL, *FULL_INSIDE, P_FULL,
    ),
    ("operating_point", "closure_level", "at_theta_e", "at_psf", "at_depth"),
)  # fmt: skip

CLOSURE_CELLS = Table(
    "closure_cells",
    "true against predicted completeness of one surface of the closure experiment: all, one theta_E, or one cell",
    (ARM, AGAINST, *CLOSURE.columns),
    ("closure_arm", "closure_against", *CLOSURE.key),
)
CLOSURE_ARMS = Table(
    "closure_arms",
    "one surface of the closure experiment: how often its intervals hold the truth, and its bias over all cells",
    (
        ARM, AGAINST, POINT, N_COMPARED, *SHARES, N_TRUE, K_TRUE, N_WORTH, C_TRUE, *B_TRUE, C_PRED, *B_PRED, DIFFERENCE,
        P_CLOSURE, N_ARM, HOSTS_ARM,
    ),
    ("closure_arm", "closure_against"),
)  # fmt: skip
CLOSURE_STEPS = Table(
    "closure_steps",
    "one step from the published surface to the true sky, and what it changes",
    (STEP, FROM_ARM, TO_ARM, *C_STEP, STEP_DIFFERENCE, *STEP_BOUNDS, *N_STEP),
    ("closure_step",),
)

TABLES: tuple[Table, ...] = (CLOSURE, CLOSURE_CELLS, CLOSURE_ARMS, CLOSURE_STEPS)
