"""What is known about a tile that was made: small, plain JSON, the same from every engine.

A failure is a report too: one unreadable sweep must not cost the other tiles of a cluster's afternoon.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class TileReport:
    """One tile of one asset.

    ``digest`` and ``fingerprint`` are those of the artefact, ``rows`` its rows, ``facts`` what its maker stated (with the
    counts of rejected rows), ``seconds`` the wall time of the kernel, ``worker`` host and process that ran it. Of a
    failed tile ``error`` says why, as ``kind: message``, and the digest is empty.
    """

    asset: str
    tile: str
    digest: str = ""
    fingerprint: str = ""
    rows: int | None = None
    reused: bool = False
    seconds: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)
    worker: str = ""
    error: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the artefact is there."""
        return self.error is None

    def to_json(self) -> str:
        """One line of JSON, keys sorted."""
        return json.dumps(asdict(self), sort_keys=True, default=str)

    @classmethod
    def from_json(cls, text: str) -> TileReport:
        """The report in a line of JSON."""
        return cls(**json.loads(text))


class LostTiles(RuntimeError):
    """An engine came back without a report for every tile, or with reports for others."""


def complete(asset: str, tiles: Iterable[str], reports: Iterable[TileReport]) -> list[TileReport]:
    """The reports sorted by tile, one for each tile that was asked for; :class:`LostTiles` otherwise."""
    found: dict[str, TileReport] = {}
    for report in reports:
        if report.asset != asset or report.tile in found:
            raise LostTiles(f"unexpected or repeated report of {report.asset}[{report.tile}]")
        found[report.tile] = report
    wanted = set(tiles)
    if missing := sorted(wanted - set(found)):
        raise LostTiles(f"{asset}: no report of {len(missing)} of {len(wanted)} tiles: {', '.join(missing[:10])}")
    if extra := sorted(set(found) - wanted):
        raise LostTiles(f"{asset}: reports of tiles nobody asked for: {', '.join(extra[:10])}")
    return [found[tile] for tile in sorted(found)]
