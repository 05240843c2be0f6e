"""Configuration of a completeness surface: the grid, what counts as enough, and the levels that are published.

The defaults are those of the science contract, section 7 (theta_E x PSF x depth = 11 x 7 x 5 = 385 cells, 200
injections a cell). Thresholds are not made here: they come from the detector's evaluation, each with its sampling
error.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


def _steps(first: float, step: float, n: int) -> tuple[float, ...]:
    return tuple(round(first + i * step, 10) for i in range(n))


def _alike(given: Any, centres: tuple[float, ...]) -> bool:
    return len(given) == len(centres) and all(abs(float(a) - b) < 1e-9 for a, b in zip(given, centres, strict=True))


GridName = Literal["classic", "dr10"]
GRIDS: dict[GridName, dict[str, tuple[float, ...]]] = {
    "classic": {"theta_e": _steps(0.5, 0.25, 11), "psf": _steps(0.9, 0.15, 7), "depth": _steps(22.5, 0.5, 5)},
    "dr10": {"theta_e": _steps(0.5, 0.25, 11), "psf": _steps(0.9, 0.15, 7), "depth": _steps(22.5, 0.5, 7)},
}
"""Cell centres of the named grids. ``classic`` is that of published surfaces: 11 x 7 x 5 = 385 cells, nothing deeper
than 24.75. ``dr10`` has two more depths, 25.0 and 25.5 (edge 25.75): 539 cells, which reach over the second peak of
DR10's r depths near 25.15 (the fields of DES; DR10 description page). The cells of ``classic`` are the first cells of
``dr10``: an injection in one of them has the same bins, draws and identity in both."""


class Settings(BaseModel):
    """What a surface is made with; recorded in its header.

    ``theta_e`` (arcsec), ``psf`` (r-band FWHM, arcsec) and ``depth`` (r-band 5-sigma point-source depth, AB mag) are
    cell *centres*, equally spaced; a cell reaches half a step to both sides. A profile picks them by name (``grid:
    dr10``), or states axes of its own under ``grid: own``, each axis that it leaves out being the classic one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    grid: GridName | Literal["own"] = Field(
        "classic", description="Name of the grid: classic, dr10, or own (as given)."
    )
    theta_e: tuple[float, ...] = GRIDS["classic"]["theta_e"]
    psf: tuple[float, ...] = GRIDS["classic"]["psf"]
    depth: tuple[float, ...] = GRIDS["classic"]["depth"]
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
    prior_min_effective: float = Field(
        20.0, ge=1, description="Fewer effective injections under a draw of fitted priors: the draw is refused there."
    )
    model_draws: int = Field(
        0, ge=0, description="Bootstrap replicates of the continuous model that a release carries; 0: no model."
    )
    family_error: float = Field(0.01, gt=0, lt=1, description="Family-wise error of the physics checks (Holm).")

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        """The axes of the grid that is named; axes that are given without a name make the grid ``own``."""
        if not isinstance(value, dict):
            return value
        name = value.get("grid")
        axes = {a: value[a] for a in ("theta_e", "psf", "depth") if a in value}
        if name is None:
            same = all(_alike(axes[a], GRIDS["classic"][a]) for a in axes)
            return {**value, "grid": "classic" if same else "own"}
        if name not in GRIDS:
            return value
        for axis, centres in axes.items():
            if not _alike(centres, GRIDS[name][axis]):
                raise ValueError(f"{axis} {list(centres)} is not that of the grid {name!r}: leave it out, or say `own`")
        return {**value, **GRIDS[name]}

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
