"""Batches: which injection goes on which host with which parameters, and the images of any of them, on demand.

A batch is a table; pixels are never stored. Every draw is a hash of (kind of draw, host, cell, index, seed), so one
injection can be made again alone, in any order, and two variants of the same hosts share hosts, geometry and noise. The
variant's name is in no key.

What does not belong here: choosing hosts, the physics, scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.special import ndtr, ndtri

from lens_assets.science.columns.injections import PARAMETERS
from lens_assets.science.errors import BadInput
from lens_assets.science.hashing import generator, mix64, seed_of, uniform
from lens_assets.science.injections.hosts import host_key
from lens_assets.science.injections.noise import add_arc, measure_gain
from lens_assets.science.injections.priors import AroundHost, Normal, PriorSet, prior_set
from lens_assets.science.injections.render import Arcs, render
from lens_assets.science.injections.settings import Settings
from lens_assets.science.injections.variants import NULL_GAIN, Variant, load_variants

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
U64 = npt.NDArray[np.uint64]


class StampSource(Protocol):
    """Where host pixels come from: stamps (n, 3, s, s) float32, nmgy/pixel and 1/nmgy^2, in the order of the ids."""

    def images(self, galaxy_ids: Sequence[str]) -> F32:
        """Image stamps."""

    def invvar(self, galaxy_ids: Sequence[str]) -> F32:
        """Inverse-variance stamps."""


@dataclass(frozen=True)
class Chunk:
    """Some injections in the order of their rows: ids, images and inverse variances (n, 3, s, s), arcs and gains (n,
    3)."""

    rows: pl.DataFrame
    ids: list[str]
    images: F32
    invvar: F32
    arcs: Arcs
    gain: F64
    host_invvar: F32


def _assign(hosts: pl.DataFrame, theta_e: float, settings: Settings, seed: int) -> pl.DataFrame:
    """One row per injection: hosts of each (psf, depth) cell in hash order, round robin, up to ``max_host_reuse``
    each."""
    blocks = []
    for _, cell in sorted(hosts.group_by("psf_bin", "depth_bin"), key=lambda item: item[0]):
        cell = cell.sort("galaxy_id")
        order = np.argsort(mix64(host_key(cell["galaxy_id"]), seed_of("order", f"{theta_e:.4f}", seed)), kind="stable")
        n = min(settings.per_cell, cell.height * settings.max_host_reuse)
        index = np.arange(n)
        used = np.bincount(index % cell.height, minlength=cell.height)
        blocks.append(
            cell[order][index % cell.height].with_columns(
                pl.Series("index", index.astype(np.int32)),
                pl.Series("host_reuse", used[index % cell.height].astype(np.int32)),
            )
        )
    if not blocks:
        return hosts.clear().with_columns(pl.lit(0, pl.Int32).alias("index"), pl.lit(0, pl.Int32).alias("host_reuse"))
    return pl.concat(blocks)


class _Draws:
    """Uniform deviates by kind of draw, keyed by (host, cell, index, seed)."""

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


def plan_batch(
    hosts: pl.DataFrame,
    variant: Variant,
    theta_e: float,
    settings: Settings,
    seed: int | None = None,
    priors: PriorSet | None = None,
) -> pl.DataFrame:
    """Parameters of all injections of one (variant, theta_e): the columns ``PARAMETERS``, sorted by ``injection_id``.

    ``hosts`` is the table ``injection_hosts`` of the variant's host set. A cell with fewer hosts than
    ``per_cell / max_host_reuse`` stays short; nothing is filled in. ``priors``: what to draw from in place of the
    variant's named set (a set that was fitted, or a proposal).
    """
    key = settings.theta_key(theta_e)
    seed = settings.seed if seed is None else seed
    wrong = hosts.filter(pl.col("host_set") != variant.hosts)
    if wrong.height:
        raise BadInput(
            f"variant {variant.name} takes {variant.hosts} hosts, not {wrong['host_set'][0]}", column="host_set"
        )
    priors = prior_set(variant.prior_set) if priors is None else priors
    rows = _assign(hosts, theta_e, settings, seed)
    u = _Draws(rows, theta_e, seed)
    values = _lens(rows, priors, u) | _source(variant, priors, theta_e, u) | _clumps(variant, priors, rows.height, u)
    scale = 1.0 / np.sqrt(values["source_q"])
    _clumps_in_place(values, scale)
    frame = rows.with_columns(
        pl.concat_str(
            pl.lit(f"{variant.name}|{key}"), pl.col("psf_bin"), pl.col("depth_bin"), pl.col("index"), separator="|"
        ).alias("injection_id"),
        pl.lit(variant.name).alias("variant"),
        pl.lit(float(theta_e)).alias("theta_e"),
        pl.lit(seed).alias("seed"),
        pl.lit(variant.source).alias("family"),
        pl.lit(variant.inner_image).alias("inner_image"),
        pl.lit(variant.noise).alias("noise"),
        pl.lit(priors.digest).alias("prior_digest"),
        *(
            pl.Series(name, v, dtype=pl.Float64 if isinstance(v, np.ndarray) else pl.List(pl.Float64))
            for name, v in values.items()
        ),
    )  # fmt: skip
    return frame.select(pl.col(c.name).cast(c.dtype) for c in PARAMETERS).sort("injection_id")


def _lens(rows: pl.DataFrame, priors: PriorSet, u: _Draws) -> dict[str, F64]:
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
        "gamma1": priors.shear.ppf(u("gamma1")), "gamma2": priors.shear.ppf(u("gamma2")),
    }  # fmt: skip


def _source(variant: Variant, priors: PriorSet, theta_e: float, u: _Draws) -> dict[str, F64]:
    beta, angle = priors.beta.ppf(u("beta")), 2 * np.pi * u("source_angle")
    rho = priors.colour_correlation
    z1, z2 = (ndtri(np.clip(u(kind), 1e-15, 1 - 1e-15)) for kind in ("g_r", "r_z"))
    r = priors.r_mag.ppf(u("r_mag"))
    g_r, r_z = priors.g_r.ppf(ndtr(z1)), priors.r_z.ppf(ndtr(rho * z1 + np.sqrt(1 - rho**2) * z2))
    return {
        "beta": beta, "source_x": beta * theta_e * np.cos(angle), "source_y": beta * theta_e * np.sin(angle),
        "source_q": np.clip(priors.source_q.ppf(u("source_q")), 0.05, 1.0), "source_phi": np.pi * u("source_phi"),
        "source_re": priors.re.ppf(u("re")), "source_n": priors.sersic_n.ppf(u("sersic_n")),
        "source_mag_g": r + g_r, "source_mag_r": r, "source_mag_z": r - r_z,
    }  # fmt: skip


def _clumps(variant: Variant, priors: PriorSet, n: int, u: _Draws) -> dict[str, F64 | list[list[float]]]:
    names = ("clump_x", "clump_y", "clump_re", "clump_share")
    if variant.source != "clumpy":
        return {"clump_fraction": np.zeros(n), **{name: [[] for _ in range(n)] for name in names}}
    lo, hi = priors.clumps.number
    number = lo + np.floor(u("clump_number") * (hi - lo + 1)).astype(int)
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
    return {"clump_fraction": priors.clumps.fraction.ppf(u("clump_fraction")), **lists}


def _clumps_in_place(values: dict[str, F64 | list[list[float]]], scale: F64) -> None:
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


def noise_generator(
    galaxy_id: str, theta_e: float, psf_bin: int, depth_bin: int, index: int, seed: int
) -> np.random.Generator:
    """The generator of one injection's photon noise: the same for all variants of one host, cell, index and seed."""
    return generator("photon noise", galaxy_id, f"{theta_e:.4f}", psf_bin, depth_bin, index, seed)


def _variant_of(rows: pl.DataFrame, variant: Variant | None) -> Variant:
    names = rows["variant"].unique().to_list()
    if len(names) != 1 or (variant is not None and names != [variant.name]):
        raise BadInput(
            f"rows of one variant are wanted{f' ({variant.name})' if variant else ''}, not of {sorted(names)}",
            column="variant",
        )
    return variant or load_variants()[names[0]]


def inject(
    rows: pl.DataFrame, stamps: StampSource, settings: Settings, variant: Variant | None = None
) -> Iterator[Chunk]:
    """Render rows of a batch onto their hosts, ``settings.chunk`` at a time, in the order of the rows.

    The same row gives the same bytes whatever surrounds it. ``variant`` is needed only when it is not a shipped one.
    """
    if rows.height == 0:
        return
    variant = _variant_of(rows, variant)
    for start in range(0, rows.height, settings.chunk):
        yield _inject_chunk(rows.slice(start, settings.chunk), stamps, settings, variant)


def _inject_chunk(part: pl.DataFrame, stamps: StampSource, settings: Settings, variant: Variant) -> Chunk:
    hosts, where = np.unique(part["galaxy_id"].to_numpy(), return_inverse=True)
    images, invvar = stamps.images(hosts.tolist()), stamps.invvar(hosts.tolist())
    arcs = render(part, variant.psf, size=images.shape[-1], threads=settings.threads)
    if variant.noise == "measured":
        gain = measure_gain(images, invvar)[where]
    else:
        gain = np.full((part.height, 3), NULL_GAIN if variant.noise == "null" else np.nan)
    out, weight = np.empty_like(arcs.images), np.empty_like(arcs.images)
    keys = part.select("galaxy_id", "theta_e", "psf_bin", "depth_bin", "index", "seed").rows()

    def put(i: int) -> None:  # writes row i alone, so threads change nothing
        used = None if variant.noise == "none" else gain[i]
        host = where[i]
        out[i], weight[i] = add_arc(images[host], invvar[host], arcs.images[i], used, noise_generator(*keys[i]))

    with ThreadPoolExecutor(settings.threads) as pool:
        list(pool.map(put, range(part.height)))
    return Chunk(part, part["injection_id"].to_list(), out, weight, arcs, gain, invvar[where])


def one(injection_id: str, hosts: pl.DataFrame, stamps: StampSource, settings: Settings) -> Chunk:
    """One injection, from its id and the hosts of its variant: the same bytes as inside its batch."""
    name, theta = injection_id.split("|")[:2]
    variants = load_variants()
    if name not in variants:
        raise BadInput(f"no variant {name!r}", column="injection_id")
    row = plan_batch(hosts, variants[name], float(theta), settings).filter(pl.col("injection_id") == injection_id)
    if row.height != 1:
        raise BadInput(f"the batch has no injection {injection_id!r}", column="injection_id")
    return next(inject(row, stamps, settings))
