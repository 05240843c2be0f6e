"""What a mock release is made of: its size, and the knobs of how hard its sky is.

The values are labelled: *measured* ones follow published or measured DR10 statistics, *assumption* marks the rest. All
of them are stored with the release; nothing else in this package reads configuration.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from lens_assets.science.errors import BadInput
from lens_assets.science.surveys.layout import tile_of_key

Share = Annotated[float, Field(ge=0, le=1)]
Pair = tuple[float, float]


class Regime(BaseModel):
    """How one kind of sky was observed: exposures a band (inclusive range) and 5-sigma point depth of a single one
    (AB)."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    exposures: dict[Literal["g", "r", "z"], tuple[int, int]]
    single_depth: dict[Literal["g", "r", "z"], float]


def _regimes() -> dict[str, Regime]:
    # `standard`: single-pass depths 23.95/23.54/22.50 (Dey+19) and enough passes for the DECaLS-like peaks of the DR10
    # depth histograms, 24.75/24.25/23.35; `deep`: the DES-like peaks, 25.35/25.15/23.9 (measured). `shallow`: poor
    # transparency, total r about 23.5 (assumption; the survey's tail, drawn often so that the cells at 23.5 are
    # filled).
    return {
        "standard": Regime(
            exposures={"g": (4, 6), "r": (4, 6), "z": (4, 9)}, single_depth={"g": 23.90, "r": 23.45, "z": 22.45}
        ),
        "shallow": Regime(
            exposures={"g": (3, 5), "r": (3, 5), "z": (3, 6)}, single_depth={"g": 23.30, "r": 22.80, "z": 21.95}
        ),
        "deep": Regime(
            exposures={"g": (8, 12), "r": (8, 12), "z": (8, 14)}, single_depth={"g": 24.10, "r": 23.90, "z": 22.65}
        ),
    }


class Settings(BaseModel):
    """The sky: conditions, galaxies, lenses and catalogues. Defaults make the demonstration's difficulty."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # --- conditions ---
    regimes: dict[str, Regime] = Field(default_factory=_regimes)
    shallow_share: Share = 0.45  # of the bricks that are not deep; assumption
    seeing_r: Pair = (1.27, 0.13)  # median FWHM (arcsec) and log scatter between bricks; measured median 1.18-1.375
    seeing_ratio: dict[Literal["g", "z"], Pair] = {"g": (1.09, 0.11), "z": (0.955, 0.11)}  # measured medians; scatter
    moffat_beta: Pair = (2.5, 4.5)  # range between bricks and bands; assumption
    psf_ellipticity: float = 0.03  # rms per component; assumption
    ebv_median: float = 0.04  # assumption
    sky_brightness: dict[Literal["g", "r", "z"], float] = {"g": 22.04, "r": 20.91, "z": 18.46}  # mag/arcsec^2

    # --- galaxies with z < 20 ---
    # shares of the classes: assumption, tuned to the TYPE mix of DR10 at z < 20 (SER 49, DEV 18, REX 22, EXP 11 %)
    classes: dict[str, float] = {
        "early": 0.48, "spiral": 0.17, "disc": 0.16, "edge_on": 0.05, "ring": 0.03, "clumpy": 0.05, "large": 0.02,
        "merger": 0.04,
    }  # fmt: skip
    host_like: Share = 0.6  # of the early types drawn from the very population of the deflectors; assumption
    neighbours: Share = 0.18  # of galaxies (hosts of lenses too) with blue or red blobs within 1-6"; a difficulty knob
    arclike: Share = 0.10  # of these neighbours stretched along the tangent, as chance arcs; a difficulty knob

    # --- lenses ---
    theta_e: tuple[float, float, float, float] = (1.80, 0.34, 0.40, 3.00)  # median, log scatter, least, most (arcsec)
    source_r: tuple[float, float, float, float] = (
        23.2,
        0.85,
        21.3,
        26.5,
    )  # mean, scatter, brightest, faintest (AB, unlensed)
    source_gr: Pair = (0.05, 0.28)  # mean and scatter; LensPop median -0.01 (16-84 %: -0.14..0.39)
    source_rz: Pair = (0.25, 0.30)
    red_sources: Share = 0.10  # dusty ones, 0.8 mag redder; assumption
    source_re: Pair = (0.34, 0.42)  # median (arcsec), log scatter; LensPop 0.31 (0.12-0.56)
    beta_max: float = (
        0.55  # source offset / theta_E, area-weighted up to here: arcs rather than doubles; a difficulty knob
    )
    quasar_share: Share = 0.07
    perturber_share: Share = 0.15
    mass_slope: Pair = (2.05, 0.12)
    shear: float = 0.035  # rms per component
    multipole: float = 0.008  # rms of a3/a and a4/a

    # --- catalogues ---
    visibility_half: float = -0.10  # log10 visibility at which a human finds half of the lenses
    grade_scatter: float = 0.22  # dex of human scatter in it
    grade_b: float = 0.25  # log10 visibility above which grade B (probable) ...
    grade_a: float = 0.35  # ... and grade A (confident) are given
    dubious_b: Share = 0.38  # share of the grade-B rows that are no lenses; measured for the public list
    wrong_a: Share = 0.03  # share of the grade-A rows that are no lenses; assumption
    single_fibre_share: Share = 0.14  # of all lenses with an emission line in reach
    pairwise_share: Share = 0.12


class MockSize(BaseModel):
    """How much sky: tiles, bricks, pixels and objects. ``tiles`` names sweep footprints; empty means the first
    ``n_tiles``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    tiles: tuple[str, ...] = ()
    n_tiles: int = Field(default=0, ge=0)
    deep_tiles: tuple[str, ...] = ()
    deep_fraction: Share = 0.2
    bricks_per_tile: int = Field(ge=1, le=60)
    brick_pixels: int = Field(default=3600, ge=320, le=3600, multiple_of=2)
    galaxies: int = Field(ge=0)  # a brick, z < 20
    lenses: int = Field(ge=0)  # a brick
    faint: int = Field(ge=0)  # a brick, 20 < z < 23.5
    stars: int = Field(ge=0)  # a brick
    missing_band: int = Field(default=1, ge=0)  # bricks that lack one band
    survey_edge: int = Field(default=1, ge=0)  # bricks with a strip that no exposure covers
    settings: Settings = Field(default_factory=Settings)

    @model_validator(mode="after")
    def _tiles_make_sense(self) -> MockSize:
        for key in (*self.tiles, *self.deep_tiles):
            tile_of_key(key)
        if len(set(self.tiles)) != len(self.tiles):
            raise ValueError("tiles repeat")
        if not self.tiles and not self.n_tiles:
            raise ValueError("name the tiles or say how many (n_tiles)")
        return self


def load_size(name: str) -> MockSize:
    """The size called ``tiny``, ``demo`` or ``survey`` from ``lens_assets/config/mock/NAME.yaml``."""
    folder = files("lens_assets") / "config" / "mock"
    known = sorted(p.name[:-5] for p in folder.iterdir() if p.name.endswith(".yaml"))
    if name not in known:
        raise BadInput(f"no mock size {name!r}; there are {', '.join(known)}")
    source = folder / f"{name}.yaml"
    return MockSize.model_validate({"name": name, **yaml.safe_load(source.read_text())})
