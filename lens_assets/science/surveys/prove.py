"""The guards of a sweep: schema, bytes, identities, bricks, units, and which rows are usable objects.

Everything that reads a sweep goes through :func:`prove`, so there is one set of guards, whatever is read. The file is read once
(``scan``); the rows that were marked there, few in a sound file, are judged here by reasons that balance. What does not belong
here: any cut of science, and derived columns (``derive``).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lens_assets.science.errors import BadInput, Rejections
from lens_assets.science.surveys import fitsfile, kernel, schema
from lens_assets.science.surveys.judging import Cuts
from lens_assets.science.surveys.layout import brick_of_id, tile_of_key
from lens_assets.science.surveys.scan import I64, TABLES, Reading, Sweep, packed
from lens_assets.science.surveys.settings import Settings

_BRICK_DEG = 0.25
_IDENTITY = ("RELEASE", "BRICKID", "OBJID")

Mask = npt.NDArray[np.bool_]


def prove(
    path: Path,
    tile: str,
    settings: Settings | None = None,
    columns: Iterable[str] = (),
    cuts: Cuts | None = None,
) -> Sweep:
    """Read a sweep once and prove it; ``columns`` (FITS names) are kept for all rows.

    ``cuts`` are made in the same reading of all rows but the ``odd`` ones (``Sweep.judged``); rows that pass are kept whole.

    Raises :class:`BadInput` as :func:`~lens_assets.science.surveys.sweeps.read_sweep` says.
    """
    settings, footprint = settings or Settings(), tile_of_key(tile)
    with fitsfile.opened(path, verify_datasum=False) as hdus:
        table = schema.table_hdu(hdus, path)
        fields = schema.fields_of(table.header, path)
        schema.check_columns(fields, path)
        info, number = table.fileinfo(), hdus.index(table)
        sweep = Sweep(
            path, footprint, fields, int(info["datLoc"]), int(table.header["NAXIS2"]), int(table.header["NAXIS1"]),
            {}, {name: list(known) for name, known in TABLES.items()}, Rejections(), {},
        )  # fmt: skip
        found = Reading(sweep, columns, int(info["datSpan"]), cuts)
        if settings.verify_datasum:
            fitsfile.verify(hdus, path, leave_out=number)
            fitsfile.check_sum(found.sum, table.header, number, path)
    runs = found.runs
    schema.check_release(runs["release"], runs["row"], settings.release_series, path)
    sweep.bricks = _brick_names(sweep, runs)
    _check_types(sweep)
    for stem, like in (("PSFDEPTH", found.psf_like), ("GALDEPTH", found.gal_like)):
        if like:  # g looks like magnitudes: look at all three bands
            schema.check_depth_units({f"{stem}_{b}": sweep.read(f"{stem}_{b}") for b in "GRZ"}, path)
    _clean(sweep, found, settings)
    return sweep


def _each_brick_once(runs: dict[str, I64]) -> bool:
    """Whether every (RELEASE, BRICKID) is one stretch of the file with rising OBJID: then no identity is there twice."""
    brick = runs["release"] << 32 | runs["brickid"]
    goes_on = np.zeros(len(brick), bool)
    goes_on[1:] = (brick[1:] == brick[:-1]) & (runs["first_objid"][1:] > runs["last_objid"][:-1])
    starts = np.sort(brick[~goes_on])
    return bool((starts[1:] != starts[:-1]).all())


def _brick_names(sweep: Sweep, runs: dict[str, I64]) -> dict[int, str]:
    """BRICKID -> name; every BRICKNAME must be the one of its BRICKID on the closed-form grid."""
    ids, first, inverse = np.unique(runs["brickid"], return_index=True, return_inverse=True)
    names: dict[int, str] = {}
    for brickid, at in zip(ids.tolist(), first.tolist(), strict=True):
        try:
            names[brickid] = brick_of_id(brickid).name
        except BadInput as fault:
            raise BadInput(str(fault), file=str(sweep.path), column="BRICKID", row=int(runs["row"][at])) from fault
    size = sweep.fields["BRICKNAME"].size
    expected = np.array(packed(names.values(), size)).astype(np.int64)
    for at in np.flatnonzero(runs["name"] != expected[inverse]) if len(ids) else ():
        got = int(runs["name"][at]).to_bytes(8, "big", signed=True)[-size:].decode("ascii", "replace").strip(" \0")
        brickid, row = int(runs["brickid"][at]), int(runs["row"][at])
        if got != names[brickid]:
            message = f"BRICKID {brickid} is brick {names[brickid]}, not {got!r}"
            raise BadInput(message, file=str(sweep.path), column="BRICKNAME", row=row)
    return names


def _check_types(sweep: Sweep) -> None:
    """Texts that the kernel did not know: blanks in front are forgiven, an unknown TYPE is not."""
    for name in [n for n in TABLES if n in sweep.columns]:
        codes = sweep.columns[name]
        rows = np.flatnonzero(codes == kernel.UNKNOWN)
        if not len(rows):
            continue
        del sweep.columns[name]
        fresh = sweep.gather([name], rows)[name]
        if name == "TYPE" and (unknown := np.flatnonzero(fresh >= len(schema.TYPES))).size:
            row, kind = int(rows[unknown[0]]), sweep.labels[name][int(fresh[unknown[0]])]
            hint = "; COMP and SIMP belong to DR8 and earlier" if kind in ("COMP", "SIMP") else ""
            raise BadInput(
                f"unknown type {kind!r} (DR10 has {', '.join(schema.TYPES)}){hint}",
                file=str(sweep.path), column="TYPE", row=row,
            )  # fmt: skip
        sweep.columns[name] = codes.astype(np.uint32)
        sweep.columns[name][rows] = fresh


def _clean(sweep: Sweep, found: Reading, settings: Settings) -> None:
    """Which rows stay. Reasons, in order (a row counts under its first): coordinates not finite, or not on the sky;
    TYPE DUP; photometry not finite; repeated row; outside the tile. Only marked rows can fail any but the repetition."""
    rows = np.flatnonzero(found.marked)
    a = sweep.gather(("RA", "DEC", "TYPE", *schema.FINITE), rows)
    keep, rejections = np.ones(len(rows), bool), sweep.rejections

    def reject(bad: Mask, reason: str) -> None:
        rejections.add(reason, int((bad & keep).sum()))
        keep[bad] = False

    ra, dec = a["RA"].copy(), a["DEC"]
    reject(~(np.isfinite(ra) & np.isfinite(dec)), "coordinates not finite")
    turned = keep & (ra == 360)
    ra[turned], sweep.turned = 0.0, rows[turned]
    sweep.settled(sweep.columns)
    reject((ra < 0) | (ra > 360) | (np.abs(dec) > 90), "coordinates not on the sky")
    reject(a["TYPE"] == schema.TYPES.index("DUP"), "TYPE DUP")
    for name in schema.FINITE:
        reject(~np.isfinite(a[name]), f"{name} not finite")
    dropped = rows[~keep]
    sweep.ordered = not found.disorder and _each_brick_once(found.runs)
    if not sweep.ordered:
        repeated = _repeats(sweep, np.setdiff1d(np.arange(sweep.n_rows), dropped, assume_unique=True))
        rejections.add("repeated row", len(repeated))
        dropped = np.union1d(dropped, repeated)
        keep &= ~np.isin(rows, repeated)
    outside = _outside(sweep, rows[keep], ra[keep], dec[keep], sweep.n_rows - len(dropped), settings)
    rejections.add("outside the tile", len(outside))
    sweep.dropped = np.union1d(dropped, outside)
    sweep.odd = np.setdiff1d(rows, sweep.dropped, assume_unique=True)


def _repeats(sweep: Sweep, rows: I64) -> I64:
    """Later copies of a row; the same identity on *different* values is no copy but a damaged file."""
    release, brickid, objid = (sweep.read(name)[rows].astype(np.int64) for name in _IDENTITY)
    key = ((release - release.min(initial=0)) << 20 | brickid) << 32 | (objid + (1 << 31))
    order = np.argsort(key, kind="stable")
    same = key[order[1:]] == key[order[:-1]]
    first, second = rows[order[:-1][same]], rows[order[1:][same]]
    a, b = (sweep.gather(schema.NEEDED, pair) for pair in (first, second))
    for name in schema.NEEDED:
        different = np.flatnonzero(a[name] != b[name])
        if len(different):
            x, y = int(first[different[0]]), int(second[different[0]])
            identity = "-".join(str(b[n][different[0]]) for n in _IDENTITY)
            raise BadInput(
                f"{identity} stands for two different objects (rows {x} and {y} differ in {name})",
                file=str(sweep.path), column="OBJID", row=y,
            )  # fmt: skip
    return np.asarray(second, np.int64)


def _outside(
    sweep: Sweep, rows: I64, ra: npt.NDArray[np.float64], dec: npt.NDArray[np.float64], n_keep: int, settings: Settings
) -> I64:
    """Those of ``rows`` more than a brick beyond the tile; too many of all ``n_keep`` mean another file or unit."""
    tile = sweep.tile
    margin_ra = _BRICK_DEG / np.maximum(np.cos(np.radians(np.clip(dec, -89.9, 89.9))), 1e-3)
    in_dec = (dec >= tile.dec_min - _BRICK_DEG) & (dec <= tile.dec_min + 5 + _BRICK_DEG)

    def inside(ra: npt.NDArray[np.float64]) -> Mask:
        off = np.abs((ra - (tile.ra_min + 2.5) + 180) % 360 - 180)
        return np.asarray(in_dec & (off <= 2.5 + margin_ra), bool)

    out = np.flatnonzero(~inside(ra))
    if len(out) > settings.max_outside_fraction * n_keep:
        at = out[0]
        message = f"{len(out)} of {n_keep} objects lie outside tile {tile.key} (first: RA {ra[at]}, Dec {dec[at]})"
        if (ra <= 24).all() and inside(ra * 15).sum() > 0.5 * n_keep:
            message += "; RA looks like hours: the release has degrees"
        elif inside(np.degrees(ra)).sum() > 0.5 * n_keep:
            message += "; RA looks like radians: the release has degrees"
        raise BadInput(message, file=str(sweep.path), column="RA", row=int(rows[at]))
    return np.asarray(rows[out], np.int64)
