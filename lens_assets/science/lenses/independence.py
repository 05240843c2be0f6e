"""Which channels are independent of which, from what each declares it was derived from.

The declarations form a directed graph over channels and families (``desi-imaging``). Two channels are dependent when
they share an ancestor, themselves included: a follow-up of imaging candidates is not independent of imaging, however
good its spectra are. Who declares nothing usable (``unknown``) is independent of nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lens_assets.science.errors import BadInput
from lens_assets.science.lenses.mapping import UNKNOWN_ORIGIN, ChannelMapping


def by_channel(mappings: Mapping[str, ChannelMapping] | Iterable[ChannelMapping]) -> dict[str, ChannelMapping]:
    """Mappings by channel key; :class:`BadInput` when two different ones claim a channel."""
    found: dict[str, ChannelMapping] = {}
    for mapping in mappings.values() if isinstance(mappings, Mapping) else mappings:
        if mapping.channel in found:
            raise BadInput(f"two catalogues map to channel {mapping.channel!r}: rename one, or give it its own mapping")
        found[mapping.channel] = mapping
    return found


def ancestors(channel: str, mappings: Mapping[str, ChannelMapping]) -> frozenset[str]:
    """The channel and everything it was derived from, over any number of steps; a circle is an error."""
    seen: set[str] = set()

    def walk(name: str, trail: tuple[str, ...]) -> None:
        if name in trail:
            raise BadInput(f"derived_from goes in a circle: {' -> '.join((*trail, name))}")
        seen.add(name)
        if name in mappings:
            for parent in mappings[name].derived_from:
                walk(parent, (*trail, name))

    walk(channel, ())
    return frozenset(seen)


def independent_channels(mappings: Mapping[str, ChannelMapping]) -> frozenset[str]:
    """Channels that share no ancestor with any channel that trains."""
    origins = {name: ancestors(name, mappings) for name in mappings}
    trained: set[str] = set().union(*(origins[n] for n, m in mappings.items() if m.role == "train"), set())
    return frozenset(name for name, origin in origins.items() if UNKNOWN_ORIGIN not in origin and not origin & trained)
