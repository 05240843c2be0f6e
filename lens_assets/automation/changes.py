"""What changed between two looks at a folder: a pure difference, so that sensors are thin and can be tested without Dagster.

A failed read is not an empty list: the caller that cannot list must raise, and a listing that lost keys never deletes a
partition here, because a partition carries finished work; what vanished is reported for a person to decide.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Changes:
    """Keys by what happened to them, each sorted."""

    new: tuple[str, ...]
    changed: tuple[str, ...]
    vanished: tuple[str, ...]

    @property
    def arrived(self) -> tuple[str, ...]:
        """Keys whose content is to be looked at: new or changed."""
        return tuple(sorted({*self.new, *self.changed}))

    def __bool__(self) -> bool:
        return bool(self.new or self.changed or self.vanished)


def changes(now: Mapping[str, str], before: Mapping[str, str], existing: Collection[str] = ()) -> Changes:
    """Compare two listings of key -> version.

    Parameters
    ----------
    now, before : key to version (a digest, or size and time) at this look and at the last one.
    existing : partition keys that exist already; a key that exists but was never looked at counts as changed.
    """
    return Changes(
        new=tuple(sorted(key for key in now if key not in before and key not in existing)),
        changed=tuple(
            sorted(
                key
                for key, version in now.items()
                if (key in before and before[key] != version) or (key not in before and key in existing)
            )
        ),
        vanished=tuple(sorted(key for key in before if key not in now)),
    )
