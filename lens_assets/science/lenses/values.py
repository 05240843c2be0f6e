"""Cells of published tables as numbers: redshifts with several values, sexagesimal positions, missing marks.

What cannot be read is ``nan``; who rejects it, and under which reason, is decided by ``channels``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]

_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_SEXAGESIMAL = re.compile(
    r"\s*([+\-\u2212]?)\s*(\d+(?:\.\d+)?)\s*(?:[:hd°]|\s)\s*(\d+(?:\.\d+)?)\s*(?:[:m'′]|\s|$)\s*(?:(\d+(?:\.\d+)?)\s*[s\"″]?)?\s*"
)
_MISSING = {"", "-", "--", "nan", "null", "none", "n/a", "na", "not measured", "masked", "inf", "-inf"}
MAX_REDSHIFT = 20.0


def is_missing(text: str) -> bool:
    """Whether a cell says that there is no value."""
    return text.strip().lower() in _MISSING


def number(text: str) -> float:
    """A plain number, else ``nan``. ``+-`` errors, a trailing ``?`` or ``*`` are allowed; a decimal comma is not."""
    text = text.strip().replace("\u2212", "-")
    if is_missing(text):
        return math.nan
    match = _NUMBER.match(text)
    if not match or not re.fullmatch(r"\s*(?:(?:\+/-|\+-|±).*|[?*]+.*)?", text[match.end() :]):
        return math.nan
    return float(match.group())


def redshift(text: str) -> float:
    """The first usable redshift of ``0.5``, ``0.5 | nan``, ``0.43+/-0.02``, ``0.3?``; ``nan`` without one in (0,
    20]."""
    for part in text.split("|"):
        value = number(part)
        if 0 < value <= MAX_REDSHIFT:
            return value
    return math.nan


def numbers(cells: Sequence[str]) -> F64:
    """:func:`number` of every cell."""
    return np.array([number(c) for c in cells], float)


def redshifts(cells: Sequence[str]) -> F64:
    """:func:`redshift` of every cell."""
    return np.array([redshift(c) for c in cells], float)


def angle(text: str, *, hours: bool) -> float:
    """Degrees from a decimal number, or from sexagesimal text (``12:34:56.7``, ``12h34m56.7s``, ``-05d12m``, ``12 34
    56``).

    ``hours`` says that the sexagesimal first part is hours (right ascension) unless it is written with ``d`` or ``°``.
    ``nan`` for anything else, and where minutes or seconds reach 60.
    """
    text = text.strip().replace("\u2212", "-")
    value = number(text)
    if not math.isnan(value) and _NUMBER.fullmatch(text):
        return value
    match = _SEXAGESIMAL.fullmatch(text)
    if not match:
        return math.nan
    sign, whole, minutes, seconds = match.groups()
    minute, second = float(minutes), float(seconds or 0)
    if minute >= 60 or second >= 60 or "." in whole:
        return math.nan
    degrees = (float(whole) + minute / 60 + second / 3600) * (-1 if sign == "-" else 1)
    in_hours = hours and not re.search(r"[d°]", text)
    if in_hours and float(whole) >= 24:
        return math.nan
    return degrees * 15 if in_hours else degrees


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
