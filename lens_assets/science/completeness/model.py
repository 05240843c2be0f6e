"""What a finished surface is: its tables, its header, and how it is written and read again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from lens_assets.science.completeness.grid import Grid
from lens_assets.science.completeness.prior_error import PriorDraws
from lens_assets.science.completeness.recount import LEVELS, Recounted, no_fit
from lens_assets.science.completeness.settings import Settings
from lens_assets.science.completeness.thresholds import OperatingPoint
from lens_assets.science.completeness.verdict import Verdict
from lens_assets.science.intervals import Interval
from lens_assets.science.storage import Artefact, Draft

F64 = npt.NDArray[np.float64]
_TABLES = ("cells", "two_factor", "marginals", "physics", "members")
__all__ = ["LEVELS", "Surface", "bounds", "nulls", "place"]


@dataclass(frozen=True)
class Surface:
    """A finished surface. ``meta`` holds what was measured with what: verdict, detector, variant, rejections,
    methods. ``prior`` holds draws of the fit of the priors, where they were fitted."""

    grid: Grid
    settings: Settings
    points: tuple[OperatingPoint, ...]
    cells: pl.DataFrame
    two_factor: pl.DataFrame
    marginals: pl.DataFrame
    physics: pl.DataFrame
    members: pl.DataFrame
    meta: Mapping[str, Any]
    prior: PriorDraws | None = None

    @cached_property
    def recounted(self) -> Recounted | None:
        """The members counted again under every draw of the fit of their priors; ``None`` where those were not fitted."""
        if self.prior is None:
            return None
        return self.prior.weights(self.members).counted(self.members, [p.cut for p in self.points])

    def prior_columns(
        self, units: pl.DataFrame, by: Sequence[str], weight: F64, group_of: npt.NDArray[np.int64], point: OperatingPoint,
        c: F64, n_eff: F64, total: Mapping[float, Interval],
    ) -> dict[str, F64]:  # fmt: skip
        """The columns ``prior_*`` and ``full_*`` of groups of completeness ``c`` at ``point``: see ``recount``."""
        if self.recounted is None:
            return no_fit(c.size)
        found = self.recounted.grouped(units, by, weight, group_of, c.size, self.points.index(point))
        return found.columns(c, n_eff, total, self.settings.prior_min_effective)

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
        if self.prior is not None:
            draft.table(self.prior.table, "prior_draws")
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
            "prior": None if self.prior is None else self.prior.header(),
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
            prior=PriorDraws.read(header["prior"], artefact.read("prior_draws")) if header["prior"] else None,
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
