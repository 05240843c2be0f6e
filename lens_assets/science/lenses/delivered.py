"""One list delivered under two names: it would count twice in every overlap, and once as independent of itself.

Two files with the same bytes are kept apart before they are read (``automation.watch``). Here are the copies that only
their content betrays: another format, another order of rows, another rounding.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import polars as pl

from lens_assets.science import sphere
from lens_assets.science.errors import BadInput
from lens_assets.science.lenses.mapping import ChannelMapping

MIN_PLACES = 8
"""Shorter lists may well name the same few famous lenses."""
SAME_ARCSEC = 0.5
"""A position printed to 1e-4 degrees is off by up to 0.18 arcsec in each coordinate."""


def copies(channels: pl.DataFrame) -> list[tuple[str, str]]:
    """Pairs of channels (sorted) that list the same places, :data:`MIN_PLACES` at least."""
    parts = {
        str(name): part
        for (name,), part in channels.group_by("channel", maintain_order=True)
        if part.select("ra", "dec").n_unique() >= MIN_PLACES
    }
    found = []
    for a, b in itertools.combinations(sorted(parts), 2):
        if _covers(parts[a], parts[b]) and _covers(parts[b], parts[a]):
            found.append((a, b))
    return found


def _covers(left: pl.DataFrame, right: pl.DataFrame) -> bool:
    """Whether each place of ``left`` is one of ``right``."""
    (ra, dec), (other_ra, other_dec) = ((part["ra"].to_numpy(), part["dec"].to_numpy()) for part in (left, right))
    return bool(sphere.within(ra, dec, other_ra, other_dec, SAME_ARCSEC).all())


def refuse_copies(channels: pl.DataFrame, mappings: Mapping[str, ChannelMapping]) -> None:
    """Raise :class:`BadInput` naming two channels that list the same places, unless one declares to be derived from the
    other (a list that grades another again)."""
    for a, b in copies(channels):
        if b not in mappings[a].derived_from and a not in mappings[b].derived_from:
            n = channels.filter(pl.col("channel") == a).select("ra", "dec").n_unique()
            raise BadInput(
                f"channels {a!r} and {b!r} list the same {n} places: one catalogue delivered twice. Remove one of the "
                f"files, or let the mapping of the later one declare derived_from: [{a}]",
                column="channel",
            )
