"""What can be set about cutouts; the defaults are those of the published protocol.

Not here: the recipe's crop or augmentation (a detector's), the sample (a split's). Every value below changes pixels or
the list of rejected stamps, so the digest of these settings is part of what a shard is made from.
"""

from __future__ import annotations

from typing import Any, Literal

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
    with ``unit="pixel"``, in pixels. ``clip`` is in raw MADs: ``raw_robust`` cuts values off there, which flattens lens cores and
    bright arcs (r above 24.1 mag per square arcsec at 10); ``robust_asinh`` compresses them, ``clip asinh(x / clip)``, which is x
    for faint light and keeps the order of bright.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["raw_robust", "robust_asinh"] = "raw_robust"
    bands: tuple[str, ...] = BANDS
    unit: Literal["half_width", "pixel"] = "half_width"
    inner: float = Field(0.65, ge=0, description="inner radius of the background annulus")
    outer: float = Field(0.90, gt=0, description="outer radius of the background annulus (exclusive)")
    clip: float = Field(10.0, gt=0, description="raw MADs at which values are cut off, or begin to be compressed")
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


class ViewerSettings(BaseModel):
    """How stamps are asked of the survey's viewer service (``viewer``, ``viewer_fetch``).

    ``mode``: ``subimage`` asks for slices of the coadds as they are, with their true inverse variance, and cuts the
    stamp here: the pixels of a brick slice. ``cutout`` asks for the service's resampled stamps (a second Lanczos-3), whose
    noise differs from a brick's by 7 % in scatter and 0.08 in lag-1 correlation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_url: str = Field("https://www.legacysurvey.org/viewer", pattern=r"^https?://[^\s?#]+$")
    layer: str = Field("ls-dr10-south", pattern=r"^[A-Za-z0-9._-]+$", description="DECam only; `ls-dr10` is not")
    mode: Literal["subimage", "cutout"] = "subimage"
    margin: int = Field(2, ge=1, le=20, description="px asked for beyond the stamp on each side, mode subimage")
    max_zero: float = Field(0.5, gt=0, le=1, description="largest share of exact zeros of a plane before it is empty")
    rate: float = Field(1.0, gt=0, le=50, description="requests per second, all workers together")
    burst: int = Field(1, ge=1, description="requests that may start at once")
    workers: int = Field(4, ge=1, le=16, description="requests under way at once; the service answers in ~14 s")
    connect_timeout: float = Field(10.0, gt=0, description="s")
    read_timeout: float = Field(120.0, gt=0, description="s without a byte")
    attempts: int = Field(6, ge=1, description="tries of one position in one run")
    backoff: float = Field(2.0, ge=0, description="s; doubles with every try, jittered by the identity")
    backoff_max: float = Field(120.0, ge=0, description="s; longest wait of our own")
    retry_after_max: float = Field(900.0, ge=0, description="s; a server that asks for more ends the run")
    give_up_after: int = Field(10, ge=1, description="positions in a row that the server fails before the run ends")
    max_unanswered: float = Field(
        0.01, ge=0, le=1, description="largest share of positions without an answer in a shard"
    )

    def identity(self) -> dict[str, Any]:
        """What can change pixels; pace and patience cannot."""
        return self.model_dump(mode="json", include={"base_url", "layer", "mode", "margin", "max_zero"})


class Settings(BaseModel):
    """Cutouts: source, geometry, quality rules and normalisation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Literal["brick", "viewer"] = Field("brick", description="one source for every stamp of a sample")
    viewer: ViewerSettings = ViewerSettings()
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
        plain = self.model_dump(mode="json", exclude={"bootstrap_draws", "viewer"})
        return digest("cutouts", CUT_VERSION, plain, self.viewer.identity() if self.source == "viewer" else None)
