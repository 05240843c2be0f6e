"""Configuration of a completeness surface: the grid, what counts as enough, and the levels that are published.

The defaults are those of the science contract, section 7 (theta_E x PSF x depth = 11 x 7 x 5 = 385 cells, 200
injections a cell). Thresholds are not made here: they come from the detector's evaluation, each with its sampling
error.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


def _steps(first: float, step: float, n: int) -> tuple[float, ...]:
    return tuple(round(first + i * step, 10) for i in range(n))


class Settings(BaseModel):
    """What a surface is made with; recorded in its header.

    ``theta_e`` (arcsec), ``psf`` (r-band FWHM, arcsec) and ``depth`` (r-band 5-sigma point-source depth, AB mag) are
    cell *centres*, equally spaced; a cell reaches half a step to both sides.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    theta_e: tuple[float, ...] = _steps(0.5, 0.25, 11)
    psf: tuple[float, ...] = _steps(0.9, 0.15, 7)
    depth: tuple[float, ...] = _steps(22.5, 0.5, 5)
    min_per_cell: int = Field(200, ge=1, description="Fewer injections than this make a cell insufficient.")
    min_per_stratum: int = Field(30, ge=1, description="Least injections of one TYPE in a cell for weights by TYPE.")
    levels: tuple[float, float] = (0.68, 0.95)
    prior: Literal["jeffreys"] = "jeffreys"
    thresholds: tuple[str, ...] = Field((), description="Names of the operating points to publish; none means all.")
    default_threshold: str | None = Field(None, description="What a look-up uses; none: the FPR target nearest 1e-3.")
    brightness_edges: tuple[float, ...] = Field(
        (17.0, 19.0, 20.0, 21.0, 22.0, 23.0, 24.0, 26.0),
        description="Edges in lensed r magnitude of the check that a brighter arc is found at least as often.",
    )
    false_alarm_rate: float = Field(
        0.01, gt=0, lt=1, description="Share of random galaxies the detectability gate may call observable."
    )
    min_false_alarms: int = Field(
        100, ge=1, description="False alarms the random galaxies must be expected to hold, or the gate is refused."
    )
    family_error: float = Field(0.01, gt=0, lt=1, description="Family-wise error of the physics checks (Holm).")

    @field_validator("levels")
    @classmethod
    def _published_levels(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value != (0.68, 0.95):
            raise ValueError("the columns of a surface are named for 68 % and 95 %; other levels need other columns")
        return value

    @model_validator(mode="after")
    def _axes(self) -> Settings:
        for name in ("theta_e", "psf", "depth"):
            c = getattr(self, name)
            if len(c) < 1 or any(b <= a for a, b in pairwise(c)):
                raise ValueError(f"{name}: centres must increase")
            steps = [b - a for a, b in pairwise(c)]
            if steps and max(steps) - min(steps) > 1e-6:
                raise ValueError(f"{name}: centres must be equally spaced, or half-widths are not defined")
        e = self.brightness_edges
        if any(b <= a for a, b in pairwise(e)):
            raise ValueError("brightness_edges must increase")
        return self
