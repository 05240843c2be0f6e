"""Columns of injection hosts and batches.

Names shared with other rooms are their objects: the catalogue columns, the bins, the Einstein radius.
"""

from __future__ import annotations

import polars as pl

from lens_assets.science.columns.lenses import THETA_E
from lens_assets.science.columns.registry import Column, Table
from lens_assets.science.columns.surveys import DEPTH, DEPTH_BIN, GALAXY_ID, GR, MAG, PSF_BIN, PSFSIZE, TILE, TYPE

_S5 = "science contract, injections"
BANDS = ("g", "r", "z")

HOST_SET = Column("host_set", pl.String, "", "random or matched (massive early type)", _S5)
PSF_CENTRE = Column("psf_centre", pl.Float64, "arcsec", "centre of the host's PSF cell", "settings", lo=0)
DEPTH_CENTRE = Column("depth_centre", pl.Float64, "mag", "centre of the host's depth cell", "settings")
Q_HOST = Column("q_host", pl.Float64, "", "axis ratio of the host's light, (1-e)/(1+e)", "derived", lo=0, hi=1)
PA_HOST = Column(
    "pa_host", pl.Float64, "deg", "position angle of the host, north through east", "derived", lo=0, hi=180
)

INJECTION_HOSTS = Table(
    "injection_hosts",
    "one galaxy that may host injections",
    (GALAXY_ID, TILE, PSF_BIN, DEPTH_BIN, PSF_CENTRE, DEPTH_CENTRE, TYPE, *PSFSIZE, *DEPTH, *MAG, GR, Q_HOST, PA_HOST,
     HOST_SET),
    ("galaxy_id",),
)  # fmt: skip

INJECTION_ID = Column(
    "injection_id", pl.String, "", "variant|theta_e|psf_bin|depth_bin|index", _S5, ucd="meta.id;meta.main"
)
VARIANT = Column("variant", pl.String, "", "name of the variant", _S5)
INDEX = Column("index", pl.Int32, "", "number of the injection inside its cell", _S5, lo=0)
SEED = Column("seed", pl.Int64, "", "seed of the campaign", "settings")
HOST_REUSE = Column("host_reuse", pl.Int32, "", "injections of this variant and theta_e that share the host", _S5, lo=1)
FAMILY = Column("family", pl.String, "", "source family: sersic, clumpy, real, point", _S5)
INNER_IMAGE = Column("inner_image", pl.Boolean, "", "images of negative parity are kept", _S5)
NOISE = Column("noise", pl.String, "", "photon noise: measured, none, null (gain 1e12)", _S5)
PRIOR_DIGEST = Column("prior_digest", pl.String, "", "digest of the prior set", _S5)


def _f8(name: str, unit: str, meaning: str, lo: float | None = None, hi: float | None = None) -> Column:
    return Column(name, pl.Float64, unit, meaning, _S5, lo=lo, hi=hi)


LENS = (
    _f8("lens_x", "arcsec", "lens centre from the stamp centre, towards increasing column"),
    _f8("lens_y", "arcsec", "lens centre from the stamp centre, towards increasing row"),
    _f8("q_lens", "", "axis ratio of the lens's mass", 0, 1),
    _f8("phi_lens", "rad", "major axis from +x towards +y"),
    _f8("lens_slope", "", "slope gamma of the lens's density, rho ~ r^-gamma; 2 is isothermal", 1, 3),
    _f8("gamma1", "", "external shear, component 1"),
    _f8("gamma2", "", "external shear, component 2"),
)
SOURCE_SHAPE = (
    _f8("source_x", "arcsec", "source position from the lens centre, x"),
    _f8("source_y", "arcsec", "source position from the lens centre, y"),
    _f8("beta", "", "source offset in units of theta_E", 0),
    _f8("source_q", "", "axis ratio of the source", 0, 1),
    _f8("source_phi", "rad", "major axis of the source from +x towards +y"),
    _f8("source_re", "arcsec", "circularised half-light radius of the source", 0),
    Column("source_n", pl.Float64, "", "Sersic index of the source; null for a real galaxy", _S5, lo=0, nullable=True),
)
SOURCE_Z = Column(
    "source_z", pl.Float64, "", "redshift of the source's spectrum; null where colours come without one", _S5, lo=0,
    nullable=True,
)  # fmt: skip
SOURCE_ID = Column(
    "source_id",
    pl.String,
    "",
    "identity of the real galaxy in its catalogue; null for other families",
    _S5,
    nullable=True,
)
SOURCE_SCALE = Column(
    "source_scale", pl.Float64, "", "size of the real galaxy over that in its catalogue; null for other families", _S5,
    lo=0, nullable=True,
)  # fmt: skip
SOURCE_REUSE = Column(
    "source_reuse", pl.Int32, "", "injections of this variant and theta_e with this real galaxy; 0 for other families", _S5,
    lo=0,
)  # fmt: skip
SOURCE_MAG = tuple(_f8(f"source_mag_{b}", "mag", f"unlensed AB magnitude of the source ({b})") for b in BANDS)
CLUMP_FRACTION = _f8("clump_fraction", "", "share of the source's light in clumps", 0, 1)
CLUMPS = tuple(
    Column(name, pl.List(pl.Float64), unit, meaning, _S5)
    for name, unit, meaning in (
        ("clump_x", "arcsec", "clump positions from the source centre, x"),
        ("clump_y", "arcsec", "clump positions from the source centre, y"),
        ("clump_re", "arcsec", "half-light radii of the clumps"),
        ("clump_share", "", "relative fluxes of the clumps"),
    )
)
PARAMETERS = (
    INJECTION_ID, VARIANT, THETA_E, GALAXY_ID, TILE, TYPE, PSF_BIN, DEPTH_BIN, INDEX, SEED, HOST_REUSE, FAMILY,
    INNER_IMAGE, NOISE, PRIOR_DIGEST, *LENS, *SOURCE_SHAPE, *SOURCE_MAG, SOURCE_Z, SOURCE_ID, SOURCE_SCALE,
    SOURCE_REUSE, CLUMP_FRACTION, *CLUMPS, *PSFSIZE, *DEPTH,
)  # fmt: skip

MAGNIFICATION = _f8("magnification", "", "r flux of the rendered arc over the unlensed flux", 0)
ARC_SNR = _f8("arc_snr", "", "matched-filter SNR of the arc in r, annulus 4-16 px: sqrt(sum arc^2 invvar)", 0)
ARC_SNR_GRZ = _f8("arc_snr_grz", "", "the same, three bands in quadrature", 0)
ARC_FLUX_FRACTION = _f8("arc_flux_fraction", "", "share of the arc's r flux inside the annulus", 0, 1.0001)
LENSED_MAG = tuple(
    Column(
        f"lensed_mag_{b}",
        pl.Float64,
        "mag",
        f"AB magnitude of the rendered arc ({b}); null without light",
        _S5,
        nullable=True,
    )
    for b in BANDS
)
GAIN = tuple(
    Column(
        f"gain_{b}",
        pl.Float64,
        "electron/nmgy",
        f"gain used for photon noise ({b}); null without noise",
        _S5,
        lo=0,
        nullable=True,
    )
    for b in BANDS
)
TRUTH = (MAGNIFICATION, ARC_SNR, ARC_SNR_GRZ, ARC_FLUX_FRACTION, *LENSED_MAG, *GAIN)

INJECTION_BATCH = Table(
    "injection_batch", "one injection: what was put in, and its truth", (*PARAMETERS, *TRUTH), ("injection_id",)
)

COLUMNS = (
    HOST_SET, PSF_CENTRE, DEPTH_CENTRE, Q_HOST, PA_HOST, INJECTION_ID, VARIANT, INDEX, SEED, HOST_REUSE, FAMILY,
    INNER_IMAGE, NOISE, PRIOR_DIGEST, *LENS, *SOURCE_SHAPE, *SOURCE_MAG, SOURCE_Z, SOURCE_ID, SOURCE_SCALE,
    SOURCE_REUSE, CLUMP_FRACTION, *CLUMPS, *TRUTH,
)  # fmt: skip
TABLES = (INJECTION_HOSTS, INJECTION_BATCH)
