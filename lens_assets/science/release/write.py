"""Writing a release: one directory that can be cited, checked and loaded without this platform.

Under a no-go every surface file, the table's own name and the release's name carry ``no-go``: a file that is passed
on alone still says it. Nothing written holds a time, host or run, so the same surface and arguments give the same
bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl
import yaml

from lens_assets import lookup
from lens_assets.science.columns import release as columns
from lens_assets.science.columns.anchors import ANCHORS
from lens_assets.science.columns.completeness import TILES
from lens_assets.science.columns.registry import Table
from lens_assets.science.columns.sensitivity import BAND_CELLS, BAND_MARGINALS, PAIRS
from lens_assets.science.completeness import figures as drawing
from lens_assets.science.completeness.band_figure import band_figure
from lens_assets.science.completeness.continuous import Fitted, save_models
from lens_assets.science.completeness.grid import Grid
from lens_assets.science.completeness.marginals import FOOTPRINT, per_tile, survey_weighted
from lens_assets.science.completeness.model import Surface
from lens_assets.science.completeness.optional import optional_axes
from lens_assets.science.completeness.sensitivity import Sensitivity, sensitivity
from lens_assets.science.completeness.verdict import Verdict
from lens_assets.science.errors import BadInput
from lens_assets.science.hashing import digest
from lens_assets.science.release import tables
from lens_assets.science.release.card import model_card
from lens_assets.science.release.publish import checked_version
from lens_assets.science.storage import safe_key, sha256_file

SUMS = "SHA256SUMS"


class Folder(Protocol):
    """Where a release is written: anything that gives a path for a plain file name (a ``storage.Draft`` does)."""

    def path(self, name: str) -> Path:
        """Path of a file of that name."""
        ...


def write_release(
    folder: Folder,
    surfaces: Mapping[str, Surface] | Surface,
    *,
    name: str,
    version: str,
    realism: Mapping[str, Any] | None,
    priors: Mapping[str, Any],
    detector: Mapping[str, Any],
    lineage: Mapping[str, Any],
    citation: Mapping[str, Any],
    primary: str | None = None,
    conditions: pl.DataFrame | None = None,
    sky: pl.DataFrame | None = None,
    tiles: Mapping[str, pl.DataFrame] | None = None,
    models: Mapping[str, Fitted] | None = None,
    anchors: pl.DataFrame | None = None,
    band: Sensitivity | None = None,
    figures: Mapping[str, bytes] | None = None,
) -> dict[str, Any]:
    """Write every file of a release into ``folder``; returns its facts (name, version, verdict, files).

    Parameters
    ----------
    surfaces : by name (``detector|variant``), all on one grid; ``primary`` is the one a look-up uses (needed when
    several).
    realism : the report the primary surface's verdict was made from, or ``None`` where realism was not measured.
    priors, detector : what the injections were drawn from, and the frozen detector's specification; written out, and
        their digests put into the header.
    lineage : from this release back to its inputs (asset -> digest and so on), as the caller tracks it.
    citation : ``title``, ``authors`` (list of mappings as in CFF 1.2), optional ``license``, ``abstract``, ``doi``,
    ``url``.
    conditions : the survey's ``psf_bin``, ``depth_bin``, ``n`` (optional ``type``): occupancy and survey-weighted
    curves.
    sky : the table of :func:`sky.sky_of`, for look-ups by position.
    tiles : the same as ``conditions``, one table a tile: survey-weighted curves of every tile too.
    models : continuous models of the primary surface by operating point; an option beside the table.
    anchors : table ``anchors`` of the primary surface's detector: recall on real lenses in two factors.
    band : the sensitivity band about the primary surface, where it has been computed before.
    figures : further PNGs by name.

    Raises :class:`BadInput` when surfaces differ in their grid, or the verdict does not follow from ``realism``.
    """
    surfaces = {_name_of(surfaces): surfaces} if isinstance(surfaces, Surface) else dict(sorted(surfaces.items()))
    primary, main = _primary(surfaces, primary)
    checked_version(version)
    if Verdict.of_report(realism) != main.verdict:
        raise BadInput(
            f"the surface says {main.verdict.title!r}, its realism report {Verdict.of_report(realism).title!r}"
        )
    tag = next((s.verdict.tag for s in surfaces.values() if not s.verdict.go), "")  # one no-go surface marks them all
    full_name = safe_key(f"{name}{tag}")
    digests = {"priors": digest(priors), "detector": digest(detector)}
    about = {"name": full_name, "version": version, "verdict": main.verdict.title}

    def united(pick: Callable[[Surface], pl.DataFrame], table: Table) -> pl.DataFrame:
        parts = [pick(s).with_columns(pl.lit(key).alias("surface")) for key, s in surfaces.items()]
        return table.conform(pl.concat(parts))

    whole = united(lambda s: s.cells, columns.RELEASE_SURFACE)
    tables.parquet(whole, columns.RELEASE_SURFACE, folder.path(f"surface{tag}.parquet"), about)
    extension = f"SURFACE{tag.upper()}"
    tables.fits(whole, columns.RELEASE_SURFACE, folder.path(f"surface{tag}.fits"), extension, about)
    tables.ecsv(whole, columns.RELEASE_SURFACE, folder.path(f"surface{tag}.ecsv"), f"surface{tag}", about)
    for stem, pick, table in (
        ("two_factor", lambda s: s.two_factor, columns.RELEASE_TWO_FACTOR),
        ("marginals", lambda s: s.marginals, columns.RELEASE_MARGINALS),
        ("optional", optional_axes, columns.RELEASE_OPTIONAL),
        ("physics", lambda s: s.physics, columns.RELEASE_PHYSICS),
        ("injections", lambda s: s.members, columns.RELEASE_INJECTIONS),
    ):
        tables.parquet(united(pick, table), table, folder.path(f"{stem}{tag}.parquet"), about)
    fits = {key: s.prior.table for key, s in surfaces.items() if s.prior is not None}
    if fits:
        drawn = pl.concat([t.with_columns(pl.lit(key).alias("surface")) for key, t in fits.items()])
        table = columns.RELEASE_PRIOR_DRAWS
        tables.parquet(table.conform(drawn), table, folder.path("prior_draws.parquet"), about)
    tables.parquet(occupancy(main, conditions), columns.OCCUPANCY, folder.path("occupancy.parquet"), about)
    if sky is not None:
        tables.parquet(columns.SKY.conform(sky), columns.SKY, folder.path("sky.parquet"), about)
    survey = None if conditions is None else survey_weighted(main, conditions)
    if survey is not None:
        weighted = survey.with_columns(pl.lit(FOOTPRINT).alias("tile")) if tiles is None else per_tile(main, tiles)
        tables.parquet(TILES.conform(weighted), TILES, folder.path(f"survey{tag}.parquet"), about)
    if band is None and len(surfaces) > 1:
        band = sensitivity(surfaces, primary, conditions)
    if band is not None and len(surfaces) > 1:
        for stem, frame, table in (
            ("cells", band.cells, BAND_CELLS), ("marginals", band.marginals, BAND_MARGINALS), ("pairs", band.pairs, PAIRS)
        ):  # fmt: skip
            tables.parquet(frame, table, folder.path(f"sensitivity_{stem}{tag}.parquet"), about)
    if anchors is not None:
        tables.parquet(ANCHORS.conform(anchors), ANCHORS, folder.path("anchors.parquet"), about)
    if models:
        save_models(folder.path(f"model{tag}.npz"), models)
        _json(folder, "MODEL.json", {
            name: {**f.agreement, "reliability": f.reliability.to_dicts()} for name, f in sorted(models.items())
        })  # fmt: skip

    _json(folder, f"surface{tag}.json", {
        "schema_version": lookup.SCHEMA,
        **about,
        "table": f"surface{tag}",
        "primary": primary,
        "grid": main.grid.to_json(),
        "levels": list(main.settings.levels),
        "digests": digests,
        "surfaces": {key: _about(s) for key, s in surfaces.items()},
        "models_refused": {name: f.agreement["refused"] for name, f in sorted((models or {}).items()) if f.agreement["refused"]},
        "columns": {
            c.name: {"unit": c.unit, "ucd": c.ucd, "description": c.meaning} for c in columns.RELEASE_SURFACE.columns
        },
    })  # fmt: skip
    _json(folder, "REALISM.json", {"verdict": main.verdict.to_json(), "report": realism})
    _json(folder, "PRIORS.json", priors)
    _json(folder, "DETECTOR.json", detector)
    _json(folder, "LINEAGE.json", lineage)
    folder.path("CITATION.cff").write_text(_citation(citation, full_name, version, main.verdict))
    card = model_card(main, name=full_name, version=version, primary=primary, surfaces=surfaces, detector=detector,
                      digests=digests, realism=realism, survey=survey, band=band, models=models, anchors=anchors)  # fmt: skip
    folder.path("MODEL_CARD.md").write_text(card)
    folder.path("lookup.py").write_bytes(Path(lookup.__file__).read_bytes())
    drawing.save(drawing.surface_map(main), folder.path(f"figure-map{tag}.png"))
    drawing.save(drawing.against_theta_e(main, survey), folder.path(f"figure-theta_e{tag}.png"))
    split = drawing.two_factor(main)
    if split is not None:
        drawing.save(split, folder.path(f"figure-two_factor{tag}.png"))
    spread = None if band is None or len(surfaces) == 1 else band_figure(band, main.point("default").name, main.verdict)
    if spread is not None:
        drawing.save(spread, folder.path(f"figure-sensitivity{tag}.png"))
    for key, png in sorted((figures or {}).items()):
        folder.path(f"figure-{key}{tag}.png").write_bytes(png)
    files = _sums(folder)
    return {"name": full_name, "version": version, "verdict": main.verdict.title, "primary": primary, "files": files}


def occupancy(surface: Surface, conditions: pl.DataFrame | None) -> pl.DataFrame:
    """What the survey and the injections hold in each PSF x depth condition; survey columns are null where not
    known."""
    grid = surface.grid
    i, j = (a.ravel() for a in np.meshgrid(np.arange(len(grid.psf)), np.arange(len(grid.depth)), indexing="ij"))
    frame = pl.DataFrame({
        "i_psf": i.astype(np.int16), "i_depth": j.astype(np.int16),
        "cell_psf": np.asarray(grid.psf.centres)[i], "cell_depth": np.asarray(grid.depth.centres)[j],
    })  # fmt: skip
    held = surface.members.group_by("i_psf", "i_depth").agg(
        pl.len().cast(pl.Int64).alias("n_injections"), pl.col("host").n_unique().cast(pl.Int64).alias("n_unique_hosts")
    )
    frame = frame.join(held, on=["i_psf", "i_depth"], how="left")
    frame = frame.with_columns(pl.col("n_injections", "n_unique_hosts").fill_null(0))
    if conditions is None:
        nothing = pl.lit(None)
        return columns.OCCUPANCY.conform(
            frame.with_columns(
                nothing.cast(pl.Int64).alias("survey_objects"), nothing.cast(pl.Float64).alias("survey_share")
            )
        )
    total = int(conditions["n"].sum())
    seen = conditions.group_by(
        pl.col("psf_bin").cast(pl.Int16).alias("i_psf"), pl.col("depth_bin").cast(pl.Int16).alias("i_depth")
    ).agg(pl.col("n").sum().cast(pl.Int64).alias("survey_objects"))
    frame = frame.join(seen, on=["i_psf", "i_depth"], how="left").with_columns(pl.col("survey_objects").fill_null(0))
    return columns.OCCUPANCY.conform(frame.with_columns((pl.col("survey_objects") / total).alias("survey_share")))


def _name_of(surface: Surface) -> str:
    return "|".join(str(surface.meta[k]) for k in ("detector", "variant") if surface.meta.get(k)) or "surface"


def _primary(surfaces: Mapping[str, Surface], primary: str | None) -> tuple[str, Surface]:
    if not surfaces:
        raise BadInput("a release needs a surface")
    if primary is None:
        if len(surfaces) > 1:
            raise BadInput(f"say which surface a look-up uses: one of {', '.join(surfaces)}")
        primary = next(iter(surfaces))
    if primary not in surfaces:
        raise BadInput(f"no surface {primary!r}; there are {', '.join(surfaces)}")
    grid: Grid = surfaces[primary].grid
    for key, surface in surfaces.items():
        if surface.grid != grid:
            raise BadInput(f"surface {key!r} has another grid than {primary!r}")
    return primary, surfaces[primary]


def _about(surface: Surface) -> dict[str, Any]:
    return {
        "verdict": {**surface.verdict.to_json(), "title": surface.verdict.title},
        "default_point": surface.meta["default_point"],
        "operating_points": [p.to_json() for p in surface.points],
        "min_per_cell": surface.settings.min_per_cell,
        "prior": None if surface.prior is None else {"draws": surface.prior.n},
        "meta": {k: v for k, v in surface.meta.items() if k not in ("verdict", "default_point")},
    }


def _json(folder: Folder, name: str, value: Any) -> None:
    text = json.dumps(value, sort_keys=True, indent=1, allow_nan=False, default=str, ensure_ascii=False)
    folder.path(name).write_text(text + "\n")


def _citation(citation: Mapping[str, Any], name: str, version: str, verdict: Verdict) -> str:
    for key in ("title", "authors"):
        if not citation.get(key):
            raise BadInput(f"the citation needs {key!r}")
    entry = {
        "cff-version": "1.2.0",
        "message": f"Cite this release by name and version: {name} {version}. Realism verdict: {verdict.title}",
        "type": "dataset",
        "title": citation["title"],
        "version": version,
        **{k: citation[k] for k in sorted(citation) if k != "title"},
    }
    return str(yaml.safe_dump(entry, sort_keys=False, allow_unicode=True, width=100))


def _sums(folder: Folder) -> list[str]:
    home = folder.path(SUMS).parent
    names = sorted(p.name for p in home.iterdir() if p.is_file() and p.name != SUMS)
    folder.path(SUMS).write_text("".join(f"{sha256_file(home / n)}  {n}\n" for n in names))
    return names
