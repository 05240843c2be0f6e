"""Cells of published tables as numbers: redshifts with several values, limits and doubts, sexagesimal positions,
missing marks.

What cannot be read is ``nan``, and how a cell was read is told beside it (:class:`Reading`), so that the registry can
report it; who rejects a row, and under which reason, is decided by ``channels``.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]

_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_SEXAGESIMAL = re.compile(
    r"[+-]?\d{1,3}\s*(?:[hd°:]|\s)\s*\d{1,2}(?:\.\d+)?\s*(?:[m'′:]|\s|$)\s*(?:\d{1,2}(?:\.\d*)?\s*[s\"″]?)?\s*"
)
_MISSING = {"", "-", "--", "---", "nan", "null", "none", "n/a", "na", "not measured", "masked", "inf", "-inf", "\u2014"}
_SEPARATORS = re.compile(r"\s*(?:\||;|(?<!±)/(?!-)|,\s+|,(?=\d*\.\d))\s*|\s+(?:and|or|&)\s+")
_LIMIT, _DOUBT, _FOOTNOTE = re.compile(r"^[<>≤≥≲≳]"), re.compile(r"^(?:~|≈|∼|ca?\.)\s*"), re.compile(r"[?*†‡]+.*$|:$")
MAX_REDSHIFT = 20.0
ROUNDING = 1e-3
"""Values of a cell this close, over 1 + value, are one value in two roundings (``0.73 | 0.7300367``)."""

SEVERAL = "several values, the first is used"
LIMIT = "a limit, not used"
UNCERTAIN = "marked uncertain, used"
UNREADABLE = "not a number, not used"
BEYOND = "out of range, not used"


@dataclass(frozen=True)
class Reading:
    """A cell as read: the ``value`` that is used (``nan`` without one), all ``values`` it states, and what is odd about
    it (one of the constants of this module, or empty)."""

    value: float
    values: tuple[float, ...] = ()
    odd: str = ""


def is_missing(text: str) -> bool:
    """Whether a cell says that there is no value."""
    return text.strip().lower() in _MISSING


def number(text: str) -> float:
    """A plain number, else ``nan``. ``+-`` errors, a trailing ``?`` or ``*`` are allowed; a decimal comma is not."""
    text = text.strip().replace("\u2212", "-")
    if is_missing(text):
        return math.nan
    match = _NUMBER.match(text)
    if not match or not re.fullmatch(r"\s*(?:(?:\+/-|\+-|±).*|[?*†‡]+.*|:)?", text[match.end() :]):
        return math.nan
    return float(match.group())


def reading(text: str, most: float = MAX_REDSHIFT) -> Reading:
    """A positive quantity up to ``most`` from a published cell.

    ``0.5 | nan``, ``0.3, 0.5`` and ``1.2/2.1`` hold several values and the first is used; ``>1`` is a limit and is not;
    ``0.31?``, ``~0.6`` and ``(0.31)`` are used and marked uncertain; ``0.43+/-0.02`` is 0.43. Zero and negative numbers
    are missing marks. A decimal comma (``0,5``) could be two numbers and is not read.
    """
    text = text.strip().replace("\u2212", "-").replace("+/-", "±").replace("+-", "±")
    if is_missing(text):
        return Reading(math.nan)
    values: list[float] = []
    faults: list[str] = []
    for part in _SEPARATORS.split(text):
        part = part.strip()
        if is_missing(part):
            continue
        if _LIMIT.match(part):
            faults.append(LIMIT)
            continue
        bare = _DOUBT.sub("", part)
        bare = bare[1:-1].strip() if bare.startswith("(") and bare.endswith(")") else bare
        if bare != part or _FOOTNOTE.search(part):
            faults.append(UNCERTAIN)
        value = number(bare)
        if math.isnan(value):
            faults.append(UNREADABLE)
        elif value > most:
            faults.append(BEYOND)
        elif value > 0:
            values.append(value)
    distinct = tuple(dict.fromkeys(values))
    value = distinct[0] if distinct else math.nan
    if distinct and max(distinct) - min(distinct) > ROUNDING * (1 + value):
        return Reading(value, distinct, SEVERAL)
    order = (UNCERTAIN, LIMIT, BEYOND, UNREADABLE) if distinct else (LIMIT, BEYOND, UNREADABLE)
    return Reading(value, distinct, next((fault for fault in order if fault in faults), ""))


def redshift(text: str) -> float:
    """The redshift that :func:`reading` uses; ``nan`` without one in (0, 20]."""
    return reading(text).value


def numbers(cells: Sequence[str]) -> F64:
    """:func:`number` of every cell."""
    return np.array([number(c) for c in cells], float)


def is_sexagesimal(text: str) -> bool:
    """Whether a cell is written as hours or degrees, minutes and perhaps seconds: ``10:20:30``, ``10h20m30s``,
    ``-05 12.5``."""
    return bool(_SEXAGESIMAL.fullmatch(text.strip().replace("\u2212", "-")))


def angle(text: str, *, hours: bool) -> float:
    """Degrees from a decimal number of degrees, or from sexagesimal text, which astropy reads.

    ``hours`` says that sexagesimal text is hours (right ascension) unless it is written with ``d`` or ``°``. ``nan`` for
    anything else, for minutes or seconds that reach 60, and for 24 hours or more.
    """
    from astropy import units
    from astropy.coordinates import Angle

    text = text.strip().replace("\u2212", "-").replace("\u2032", "m").replace("\u2033", "s")
    if _NUMBER.fullmatch(text) and not math.isnan(value := number(text)):
        return value
    if not is_sexagesimal(text):
        return math.nan
    in_hours = hours and not re.search(r"[d°]", text)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # astropy only warns of 60 minutes
            found = Angle(text, unit=units.hourangle if in_hours else units.deg)
    except (ValueError, TypeError, Warning):
        return math.nan
    degrees = float(found.to_value(units.deg))
    return math.nan if in_hours and abs(degrees) >= 360 else degrees


def angles(cells: Sequence[str], *, hours: bool) -> F64:
    """:func:`angle` of every cell."""
    return np.array([angle(c, hours=hours) for c in cells], float)


_NAME_DEGREES = re.compile(r"DESI-(\d{3,4}\.\d+)([+\-]\d{2}\.\d+)")
_NAME_HOURS = re.compile(r"J(\d{2})(\d{2})(\d{2}(?:\.\d+)?)([+\-]\d{2})(\d{2})(\d{2}(?:\.\d+)?)?")


def ra_in_name(name: str) -> float:
    """Right ascension (degrees) that a coordinate name such as ``DESI-150.1234+02.3456`` or ``J100028.6+021203``
    states."""
    if match := _NAME_DEGREES.search(name):
        return float(match.group(1))
    if match := _NAME_HOURS.search(name):
        h, m, s = (float(x) for x in match.groups()[:3])
        return (h + m / 60 + s / 3600) * 15
    return math.nan
