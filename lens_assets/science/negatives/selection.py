"""Selection profiles, and the one screen that both classes pass.

A profile is a named YAML, so that "parity with a paper" is a claim anyone can check. It cannot express a
class-conditional cut, save one: TYPE, because the published training set has it (EXP among positives only); it is
spelled out in the file, stratified away and tested. Every other cut is read by :func:`screen` for positives and
negatives alike, or the network would learn the screen instead of the lens. The distance from known lenses is not a
cut on quality: see ``exclusion``.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from lens_assets.science.errors import BadInput
from lens_assets.science.negatives.attrition import Bool, tally
from lens_assets.science.negatives.strata import need
from lens_assets.science.storage import safe_key

Role = Literal["negative", "positive"]

MASKBITS = {
    "NPRIMARY": 0, "BRIGHT": 1, "SATUR_G": 2, "SATUR_R": 3, "SATUR_Z": 4, "ALLMASK_G": 5, "ALLMASK_R": 6,
    "ALLMASK_Z": 7, "WISEM1": 8, "WISEM2": 9, "BAILOUT": 10, "MEDIUM": 11, "GALAXY": 12, "CLUSTER": 13, "SATUR_I": 14,
    "ALLMASK_I": 15, "SUB_BLOB": 16,
}  # fmt: skip
"""MASKBITS of DR10 (legacysurvey.org `bitmasks` page; 32-bit since DR10)."""
GALAXY_TYPES = ("SER", "DEV", "REX", "EXP")


def maskbits_value(names: Sequence[str]) -> int:
    """The bit mask of MASKBITS names."""
    return sum(1 << MASKBITS[name] for name in names)


class Types(BaseModel):
    """TYPEs admitted for each class: the only cut that may depend on the class."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    negative: tuple[str, ...]
    positive: tuple[str, ...]


class Cut(BaseModel):
    """Any further cut of the user's: ``min <= column < max``; a null or NaN fails. It holds for both classes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str
    min: float | None = None
    max: float | None = None


class SelectionProfile(BaseModel):
    """One named selection of the parent sample. Declinations in degrees (exclusive bounds), magnitudes AB."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    description: str
    source: str
    types: Types
    dec_min: float | None = None
    dec_max: float | None = 32.0
    nobs_min: dict[Literal["g", "r", "z"], int]
    mag_z_max: float | None = 20.0
    """Exclusive; a non-positive flux fails."""
    dereddened: bool = False
    """Whether ``mag_z_max`` refers to FLUX / MW_TRANSMISSION."""
    maskbits_reject: tuple[str, ...] = ()
    ebv_max: float | None = None
    cuts: tuple[Cut, ...] = ()

    @field_validator("maskbits_reject")
    @classmethod
    def _known_bits(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in value if name not in MASKBITS]
        if unknown:
            raise ValueError(f"not MASKBITS of DR10: {unknown}")
        return value


def list_selections(folder: Path | None = None) -> list[str]:
    """Names of the profiles in ``folder`` (default: those shipped with the package)."""
    home = folder if folder is not None else files("lens_assets") / "config" / "selections"
    return sorted(p.name.removesuffix(".yaml") for p in home.iterdir() if p.name.endswith(".yaml"))


def load_selection(name: str, folder: Path | None = None) -> SelectionProfile:
    """Read a profile by name from ``folder`` (default: those shipped); :class:`BadInput` when absent or malformed."""
    home = folder if folder is not None else files("lens_assets") / "config" / "selections"
    file = home / f"{safe_key(name)}.yaml"
    if not file.is_file():
        raise BadInput(f"no such selection profile; there are {', '.join(list_selections(folder))}", file=str(file))
    try:
        profile = SelectionProfile.model_validate(yaml.safe_load(file.read_text()))
    except (yaml.YAMLError, ValidationError) as fault:
        raise BadInput(f"not a selection profile: {fault}", file=str(file)) from fault
    if profile.name != name:
        raise BadInput(f"the profile calls itself {profile.name!r}", file=str(file), column="name")
    return profile


def _finite(column: str) -> pl.Expr:
    return pl.col(column).is_finite()


def filters(profile: SelectionProfile, role: Role) -> list[tuple[str, pl.Expr]]:
    """(step, expression that is true where the row passes) in order. NaN and null fail every filter they touch.

    Polars orders NaN above every number, so each comparison is guarded by ``is_finite``.
    """
    steps: list[tuple[str, pl.Expr]] = [
        ("finite_position", _finite("ra") & _finite("dec") & pl.col("dec").is_between(-90, 90)),
    ]
    dec = pl.col("dec")
    if profile.dec_min is not None:
        steps.append(("dec_min", _finite("dec") & (dec > profile.dec_min)))
    if profile.dec_max is not None:
        steps.append(("dec_max", _finite("dec") & (dec < profile.dec_max)))
    steps.append(("type", pl.col("type").is_in(list(getattr(profile.types, role)))))
    for band in ("g", "r", "z"):
        steps.append((f"nobs_{band}", pl.col(f"nobs_{band}") >= profile.nobs_min.get(band, 0)))  # type: ignore[call-overload]
    if profile.mag_z_max is not None:
        flux = pl.col("flux_z").cast(pl.Float64)
        if profile.dereddened:
            flux = flux / pl.col("mw_transmission_z").cast(pl.Float64)
        steps.append(("mag_z", flux.is_finite() & (flux > flux_of(profile.mag_z_max))))
    if profile.maskbits_reject:
        bits = maskbits_value(profile.maskbits_reject)
        steps.append(("maskbits", (pl.col("maskbits").cast(pl.Int64) & bits) == 0))
    if profile.ebv_max is not None:
        steps.append(("ebv", _finite("ebv") & (pl.col("ebv") < profile.ebv_max)))
    for cut in profile.cuts:
        ok = pl.col(cut.column).cast(pl.Float64).is_finite()
        ok = ok & (pl.col(cut.column) >= cut.min) if cut.min is not None else ok
        ok = ok & (pl.col(cut.column) < cut.max) if cut.max is not None else ok
        steps.append((f"cut:{cut.column}", ok))
    return steps


def flux_of(mag: float) -> float:
    """Nanomaggies of an AB magnitude."""
    return float(10 ** (0.4 * (22.5 - mag)))


def filter_columns(profile: SelectionProfile, role: Role) -> list[str]:
    """The columns that the profile's filters look at, sorted."""
    return sorted({name for _, expr in filters(profile, role) for name in expr.meta.root_names()})


def passes(frame: pl.DataFrame, profile: SelectionProfile, role: Role) -> list[tuple[str, Bool]]:
    """Which rows pass each filter of the profile, filter by filter, without applying any."""
    steps = filters(profile, role)
    need(frame, filter_columns(profile, role), f"{profile.name} selection")
    flags = frame.select(expr.fill_null(False).alias(step) for step, expr in steps)
    return [(step, np.asarray(flags[step].to_numpy(), bool)) for step, _ in steps]


def screen(frame: pl.DataFrame, profile: SelectionProfile, role: Role) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows that pass a profile, and the attrition table of how.

    Parameters
    ----------
    frame : rows of the ``sweeps`` table (positives carry the same columns).
    role : ``"negative"`` or ``"positive"``; it decides the admitted TYPEs and nothing else.

    Returns
    -------
    (kept rows in their given order, attrition table with ``stage = "filter"``).
    """
    keep, table = tally(passes(frame, profile, role), frame.height)
    return frame.filter(keep), table
