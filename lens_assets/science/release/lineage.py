"""The way back: from a surface to its injections, hosts, cutouts, sweeps and catalogues, by the digests each was made
from."""

from __future__ import annotations

import re
from typing import Any

from lens_assets.science.storage import Artefact, Store

CITATION: dict[str, Any] = {
    "title": "Completeness of a strong-lens search, measured by injection and recovery with lens_assets",
    "authors": [{"name": "The lens_assets developers"}],
    "license": "CC-BY-4.0",
}
_INPUT = re.compile(r"([A-Za-z0-9_]+)\[(.+)\]")


def trace(store: Store, *artefacts: Artefact) -> dict[str, Any]:
    """Every artefact that ``artefacts`` depend on, and they themselves: its digest and what made it (code, settings,
    inputs), by asset[partition].

    Follows what the manifests state, so an input that has since been replaced is listed with the digest that was
    used, and ``replaced`` says so. No time, host or run: the same content gives the same lineage.
    """
    found: dict[str, Any] = {}
    waiting = list(artefacts)
    while waiting:
        one = waiting.pop()
        name = f"{one.asset}[{one.partition}]"
        if name in found:
            continue
        made_from = dict(one.manifest["made_from"])
        found[name] = {"digest": one.digest, "made_from": made_from}
        for key, used in made_from.items():
            match = _INPUT.fullmatch(key)
            if not match or not isinstance(used, str):
                continue
            parent = store.find(match.group(1), match.group(2))
            if parent is not None and parent.digest == used:
                waiting.append(parent)
            else:
                found.setdefault(key, {"digest": used, "replaced": True})
    return {name: found[name] for name in sorted(found)}
