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

from lens_assets.science.columns.lenses import LENS_CHANNEL
from lens_assets.science.errors import BadInput, Rejections
from lens_assets.science.lenses import values
from lens_assets.science.lenses.labels import label_of, proven
from lens_assets.science.lenses.mapping import UNKNOWN_ORIGIN, ChannelMapping, Filter, how_to_map
from lens_assets.science.lenses.positions import F64, Mask, identities, positions, repeats, suspect_hours
from lens_assets.science.lenses.tables import RawTable, read_table
from lens_assets.science.surveys.layout import Tile

DISAGREE = "columns of the row disagree, the first is used"
REPEATED = "a repeated row says otherwise, the first is used"
_OUTLIER = 0.15
"""|dz| / (1 + z) beyond which the columns of one row disagree: the usual catastrophic photometric redshift (Ilbert et
al. 2006, A&A 457, 841)."""
_MAX_THETA_E = 120.0


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
    filters leave out, positions missing or not on the sky, repeated rows. Cells that were read but are odd (several
    values, limits, doubts) are told in ``notes``.

    Raises
    ------
    BadInput : file, column and row of a table that cannot be read, lacks a column, has no row, has a grade the mapping
        does not know, right ascensions in hours or sexagesimal positions that nobody announced, or no usable row.
    """
    path = Path(path)
    names = mapping.columns
    required = [names.ra, names.dec] + ([names.lens_id] if names.lens_id else [])
    raw, rejections = read_table(path, mapping.reader, required)
    column = _columns(raw, mapping, path)
    if not raw.n_in and not mapping.reader.allow_empty:
        raise BadInput("a header and not one row: truncated? (reader: {allow_empty: true} if not)", file=str(path))
    keep = np.ones(len(raw.rows), bool)

    def reject(bad: Mask, reason: str) -> None:
        rejections.add(reason, int((bad & keep).sum()))
        keep[bad] = False

    for condition in mapping.filter:
        reject(~_holds(raw, condition, path), str(condition))
    ra, dec = positions(raw, column, mapping, path)
    reject(~(np.isfinite(ra) & np.isfinite(dec)), "position missing or not a number")
    ids = identities(raw, mapping, column, ra, dec, keep)
    suspect_hours(ra, dec, ids, keep, mapping, footprint, path, column["ra"])
    ra = np.where((ra < 0) & (ra >= -180), ra + 360, ra)
    reject((ra < 0) | (ra > 360) | (np.abs(dec) > 90), "position not on the sky")
    ra = np.where(ra == 360, 0.0, ra)
    twice = repeats(ids, ra, dec, keep)
    reject(twice >= 0, "repeated row")
    frame = _frame(raw, mapping, column, ids, ra, dec, keep, twice, path)
    rejections.check(raw.n_in, frame.height)
    if raw.n_in and not frame.height:
        raise BadInput(f"no usable row of {raw.n_in}: {rejections.counts}", file=str(path), column=column["ra"])
    return frame, rejections


def _columns(raw: RawTable, mapping: ChannelMapping, path: Path) -> dict[str, str]:
    """Our name -> the file's name; positions must be there, and so must every named column of a mapping other than
    ``generic``, unless the mapping is not sure of its name."""
    found = {}
    generic = UNKNOWN_ORIGIN in mapping.derived_from
    for ours in ("lens_id", "ra", "dec", "z_lens", "z_source", "theta_e", "grade", "kind", "reference"):
        options = getattr(mapping.columns, ours)
        name = raw.find(options)
        if name is not None:
            found[ours] = name
        elif options and (ours in ("ra", "dec") or not (generic or ours in mapping.unsure)):
            message = f"the {ours} column of channel {mapping.channel!r} is not there; {how_to_map(raw.names)}"
            raise BadInput(message, file=str(path), column=options[0])
    return found


def _holds(raw: RawTable, condition: Filter, path: Path) -> Mask:
    """Where a condition of the mapping holds; its column must be there."""
    name = raw.find([condition.column])
    if name is None:
        message = f"the mapping asks for it; {how_to_map(raw.names)}"
        raise BadInput(message, file=str(path), column=condition.column)
    return np.array([condition.holds(cell) for cell in raw.columns[name]], bool)


def _frame(
    raw: RawTable, mapping: ChannelMapping, column: dict[str, str], ids: npt.NDArray[np.object_], ra: F64, dec: F64,
    keep: Mask, twice: npt.NDArray[np.int64], path: Path,
) -> pl.DataFrame:  # fmt: skip
    n = len(raw.rows)
    notes: list[list[str]] = [[] for _ in range(n)]

    def cells(ours: str) -> list[str]:
        return raw.columns[column[ours]] if ours in column else [""] * n

    z = {ours: _quantity(raw, ours, getattr(mapping.columns, ours), twice, notes) for ours in ("z_lens", "z_source")}
    for condition in mapping.trust_z:
        trusted = _holds(raw, condition, path)
        for ours in condition.of:
            z[ours][~trusted] = np.nan
    scale = 1e-3 if mapping.units.theta_e == "mas" else 1.0
    options = mapping.columns.theta_e
    theta = _quantity(raw, "theta_e", options, twice, notes, _MAX_THETA_E / scale, disagree=np.inf) * scale
    theta[~(theta < _MAX_THETA_E)] = np.nan
    asked = {rule.column: raw.find([rule.column]) for rule in mapping.labels.when}
    for name, there in asked.items():
        if there is None:
            raise BadInput(f"a label rule asks for it; {how_to_map(raw.names)}", file=str(path), column=name)
    grades, kinds, references = cells("grade"), cells("kind"), cells("reference")
    default = mapping.reference or mapping.title or mapping.channel
    rows = np.flatnonzero(keep)
    labels = []
    for i in rows:
        own = {name: raw.columns[str(there)][i] for name, there in asked.items()}
        label = label_of(grades[i], mapping, path, column.get("grade"), raw.rows[i], own.__getitem__)
        labels.append(str(proven(label, z["z_lens"][i], z["z_source"][i])))
    text = pl.String
    frame = pl.DataFrame(
        {
            "channel": pl.Series([mapping.channel] * len(rows), dtype=text),
            "lens_id": pl.Series(ids[rows].tolist(), dtype=text),
            "ra": ra[rows],
            "dec": dec[rows],
            "z_lens": z["z_lens"][rows],
            "z_source": z["z_source"][rows],
            "theta_e": theta[rows],
            "grade": pl.Series([None if values.is_missing(grades[i]) else grades[i] for i in rows], dtype=text),
            "kind": pl.Series([mapping.kinds.get(kinds[i].strip().lower(), mapping.kind) for i in rows], dtype=text),
            "reference": pl.Series(
                [default if values.is_missing(references[i]) else references[i] for i in rows], dtype=text
            ),
            "label": pl.Series(labels, dtype=text),
            "notes": pl.Series([notes[i] for i in rows], dtype=pl.List(pl.String)),
            "row": pl.Series([raw.rows[i] for i in rows], dtype=pl.Int64),
        }
    ).with_columns(pl.col("z_lens", "z_source", "theta_e").fill_nan(None))
    return LENS_CHANNEL.conform(frame, file=os.fspath(path))


def _quantity(
    raw: RawTable, ours: str, options: Sequence[str], twice: npt.NDArray[np.int64], notes: list[list[str]],
    most: float = values.MAX_REDSHIFT, disagree: float = _OUTLIER,
) -> F64:  # fmt: skip
    """Row by row the first column with a usable value; what is odd about the cells goes into ``notes``."""
    out = np.full(len(raw.rows), np.nan)
    for option in options:
        if (name := raw.find([option])) is None:
            continue
        for i, cell in enumerate(raw.columns[name]):
            read = values.reading(cell, most)
            if read.odd:
                notes[i].append(note(ours, read.odd, cell))
            if np.isnan(out[i]):
                out[i] = read.value
            elif abs(read.value - out[i]) / (1 + out[i]) > disagree:
                notes[i].append(note(ours, DISAGREE, f"{out[i]:g}; {name} {cell}"))
    for i in np.flatnonzero(twice >= 0).tolist():
        if np.isfinite(out[i]) and out[i] != out[twice[i]]:
            notes[twice[i]].append(note(ours, REPEATED, f"{out[twice[i]]:g}; {out[i]:g}"))
    return out


def note(field: str, odd: str, text: str) -> str:
    """One remark on a cell, as it stands in the column ``notes``."""
    return f"{field}: {odd}: {text.strip()}"


def split_note(remark: str) -> tuple[str, str, str]:
    """Field, what is odd, and text of a remark: the inverse of :func:`note`."""
    field, odd, text = (*remark.split(": ", 2), "", "")[:3]
    return field, odd, text
