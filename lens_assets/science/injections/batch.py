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

from lens_assets.science.columns.injections import PARAMETERS
from lens_assets.science.errors import BadInput
from lens_assets.science.hashing import generator, mix64, seed_of
from lens_assets.science.injections.draws import Draws, family_of, parameters
from lens_assets.science.injections.galaxies import choose
from lens_assets.science.injections.hosts import host_key
from lens_assets.science.injections.noise import add_arc, measure_gain
from lens_assets.science.injections.planes import Galaxies
from lens_assets.science.injections.priors import PriorSet, prior_set
from lens_assets.science.injections.render import Arcs, render
from lens_assets.science.injections.scene import scene_of
from lens_assets.science.injections.settings import Settings
from lens_assets.science.injections.variants import NULL_GAIN, Variant, load_variants

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
NOISE_KEY = ("galaxy_id", "theta_e", "psf_bin", "depth_bin", "index", "seed")
"""What the photon noise of an injection is keyed by."""
BLOCK = 8
"""Rows that a thread takes at a time."""


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


def plan_batch(
    hosts: pl.DataFrame,
    variant: Variant,
    theta_e: float,
    settings: Settings,
    seed: int | None = None,
    priors: PriorSet | None = None,
    galaxies: Galaxies | None = None,
) -> pl.DataFrame:
    """Parameters of all injections of one (variant, theta_e): the columns ``PARAMETERS``, sorted by ``injection_id``.

    ``hosts`` is the table ``injection_hosts`` of the variant's host set. A cell with fewer hosts than
    ``per_cell / max_host_reuse`` stays short; nothing is filled in. ``priors`` is for a fitted set (``read_priors``);
    by default the variant's own, by name. ``galaxies`` are the sources of the family
    ``real``. Draws that a variant does not use are drawn all the same, so that variants
    with other families, lenses or colours share all the others.
    """
    key = settings.theta_key(theta_e)
    seed = settings.seed if seed is None else seed
    wrong = hosts.filter(pl.col("host_set") != variant.hosts)
    if wrong.height:
        raise BadInput(
            f"variant {variant.name} takes {variant.hosts} hosts, not {wrong['host_set'][0]}", column="host_set"
        )
    priors = priors or prior_set(variant.prior_set)
    rows = _assign(hosts, theta_e, settings, seed)
    u = Draws(rows, theta_e, seed)
    family = family_of(variant, priors, u)
    values = parameters(rows, variant, priors, theta_e, family, u)
    real = choose(rows, family, values, u, galaxies)
    frame = rows.with_columns(
        pl.concat_str(
            pl.lit(f"{variant.name}|{key}"), pl.col("psf_bin"), pl.col("depth_bin"), pl.col("index"), separator="|"
        ).alias("injection_id"),
        pl.lit(variant.name).alias("variant"),
        pl.lit(float(theta_e)).alias("theta_e"),
        pl.lit(seed).alias("seed"),
        pl.Series("family", family, dtype=pl.String),
        pl.lit(variant.inner_image).alias("inner_image"),
        pl.lit(variant.noise).alias("noise"),
        pl.lit(priors.digest).alias("prior_digest"),
        *(
            pl.Series(name, v, dtype=pl.Float64 if isinstance(v, np.ndarray) else pl.List(pl.Float64))
            for name, v in values.items()
        ),
    ).with_columns(*real, pl.col("source_z", "source_n").fill_nan(None))  # fmt: skip
    return frame.select(pl.col(c.name).cast(c.dtype) for c in PARAMETERS).sort("injection_id")


def noise_generator(
    galaxy_id: str, theta_e: float, psf_bin: int, depth_bin: int, index: int, seed: int
) -> np.random.Generator:
    """The generator of one injection's photon noise: the same for all variants of one host, cell, index and seed."""
    return generator("photon noise", galaxy_id, f"{theta_e:.4f}", psf_bin, depth_bin, index, seed)


def _variant_of(rows: pl.DataFrame, variant: Variant | None) -> Variant:
    names = sorted(set(rows["variant"].to_list()))
    if len(names) != 1 or (variant is not None and names != [variant.name]):
        raise BadInput(
            f"rows of one variant are wanted{f' ({variant.name})' if variant else ''}, not of {names}",
            column="variant",
        )
    return variant or load_variants()[names[0]]


def inject(
    rows: pl.DataFrame,
    stamps: StampSource,
    settings: Settings,
    variant: Variant | None = None,
    galaxies: Galaxies | None = None,
) -> Iterator[Chunk]:
    """Render rows of a batch onto their hosts, ``settings.chunk`` at a time, in the order of the rows.

    The same row gives the same bytes whatever surrounds it (to rounding with ``settings.backend = "torch"``).
    ``variant`` is needed only when it is not a shipped one, ``galaxies`` only for rows of the family ``real``.
    """
    if rows.height == 0:
        return
    variant = _variant_of(rows, variant)
    for start in range(0, rows.height, settings.chunk):
        yield _inject_chunk(rows.slice(start, settings.chunk), stamps, settings, variant, galaxies)


def _inject_chunk(
    part: pl.DataFrame, stamps: StampSource, settings: Settings, variant: Variant, galaxies: Galaxies | None
) -> Chunk:
    hosts, where = np.unique(part["galaxy_id"].to_numpy(), return_inverse=True)
    images, invvar, threads = stamps.images(hosts.tolist()), stamps.invvar(hosts.tolist()), settings.processors
    arcs = render(
        scene_of(part, galaxies), variant.psf, size=images.shape[-1], threads=threads, backend=settings.backend,
        device=_device(settings),
    )  # fmt: skip
    if variant.noise == "measured":
        gain = measure_gain(images, invvar)[where]
    else:
        gain = np.full((part.height, 3), NULL_GAIN if variant.noise == "null" else np.nan)
    out, weight = np.empty_like(arcs.images), np.empty_like(arcs.images)
    keys = list(zip(*(part[name].to_list() for name in NOISE_KEY), strict=True))

    def put(rows: range) -> None:  # writes these rows alone, so threads change nothing
        for i in rows:
            used = None if variant.noise == "none" else gain[i]
            host = where[i]
            place = (out[i], weight[i])
            add_arc(images[host], invvar[host], arcs.images[i], used, noise_generator(*keys[i]), place)

    blocks = [range(k, min(k + BLOCK, part.height)) for k in range(0, part.height, BLOCK)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(put, blocks))
    return Chunk(part, part["injection_id"].to_list(), out, weight, arcs, gain, invvar[where])


def _device(settings: Settings) -> str:
    if settings.backend == "adaptive":
        return "cpu"
    from lens_assets.science.detectors.score import best_device

    return str(best_device())


def one(
    injection_id: str,
    hosts: pl.DataFrame,
    stamps: StampSource,
    settings: Settings,
    priors: PriorSet | None = None,
    galaxies: Galaxies | None = None,
) -> Chunk:
    """One injection, from its id and the hosts of its variant: the same bytes as inside its batch."""
    parts = injection_id.split("|")
    variants = load_variants()
    if len(parts) != 5 or parts[0] not in variants:
        raise BadInput(
            f"no variant {parts[0]!r} (an id is variant|theta_e|psf_bin|depth_bin|index)", column="injection_id"
        )
    plan = plan_batch(hosts, variants[parts[0]], float(parts[1]), settings, None, priors, galaxies)
    row = plan.filter(pl.col("injection_id") == injection_id)
    if row.height != 1:
        raise BadInput(f"the batch has no injection {injection_id!r}", column="injection_id")
    return next(inject(row, stamps, settings, None, galaxies))
