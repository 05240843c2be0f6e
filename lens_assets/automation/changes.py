"""What changed between two looks at a folder: a pure difference, so that sensors are thin and can be tested without Dagster.

A failed read is not an empty list: the caller that cannot list must raise. A key whose file is gone is *vanished* at the first
look (reported, nothing else: it may be being replaced) and *gone* from the second on. What is gone may be withdrawn, so that no
later sample is made with it; see :func:`may_withdraw` for when it may.
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
    gone: tuple[str, ...] = ()

    @property
    def arrived(self) -> tuple[str, ...]:
        """Keys whose content is to be looked at: new or changed."""
        return tuple(sorted({*self.new, *self.changed}))

    def __bool__(self) -> bool:
        return bool(self.new or self.changed or self.vanished or self.gone)


def changes(now: Mapping[str, str], before: Mapping[str, str], existing: Collection[str] = ()) -> Changes:
    """Compare two listings of key -> version.

    Parameters
    ----------
    now, before : key to version (a digest, or size and time) at this look and at the last one.
    existing : partition keys that exist already; a key that exists but was never looked at counts as changed, and one that
        exists and was at neither look is gone.
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
        gone=tuple(sorted({*existing} - {*now} - {*before})),
    )


def may_withdraw(missing: Collection[str], existing: Collection[str], *, busy: bool) -> str:
    """Why keys whose files are missing may not be withdrawn now, or an empty string when they may.

    Not under a running run, which may be reading them; and not when more than half of an axis is missing at once, which is
    how a folder that is not mounted looks.
    """
    if busy:
        return "a run is in progress"
    if 2 * len({*missing}) > len({*existing}):
        return f"{len({*missing})} of {len({*existing})} are missing at once: is the folder mounted?"
    return ""
