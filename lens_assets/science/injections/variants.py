"""Variants of the instrument: what is injected, how, and with which other variant it is paired.

A variant is one YAML file. Two variants with the same hosts and seed share every draw (the variant's name is in no
key), so that a difference of completeness is a difference of the one thing that was changed.
"""

from __future__ import annotations

from importlib import resources
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from lens_assets.science.errors import BadInput
from lens_assets.science.hashing import digest
from lens_assets.science.injections.psf import PsfSpec

NULL_GAIN = 1e12
"""Electrons per nanomaggy of the null control: photon noise that cannot be seen."""


class Variant(BaseModel):
    """One injection variant."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"[a-z0-9][a-z0-9-]*")
    summary: str
    source: Literal["sersic", "clumpy", "real", "point", "mixture"] = "sersic"
    """Source family; ``mixture`` draws one per injection by the prior set's shares (column ``family``)."""
    lens: Literal["sie", "epl"] = "sie"
    """Isothermal, or a power law whose slope is drawn (column ``lens_slope``)."""
    colours: Literal["normal", "spectra", "table"] = "normal"
    """Colours by correlated normal draws, by spectra at a redshift, or with magnitude and size from a table."""
    prior_set: Literal["published", "population", "calibrated"] = "population"
    psf: PsfSpec = PsfSpec()
    noise: Literal["measured", "none", "null"] = "measured"
    inner_image: bool = True
    hosts: Literal["random", "matched", "calibrated"] = "random"
    paired_with: str | None = None

    @property
    def digest(self) -> str:
        """Identity of what is rendered: everything but the name and the words (and the numbers of the prior set)."""
        return digest(
            self.model_dump(
                mode="json", exclude={"name": True, "summary": True, "paired_with": True, "psf": {"file", "folder"}}
            )
        )

    @model_validator(mode="after")
    def _not_itself(self) -> Variant:
        if self.paired_with == self.name:
            raise ValueError("a variant is not paired with itself")
        return self


def load_variants() -> dict[str, Variant]:
    """All shipped variants, by name in alphabetical order.

    Raises :class:`BadInput` when a file's name is not its variant's, or a pair does not exist or has other hosts.
    """
    folder = resources.files("lens_assets") / "config" / "injections" / "variants"
    found: dict[str, Variant] = {}
    for entry in sorted(folder.iterdir(), key=lambda e: e.name):
        if not entry.name.endswith(".yaml"):
            continue
        try:
            variant = Variant(name=entry.name.removesuffix(".yaml"), **yaml.safe_load(entry.read_text()))
        except (ValueError, TypeError) as fault:
            raise BadInput(f"not a variant: {fault}", file=entry.name) from fault
        found[variant.name] = variant
    for variant in found.values():
        if variant.paired_with is not None:
            partner = found.get(variant.paired_with)
            if partner is None:
                raise BadInput(
                    f"paired with {variant.paired_with!r}, which does not exist", file=f"{variant.name}.yaml"
                )
            if partner.hosts != variant.hosts:
                raise BadInput(f"paired with {partner.name!r}, which has other hosts", file=f"{variant.name}.yaml")
    return found
