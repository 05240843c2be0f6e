"""What a finished surface is: its tables, its header, and how it is written and read again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from lens_assets.science.completeness.grid import Grid
from lens_assets.science.completeness.settings import Settings
from lens_assets.science.completeness.thresholds import OperatingPoint
from lens_assets.science.completeness.verdict import Verdict
from lens_assets.science.storage import Artefact, Draft

F64 = npt.NDArray[np.float64]
LEVELS = (0.68, 0.95)
_TABLES = ("cells", "two_factor", "marginals", "physics", "members")


@dataclass(frozen=True)
class Surface:
    """A finished surface. ``meta`` holds what was measured with what: verdict, detector, variant, rejections,
    methods."""

    grid: Grid
    settings: Settings
    points: tuple[OperatingPoint, ...]
    cells: pl.DataFrame
    two_factor: pl.DataFrame
    marginals: pl.DataFrame
    physics: pl.DataFrame
    members: pl.DataFrame
    meta: Mapping[str, Any]

    @property
    def verdict(self) -> Verdict:
        """The realism verdict in the header."""
        return Verdict.from_json(self.meta["verdict"])

    @property
    def violations(self) -> pl.DataFrame:
        """The steps of the physics checks at which the completeness falls significantly."""
        return self.physics.filter(pl.col("violates"))

    def point(self, name: str) -> OperatingPoint:
        """An operating point by name; ``default`` is the one a look-up uses."""
        name = self.meta["default_point"] if name == "default" else name
        for point in self.points:
            if point.name == name:
                return point
        raise KeyError(f"no operating point {name!r}; there are {', '.join(p.name for p in self.points)}")

    def save(self, draft: Draft) -> None:
        """Write the surface as an artefact: ``cells``, ``two_factor``, ``marginals``, ``physics``, ``members``,
        ``surface``."""
        for name in _TABLES:
            draft.table(getattr(self, name), name)
        draft.json("surface", self.header())
        draft.facts.update(
            rows=self.cells.height,
            injections=self.members.height,
            verdict=self.verdict.title,
            violations=self.violations.height,
            **{f"cells_{k}": v for k, v in self.meta["support"].items()},
        )

    def header(self) -> dict[str, Any]:
        """The JSON header."""
        return {
            "grid": self.grid.to_json(),
            "settings": self.settings.model_dump(mode="json"),
            "operating_points": [p.to_json() for p in self.points],
            "meta": dict(self.meta),
        }

    @classmethod
    def load(cls, artefact: Artefact) -> Surface:
        """Read what :meth:`save` wrote."""
        header = artefact.json("surface")
        tables = {n: artefact.read(n) for n in _TABLES}
        return cls(
            grid=Grid.from_json(header["grid"]),
            settings=Settings.model_validate(header["settings"]),
            points=tuple(OperatingPoint(**p) for p in header["operating_points"]),
            meta=header["meta"],
            **tables,
        )


def bounds(prefix: str, intervals: Mapping[float, Any]) -> dict[str, F64]:
    """Columns ``prefix_lo68`` ... of intervals by level."""
    out = {}
    for level, interval in intervals.items():
        out[f"{prefix}_lo{round(100 * level)}"] = np.asarray(interval.lo, float)
        out[f"{prefix}_hi{round(100 * level)}"] = np.asarray(interval.hi, float)
    return out


def nulls(frame: pl.DataFrame) -> pl.DataFrame:
    """``nan`` as null: a number that does not exist."""
    return frame.with_columns(pl.col(pl.Float64).fill_nan(None))


def place(grid: Grid, names: Sequence[str]) -> dict[str, Any]:
    """Indices and centres of every cell, repeated for each operating point."""
    index = grid.unflat(np.arange(grid.size))
    out: dict[str, Any] = {"operating_point": np.repeat(np.asarray(names, dtype=object), grid.size).tolist()}
    for axis, name, i in zip(grid.axes, ("theta", "psf", "depth"), index, strict=True):
        out[f"i_{name}"] = np.tile(i, len(names))
        out["cell_theta_e" if name == "theta" else f"cell_{name}"] = np.tile(np.asarray(axis.centres)[i], len(names))
    return out
