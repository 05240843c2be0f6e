"""What can be set about cutouts; the defaults are those of the published protocol.

Not here: the recipe's crop or augmentation (a detector's), the sample (a split's). Every value below changes pixels or
the list of rejected stamps, so the digest of these settings is part of what a shard is made from.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lens_assets.science.errors import BadInput
from lens_assets.science.hashing import digest
from lens_assets.science.surveys.layout import BANDS

CUT_VERSION = 2
"""Raise it when the same settings would give other bytes: parts of an interrupted run are then made anew."""


class NormalisationSpec(BaseModel):
    """How pixels become network input; stored with every detector, and a scorer refuses another one.

    ``inner`` and ``outer`` bound the background annulus ``inner <= r < outer``, r in pixels from the centre pixel
    ``(h // 2, w // 2)``, in units of the half-width ``min(h, w) // 2`` (default: 32.5 to 45 px of a 101 px stamp) or,
    with ``unit="pixel"``, in pixels. ``clip`` is in raw MADs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["raw_robust"] = "raw_robust"
    bands: tuple[str, ...] = BANDS
    unit: Literal["half_width", "pixel"] = "half_width"
    inner: float = Field(0.65, ge=0, description="inner radius of the background annulus")
    outer: float = Field(0.90, gt=0, description="outer radius of the background annulus (exclusive)")
    clip: float = Field(10.0, gt=0, description="values are clipped to +- this many raw MADs")
    min_pixels: int = Field(100, ge=3, description="valid annulus pixels a band needs")

    @model_validator(mode="after")
    def _ordered(self) -> NormalisationSpec:
        if not self.inner < self.outer:
            raise ValueError(f"the annulus is empty: inner {self.inner} >= outer {self.outer}")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of every field."""
        return digest("normalisation", self)

    def radii(self, height: int, width: int) -> tuple[float, float]:
        """Inner and outer radius in pixels for a stamp of ``height`` x ``width``."""
        scale = min(height, width) // 2 if self.unit == "half_width" else 1
        return self.inner * scale, self.outer * scale


HISTORICAL = NormalisationSpec(unit="pixel", inner=20.0, outer=32.0)
"""The annulus of earlier published runs: tuned for 64 px stamps and, on 101 px, inside the light of large galaxies."""


def refuse_mismatch(trained: NormalisationSpec, asked: NormalisationSpec) -> None:
    """Raise :class:`BadInput` naming the fields in which two specifications differ."""
    a, b = trained.model_dump(), asked.model_dump()
    wrong = [f"{name}: {a[name]!r} against {b[name]!r}" for name in a if a[name] != b[name]]
    if wrong:
        raise BadInput(
            "stamps would be normalised in another way than those the network was trained on: " + "; ".join(wrong)
        )


class Settings(BaseModel):
    """Cutouts: geometry, quality rules and normalisation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int = Field(101, ge=33, description="pixels on a side; odd, so that there is a centre pixel")
    bands: tuple[str, ...] = Field(BANDS, description="plane order")
    core_radius: float = Field(8.0, gt=0, description="px; one invalid pixel at r < this rejects the stamp")
    central_box: int = Field(50, ge=1, description="px; side of the box whose invalid share is bounded")
    max_invalid_central: float = Field(
        0.02, ge=0, le=1, description="largest invalid share of the central box, per band"
    )
    normalisation: NormalisationSpec = NormalisationSpec()
    bootstrap_draws: int = Field(500, ge=50, description="resamples of the shortcut report")

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if self.size % 2 == 0:
            raise ValueError(f"size {self.size} is even: the stamp needs a centre pixel")
        if self.normalisation.bands != self.bands:
            raise ValueError(f"the normalisation has bands {self.normalisation.bands}, the stamps {self.bands}")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of every field that can change a shard's bytes, and of the version of the cutting code."""
        return digest("cutouts", CUT_VERSION, self.model_dump(mode="json", exclude={"bootstrap_draws"}))
