"""Proposals: injections by the ordinary engine, drawn wide, and what is observed of them. No pixels are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from lens_assets.science.calibration.observables import observe
from lens_assets.science.calibration.settings import Settings
from lens_assets.science.hashing import mix64, seed_of
from lens_assets.science.injections.batch import StampSource, inject, plan_batch
from lens_assets.science.injections.hosts import bin_of, choose_hosts, host_key
from lens_assets.science.injections.priors import PriorSet
from lens_assets.science.injections.psf import PsfSpec
from lens_assets.science.injections.settings import Settings as InjectionSettings
from lens_assets.science.injections.variants import Variant

FAMILIES = ("sersic", "clumpy")
PSF_CELLS, PSF_STEP = (0.95, 1.25, 1.55, 1.85), 0.30
DEPTH_CELLS, DEPTH_STEP = (22.5, 23.5, 24.5, 25.5), 1.0
"""Coarse cells (arcsec, AB mag) in which injections follow the conditions of the real lenses. Wider than the published
grid, because a source does not know how deep it is observed: deep fields help here though they are no cell there."""


def cells_of(psf: npt.ArrayLike, depth: npt.ArrayLike) -> npt.NDArray[np.int16]:
    """Coarse cell of each object; -1 outside."""
    i, j = bin_of(psf, PSF_CELLS, PSF_STEP), bin_of(depth, DEPTH_CELLS, DEPTH_STEP)
    return np.where((i >= 0) & (j >= 0), i * len(DEPTH_CELLS) + j, -1).astype(np.int16)


def campaign(injections: InjectionSettings) -> InjectionSettings:
    """The engine's settings with the coarse cells and no limit on the reuse of hosts (it is in the intervals)."""
    return injections.model_copy(
        update={
            "psf_centres": PSF_CELLS, "psf_step": PSF_STEP, "depth_centres": DEPTH_CELLS, "depth_step": DEPTH_STEP,
            "max_host_reuse": 100_000,
        }
    )  # fmt: skip


def proposal_hosts(sample: pl.DataFrame, injections: InjectionSettings) -> pl.DataFrame:
    """Hosts of the coarse cells: the host role of the test split, as always."""
    return choose_hosts(sample, campaign(injections)).hosts


def propose(
    hosts: pl.DataFrame, shares: Mapping[int, float], priors: PriorSet, number: int, stamps: StampSource,
    injections: InjectionSettings, settings: Settings,
) -> pl.DataFrame:  # fmt: skip
    """One round of about ``settings.injections`` proposals from ``priors``, with their observables.

    Half of each family, the wings' brackets in equal parts, every Einstein radius of the grid alike; ``shares`` says
    how many go to each coarse cell (those without hosts stay empty). Returns the engine's parameters and ``psf_wings``,
    ``coarse_cell``, ``round`` and the observables, sorted by ``injection_id``.
    """
    base = campaign(injections)
    here = set(cells_of(hosts["psfsize_r"].to_numpy(), hosts["depth_r"].cast(pl.Float64).to_numpy()).tolist())
    total = sum(v for c, v in shares.items() if c in here) or 1.0
    per = settings.injections / (len(base.theta_e) * len(FAMILIES))
    quota = {c: int(np.ceil(per * shares[c] / total)) for c in shares if c in here and shares[c] > 0}
    engine = base.model_copy(update={"per_cell": max(quota.values(), default=1)})
    parts = []
    for f, family in enumerate(FAMILIES):
        seed = settings.seed * 100 + 10 * number + f
        plans = [
            plan_batch(hosts, _variant(number, family, 3.5), theta, engine, seed, priors) for theta in engine.theta_e
        ]
        rows = pl.concat(plans)
        cell = rows["psf_bin"].cast(pl.Int64) * len(DEPTH_CELLS) + rows["depth_bin"].cast(pl.Int64)
        rows = rows.with_columns(coarse_cell=cell.cast(pl.Int16))
        most = pl.col("coarse_cell").replace_strict(quota, default=0, return_dtype=pl.Int64)
        rows = rows.filter(pl.col("index").cast(pl.Int64) < most)
        key = mix64(host_key(rows["galaxy_id"]), seed_of("wings", seed)) ^ rows["index"].to_numpy().astype(np.uint64)
        key = mix64(key, seed_of("wings theta")) ^ (rows["theta_e"].to_numpy() * 1000).astype(np.uint64)
        which = (mix64(key) % np.uint64(len(settings.wings))).astype(int)
        rows = rows.with_columns(psf_wings=pl.Series(np.asarray(settings.wings)[which]))
        parts += [
            _observed(rows.filter(pl.col("psf_wings") == w), stamps, engine, number, family, w) for w in settings.wings
        ]
    return pl.concat(parts).with_columns(round=pl.lit(number, pl.Int32)).sort("injection_id")


def _variant(number: int, family: str, wings: float) -> Variant:
    return Variant.model_validate(
        {
            "name": f"proposal-{number}-{family}",
            "summary": "a proposal of the calibration",
            "source": family,
            "psf": PsfSpec(kind="moffat", beta=wings),
        }
    )


def _observed(
    rows: pl.DataFrame, stamps: StampSource, engine: InjectionSettings, number: int, family: str, wings: float
) -> pl.DataFrame:
    if rows.height == 0:
        return pl.DataFrame()
    seen = [observe(c.images, c.invvar) for c in inject(rows, stamps, engine, _variant(number, family, wings))]
    return pl.concat([rows, pl.concat(seen)], how="horizontal")


def observe_lenses(rows: pl.DataFrame, stamps: StampSource, chunk: int = 256) -> pl.DataFrame:
    """Observables of catalogue objects, in the order of the rows."""
    ids: Sequence[str] = rows["galaxy_id"].to_list()
    parts = [
        observe(stamps.images(ids[i : i + chunk]), stamps.invvar(ids[i : i + chunk])) for i in range(0, len(ids), chunk)
    ]
    return pl.concat(parts)
