"""One published list to one channel table, through its mapping: every row comes out or is counted under a reason.

What belongs here: reading positions, redshifts and grades of a list as it is, however odd. What does not: any judgement
across lists, which is the registry's.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from lens_assets.science import sphere
from lens_assets.science.columns.lenses import LENS_CHANNEL
from lens_assets.science.errors import BadInput, Rejections
from lens_assets.science.lenses import values
from lens_assets.science.lenses.mapping import UNKNOWN_ORIGIN, ChannelMapping, how_to_map
from lens_assets.science.lenses.settings import Label
from lens_assets.science.lenses.tables import RawTable, read_table
from lens_assets.science.surveys.layout import Tile

_SAME_PLACE_ARCSEC = 1.0
"""Rows of one identity this close are one row written twice."""
_MIN_FOR_SUSPICION = 20
_WIDE_RA_HOURS, _WIDE_DEC_DEG = 12.0, 25.0

Mask = npt.NDArray[np.bool_]
F64 = npt.NDArray[np.float64]


def read_channel(
    path: str | Path, mapping: ChannelMapping, footprint: Sequence[Tile] | None = None
) -> tuple[pl.DataFrame, Rejections]:
    """Read a list.

    Parameters
    ----------
    path : the table as published (CSV, Parquet, FITS, ECSV, VOTable).
    mapping : see :mod:`lens_assets.science.lenses.mapping`.
    footprint : tiles of the survey, where known: sharpens the suspicion of right ascensions in hours.

    Returns
    -------
    the ``lens_channel`` table sorted by (channel, lens_id), and the counted rejections: ragged rows, rows the mapping's
    filter leaves out, positions missing or not on the sky, repeated rows.

    Raises
    ------
    BadInput : file, column and row of a table that cannot be read, lacks a column, has a grade the mapping does not
        know, right ascensions in hours, or no usable row at all.
    """
    path = Path(path)
    names = mapping.columns
    required = [names.ra, names.dec] + ([names.lens_id] if names.lens_id else [])
    raw, rejections = read_table(path, mapping.reader, required)
    column = _columns(raw, mapping, path)
    keep = np.ones(len(raw.rows), bool)

    def reject(bad: Mask, reason: str) -> None:
        rejections.add(reason, int((bad & keep).sum()))
        keep[bad] = False

    if mapping.filter:
        wanted = raw.find([mapping.filter.column])
        if wanted is None:
            raise BadInput(
                f"the mapping filters on it; {how_to_map(raw.names)}", file=str(path), column=mapping.filter.column
            )
        reject(
            ~np.array([any(t in cell for t in mapping.filter.contains) for cell in raw.columns[wanted]], bool),
            f"{mapping.filter.column} without {' or '.join(mapping.filter.contains)}",
        )
    ra, dec = _positions(raw, column, mapping)
    reject(~(np.isfinite(ra) & np.isfinite(dec)), "position missing or not a number")
    ids = _ids(raw, mapping, column, ra, dec, keep)
    _suspect_hours(ra, dec, ids, keep, mapping, footprint, path, column["ra"])
    ra = np.where((ra < 0) & (ra >= -180), ra + 360, ra)
    reject((ra < 0) | (ra > 360) | (np.abs(dec) > 90), "position not on the sky")
    ra = np.where(ra == 360, 0.0, ra)
    reject(_repeats(ids, ra, dec, keep), "repeated row")
    frame = _frame(raw, mapping, column, ids, ra, dec, keep, path)
    rejections.check(raw.n_in, frame.height)
    if raw.n_in and not frame.height:
        raise BadInput(f"no usable row of {raw.n_in}: {rejections.counts}", file=str(path), column=column["ra"])
    return frame, rejections


def _columns(raw: RawTable, mapping: ChannelMapping, path: Path) -> dict[str, str]:
    """Our name -> the file's name; positions must be there, and every named column of a mapping other than
    ``generic``."""
    found = {}
    generic = UNKNOWN_ORIGIN in mapping.derived_from
    for ours in ("lens_id", "ra", "dec", "z_lens", "z_source", "theta_e", "grade", "kind", "reference"):
        options = getattr(mapping.columns, ours)
        name = raw.find(options)
        if name is not None:
            found[ours] = name
        elif options and (ours in ("ra", "dec") or not generic):
            message = f"the {ours} column of channel {mapping.channel!r} is not there; {how_to_map(raw.names)}"
            raise BadInput(message, file=str(path), column=options[0])
    return found


def _positions(raw: RawTable, column: dict[str, str], mapping: ChannelMapping) -> tuple[F64, F64]:
    ra = values.angles(raw.columns[column["ra"]], hours=True)
    if mapping.units.ra == "hours":
        plain = np.isfinite(values.numbers(raw.columns[column["ra"]]))  # sexagesimal text is in degrees already
        ra = np.where(plain, ra * 15, ra)
    return ra, values.angles(raw.columns[column["dec"]], hours=False)


def _ids(
    raw: RawTable, mapping: ChannelMapping, column: dict[str, str], ra: F64, dec: F64, keep: Mask
) -> npt.NDArray[np.object_]:
    """The list's own identity; a J2000 name from the position where it has none."""
    if mapping.columns.join_id:
        parts = [raw.columns[name] for option in mapping.columns.lens_id if (name := raw.find([option]))]
        cells = ["-".join(p) for p in zip(*parts, strict=True)]
    else:
        cells = raw.columns[column["lens_id"]] if "lens_id" in column else [""] * len(raw.rows)
    return np.array(
        [
            position_name(ra[i], dec[i]) if keep[i] and values.is_missing(cell) else " ".join(cell.split())
            for i, cell in enumerate(cells)
        ],
        dtype=object,
    )


def position_name(ra: float, dec: float) -> str:
    """J2000 name ``J123456.78+123456.7``: digits truncated, not rounded, as the IAU asks. Degrees in."""
    centi = int((ra % 360) / 15 * 360_000 + 1e-4) % (24 * 360_000)
    deci = int(abs(dec) * 36_000 + 1e-4)
    hours = f"{centi // 360_000:02d}{centi // 6_000 % 60:02d}{centi // 100 % 60:02d}.{centi % 100:02d}"
    return (
        f"J{hours}{'-' if dec < 0 else '+'}{deci // 36_000:02d}{deci // 600 % 60:02d}{deci // 10 % 60:02d}.{deci % 10}"
    )


def _suspect_hours(
    ra: F64, dec: F64, ids: npt.NDArray[np.object_], keep: Mask, mapping: ChannelMapping,
    footprint: Sequence[Tile] | None, path: Path, column: str,
) -> None:  # fmt: skip
    """Raise when decimal right ascensions look like hours: all in [0, 24) and contradicted by the coordinate names,
    by the survey's footprint, or by covering half of that range over a wide band of declination."""
    x, y = ra[keep], dec[keep]
    if mapping.units.ra != "auto" or not len(x) or x.min() < 0 or x.max() >= 24:
        return
    named = np.array([values.ra_in_name(str(name)) for name in ids[keep]])
    told = np.isfinite(named)
    reason = ""
    if told.any():
        as_is, scaled = (np.abs((r[told] - named[told] + 180) % 360 - 180) < 0.1 for r in (x, x * 15))
        if scaled.mean() > 0.5 > as_is.mean():
            reason = "the names state 15 times as much"
        elif as_is.mean() > 0.5:
            return
    inside = [_inside(r, y, footprint) if footprint else 0.0 for r in (x, x * 15)]
    if not reason and inside[1] > 0.5 > inside[0]:
        reason = "15 times as much lies in the survey's footprint, and they do not"
    wide = np.ptp(x) > _WIDE_RA_HOURS and np.ptp(y) > _WIDE_DEC_DEG
    if not reason and len(x) >= _MIN_FOR_SUSPICION and wide and inside[0] <= 0.5:
        reason = f"all {len(x)} lie in 0..24 over {np.ptp(y):.0f} degrees of declination"
    if reason:
        message = (
            f"right ascension looks like hours ({reason}); state units: {{ra: hours}} or {{ra: deg}} in the mapping"
        )
        raise BadInput(message, file=str(path), column=column)


def _inside(ra: F64, dec: F64, tiles: Sequence[Tile]) -> float:
    """Share of positions inside the tiles."""
    wanted = {(t.ra_min, t.dec_min) for t in tiles}
    return float(np.mean([(int(r % 360 // 5 * 5), int(d // 5 * 5)) in wanted for r, d in zip(ra, dec, strict=True)]))


def _repeats(ids: npt.NDArray[np.object_], ra: F64, dec: F64, keep: Mask) -> Mask:
    """Later rows of one identity at one position. One identity at several positions (a group's number, a name to the
    arcminute) gets the position added to it, in place, so that it stays one identity a place."""
    out = np.zeros(len(ids), bool)
    members: dict[str, list[int]] = {}
    for k in np.flatnonzero(keep).tolist():
        members.setdefault(ids[k], []).append(k)
    for identity, rows in members.items():
        places: list[int] = []
        for k in rows:
            if any(float(sphere.separation(ra[j], dec[j], ra[k], dec[k])) <= _SAME_PLACE_ARCSEC for j in places):
                out[k] = True
            else:
                places.append(k)
        if len(places) > 1:
            for k in places:
                ids[k] = f"{identity} @{position_name(ra[k], dec[k])}"
    return out


def _frame(
    raw: RawTable, mapping: ChannelMapping, column: dict[str, str], ids: npt.NDArray[np.object_], ra: F64, dec: F64,
    keep: Mask, path: Path,
) -> pl.DataFrame:  # fmt: skip
    rows = np.flatnonzero(keep)

    def cells(ours: str) -> list[str]:
        return [raw.columns[column[ours]][i] for i in rows] if ours in column else [""] * len(rows)

    grades = cells("grade")
    labels = [label_of(g, mapping, path, column.get("grade"), raw.rows[i]) for g, i in zip(grades, rows, strict=True)]
    theta = values.numbers(cells("theta_e")) * (1e-3 if mapping.units.theta_e == "mas" else 1.0)
    theta[~((theta > 0) & (theta < 120))] = np.nan
    references = cells("reference")
    default = mapping.reference or mapping.title or mapping.channel
    frame = pl.DataFrame(
        {
            "channel": pl.Series([mapping.channel] * len(rows), dtype=pl.String),
            "lens_id": pl.Series(ids[rows].tolist(), dtype=pl.String),
            "ra": ra[rows],
            "dec": dec[rows],
            "z_lens": _redshift(raw, mapping.columns.z_lens, rows),
            "z_source": _redshift(raw, mapping.columns.z_source, rows),
            "theta_e": theta,
            "grade": pl.Series([None if values.is_missing(g) else g for g in grades], dtype=pl.String),
            "kind": pl.Series([_kind(k, mapping) for k in cells("kind")], dtype=pl.String),
            "reference": pl.Series([r if not values.is_missing(r) else default for r in references], dtype=pl.String),
            "label": pl.Series([str(label) for label in labels], dtype=pl.String),
            "row": pl.Series([raw.rows[i] for i in rows], dtype=pl.Int64),
        }
    ).with_columns(pl.col("z_lens", "z_source", "theta_e").fill_nan(None))
    return LENS_CHANNEL.conform(frame, file=os.fspath(path))


def _redshift(raw: RawTable, options: Sequence[str], rows: npt.NDArray[np.int64]) -> F64:
    """Row by row the first column with a usable redshift."""
    out = np.full(len(rows), np.nan)
    for option in options:
        if name := raw.find([option]):
            candidate = values.redshifts([raw.columns[name][i] for i in rows])
            out = np.where(np.isnan(out), candidate, out)
    return out


def _kind(cell: str, mapping: ChannelMapping) -> str:
    return mapping.kinds.get(cell.strip().lower(), mapping.kind)


def label_of(grade: str, mapping: ChannelMapping, path: Path, column: str | None, row: int) -> Label:
    """The label of a grade by the mapping's rules; :class:`BadInput` for a grade they do not cover."""
    rules = mapping.labels
    if (known := rules.map.get(grade.strip().lower())) is not None:
        return known
    value = values.number(grade)
    reached = [(bound, label) for bound, label in rules.at_least if value >= bound]
    if reached:
        return max(reached, key=lambda pair: pair[0])[1]
    if rules.default is not None:
        return rules.default
    message = (
        f"grade {grade!r} has no label in the mapping of channel {mapping.channel!r} (knows {', '.join(rules.map)})"
    )
    raise BadInput(message, file=str(path), column=column, row=row)
