"""True lenses that lie in no sky: drawn by the sky's own generator, and put before the detector in three ways.

Each *twin* is one lens of a cell: deflector, mass and source drawn as the mock draws them, with theta_E inside the cell.
It is observed as the sky's own code makes its arcs (``exact``), or as the injection engine makes them from the same
parameters (isothermal ellipsoid and one smooth Sersic profile in place of a power law with multipoles and a disc of
clumps); and either on a galaxy like its deflector, or on an ordinary host. Host, photon noise and all that is drawn are
shared, so that what two ways differ in is one thing.

What does not belong here: what is made of the scores (``experiment``).
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.spatial import cKDTree

from lens_assets.science.audits.settings import ClosureSettings
from lens_assets.science.completeness.grid import Grid
from lens_assets.science.detectors.score import Scorer, probability
from lens_assets.science.errors import BadInput
from lens_assets.science.hashing import generator
from lens_assets.science.injections.batch import StampSource, noise_generator
from lens_assets.science.injections.noise import add_arc, measure_gain
from lens_assets.science.injections.scoring import score_injections
from lens_assets.science.injections.settings import Settings as InjectionSettings
from lens_assets.science.injections.variants import Variant
from lens_assets.science.mock.conditions import BandConditions, conditions
from lens_assets.science.mock.deflectors import deflector_light
from lens_assets.science.mock.footprint import plan
from lens_assets.science.mock.lensing import Lens, arcs, draw_arcs, make_lens
from lens_assets.science.mock.render import psf_at
from lens_assets.science.mock.settings import MockSize
from lens_assets.science.surveys.layout import BANDS, EXTINCTION, PIXEL_SCALE, ZERO_POINT

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

ALIKE = {"mag_r": 0.25, "gr": 0.12, "rz": 0.12, "log_re": 0.12, "q": 0.15}
"""Differences that count as one step of likeness between a deflector and a galaxy (mag, mag, mag, dex, axis ratio)."""
_CHUNK = 128


@dataclass(frozen=True)
class Twins:
    """Lenses drawn for cells, one row each in ``rows``: ``twin`` (number), ``theta_e``, ``i_theta, i_psf, i_depth``, ``index``
    (number in the cell); the lenses themselves, in the same order, with their light as ``like`` (n, features)."""

    rows: pl.DataFrame
    lenses: list[Lens]
    like: F64


def draw_twins(size: MockSize, cells: pl.DataFrame, grid: Grid, settings: ClosureSettings) -> Twins:
    """``settings.per_cell`` lenses for every row of ``cells`` (``i_theta, i_psf, i_depth``), of the sky's own population."""
    rows: list[tuple[int, float, int, int, int, int]] = []
    lenses: list[Lens] = []
    edges = grid.theta_e.edges
    for t, i, j in cells.select("i_theta", "i_psf", "i_depth").sort(pl.all()).iter_rows():
        inside = (*size.settings.theta_e[:2], float(edges[t]), float(edges[t + 1]))
        own = size.settings.model_copy(update={"theta_e": inside})
        for m in range(settings.per_cell):
            rng = generator("closure twin", settings.seed, t, i, j, m)
            lens = make_lens(deflector_light(own, rng), own, rng)
            rows.append((len(rows), lens.deflector.theta_e, t, i, j, m))
            lenses.append(lens)
    schema = {"twin": pl.Int64, "theta_e": pl.Float64, "i_theta": pl.Int16, "i_psf": pl.Int16, "i_depth": pl.Int16,
              "index": pl.Int32}  # fmt: skip
    light = [_features(ZERO_POINT - 2.5 * np.log10(x.deflector.flux), x.deflector.re, x.deflector.q) for x in lenses]
    return Twins(
        pl.DataFrame(rows, schema=schema, orient="row"), lenses, np.array(light).reshape(len(rows), len(ALIKE))
    )


def _features(mag: F64, re: Any, q: Any) -> F64:
    g, r, z = (mag[..., k] for k in range(3))
    return np.stack([r, g - r, r - z, np.log10(np.maximum(re, 0.02)), np.asarray(q, float)], axis=-1)


def alike_hosts(
    twins: Twins, galaxies: pl.DataFrame, settings: ClosureSettings
) -> tuple[pl.DataFrame, dict[str, float]]:
    """A host like its deflector for every twin, among ``galaxies`` of the twin's own PSF and depth cell.

    Parameters
    ----------
    galaxies : ``galaxy_id``, ``psf_bin``, ``depth_bin``, ``ebv``, true light ``true_mag_*``, ``true_re``, ``true_q``.

    Returns
    -------
    ``twin, galaxy_id`` (one of the ``settings.neighbours`` most alike, drawn at random), and the median difference host minus
    deflector by feature. Cells without a galaxy have no rows.
    """
    dust = galaxies["ebv"].cast(pl.Float64).to_numpy()[:, None] * np.array([EXTINCTION[b] for b in BANDS])
    mag = galaxies.select("true_mag_g", "true_mag_r", "true_mag_z").cast(pl.Float64).to_numpy() - dust
    light = _features(mag, galaxies["true_re"].to_numpy(), galaxies["true_q"].to_numpy())
    step = np.array(list(ALIKE.values()))
    usable = np.isfinite(light).all(axis=1)
    ids = galaxies["galaxy_id"].to_numpy()
    parts, apart = [], []
    for (i, j), rows in sorted(twins.rows.group_by("i_psf", "i_depth"), key=lambda item: item[0]):
        here = np.flatnonzero(usable & ((galaxies["psf_bin"] == i) & (galaxies["depth_bin"] == j)).to_numpy())
        if not here.size:
            continue
        rows = rows.sort("twin")
        number = rows["twin"].to_numpy()
        near = cKDTree(light[here] / step).query(twins.like[number] / step, k=min(settings.neighbours, here.size))[1]
        near = near.reshape(len(number), -1)
        pick = [int(generator("closure host", settings.seed, int(n)).integers(near.shape[1])) for n in number]
        chosen = here[near[np.arange(len(number)), pick]]
        apart.append(light[chosen] - twins.like[number])
        parts.append(pl.DataFrame({"twin": number, "galaxy_id": ids[chosen]}))
    if not parts:
        raise BadInput("no galaxy of the closure sky lies in a supported cell: make it larger", column="psfsize_r")
    middle = np.median(np.concatenate(apart), axis=0)
    return pl.concat(parts).sort("twin"), dict(zip(ALIKE, np.round(middle, 4).tolist(), strict=True))


def ordinary_hosts(twins: Twins, hosts: pl.DataFrame, settings: ClosureSettings) -> pl.DataFrame:
    """``twin, galaxy_id``: a host of the surface's own (``injection_hosts``) for every twin, round robin in a random order."""
    parts = []
    for (t, i, j), rows in sorted(twins.rows.group_by("i_theta", "i_psf", "i_depth"), key=lambda item: item[0]):
        here = hosts.filter((pl.col("psf_bin") == i) & (pl.col("depth_bin") == j))["galaxy_id"].sort().to_numpy()
        if not here.size:
            continue
        here = generator("closure ordinary", settings.seed, t, i, j).permutation(here)
        parts.append(rows.select("twin", galaxy_id=pl.Series(here[np.arange(rows.height) % here.size])))
    return pl.concat(parts).sort("twin")


def engine_plan(twins: Twins, chosen: pl.DataFrame, hosts: pl.DataFrame, arm: str, seed: int) -> pl.DataFrame:
    """Rows for the injection engine: the parameters of each twin, as nearly as the engine can say them, on its host.

    ``hosts`` gives the chosen galaxies' ``psfsize_*``, ``psfsize_r``, ``depth_r`` and ``ebv``. The Sersic profile is the disc of
    the true source (n = 1, half-light radius circularised) with all its light; the ellipsoid has the true axis ratio, angle,
    centre and shear. What the engine cannot say (slope, multipoles, perturber, clumps, gradients) is left out: that is the
    source-model error.
    """
    rows = (
        chosen.join(twins.rows, on="twin", how="inner")
        .join(hosts, on="galaxy_id", how="left", validate="m:1")
        .sort("twin")
    )
    lenses = [twins.lenses[n] for n in rows["twin"]]
    mass = [x.keywords[0] for x in lenses]
    disc = np.array([x.clumps[0][:5] for x in lenses], dtype=float)  # x, y, radius, axis ratio, angle
    e = np.array([np.hypot(m["e1"], m["e2"]) for m in mass])
    centre = np.array([(m["center_x"], m["center_y"]) for m in mass])
    offset = np.array([x.beta for x in lenses]) - centre
    dust = rows["ebv"].cast(pl.Float64).to_numpy()[:, None] * np.array([EXTINCTION[b] for b in BANDS])
    mag = ZERO_POINT - 2.5 * np.log10(np.array([x.source_flux for x in lenses])) + dust
    theta = rows["theta_e"].to_numpy()
    values: dict[str, Any] = {
        "lens_x": centre[:, 0], "lens_y": centre[:, 1], "q_lens": (1 - e) / (1 + e),
        "phi_lens": 0.5 * np.arctan2([m["e2"] for m in mass], [m["e1"] for m in mass]),
        "gamma1": [x.keywords[1]["gamma1"] for x in lenses], "gamma2": [x.keywords[1]["gamma2"] for x in lenses],
        "source_x": offset[:, 0], "source_y": offset[:, 1], "beta": np.hypot(*offset.T) / theta,
        "source_q": disc[:, 3], "source_phi": disc[:, 4], "source_re": disc[:, 2] * np.sqrt(disc[:, 3]), "source_n": 1.0,
        **{f"source_mag_{b}": mag[:, k] for k, b in enumerate(BANDS)},
    }  # fmt: skip
    return rows.with_columns(
        pl.concat_str(pl.lit(arm), "i_theta", "i_psf", "i_depth", "index", separator="|").alias("injection_id"),
        pl.lit(arm).alias("variant"), pl.lit("sersic").alias("family"), pl.lit(True).alias("inner_image"),
        pl.lit(seed, pl.Int64).alias("seed"), pl.col("i_psf").alias("psf_bin"), pl.col("i_depth").alias("depth_bin"),
        *(pl.lit(v).alias(k) if isinstance(v, float) else pl.Series(k, v, dtype=pl.Float64) for k, v in values.items()),
    ).sort("injection_id")  # fmt: skip


def variant_of_arm(arm: str, psf_of: Variant) -> Variant:
    """The variant under which an arm's rows are rendered: smooth sources, with the PSF and noise of ``psf_of``."""
    return Variant(name=arm, summary="closure experiment", source="sersic", psf=psf_of.psf, noise="measured")


def score_engine(
    rows: pl.DataFrame, stamps: StampSource, scorer: Scorer, settings: InjectionSettings, variant: Variant
) -> pl.DataFrame:
    """``rows`` with ``score``: through the ordinary engine, noise, normalisation and network."""
    scores = score_injections(rows, stamps, scorer, settings, variant)
    return rows.join(scores.select("injection_id", "score"), on="injection_id", how="left", validate="1:1")


class ExactArcs:
    """The sky's own arcs of twins, through the PSF of the brick that their host lies in."""

    def __init__(self, size: MockSize, seed: int, side: int, threads: int = 1) -> None:
        self._plans = {p.cell.name: p for p in plan(size, seed)}
        self._size, self._seed, self._side, self._threads = size, seed, side, threads
        self._seen: dict[str, dict[str, BandConditions]] = {}

    def images(self, lenses: list[Lens], rows: pl.DataFrame) -> F32:
        """(n, 3, side, side) nanomaggies per pixel, dimmed by the host's dust; the lens at the stamp's centre."""
        for name in rows["brickname"].unique().to_list():
            if name not in self._seen:
                self._seen[name] = conditions(self._size, self._plans[name], self._seed)
        columns = rows.select("brickname", "ebv", *(f"psfsize_{b}" for b in BANDS)).rows()
        with ThreadPoolExecutor(self._threads) as pool:
            return np.stack(list(pool.map(self._one, lenses, columns)))

    def _one(self, lens: Lens, host: tuple[Any, ...]) -> F32:
        seen, ebv, fwhm = self._seen[host[0]], float(host[1]), host[2:]
        spectrum, _, points = arcs(lens)
        n = spectrum.shape[1]
        psf: list[F64 | None] = [psf_at(n, seen[b], float(w) / PIXEL_SCALE) for b, w in zip(BANDS, fwhm, strict=True)]
        through = 10 ** (-0.4 * ebv * np.array([EXTINCTION[b] for b in BANDS]))
        drawn = draw_arcs(spectrum * through[:, None, None], points, None, 0.0, 0.0, psf)
        out = np.zeros((3, self._side, self._side), np.float32)
        first = self._side // 2 - n // 2  # both have their centre at the pixel n // 2
        for k, image in enumerate(drawn):
            if image is not None:
                out[k, first : first + n, first : first + n] = image
        return out


def score_exact(rows: pl.DataFrame, twins: Twins, stamps: StampSource, scorer: Scorer, made: ExactArcs) -> pl.DataFrame:
    """``rows`` (of :func:`engine_plan`, with ``brickname``) with ``score``: the sky's own arcs on the same hosts, under the
    engine's own photon noise."""

    def stream() -> Iterator[tuple[F32, npt.NDArray[np.bool_]]]:
        for start in range(0, rows.height, _CHUNK):
            part = rows.slice(start, _CHUNK)
            hosts, where = np.unique(part["galaxy_id"].to_numpy(), return_inverse=True)
            images, invvar = stamps.images(hosts.tolist()), stamps.invvar(hosts.tolist())
            gain = measure_gain(images, invvar)[where]
            light = made.images([twins.lenses[n] for n in part["twin"]], part)
            out, weight = np.empty_like(light), np.empty_like(light)
            keys = part.select("galaxy_id", "theta_e", "psf_bin", "depth_bin", "index", "seed").rows()
            for i, key in enumerate(keys):
                h = where[i]
                out[i], weight[i] = add_arc(images[h], invvar[h], light[i], gain[i], noise_generator(*key))
            yield out, weight > 0

    logit = np.concatenate([np.empty(0, np.float32), *scorer.score_stream(stream())])
    return rows.with_columns(pl.Series("score", probability(logit)))
