"""Configuration of the closure experiment: how much independent sky, and how many injections it is compared with."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class ClosureSettings(BaseModel):
    """Sizes of the experiment; nothing of it enters a surface."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(
        71, description="Seed of the closure sky; its bricks lie in tiles that the practice sky leaves out."
    )
    tiles: int = Field(5, ge=1, description="Tiles of the closure sky.")
    bricks_per_tile: int = Field(4, ge=1, description="Bricks a tile.")
    lens_share: float = Field(
        0.53,
        gt=0,
        lt=1,
        description="Lenses among the bright objects of a brick; their number stays the practice sky's.",
    )
    theta_e: tuple[float, float] = Field(
        (1.9, 0.7),
        description='Median (") and log scatter of theta_E: flatter than the practice sky, to fill every cell.',
    )
    per_cell: int = Field(100, ge=10, description="Injections a cell of each instrument made for the experiment.")
    neighbours: int = Field(4, ge=1, description="Most alike galaxies that a deflector's host is drawn from.")
    known_per_cell: int = Field(
        30,
        ge=10,
        description="Least mean number of the surface's own arcs on fresh galaxies that a cell is tested with.",
    )
    replicates: int = Field(6, ge=1, description="Disjoint sets of hosts whose surfaces are tested one by one.")
    draws: int = Field(
        1000, ge=100, description="Bootstrap draws (over hosts, and over bricks) of each step's difference."
    )
