"""When an asset is renewed without anybody asking.

``RENEW``: when one of its inputs has *another content* than at the last look (a new data version; a materialisation that gives
the same bytes is no news), or when the partition is new; not while an input is missing or in progress, and not while a
blocking check of an input fails. Dagster's own ``eager()`` also fires on unchanged content and asks for the whole downstream
graph at once, which would train again for a catalogue that changes no training object.

``RENEW_CHOSEN``: the same for partitions that somebody once asked for. Recipes and variants are a menu: what a survey trains
and injects is chosen by a person (in the UI, or by the profile's ``runs`` for a chain), and a new catalogue renews what was
chosen; it does not start the rest of the menu.
"""

from __future__ import annotations

from typing import Any

import dagster as dg

_C = dg.AutomationCondition

_BUSY = _C.in_progress() | _C.will_be_requested()


def _above(levels: int) -> dg.AutomationCondition[Any]:
    """Something up to so many steps above is being made, or will be: what hangs on it by two ways must not be made of one
    new and one old input."""
    found = _C.any_deps_match(_BUSY)
    for _ in range(levels - 1):
        found = _C.any_deps_match(_BUSY | found)
    return found


def renewal(*, chosen: bool = False, partial: tuple[str, ...] = ()) -> dg.AutomationCondition[Any]:
    """The condition of an asset.

    ``chosen``: its partitions are a menu (:data:`RENEW_CHOSEN`). ``partial``: inputs of which a part is enough, such as the
    batches of a profile that injects at some Einstein radii only; the inputs with the metadata ``partial`` of the asset.
    """
    missing = _C.any_deps_missing()
    missing = missing.ignore(dg.AssetSelection.assets(*sorted(partial))) if partial else missing
    renew = (
        (_C.newly_missing() | _C.any_deps_match(_C.data_version_changed()).with_label("an input has new content"))
        .since_last_handled()
        .with_label("new, or an input has new content")
        & (~missing).with_label("all inputs are there")
        & (~_above(2)).with_label("no input is being made, nor what it is made of")
        & ~_C.in_progress()
        & _C.all_deps_blocking_checks_passed()
    ).with_label("renew")
    if not chosen:
        return renew
    return ((~_C.missing()).with_label("somebody asked for it before") & renew).with_label("renew what was chosen")


RENEW = renewal()
"""When an asset is renewed by itself: new content, a new partition; not the same content, not past a failed gate."""
RENEW_CHOSEN = renewal(chosen=True)
"""For assets whose partitions are a menu (recipes, variants, their combinations), and for the release."""
