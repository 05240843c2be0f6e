"""What is asked of every row of a sweep while the file goes by, and what was answered: cuts, and who may be near whom.

A cut that compares one column of the file with constants (:class:`Cuts`) is made in the compiled pass, so that no column of all
rows has to be made. What a cut is for is the caller's business (``negatives.sweeping``).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from lens_assets.science.sieve import Sieve
from lens_assets.science.surveys import schema
from lens_assets.science.surveys.passing import NOBS_OPEN

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

REFERENCES = ("", "T2", "GE", "L3")
MOST_STEPS = 12
"""Rows are counted by pattern of the steps they fail, so the counts are two to this many."""
_EVERYTHING = (-(1 << 40), 1 << 40)


@dataclass(frozen=True)
class Cuts:
    """Cuts of sound rows, each a numbered step (bit) of ``n_steps``.

    ``types``: (step, the TYPEs that pass) ; ``ranges``: (step, column, from, below) of float32 and int16 columns; ``bits``: (step,
    column, mask) of int32 columns that may have none of the bits. ``known``: positions that rows may be near (no step: the
    caller judges the ``doubtful``). ``bright``: the FLUX_R from which a row may matter to others, ``stars``: the FLUX_R from
    which a PSF of this REF_CAT may.
    """

    n_steps: int
    known: Sieve
    bright: float
    stars: dict[str, float]
    types: tuple[int, tuple[str, ...]] | None = None
    ranges: tuple[tuple[int, str, float, float], ...] = ()
    bits: tuple[tuple[int, str, int], ...] = ()

    def __post_init__(self) -> None:
        if self.n_steps > MOST_STEPS:
            raise ValueError(f"{self.n_steps} steps: at most {MOST_STEPS}")

    def compiled(self, fields: dict[str, schema.Field]) -> tuple[Any, ...]:
        """The cuts as the compiled pass takes them (``passing._judge``)."""
        kinds = np.zeros(256, np.int64)
        if self.types:
            step, good = self.types
            kinds[: len(schema.TYPES)] = [0 if kind in good else 1 << step for kind in schema.TYPES]
        floats = [r for r in self.ranges if fields[r[1]].letter == "E"]
        shorts = [r for r in self.ranges if fields[r[1]].letter == "I"]
        if len(floats) + len(shorts) < len(self.ranges):
            raise ValueError("cuts are made of float32 and int16 columns")
        steps = np.zeros((3, MOST_STEPS), np.int64)
        for line, numbers in enumerate(([r[0] for r in floats], [r[0] for r in shorts], [b[0] for b in self.bits])):
            steps[line, : len(numbers)] = [1 << step for step in numbers]
        stars = np.full(256, np.inf)
        stars[: len(REFERENCES)] = [self.stars.get(ref, np.inf) for ref in REFERENCES]
        others = [fields[n].offset for n in ("NOBS_Z", "FLUX_R", "OBJID", "REF_CAT")] + [fields["REF_CAT"].size]
        return (
            kinds, _at(fields, floats), np.array([r[2:] for r in floats], float).reshape(-1, 2),
            _at(fields, shorts), np.clip(np.array([r[2:] for r in shorts], float).reshape(-1, 2), *_EVERYTHING).astype(np.int64),
            _at(fields, self.bits), np.array([b[2] for b in self.bits], np.uint32), steps,
            np.array(others, np.int64), self.known.grid, float(self.bright), stars,
        )  # fmt: skip


def _at(fields: dict[str, schema.Field], cuts: Iterable[tuple[Any, ...]]) -> I64:
    return np.array([fields[cut[1]].offset for cut in cuts], np.int64)


@dataclass
class Judged:
    """The answers: counts, and the rows that stay interesting. Marked rows (``prove``) are in none of them."""

    failed: I64
    """(2 ** n_steps,) rows by pattern of the steps they fail."""
    strata: I64
    """(TYPEs, exposures in z up to ``NOBS_OPEN``) rows."""
    doubtful: I64 = field(default_factory=lambda: np.empty((0, 2), np.int64))
    """(row, pattern) of those in a marked cell, ``doubtful_at`` their positions."""
    doubtful_at: F64 = field(default_factory=lambda: np.empty((0, 2)))
    beside: pl.DataFrame = field(default_factory=pl.DataFrame)
    """release, brickid, objid, type, ra, dec, flux_r, ref_cat of rows that may matter to others."""


class Judging:
    """Room for the answers about the rows from ``first`` to below ``last``, as the compiled pass fills it."""

    def __init__(self, cuts: Cuts | None, rows: int, width: int) -> None:
        n = rows if cuts else 0
        self.failed = np.zeros(1 << cuts.n_steps if cuts else 1, np.int64)
        self.strata = np.zeros((len(schema.TYPES), NOBS_OPEN + 1), np.int64)
        self.scratch = np.empty(64, np.int64), np.empty(64, np.int64)
        self.passed, self.whole = np.empty(n + 1, np.int64), np.empty((n, width), np.uint8)
        self.doubtful, self.doubtful_at = np.empty((n, 2), np.int64), np.empty((n, 2))
        self.beside, self.ref = np.empty((n, 2), np.uint32), np.empty(n, np.uint8)
        self.flux, self.beside_at = np.empty(n, np.float32), np.empty((n, 2))

    def end(self, passed: int, doubtful: int, beside: int) -> None:
        """Keep what was filled."""
        self.passed, self.whole = self.passed[:passed], self.whole[:passed]
        self.doubtful, self.doubtful_at = self.doubtful[:doubtful], self.doubtful_at[:doubtful]
        self.beside, self.ref, self.flux = self.beside[:beside], self.ref[:beside], self.flux[:beside]
        self.beside_at = self.beside_at[:beside]


def gathered(rooms: list[Judging], runs: dict[str, I64], kinds: npt.NDArray[np.uint8]) -> Judged:
    """The answers of all parts of a file as one. ``runs``: stretches of rows of one brick; ``kinds``: codes of TYPE of all rows."""

    def all_of(name: str) -> npt.NDArray[Any]:
        return np.concatenate([getattr(room, name) for room in rooms])

    identity, at = all_of("beside"), all_of("beside_at")
    rows = identity[:, 0].astype(np.int64)
    run = np.searchsorted(runs["row"], rows, side="right") - 1
    beside = [
        pl.Series("release", runs["release"][run].astype(np.int16)),
        pl.Series("brickid", runs["brickid"][run].astype(np.int32)),
        pl.Series("objid", identity[:, 1].astype(np.uint32).view(np.int32)),
        _enum("type", kinds[rows], [*schema.TYPES]),
        pl.Series("ra", at[:, 0]),
        pl.Series("dec", at[:, 1]),
        pl.Series("flux_r", all_of("flux")),
        _enum("ref_cat", np.minimum(all_of("ref"), len(REFERENCES)), [*REFERENCES, "another"]),
    ]
    failed, strata = (np.sum([getattr(room, name) for room in rooms], axis=0) for name in ("failed", "strata"))
    return Judged(failed, strata, all_of("doubtful"), all_of("doubtful_at"), pl.DataFrame(beside))


def _enum(name: str, codes: npt.NDArray[np.uint8], labels: list[str]) -> pl.Series:
    return pl.select(pl.lit(pl.Series(name, codes)).cat.to(pl.Enum(labels))).to_series().alias(name)
