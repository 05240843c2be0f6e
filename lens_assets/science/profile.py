"""A profile: the sizes of one run of the platform, and which detectors and injection variants it makes.

The defaults of every room's ``Settings`` are those of a paper; a profile states only what it does otherwise, so that
the difference between practice and survey can be read in one YAML file (``lens_assets/config/profiles``). An unknown
key is an error, not a typo that goes unnoticed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from lens_assets.science.audits.settings import ClosureSettings
from lens_assets.science.calibration.settings import Settings as CalibrationSettings
from lens_assets.science.completeness.grid import Grid
from lens_assets.science.completeness.settings import Settings as CompletenessSettings
from lens_assets.science.cutouts.settings import Settings as CutoutSettings
from lens_assets.science.detectors.settings import Settings as DetectorSettings
from lens_assets.science.errors import BadInput
from lens_assets.science.injections.settings import Settings as InjectionSettings
from lens_assets.science.lenses.settings import Settings as LensSettings
from lens_assets.science.negatives.settings import Settings as NegativeSettings
from lens_assets.science.provenance import CONFIG
from lens_assets.science.realism.settings import Settings as RealismSettings
from lens_assets.science.splits.settings import Settings as SplitSettings
from lens_assets.science.surveys.settings import Settings as SurveySettings


class Runs(BaseModel):
    """Which partitions a run of the whole chain makes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    detectors: tuple[str, ...]
    variants: tuple[str, ...]
    theta_e: tuple[float, ...]
    release: str
    """Name of the citable product."""
    release_version: str
    """Its version; a published version is never overwritten."""


class Profile(BaseModel):
    """Sizes and settings of a run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    seed: int = 20261123
    mock: str | None = None
    """Size of the mock release to write, or ``None`` for a real one."""
    workers: int = Field(default=1, ge=1)
    runs: Runs
    waivers: dict[str, str] = {}
    """Name of a check -> the reason why its failure does not block. The failure stays visible, with the reason."""
    surveys: SurveySettings = SurveySettings()
    lenses: LensSettings = LensSettings()
    negatives: NegativeSettings = NegativeSettings()
    splits: SplitSettings = SplitSettings()
    cutouts: CutoutSettings = CutoutSettings()
    detectors: DetectorSettings = DetectorSettings()
    injections: InjectionSettings = InjectionSettings()
    calibration: CalibrationSettings = CalibrationSettings()
    realism: RealismSettings = RealismSettings()
    completeness: CompletenessSettings = CompletenessSettings()
    closure: ClosureSettings = ClosureSettings()

    @model_validator(mode="after")
    def _injections_are_for_the_grid(self) -> Self:
        """Hosts of another grid would fall between the cells of the surface's."""
        Grid.of(self.completeness).check_injections(self.injections)
        return self


def profile_names() -> list[str]:
    """Names of the packaged profiles."""
    return sorted(path.stem for path in (CONFIG / "profiles").glob("*.yaml"))


def load_profile(name: str) -> Profile:
    """The packaged profile ``name``, or the one in the YAML file at that path.

    Raises :class:`BadInput` that names the file, and the key that is wrong.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else CONFIG / "profiles" / f"{name}.yaml"
    if not path.is_file():
        raise BadInput(f"no profile {name!r}; there are {', '.join(profile_names())}", file=str(path))
    try:
        return Profile.model_validate(yaml.safe_load(path.read_text()))
    except ValueError as fault:
        raise BadInput(str(fault), file=str(path)) from fault
