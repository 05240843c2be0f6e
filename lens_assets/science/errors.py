"""Errors that name the place of the fault, and the book-keeping of rejected rows.

What belongs here: the two ways bad input may leave the pipeline. Either a :class:`BadInput` that names file, column and
row, or a counted rejection with a reason. A silent drop is a defect: ``n_in == n_out + n_rejected``, always.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


class BadInput(ValueError):
    """Input that cannot be used, with the file, column and row that are at fault.

    Parameters
    ----------
    message : what is wrong and, where it is known, what to do about it.
    file, column, row : the place; ``row`` counts data rows from 0. Any of them may be unknown (``None``).
    """

    def __init__(
        self, message: str, *, file: str | None = None, column: str | None = None, row: int | None = None
    ) -> None:
        self.file, self.column, self.row = file, column, row
        place = ", ".join(
            f"{name} {value!r}"
            for name, value in (("file", file), ("column", column), ("row", row))
            if value is not None
        )
        super().__init__(f"{place}: {message}" if place else message)


class UnbalancedCount(AssertionError):
    """Rows appeared or vanished without a reason."""


@dataclass
class Rejections:
    """Counts of rows set aside, by reason. ``check`` proves that nothing was lost.

    >>> r = Rejections(); r.add("not finite", 2); r.check(n_in=10, n_out=8)
    """

    counts: dict[str, int] = field(default_factory=dict)

    def add(self, reason: str, n: int) -> None:
        """Count ``n`` rows under ``reason``; zero is not recorded."""
        if n < 0:
            raise UnbalancedCount(f"{reason}: a negative count ({n})")
        if n:
            self.counts[reason] = self.counts.get(reason, 0) + int(n)

    def merge(self, other: Rejections | Mapping[str, int]) -> None:
        """Add the counts of ``other`` to these."""
        for reason, n in (other.counts if isinstance(other, Rejections) else other).items():
            self.add(reason, n)

    @property
    def total(self) -> int:
        """All rejected rows."""
        return sum(self.counts.values())

    def check(self, n_in: int, n_out: int) -> None:
        """Raise :class:`UnbalancedCount` unless ``n_in == n_out + total``."""
        if n_in != n_out + self.total:
            raise UnbalancedCount(f"{n_in} rows came in, {n_out} went out, {self.total} were rejected ({self.counts})")
