"""Columns of the completeness surface, its marginals and checks (bands and pairs: ``sensitivity``; closure: ``audits``)."""

from __future__ import annotations

import polars as pl

from lens_assets.science.columns.registry import Column, Table

S7 = "science contract, section 7"


def _index(axis: str, what: str) -> Column:
    return Column(f"i_{axis}", pl.Int16(), "", f"index of the cell along {what}, from 0", "completeness.grid", lo=0)


def fraction(name: str, meaning: str, source: str = S7) -> Column:
    return Column(name, pl.Float64(), "", meaning, source, lo=0, hi=1, nullable=True, ucd="stat.probability")


def bounds(prefix: str, meaning: str, source: str) -> tuple[Column, ...]:
    return tuple(
        Column(
            f"{prefix}_{side}{level}",
            pl.Float64(),
            "",
            f"{'lower' if side == 'lo' else 'upper'} {level} % bound: {meaning}",
            source,
            lo=0,
            hi=1,
            nullable=True,
            ucd=f"stat.probability;stat.{'min' if side == 'lo' else 'max'}",
        )
        for level in (68, 95)
        for side in ("lo", "hi")
    )


I_THETA, I_PSF, I_DEPTH = _index("theta", "theta_E"), _index("psf", "PSF FWHM"), _index("depth", "depth")
CELL_THETA = Column(
    "cell_theta_e",
    pl.Float64(),
    "arcsec",
    "Einstein radius at the centre of the cell",
    "completeness.grid",
    lo=0,
    ucd="phys.angSize",
)
CELL_PSF = Column(
    "cell_psf",
    pl.Float64(),
    "arcsec",
    "r-band PSF FWHM at the centre of the cell",
    "completeness.grid",
    lo=0,
    ucd="instr.obsty.seeing",
)
CELL_DEPTH = Column(
    "cell_depth",
    pl.Float64(),
    "mag",
    "5-sigma r-band point-source depth (AB) at the centre of the cell",
    "completeness.grid",
    ucd="phot.mag;em.opt.R;stat.max",
)
POINT = Column(
    "operating_point", pl.String(), "", "name of the threshold the row is for", "detector evaluation", ucd="meta.id"
)
CUT = Column(
    "cut",
    pl.Float64(),
    "",
    "score at or above which an injection counts as found",
    "detector evaluation",
    ucd="stat.param",
)
N = Column("n_injections", pl.Int64(), "", "injections in the cell", S7, lo=0, ucd="meta.number")
K = Column("n_found", pl.Int64(), "", "injections found", S7, lo=0, ucd="meta.number")
HOSTS = Column("n_unique_hosts", pl.Int64(), "", "distinct hosts among them", S7, lo=0, ucd="meta.number")
N_EFF = Column(
    "n_effective",
    pl.Float64(),
    "",
    "independent trials that would give the host-aware posterior's width",
    "completeness.hostaware",
    lo=0,
    nullable=True,
    ucd="meta.number;stat.value",
)
C = fraction("completeness", "found / injected, from raw counts; null where nothing was injected")
BINOMIAL = bounds(
    "binomial",
    "Jeffreys posterior of the counts, hosts taken as independent",
    "Brown, Cai & DasGupta 2001, doi:10.1214/ss/1009213286",
)
HOST = bounds("host", "beta-binomial over hosts, which allows for their reuse", "completeness.hostaware")
TOTAL = bounds(
    "total",
    "host-aware, widened by the sampling error of the threshold: the published interval",
    "completeness.combine",
)
_PRIOR = "completeness.prior_error"
PRIOR = bounds(
    "prior",
    "completeness over the draws of the fit of the priors; null for priors that were not fitted",
    _PRIOR,
)
FULL = bounds("full", "total_* and the error of the fitted priors; null for priors that were not fitted", _PRIOR)
PRIOR_EFFECTIVE = Column(
    "prior_effective", pl.Float64(), "", "effective injections (Kish) under a draw of the fit, median over the draws", _PRIOR,
    lo=0, nullable=True, ucd="meta.number;stat.value",
)  # fmt: skip
PRIOR_REFUSED = fraction("prior_refused", "share of the draws under which too few injections are effective", _PRIOR)
PRIOR_BEYOND = fraction(
    "prior_beyond",
    "share of a draw's lenses whose offset is beyond that of all injections, mean over the draws",
    _PRIOR,
)
PRIOR_COLUMNS = (*PRIOR, *FULL, PRIOR_EFFECTIVE, PRIOR_REFUSED, PRIOR_BEYOND)
TOTAL_METHOD = Column(
    "total_method", pl.String(), "", "how the published interval was made", "completeness.combine", ucd="meta.note"
)
MEAN_SCORE = Column(
    "mean_score",
    pl.Float64(),
    "",
    "mean detector score of the cell's injections",
    S7,
    nullable=True,
    ucd="stat.value;stat.mean",
)
MEAN_SNR = Column(
    "mean_arc_snr",
    pl.Float64(),
    "",
    "mean signal-to-noise of the injected arcs",
    S7,
    nullable=True,
    ucd="stat.snr;stat.mean",
)
SUPPORT = Column(
    "support",
    pl.String(),
    "",
    "supported, insufficient (fewer injections than asked for) or empty",
    S7,
    ucd="meta.code.qual",
)

N_OBS = Column(
    "n_observable",
    pl.Int64(),
    "",
    "injections the detectability gate calls observable",
    S7,
    lo=0,
    nullable=True,
    ucd="meta.number",
)
K_OBS = Column(
    "n_found_observable", pl.Int64(), "", "of these, found by the detector", S7, lo=0, nullable=True, ucd="meta.number"
)
K_HIDDEN = Column(
    "n_found_unobservable",
    pl.Int64(),
    "",
    "found although the gate calls them unobservable",
    S7,
    lo=0,
    nullable=True,
    ucd="meta.number",
)
F_OBS = fraction("observable_fraction", "share of injections that are observable in the data")
F_COND = fraction("conditional_completeness", "found / observable, among the observable")
B_OBS = bounds("observable", "of observable_fraction, beta-binomial over hosts", "completeness.hostaware")
B_COND = bounds("conditional", "of conditional_completeness, beta-binomial over hosts", "completeness.hostaware")

AXIS = Column("axis", pl.String(), "", "axis that is kept: theta_e, psf, depth, or all (none kept)", S7)
I_KEPT = Column("i_axis", pl.Int16(), "", "index along the kept axis; 0 where none is", S7, lo=0)
AT = Column(
    "axis_centre",
    pl.Float64(),
    "",
    "centre of the cell along the kept axis, in its unit; null where none is",
    S7,
    nullable=True,
)
WEIGHTING = Column("weighting", pl.String(), "", "how cells were weighted, in words", S7)
SHARE = fraction("share_supported", "share of the weight that lies in supported cells; the value is for these alone")

OUTSIDE = fraction("share_outside", "share of the survey outside the grid")
EMPTY = fraction("share_empty", "share of the survey in cells without injections")
SCARCE = fraction("share_insufficient", "share of the survey in cells with too few injections")
BOUND_LO = fraction("bound_lo", "completeness of the whole survey if nothing were found in its unsupported share")
BOUND_HI = fraction("bound_hi", "completeness of the whole survey if everything were found in its unsupported share")

CHECK = Column("check_axis", pl.String(), "", "what should not lower the completeness: depth or arc brightness", S7)
SCOPE = Column(
    "check_scope", pl.String(), "", "cell: one cell; theta_e: all cells of one theta_E (Mantel-Haenszel)", S7
)
FROM = Column("step_from", pl.Float64(), "", "centre of the worse condition (shallower; fainter)", S7)
TO = Column("step_to", pl.Float64(), "", "centre of the better condition (deeper; brighter)", S7)
C_FROM = fraction("completeness_from", "completeness in the worse condition")
C_TO = fraction("completeness_to", "completeness in the better condition")
P = Column("p_value", pl.Float64(), "", "one-sided probability of a fall this large if there is none", S7, lo=0, hi=1)
P_HOLM = Column(
    "p_holm",
    pl.Float64(),
    "",
    "the same after Holm's allowance for all steps tested",
    "Holm 1979, Scand. J. Stat. 6, 65",
    lo=0,
    hi=1,
)
VIOLATES = Column("violates", pl.Boolean(), "", "whether the fall is significant", S7)
WHERE_THETA = Column("at_theta_e", pl.Float64(), "arcsec", "theta_E of the cell; null for all", S7, nullable=True)
WHERE_PSF = Column("at_psf", pl.Float64(), "arcsec", "PSF FWHM of the cell; null for all", S7, nullable=True)
WHERE_DEPTH = Column(
    "at_depth", pl.Float64(), "mag", "depth of the cell; null for all, and where depth is the step", S7, nullable=True
)

INJECTION = Column("injection", pl.String(), "", "injection_id", "injections", ucd="meta.id")
HOST_ID = Column("host", pl.String(), "", "galaxy_id of the host", "injections", ucd="meta.id.parent")
HOST_TYPE = Column("host_type", pl.String(), "", "TYPE of the host", "DR10 sweeps", nullable=True, ucd="src.morph.type")
SCORE = Column("injection_score", pl.Float64(), "", "detector score", "detector", ucd="stat.value")
SNR = Column("injection_snr", pl.Float64(), "", "arc signal-to-noise", "injections", nullable=True, ucd="stat.snr")
MAG = Column(
    "injection_mag_r",
    pl.Float64(),
    "mag",
    "lensed r magnitude of the arc (AB)",
    "injections",
    nullable=True,
    ucd="phot.mag;em.opt.R",
)
HOST_PSF = Column("host_psf", pl.Float64(), "arcsec", "r-band PSF FWHM at the host", "injections", lo=0, nullable=True,
                  ucd="instr.obsty.seeing")  # fmt: skip
HOST_DEPTH = Column("host_depth", pl.Float64(), "mag", "5-sigma r-band point-source depth (AB) at the host", "injections",
                    nullable=True, ucd="phot.mag;em.opt.R;stat.max")  # fmt: skip
SOURCE_R = Column("injection_source_mag_r", pl.Float64(), "mag", "unlensed r magnitude of the source (AB)", "injections",
                  nullable=True, ucd="phot.mag;em.opt.R")  # fmt: skip
SOURCE_GZ = tuple(
    Column(f"injection_source_mag_{b}", pl.Float64(), "mag", f"unlensed {b} magnitude of the source (AB)", "injections",
           nullable=True, ucd=f"phot.mag;em.opt.{ucd}")
    for b, ucd in (("g", "B"), ("z", "I"))
)  # fmt: skip
SOURCE_SIZE = Column("injection_source_re", pl.Float64(), "arcsec", "circularised half-light radius of the source", "injections",
                     lo=0, nullable=True, ucd="phys.angSize")  # fmt: skip
SOURCE_FAMILY = Column("injection_family", pl.String(), "", "source family: sersic, clumpy, real, point", "injections",
                       nullable=True, ucd="meta.code.class")  # fmt: skip
SOURCE_CLUMPS = Column("injection_clump_fraction", pl.Float64(), "", "share of the source's light in clumps", "injections",
                       lo=0, hi=1, nullable=True, ucd="phot.flux;arith.ratio")  # fmt: skip
DRAWN_WITH = (SOURCE_R, *SOURCE_GZ, SOURCE_SIZE, SOURCE_FAMILY, SOURCE_CLUMPS)
BETA = Column("injection_beta", pl.Float64(), "", "source offset in units of theta_E", "injections", lo=0, nullable=True,
              ucd="pos.angDistance;arith.ratio")  # fmt: skip
OBSERVABLE = Column(
    "injection_observable", pl.Boolean(), "", "what the detectability gate says", S7, nullable=True, ucd="meta.code"
)

TILE_WEIGHTED = Column("tile", pl.String(), "", "tile the weights are of; * is the footprint", "DR10 sweeps",
                       variant="weights of a surface")  # fmt: skip
AXIS_LO = Column("axis_lo", pl.Float64(), "", "lower edge of the bin, in the axis's unit; null for a class", S7,
                 nullable=True)  # fmt: skip
AXIS_HI = Column("axis_hi", pl.Float64(), "", "upper edge of the bin; null for a class", S7, nullable=True)
AXIS_CLASS = Column("axis_class", pl.String(), "", "class along an axis of classes (TYPE); null for a bin", S7,
                    nullable=True)  # fmt: skip

COLUMNS: tuple[Column, ...] = (
    I_THETA, I_PSF, I_DEPTH, CELL_THETA, CELL_PSF, CELL_DEPTH, POINT, CUT, N, K, HOSTS, N_EFF, C, *BINOMIAL, *HOST,
    *TOTAL, *PRIOR_COLUMNS, TOTAL_METHOD,
    MEAN_SCORE, MEAN_SNR, SUPPORT, N_OBS, K_OBS, K_HIDDEN, F_OBS, F_COND, *B_OBS, *B_COND, AXIS,
    I_KEPT, AT, WEIGHTING, SHARE, OUTSIDE, EMPTY, SCARCE, BOUND_LO, BOUND_HI, CHECK, SCOPE, FROM, TO, C_FROM, C_TO, P,
    P_HOLM, VIOLATES, WHERE_THETA, WHERE_PSF, WHERE_DEPTH, INJECTION, HOST_ID, HOST_TYPE, SCORE, SNR, MAG, HOST_PSF,
    HOST_DEPTH, *DRAWN_WITH, BETA, OBSERVABLE, TILE_WEIGHTED, AXIS_LO, AXIS_HI, AXIS_CLASS,
)  # fmt: skip

CELL = (I_THETA, I_PSF, I_DEPTH)
CENTRES = (CELL_THETA, CELL_PSF, CELL_DEPTH)

SURFACE = Table(
    "completeness_cells",
    "one cell of the grid at one operating point; empty cells are rows too",
    (
        POINT,
        *CELL,
        *CENTRES,
        CUT,
        N,
        K,
        HOSTS,
        N_EFF,
        C,
        *BINOMIAL,
        *HOST,
        *TOTAL,
        TOTAL_METHOD,
        MEAN_SCORE,
        MEAN_SNR,
        SUPPORT,
        *PRIOR_COLUMNS,
    ),
    ("operating_point", "i_theta", "i_psf", "i_depth"),
)
TWO_FACTOR = Table(
    "completeness_two_factor",
    "one cell at one operating point: observable fraction x conditional completeness",
    (POINT, *CELL, *CENTRES, N, K, N_OBS, K_OBS, K_HIDDEN, F_OBS, *B_OBS, F_COND, *B_COND, SUPPORT),
    ("operating_point", "i_theta", "i_psf", "i_depth"),
)
MARGINALS = Table(
    "completeness_marginals",
    "one value along one axis at one operating point, under one weighting",
    (POINT, WEIGHTING, AXIS, I_KEPT, AT, N, K, HOSTS, N_EFF, C, *HOST, *TOTAL, TOTAL_METHOD, SHARE, *PRIOR_COLUMNS),
    ("operating_point", "weighting", "axis", "i_axis"),
)
SURVEY = Table(
    "completeness_survey",
    "one theta_E at one operating point, weighted by the survey's own conditions",
    (*MARGINALS.columns, EMPTY, SCARCE, OUTSIDE, BOUND_LO, BOUND_HI),
    ("operating_point", "weighting", "axis", "i_axis"),
)
TILES = Table(
    "completeness_tiles",
    "one theta_E of one tile, or of the footprint, at one operating point, weighted by its own conditions",
    (TILE_WEIGHTED, *SURVEY.columns),
    ("tile", *SURVEY.key),
)
OPTIONAL = Table(
    "completeness_optional_axes",
    "one bin or class along an optional axis at one operating point, each injection counting once",
    (
        POINT, WEIGHTING, AXIS, I_KEPT, AXIS_LO, AXIS_HI, AXIS_CLASS, N, K, HOSTS, N_EFF, C, *HOST, *TOTAL,
        TOTAL_METHOD, SUPPORT,
    ),
    ("operating_point", "weighting", "axis", "i_axis"),
)  # fmt: skip
PHYSICS = Table(
    "completeness_physics",
    "one step towards a better condition: does the completeness fall?",
    (POINT, CHECK, SCOPE, WHERE_THETA, WHERE_PSF, WHERE_DEPTH, FROM, TO, C_FROM, C_TO, P, P_HOLM, VIOLATES),
    ("operating_point", "check_axis", "check_scope", "at_theta_e", "at_psf", "at_depth", "step_from", "step_to"),
)
MEMBERS = Table(
    "completeness_members",
    "one injection of the surface: the way from a cell to what it was counted from",
    (*CELL, INJECTION, HOST_ID, HOST_TYPE, HOST_PSF, HOST_DEPTH, SCORE, SNR, MAG, *DRAWN_WITH, BETA, OBSERVABLE),
    ("i_theta", "i_psf", "i_depth", "injection"),
)

TABLES: tuple[Table, ...] = (
    SURFACE, TWO_FACTOR, MARGINALS, SURVEY, TILES, OPTIONAL, PHYSICS, MEMBERS,
)  # fmt: skip
