"""The draws of an injection's parameters: hashes of (kind of draw, host, cell, index, seed), through the priors.

No draw depends on a variant's name, on another injection or on the order of rows, and each quantity has its own deviate.
So two variants share whatever they do not change, and every draw is made whether or not a variant uses it.

What does not belong here: which host gets which injection (``batch``), the numbers (``priors``).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.special import ndtr, ndtri

from lens_assets.science.errors import BadInput
from lens_assets.science.hashing import mix64, seed_of, uniform
from lens_assets.science.injections.distributions import Normal
from lens_assets.science.injections.hosts import host_key
from lens_assets.science.injections.priors import AroundHost, PriorSet
from lens_assets.science.injections.variants import Variant

F64 = npt.NDArray[np.float64]
U64 = npt.NDArray[np.uint64]
Values = dict[str, F64 | list[list[float]]]


class Draws:
    """Uniform deviates in [0, 1) by kind of draw, keyed by (host, cell, index, seed): ``u("beta")`` is one per row."""

    def __init__(self, rows: pl.DataFrame, theta_e: float, seed: int) -> None:
        cell = (
            round(theta_e * 10_000) * 10_000
            + rows["psf_bin"].to_numpy().astype(np.int64) * 100
            + rows["depth_bin"].to_numpy()
        )
        key = mix64(host_key(rows["galaxy_id"]), seed_of("injection", seed))
        key = mix64(key ^ cell.astype(np.uint64), seed_of("cell"))
        self.key: U64 = mix64(key ^ rows["index"].to_numpy().astype(np.uint64), seed_of("index"))

    def __call__(self, *kind: object) -> F64:
        return uniform(self.key, seed_of("draw", *kind))


def family_of(variant: Variant, priors: PriorSet, u: Draws) -> npt.NDArray[np.str_]:
    """Source family of every row: the variant's, or one drawn by the prior set's shares."""
    if variant.source == "mixture":
        return priors.family_at(u("family"))
    return np.full(u.key.size, variant.source)


def parameters(
    rows: pl.DataFrame, variant: Variant, priors: PriorSet, theta_e: float, family: npt.NDArray[np.str_], u: Draws
) -> Values:
    """Columns of lens and source (``columns.injections``) for rows of hosts with a cell and an index."""
    values = _lens(rows, variant, priors, u) | _source(variant, priors, theta_e, u) | _clumps(family, priors, u)
    _clumps_in_place(values, 1.0 / np.sqrt(values["source_q"]))
    return values


def _lens(rows: pl.DataFrame, variant: Variant, priors: PriorSet, u: Draws) -> dict[str, F64]:
    if isinstance(priors.lens_q, AroundHost):
        around = priors.lens_q
        q_host = np.clip(rows["q_host"].to_numpy(), around.lo, around.hi)
        a, b = ndtr((around.lo - q_host) / around.sigma_q), ndtr((around.hi - q_host) / around.sigma_q)
        q = q_host + around.sigma_q * ndtri(np.clip(a + u("lens_q") * (b - a), 1e-15, 1 - 1e-15))
        # north is +y and east is -x in a stamp, so a position angle P (north through east) is P + 90 degrees from +x
        pa = rows["pa_host"].to_numpy() + Normal(kind="normal", mean=0.0, sigma=around.sigma_phi).ppf(u("lens_phi"))
        phi = np.where(rows["q_host"].to_numpy() > 0.95, 180.0 * u("lens_phi"), pa + 90.0)  # round hosts have no angle
        phi = np.radians(phi % 180.0)
    else:
        q, phi = priors.lens_q.ppf(u("lens_q")), np.pi * u("lens_phi")
    return {
        "lens_x": priors.jitter.ppf(u("lens_x")), "lens_y": priors.jitter.ppf(u("lens_y")),
        "q_lens": np.clip(q, 0.05, 1.0), "phi_lens": phi,
        "lens_slope": priors.slope.ppf(u("slope")) if variant.lens == "epl" else np.full(rows.height, 2.0),
        "gamma1": priors.shear.ppf(u("gamma1")), "gamma2": priors.shear.ppf(u("gamma2")),
    }  # fmt: skip


def _source(variant: Variant, priors: PriorSet, theta_e: float, u: Draws) -> dict[str, F64]:
    beta, angle = priors.beta.ppf(u("beta")), 2 * np.pi * u("source_angle")
    return {
        "beta": beta, "source_x": beta * theta_e * np.cos(angle), "source_y": beta * theta_e * np.sin(angle),
        "source_q": np.clip(priors.source_q.ppf(u("source_q")), 0.05, 1.0), "source_phi": np.pi * u("source_phi"),
        "source_n": priors.sersic_n.ppf(u("sersic_n")), **_light(variant, priors, u),
    }  # fmt: skip


def _light(variant: Variant, priors: PriorSet, u: Draws) -> dict[str, F64]:
    """Magnitudes, size and, where there is one, redshift."""
    r, re, z = priors.r_mag.ppf(u("r_mag")), priors.re.ppf(u("re")), np.full(u.key.size, np.nan)
    match variant.colours:
        case "normal":
            rho = priors.colour_correlation
            z1, z2 = (ndtri(np.clip(u(kind), 1e-15, 1 - 1e-15)) for kind in ("g_r", "r_z"))
            g_r, r_z = priors.g_r.ppf(ndtr(z1)), priors.r_z.ppf(ndtr(rho * z1 + np.sqrt(1 - rho**2) * z2))
        case "spectra":
            if priors.spectra is None:
                raise BadInput(f"prior set {priors.name!r} has no `spectra`, which variant {variant.name!r} draws from")
            names = ("redshift", "uv_slope", "step", "optical_slope", "ebv")
            drawn = [getattr(priors.spectra, name).ppf(u("spectra", name)) for name in names]
            (g_r, r_z), z = priors.spectra.colours(*drawn), drawn[0]
        case "table":
            if priors.table is None:
                raise BadInput(f"prior set {priors.name!r} has no `table`, which variant {variant.name!r} draws from")
            row = priors.table.rows(u("table"))
            r, g_r, r_z, re = row["r_mag"], row["g_r"], row["r_z"], row["re"]
    return {
        "source_re": re, "source_mag_g": r + g_r, "source_mag_r": r, "source_mag_z": r - r_z, "source_z": z
    }  # fmt: skip


def _clumps(family: npt.NDArray[np.str_], priors: PriorSet, u: Draws) -> Values:
    names = ("clump_x", "clump_y", "clump_re", "clump_share")
    n = family.size
    clumpy = family == "clumpy"
    if not clumpy.any():
        return {"clump_fraction": np.zeros(n), **{name: [[] for _ in range(n)] for name in names}}
    lo, hi = priors.clumps.number
    number = np.where(clumpy, lo + np.floor(u("clump_number") * (hi - lo + 1)).astype(int), 0)
    columns = []
    for k in range(hi):  # uniform in the unit disc, in units of Re; put on the source's ellipse below
        radius, angle = np.sqrt(u("clump_r", k)), 2 * np.pi * u("clump_angle", k)
        columns.append(
            (
                radius * np.cos(angle),
                radius * np.sin(angle),
                priors.clumps.radius.ppf(u("clump_re", k)),
                0.2 + 0.8 * u("clump_share", k),
            )
        )
    table = np.array(columns)
    lists = {name: [table[: number[i], c, i].tolist() for i in range(n)] for c, name in enumerate(names)}
    return {"clump_fraction": np.where(clumpy, priors.clumps.fraction.ppf(u("clump_fraction")), 0.0), **lists}


def _clumps_in_place(values: Values, scale: F64) -> None:
    """From the unit disc to arcsec: along the source's axes (circularised radius, so 1/sqrt(q) and sqrt(q)),
    rotated."""
    xs, ys, radii = values["clump_x"], values["clump_y"], values["clump_re"]
    phi, re = np.asarray(values["source_phi"]), np.asarray(values["source_re"])
    for i, (x, y, r) in enumerate(zip(xs, ys, radii, strict=True)):
        if len(x):
            u, v = np.asarray(x) * re[i] * scale[i], np.asarray(y) * re[i] / scale[i]
            c, s = np.cos(phi[i]), np.sin(phi[i])
            xs[i], ys[i] = (c * u - s * v).tolist(), (s * u + c * v).tolist()
            radii[i] = (np.asarray(r) * re[i]).tolist()
