"""Where the rows of a list are: positions in degrees, identities, rows written twice, right ascensions in hours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lens_assets.science import sphere
from lens_assets.science.errors import BadInput
from lens_assets.science.lenses import values
from lens_assets.science.lenses.mapping import ChannelMapping
from lens_assets.science.lenses.tables import RawTable
from lens_assets.science.surveys.layout import Tile

SAME_PLACE_ARCSEC = 1.0
"""Rows of one identity this close are one row written twice."""
_MIN_FOR_SUSPICION = 20
_WIDE_RA_HOURS, _WIDE_DEC_DEG = 12.0, 25.0

Mask = npt.NDArray[np.bool_]
F64 = npt.NDArray[np.float64]
Names = npt.NDArray[np.object_]


def positions(raw: RawTable, column: dict[str, str], mapping: ChannelMapping, path: Path) -> tuple[F64, F64]:
    """Right ascension and declination in degrees; ``nan`` for a cell that is neither a number nor an angle.

    Raises :class:`BadInput` naming row and column for sexagesimal text that the mapping does not announce: ``10:20:30``
    is hours in one list and degrees in the next.
    """
    units = mapping.units
    announced = {"ra": units.ra in ("hours", "sexagesimal"), "dec": "sexagesimal" in (units.dec, units.ra)}
    announced["dec"] |= units.ra == "hours" and units.dec == "auto"
    found = {}
    for ours, hours in (("ra", True), ("dec", False)):
        cells = raw.columns[column[ours]]
        for k, cell in enumerate(cells):
            if not announced[ours] and values.is_sexagesimal(cell):
                message = (
                    f"{cell!r} is sexagesimal, and the mapping of channel {mapping.channel!r} does not say so: state "
                    f"units: {{{ours}: sexagesimal}}{' (hours, minutes, seconds)' if hours else ''}"
                )
                raise BadInput(message, file=str(path), column=column[ours], row=raw.rows[k])
        found[ours] = values.angles(cells, hours=hours)
    plain = np.isfinite(values.numbers(raw.columns[column["ra"]]))
    if units.ra == "hours":
        found["ra"] = np.where(plain, found["ra"] * 15, found["ra"])  # sexagesimal text is in degrees already
    if units.ra == "sexagesimal" and plain.any():
        k = int(np.flatnonzero(plain)[0])
        message = f"{raw.columns[column['ra']][k]!r} is a decimal number in a column said to be sexagesimal"
        raise BadInput(message, file=str(path), column=column["ra"], row=raw.rows[k])
    return found["ra"], found["dec"]


def identities(raw: RawTable, mapping: ChannelMapping, column: dict[str, str], ra: F64, dec: F64, keep: Mask) -> Names:
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


def suspect_hours(
    ra: F64, dec: F64, ids: Names, keep: Mask, mapping: ChannelMapping,
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


def repeats(ids: Names, ra: F64, dec: F64, keep: Mask) -> npt.NDArray[np.int64]:
    """For each later row of one identity at one position the row it repeats, else -1. One identity at several positions
    (a group's number, a name to the arcminute) gets the position added to it, in place, so that it stays one identity a
    place."""
    out = np.full(len(ids), -1, np.int64)
    members: dict[str, list[int]] = {}
    for k in np.flatnonzero(keep).tolist():
        members.setdefault(ids[k], []).append(k)
    for identity, rows in members.items():
        places: list[int] = []
        for k in rows:
            same = (j for j in places if float(sphere.separation(ra[j], dec[j], ra[k], dec[k])) <= SAME_PLACE_ARCSEC)
            out[k] = next(same, -1)
            if out[k] < 0:
                places.append(k)
        if len(places) > 1:
            for k in places:
                ids[k] = f"{identity} @{position_name(ra[k], dec[k])}"
    return out
