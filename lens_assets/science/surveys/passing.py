"""The compiled pass over the rows of a sweep: one look at every byte, while it is in the cache.

The file is read in blocks. Per block: the sum of all 32-bit words (for DATASUM), the columns that are asked for in native byte
order, a mark on every row that anything might be wrong with, the runs of rows of one brick, and, where cuts are given, which of
them each sound row fails. What is wrong with a marked row, and what becomes of it, is said in ``prove`` in plain numpy;
nothing here knows a reason or raises.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numba
from numba.core import types

from lens_assets.science import sieve
from lens_assets.science.sieve import in_marked_cell
from lens_assets.science.surveys import kernel, lanes
from lens_assets.science.surveys.kernel import (
    double,
    extract,
    load16,
    load32,
    load64,
    row_by_row,
    single,
    text_code,
    texts,
    word_sum,
)
from lens_assets.science.surveys.lanes import any_not_finite

_compiled = partial(kernel.compiled, calls=(kernel.__file__, lanes.__file__, sieve.__file__))

RUN = ("row", "release", "brickid", "name", "first_objid", "last_objid")
"""What is kept of a run of rows with one RELEASE, BRICKID and BRICKNAME; ``name`` is the name's bytes as one number."""
FACTS = (
    "runs", "marked", "disorder", "psf_positive", "psf_magnitude", "gal_positive", "gal_magnitude", "passed", "doubtful", "beside"
)  # fmt: skip
"""Counts: runs, marked rows, rows whose OBJID is not above the one before in the run, of PSFDEPTH_G and GALDEPTH_G values above
zero and those of them strictly between 18 and 28; rows that pass all cuts, rows in a marked cell, and possible neighbours."""
NOBS_OPEN = 11
"""Exposures from here on are counted together."""
_FEW = 64  # rows that fit the nearest cache
_NOT_BLANK = numba.uint64(0xDFDFDFDFDFDFDFDF)  # neither NUL nor a blank has such a bit
_MAG_LOW, _MAG_HIGH = 0x41900000, 0x41E00000  # the bits of 18.0 and 28.0 as float32

_pread: Any = types.ExternalFunction("pread", types.intp(types.int32, types.voidptr, types.uintp, types.int64))


@_compiled
def _fill(file, raw, size, offset):  # type: ignore[no-untyped-def]
    """``size`` bytes of the file from ``offset`` on; returns how many there were (or fewer after an error)."""
    got = 0
    while got < size:
        n = _pread(file, raw[got:].ctypes, size - got, offset + got)
        if n <= 0:
            break
        got += n
    return got


@_compiled
def _sound(raw, n, width, row, identity, place, box, finite_at, finite, kinds, dup, run):  # type: ignore[no-untyped-def]
    """Whether nothing is wrong with any of a few rows, and all go on with the same ``run`` (a line of runs) in order: for nearly
    all, so each is asked once and nothing is written down."""
    if any_not_finite(raw, n, width, finite_at, finite):
        return False
    release_at, brick_at, name_at, objid_at = identity[0], identity[1], identity[2], identity[4]
    shift = numba.uint64(64 - 8 * identity[3])
    release, brickid, name, last = run[1], run[2], numba.uint64(run[3]), run[5]
    ra_at, dec_at, ra_from, ra_to, dec_from, dec_to = place[0], place[1], box[0], box[1], box[2], box[3]
    good = True
    for i in range(n):
        row_by_row()
        base = i * width
        ra = double(load64(raw, base + ra_at))
        dec = double(load64(raw, base + dec_at))
        good &= (ra >= ra_from) & (ra < ra_to) & (dec >= dec_from) & (dec < dec_to) & (kinds[row + i] < dup)
        objid = numba.int64(numba.int32(load32(raw, base + objid_at)))
        good &= objid > last
        last = objid
        good &= numba.int64(numba.int16(load16(raw, base + release_at))) == release
        good &= numba.int64(numba.int32(load32(raw, base + brick_at))) == brickid
        good &= (load64(raw, base + name_at) >> shift) == name
    return good


@_compiled
def _scan(raw, n, width, row, identity, place, box, finite_at, finite, kinds, dup, marked, runs, facts):  # type: ignore[no-untyped-def]
    """Mark doubtful rows and note the runs of a few rows; returns whether any is marked.

    ``identity``: offsets of RELEASE, BRICKID, BRICKNAME, the name's length, OBJID; ``place``: offsets of RA and DEC; ``box``:
    RA from, below, Dec from, below, the tile's own footprint; ``finite_at, finite``: windows over the columns that must be
    finite; ``kinds``: codes of TYPE of all rows; ``dup``: the code of DUP. A row is marked when its position is not inside the
    box (or not finite), its TYPE is DUP or unknown, or a value that must be finite is not. ``runs`` goes on after the
    ``facts[0]`` that are there.
    """
    at = facts[0] - 1
    if at >= 0 and _sound(raw, n, width, row, identity, place, box, finite_at, finite, kinds, dup, runs[at]):
        marked[row : row + n] = False
        runs[at, 5] = numba.int32(load32(raw, (n - 1) * width + identity[4]))
        return False
    found = 0
    for i in range(n):
        row_by_row()
        base = i * width
        bad = kinds[row + i] >= dup
        bad |= any_not_finite(raw[base:], 1, width, finite_at, finite)
        ra = double(load64(raw, base + place[0]))
        dec = double(load64(raw, base + place[1]))
        bad |= not (ra >= box[0] and ra < box[1] and dec >= box[2] and dec < box[3])
        marked[row + i] = bad
        found += bad
        r = numba.int64(numba.int16(load16(raw, base + identity[0])))
        b = numba.int64(numba.int32(load32(raw, base + identity[1])))
        t = load64(raw, base + identity[2]) >> numba.uint64(64 - 8 * identity[3])
        o = numba.int64(numba.int32(load32(raw, base + identity[4])))
        if at < 0 or r != runs[at, 1] or b != runs[at, 2] or t != numba.uint64(runs[at, 3]):
            at += 1
            runs[at, 0] = row + i
            runs[at, 1] = r
            runs[at, 2] = b
            runs[at, 3] = numba.int64(t)
            runs[at, 4] = o
        else:
            facts[2] += o <= runs[at, 5]
        runs[at, 5] = o
    facts[0] = at + 1
    facts[1] += found
    return found > 0


@_compiled
def _depths(raw, n, width, depth, facts):  # type: ignore[no-untyped-def]
    """Count values above zero, and those strictly between 18 and 28, of PSFDEPTH_G and GALDEPTH_G (offsets ``depth``)."""
    for k in range(2):
        at, positive, magnitude = depth[k], 0, 0
        for i in range(n):
            row_by_row()
            value = load32(raw, i * width + at)
            positive += numba.int64(value - numba.uint32(1) < numba.uint32(0x7F800000))
            magnitude += numba.int64((value > _MAG_LOW) & (value < _MAG_HIGH))
        facts[3 + 2 * k] += positive
        facts[4 + 2 * k] += magnitude


@_compiled
def _judge(  # type: ignore[no-untyped-def]
    raw, n, width, row, doubt, kinds, marked, place, kind_fails, floats, float_ranges, shorts, short_ranges, bits, masks, steps,
    failed, others, strata, grid, bright, stars, ref_table, some, pattern, passed, doubtful, doubtful_at, beside, beside_ref,
    beside_flux, beside_at, facts,
):  # fmt: skip
    """Which cuts each row fails that is not marked.

    A row's *pattern* has a bit per cut it fails: ``kind_fails`` by code of TYPE; the ``floats`` and ``shorts`` (offsets of float32
    and int16 columns) whose value is not from the first of its range to below the second; the ``bits`` (int32) that have one
    of the ``masks``; ``steps`` are the bits of these three. ``failed`` counts rows by pattern, ``strata`` by TYPE and exposures.
    ``others``: offsets of NOBS_Z, FLUX_R, OBJID, REF_CAT, the text's length. ``grid``: a sieve of known lenses.

    Kept: ``passed``, the rows that fail none; of rows in a marked cell row and pattern (``doubtful``) and position; of rows
    of at least the flux ``bright``, or PSF of at least that of ``stars`` for their REF_CAT, row and OBJID (``beside``),
    REF_CAT, flux and position.
    """
    shift = numba.uint64(64 - 8 * others[4])
    scale, bands, across, begin, hashed, cells = (
        grid  # once, not a row: arrays in a tuple are counted when they are taken out
    )
    for i in range(n):
        pattern[i] = kind_fails[kinds[row + i]]
    for k in range(shorts.size):  # cut by cut, so that what is compared with stays in registers
        at, least, span, step = shorts[k], short_ranges[k, 0], short_ranges[k, 1] - short_ranges[k, 0], steps[1, k]
        for i in range(n):
            over = numba.int64(numba.int16(load16(raw, i * width + at))) - least
            pattern[i] |= step * (numba.uint64(over) >= numba.uint64(span))
    for k in range(floats.size):
        at, low, high, step = floats[k], float_ranges[k, 0], float_ranges[k, 1], steps[0, k]
        for i in range(n):
            number = numba.float64(single(load32(raw, i * width + at)))
            pattern[i] |= step * (1 - numba.int64(number >= low) * numba.int64(number < high))
    for k in range(bits.size):
        at, mask, step = bits[k], masks[k], steps[2, k]
        for i in range(n):
            pattern[i] |= step * ((load32(raw, i * width + at) & mask) != 0)
    taken = 0
    for i in range(n):
        if doubt and marked[row + i]:
            continue
        base = i * width
        kind = kinds[row + i]
        fails = pattern[i]
        failed[fails] += 1
        nobs = numba.int64(numba.int16(load16(raw, base + others[0])))
        strata[kind, min(max(nobs, 0), NOBS_OPEN)] += 1
        passed[facts[7]] = row + i
        facts[7] += fails == 0
        ra = double(load64(raw, base + place[0]))
        dec = double(load64(raw, base + place[1]))
        if in_marked_cell(ra, dec, scale, bands, across, begin, hashed, cells):
            doubtful[facts[8], 0] = row + i
            doubtful[facts[8], 1] = fails
            doubtful_at[facts[8], 0] = ra
            doubtful_at[facts[8], 1] = dec
            facts[8] += 1
        flux = single(load32(raw, base + others[1]))
        take = flux >= bright
        if (load64(raw, base + others[3]) >> shift) & _NOT_BLANK and kind == 0:
            take |= flux >= stars[text_code(raw, base + others[3], shift, ref_table)]
        some[taken] = i
        taken += take
    at = facts[9]
    for k in range(taken):
        base = some[k] * width
        beside[at + k, 0] = row + some[k]
        beside[at + k, 1] = load32(raw, base + others[2])
        beside_ref[at + k] = text_code(raw, base + others[3], shift, ref_table)
        beside_flux[at + k] = single(load32(raw, base + others[1]))
        beside_at[at + k, 0] = double(load64(raw, base + place[0]))
        beside_at[at + k, 1] = double(load64(raw, base + place[1]))
    facts[9] = at + taken


@_compiled
def through(  # type: ignore[no-untyped-def]
    file, offset, raw, per, width, first, last, type_at, type_table, ref_at, ref_table, kinds, refs, at2, out2, at4, out4,
    at8, out8, identity, place, box, finite_at, finite, depth, dup, marked, runs, judging, kind_fails, floats, float_ranges,
    shorts, short_ranges, bits, masks, steps, failed, others, strata, grid, bright, stars, some, pattern, passed, whole, doubtful,
    doubtful_at, beside, beside_ref, beside_flux, beside_at, facts,
):  # fmt: skip
    """Everything for the rows from ``first`` to below ``last`` of the table at byte ``offset`` of an open file.

    ``raw`` takes ``per`` rows at a time (a number that makes whole 32-bit words) and what the last of them lack to whole
    words. Of rows that pass all cuts the bytes are kept (``whole``). Returns the sum of the words and the bytes that could
    not be read, at the first of which it ended.
    """
    total = numba.uint64(0)
    for block in range(first, last, per):
        n = min(per, last - block)
        size = n * width + (-n * width) % 4
        got = _fill(file, raw, size, offset + block * width)
        if got < size:
            return total, size - got
        for start in range(0, n, _FEW):
            m = min(_FEW, n - start)
            part = raw[start * width :]
            row = block + start
            total += word_sum(part, size - start * width if start + m == n else m * width)
            texts(part, m, width, row, type_at[0], type_at[1], type_table, kinds)
            if refs.size:
                texts(part, m, width, row, ref_at[0], ref_at[1], ref_table, refs)
            extract(part, m, width, row, at2, out2, at4, out4, at8, out8)
            _depths(part, m, width, depth, facts)
            doubt = _scan(part, m, width, row, identity, place, box, finite_at, finite, kinds, dup, marked, runs, facts)
            if judging:
                before = facts[7]
                _judge(
                    part, m, width, row, doubt, kinds, marked, place, kind_fails, floats, float_ranges, shorts, short_ranges, bits,
                    masks, steps, failed, others, strata, grid, bright, stars, ref_table, some, pattern, passed, doubtful,
                    doubtful_at, beside, beside_ref, beside_flux, beside_at, facts,
                )  # fmt: skip
                for k in range(before, facts[7]):
                    base = (passed[k] - row) * width
                    for byte in range(width):
                        whole[k, byte] = part[base + byte]
    return total, 0
