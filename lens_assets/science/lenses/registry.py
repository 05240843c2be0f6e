"""All channels united into one registry: one row a system, whatever the order in which the rows or the channels arrive.

Rows within the linking length are friends; a system is a set of rows connected by friendship. Its position is that of
the member nearest to all others (a published position, never a mean between two galaxies). Every value is taken from
one stated member, and where members disagree a flag says so; ``conflicts`` tells what they say.

A system is named after the position of its earliest member, in the order (year, channel, lens_id). So its name does not
change when rows or channels arrive in another order, when lists are added elsewhere on the sky, or when it gains a
later member. It does change when a list published *earlier* than all of its members is added, or when a new member
joins two systems into one (they keep the earlier name): ``names.keep_names`` carries the names of a registry that has
been published over both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from lens_assets.science import sphere
from lens_assets.science.columns.lenses import LENS_CHANNEL, LENS_REGISTRY
from lens_assets.science.errors import BadInput
from lens_assets.science.lenses.conflicts import disagreements
from lens_assets.science.lenses.delivered import refuse_copies
from lens_assets.science.lenses.independence import by_channel, independent_channels
from lens_assets.science.lenses.mapping import ChannelMapping
from lens_assets.science.lenses.positions import position_name
from lens_assets.science.lenses.settings import VISUAL, Label, Settings

_LABEL_ORDER = (
    Label.NOT_LENS, Label.SPEC_BOTH_Z, Label.VISUAL_A, Label.VISUAL_B, Label.SPEC_LENS_Z, Label.SPEC_SOURCE_Z,
    Label.VISUAL_C, Label.CANDIDATE,
)  # fmt: skip
"""Which member's label a system carries. Known to be no lens beats all: whoever looked again after the finder has the
last word, and where another list insists on a lens (``conflict_label``) the system is neither positive nor negative
until a person decides. Then evidence from spectra, then the best visual grade; one redshift alone says no more about
lensing than grade C or B do, so it outranks only C."""
_TIER_OF_LABEL = {Label.SPEC_BOTH_Z: "confirmed", Label.VISUAL_A: "A", Label.VISUAL_B: "B"}
REDSHIFT_ORDER = {"spectroscopic": 0, "mixed": 1, "photometric": 2}


def build_registry(
    channels: pl.DataFrame,
    mappings: Mapping[str, ChannelMapping] | Iterable[ChannelMapping],
    settings: Settings | None = None,
) -> pl.DataFrame:
    """Unite channels.

    Parameters
    ----------
    channels : ``lens_channel`` tables of all channels, concatenated in any order.
    mappings : the mapping of every channel in it (a sequence, or by channel key).

    Returns
    -------
    the ``lens_registry`` table, sorted by system_id; ``n_members`` sums to the rows that came in.

    Raises
    ------
    BadInput : a channel without a mapping, two mappings of one channel, ``derived_from`` in a circle, or one list
        delivered under two names.
    """
    settings = settings or Settings()
    rules = by_channel(mappings)
    for channel in channels["channel"].unique().sort():
        if channel not in rules:
            raise BadInput(f"no mapping was given for channel {channel!r}", column="channel")
    if not channels.height:
        return LENS_REGISTRY.conform(pl.DataFrame(schema={c.name: c.dtype for c in LENS_REGISTRY.columns}))
    channels = LENS_CHANNEL.conform(channels)  # sorted: nothing below depends on the order of arrival
    refuse_copies(channels, rules)
    independent = independent_channels(rules)
    groups = sphere.friends_of_friends(
        channels["ra"].to_numpy(), channels["dec"].to_numpy(), settings.fof_radius_arcsec
    )
    rows = channels.rows(named=True)
    members: dict[int, list[dict[str, Any]]] = {}
    for group, row in zip(groups.tolist(), rows, strict=True):
        members.setdefault(group, []).append(row)
    systems = [_system(group, rules, independent, settings) for group in members.values()]
    frame = pl.DataFrame(systems, schema={c.name: c.dtype for c in LENS_REGISTRY.columns})
    return LENS_REGISTRY.conform(_distinct(frame))


def _system(
    members: Sequence[dict[str, Any]],
    rules: Mapping[str, ChannelMapping],
    independent: frozenset[str],
    settings: Settings,
) -> dict[str, Any]:
    members = sorted(members, key=lambda m: (rules[m["channel"]].year, m["channel"], m["lens_id"]))
    anchor = members[0]
    ra, dec, extent = _centre(members)
    by_quality = sorted(
        members, key=lambda m: REDSHIFT_ORDER[rules[m["channel"]].redshifts]
    )  # stable: earliest first among equals
    labels = {Label(m["label"]) for m in members}
    counted = labels if settings.compilations_lift else _own_grades(members, rules)
    label = next(option for option in _LABEL_ORDER if option in counted)
    fields = {found.field for found in disagreements(members, rules, settings)}
    confirming = (Label.VISUAL_A, Label.SPEC_BOTH_Z)
    hst = any(rules[m["channel"]].imaging == "hst" and m["label"] in confirming for m in members)
    tier = tier_of(label, hst=hst, contradicted=Label.NOT_LENS in labels)
    names = sorted({m["channel"] for m in members})
    kinds = [m["kind"] for m in members]
    return {
        "system_id": position_name(anchor["ra"], anchor["dec"]),
        "ra": ra,
        "dec": dec,
        "z_lens": _deflector(by_quality, rules),
        "z_source": _first(by_quality, "z_source"),
        "theta_e": _first(members, "theta_e"),
        "kind": kinds[0],
        "label": str(label),
        "tier": tier,
        "weight": settings.weight(tier),
        "channels": names,
        "lens_ids": sorted(f"{m['channel']}:{m['lens_id']}" for m in members),
        "n_members": len(members),
        "extent_arcsec": extent,
        "trains": any(rules[name].role == "train" for name in names),
        "independent": all(name in independent for name in names),
        "conflict_z": bool(fields & {"z_lens", "z_source", "z_order"}),
        "conflict_theta_e": "theta_e" in fields,
        "conflict_grade": len(labels & VISUAL) > 1,
        "conflict_label": "label" in fields,
        "conflict_kind": "kind" in fields,
    }


def _own_grades(members: Sequence[dict[str, Any]], rules: Mapping[str, ChannelMapping]) -> set[Label]:
    """The labels without the visual grades of compilations, where another list graded the system itself."""
    own = {Label(m["label"]) for m in members if not rules[m["channel"]].compiles}
    restated = {Label(m["label"]) for m in members if rules[m["channel"]].compiles}
    return own | (restated - VISUAL if own & VISUAL else restated)


def tier_of(label: Label | str, *, hst: bool = False, contradicted: bool = False) -> str:
    """Tier by the science contract, section 2.

    ``confirmed``: both redshifts, or HST images (a grade A or two redshifts of a list that stands on them; its other
    candidates are not confirmed by having been observed). ``A`` and ``B``: by the visual grade. What a follow-up found
    to be no lens has none, whatever else is said of it (the conflict is flagged).
    """
    if contradicted:
        return "none"
    return "confirmed" if hst else _TIER_OF_LABEL.get(Label(label), "none")


def _centre(members: Sequence[dict[str, Any]]) -> tuple[float, float, float]:
    """Position of the member with the least summed separation to all others (the earliest of equals), and the largest
    separation from it (arcsec)."""
    if len(members) == 1:
        return members[0]["ra"], members[0]["dec"], 0.0
    ra, dec = np.array([m["ra"] for m in members]), np.array([m["dec"] for m in members])
    apart = sphere.separation(ra[:, None], dec[:, None], ra[None, :], dec[None, :])
    total = np.round(apart.sum(axis=1), 6)  # equal sums stay equal whatever the order of summation
    best = int(np.argmin(total))
    return float(ra[best]), float(dec[best]), float(apart[best].max())


def _first(members: Sequence[dict[str, Any]], column: str) -> float | None:
    return next((m[column] for m in members if m[column] is not None), None)


def _deflector(by_quality: Sequence[dict[str, Any]], rules: Mapping[str, ChannelMapping]) -> float | None:
    """The deflector's redshift: the first one; where its list is spectroscopic and has several of the system, the lowest
    of them, because fibres also lie on sources and the deflector is in front."""
    first = next((m for m in by_quality if m["z_lens"] is not None), None)
    if first is None or rules[first["channel"]].redshifts != "spectroscopic":
        return None if first is None else float(first["z_lens"])
    return float(min(m["z_lens"] for m in by_quality if m["channel"] == first["channel"] and m["z_lens"] is not None))


def _distinct(frame: pl.DataFrame) -> pl.DataFrame:
    """Give systems whose truncated names coincide (neighbours just beyond the linking length) a letter, in order of
    position."""
    doubled = frame.filter(pl.col("system_id").is_duplicated())
    if not doubled.height:
        return frame
    order = frame.sort("system_id", "ra", "dec", "lens_ids").with_columns(
        pl.int_range(pl.len()).over("system_id").alias("_n"), pl.len().over("system_id").alias("_of")
    )
    name = [
        f"{s}{chr(97 + n)}" if of > 1 else s
        for s, n, of in zip(order["system_id"], order["_n"], order["_of"], strict=True)
    ]
    return order.with_columns(pl.Series("system_id", name, dtype=pl.String)).drop("_n", "_of")
