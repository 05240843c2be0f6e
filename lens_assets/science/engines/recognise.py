"""Make an artefact, or recognise that it is already made from exactly this.

What made it (``identity``: code digest, settings, digests of the inputs that matter) is the artefact's fingerprint. When
the store holds one with the same, that artefact *is* the result. Every asset and every engine goes through here, so that
what one engine made the others recognise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lens_assets.science.hashing import canonical
from lens_assets.science.storage import Artefact, Draft, Store


def digests(*inputs: Artefact | Sequence[Artefact]) -> dict[str, str]:
    """Asset[partition] -> digest of the inputs, for an identity."""
    flat = [a for item in inputs for a in ([item] if isinstance(item, Artefact) else item)]
    return {f"{a.asset}[{a.partition}]": a.digest for a in flat}


def ensure(
    store: Store,
    asset: str,
    partition: str,
    identity: Mapping[str, Any],
    make: Callable[[Draft], None],
    *,
    force: bool = False,
) -> tuple[Artefact, bool]:
    """The artefact made of ``identity``, and whether it was there already.

    Parameters
    ----------
    identity : everything the result depends on, JSON-like; its digest decides whether work is needed.
    make : writes the files through a draft; called only when they are not there (or ``force``).
    """
    made_from = canonical({"asset": asset, "partition": partition, **identity})
    found = store.find(asset, partition)
    reused = found is not None and not force and found.manifest["made_from"] == made_from
    if not reused and not force:
        sent = store.resume(asset, partition, made_from)  # made by a run that was killed while it was sent
        if sent is not None:
            return sent, True
    if not reused:
        with store.draft(asset, partition, made_from=made_from) as draft:
            make(draft)
    return store.get(asset, partition), reused
