"""Priors of lenses and sources: read from one YAML, the only place where the numbers are written.

A prior set holds the numbers of everything a variant may ask for: the slope of the lens, colours by correlated normal
draws, by spectra or from a table, the clumps, and the shares of the source families in a mixture. Which of them are
used is the variant's affair. A surface records ``PriorSet.digest``. A set fitted to held-out real lenses comes as JSON
(:func:`read_priors`) and is used under the name ``calibrated``.

What does not belong here: numbers, and the draws themselves (``batch``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import yaml
from pydantic import Field, model_validator

from lens_assets.science.errors import BadInput
from lens_assets.science.hashing import digest
from lens_assets.science.injections.colours import ColourTable, Spectra
from lens_assets.science.injections.distributions import Distribution, Fixed, Frozen

F64 = npt.NDArray[np.float64]
FILE = "priors.yaml"
NAMES = ("published", "population", "calibrated")
Family = Literal["sersic", "clumpy", "real", "point"]
FAMILIES: tuple[Family, ...] = ("sersic", "clumpy", "real", "point")
"""Source families, in the order in which a mixture is drawn."""


class AroundHost(Frozen):
    """Lens shape around the host's own light: q ~ N(q_host, sigma_q) kept in [lo, hi], angle ~ N(pa_host, sigma_phi
    deg)."""

    sigma_q: float = Field(gt=0)
    sigma_phi: float = Field(gt=0)
    lo: float = 0.3
    hi: float = 1.0


class Clumps(Frozen):
    """Star-forming clumps: how many, their share of the light, their radii in units of Re; within Re of the centre."""

    number: tuple[int, int]
    fraction: Distribution
    radius: Distribution

    @model_validator(mode="after")
    def _ordered(self) -> Clumps:
        if not 0 < self.number[0] <= self.number[1]:
            raise ValueError("number of clumps must be positive and increasing")
        return self


class PriorSet(Frozen):
    """One named set. Magnitudes are unlensed, observed-frame AB; radii in arcsec; beta in units of theta_E."""

    name: str
    reference: str
    r_mag: Distribution
    g_r: Distribution
    r_z: Distribution
    colour_correlation: float = Field(0.0, gt=-1, lt=1)
    spectra: Spectra | None = None
    """Colours of variants that draw a redshift and a spectrum (``colours: spectra``)."""
    table: ColourTable | None = None
    """Magnitude, colours and size of variants that draw them together from measured galaxies (``colours: table``)."""
    re: Distribution
    sersic_n: Distribution
    source_q: Distribution
    beta: Distribution
    lens_q: Distribution | AroundHost
    slope: Distribution = Fixed(kind="fixed", value=2.0)
    """Slope gamma of the lens's density, rho ~ r^-gamma, of variants with ``lens: epl``; 2 is isothermal."""
    shear: Distribution
    jitter: Distribution
    clumps: Clumps
    families: dict[Family, float] = Field(default_factory=dict)
    """Shares of the source families for variants with ``source: mixture``; they add up to one."""

    @property
    def digest(self) -> str:
        """Identity of the numbers (SHA-256); a table counts by its content, not by its place."""
        return digest(self.model_dump(mode="json", exclude={"table": {"file"}}))

    @model_validator(mode="after")
    def _shares(self) -> PriorSet:
        if self.families and (min(self.families.values()) < 0 or abs(sum(self.families.values()) - 1.0) > 1e-9):
            raise ValueError(f"shares of the families are not negative and add up to one, not {dict(self.families)}")
        return self

    def family_at(self, u: F64) -> npt.NDArray[np.str_]:
        """Families of a mixture at the uniform deviates ``u``, one each. Raises :class:`BadInput` without shares."""
        if not self.families:
            raise BadInput(f"prior set {self.name!r} has no `families`: a mixture needs the share of each", file=FILE)
        shares = np.array([self.families.get(f, 0.0) for f in FAMILIES])
        edges = np.cumsum(shares)[:-1]
        return np.asarray(FAMILIES)[np.searchsorted(edges, u, side="right")]


def _set(name: str, body: Mapping[str, Any], file: str) -> PriorSet:
    try:
        return PriorSet(name=name, **body)
    except (ValueError, TypeError) as fault:
        raise BadInput(f"prior set {name!r}: {fault}", file=file) from fault


def load_priors() -> dict[str, PriorSet]:
    """All prior sets of the shipped YAML, by name; :class:`BadInput` where the file is not a set of priors."""
    text = (resources.files("lens_assets") / "config" / "injections" / FILE).read_text()
    raw = yaml.safe_load(text)
    unknown = set(raw) - set(NAMES)
    if unknown:
        raise BadInput(f"unknown prior sets {sorted(unknown)}; known: {NAMES}", file=FILE)
    return {name: _set(name, body, FILE) for name, body in raw.items()}


def read_priors(path: Path, name: str = "calibrated") -> PriorSet:
    """A prior set that was fitted and stored as JSON (``PriorSet.model_dump_json``), under ``name``.

    Raises :class:`BadInput` with the file where it is not one. Its identity is its digest, as that of a shipped set.
    """
    try:
        body = json.loads(path.read_text())
    except (OSError, ValueError) as fault:
        raise BadInput(f"no prior set can be read: {fault}", file=str(path)) from fault
    if not isinstance(body, dict):
        raise BadInput("not a prior set: one JSON object is wanted", file=str(path))
    return _set(name, {k: v for k, v in body.items() if k != "name"}, str(path))


def prior_set(name: str, fitted: PriorSet | None = None) -> PriorSet:
    """One prior set by name; ``fitted`` is the one that answers to ``calibrated``.

    ``calibrated`` exists only once it has been fitted to held-out real lenses: :class:`BadInput` before.
    """
    sets = load_priors()
    if name == "calibrated" and fitted is not None:
        return fitted
    if name in sets:
        return sets[name]
    if name == "calibrated":
        raise BadInput(
            "the prior set 'calibrated' has not been fitted to held-out real lenses yet, and no placeholder is "
            f"allowed: fit it, or use one of {sorted(sets)}",
            file=FILE,
        )
    raise BadInput(f"no prior set {name!r}; there are {sorted(sets)}", file=FILE)
