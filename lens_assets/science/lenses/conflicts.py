"""Where the members of a system disagree, and where one of them is odd by itself: a table to be read by a person.

One row a system and field, with every stated value and who states it. Nothing here decides: which value the registry
uses is written beside, and ``tolerance`` says from where on two values disagree.

============  ========================================================================================================
field         reported when
============  ========================================================================================================
``z_lens``    two values differ by more than ``z_conflict`` (1 + z), or ``z_conflict_spec`` (1 + z) where both lists are
``z_source``  spectroscopic; the values of one cell count one by one (``0.3, 0.5``)
``z_order``   the deflector's redshift is not below the source's
``theta_e``   two Einstein radii differ by more than ``theta_e_conflict`` of the smaller
``grade``     the visual grades differ
``label``     a lens (or a graded candidate) to one list, known to be none to another
``kind``      galaxy to one, quasar to another
``twice``     one list has several rows of the system
``extent``    a member is farther from the system's position than the linking length: a chain of friends
``cell``      a cell was odd: a limit, a doubt, several values, not a number
============  ========================================================================================================
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from lens_assets.science.columns.lenses import LENS_CONFLICTS
from lens_assets.science.errors import BadInput
from lens_assets.science.lenses import values
from lens_assets.science.lenses.channels import DISAGREE, REPEATED, split_note
from lens_assets.science.lenses.independence import by_channel
from lens_assets.science.lenses.mapping import ChannelMapping
from lens_assets.science.lenses.settings import SPECTROSCOPIC, VISUAL, Label, Settings

Member = Mapping[str, Any]
_LENS = VISUAL | {Label.SPEC_BOTH_Z}


@dataclass(frozen=True)
class Disagreement:
    """One field of one system: what the members say, in the order of ``lens_ids``."""

    field: str
    values: tuple[str, ...]
    lens_ids: tuple[str, ...]
    tolerance: float | None = None
    channels: tuple[str, ...] = ()


def disagreements(
    members: Sequence[Member], rules: Mapping[str, ChannelMapping], settings: Settings
) -> list[Disagreement]:
    """What the rows of one system disagree on (all fields of the module but ``extent`` and ``cell``)."""
    found = []
    for name in ("z_lens", "z_source"):
        stated = [(m, z) for m in members for z in _stated(m, name)]
        limits = [
            limit
            for (a, x), (b, y) in itertools.combinations(stated, 2)
            if abs(x - y) / (1 + min(x, y)) > (limit := _limit(a, b, rules, settings))
        ]
        if limits:
            found.append(_of(name, stated, min(limits)))
    wrong = [m for m in members if m["z_lens"] and m["z_source"] and m["z_lens"] >= m["z_source"]]
    if wrong:
        found.append(_of("z_order", [(m, f"{m['z_lens']:g} >= {m['z_source']:g}") for m in wrong]))
    radii = [(m, m["theta_e"]) for m in members if m["theta_e"]]
    if radii and max(r for _, r in radii) / min(r for _, r in radii) - 1 > settings.theta_e_conflict:
        found.append(_of("theta_e", radii, settings.theta_e_conflict))
    graded = [(m, m["label"]) for m in members if m["label"] in VISUAL]
    if len({label for _, label in graded}) > 1:
        found.append(_of("grade", graded))
    labels = {m["label"] for m in members}
    if Label.NOT_LENS in labels and labels & _LENS:
        found.append(_of("label", [(m, m["label"]) for m in members if m["label"] in {Label.NOT_LENS, *_LENS}]))
    if len({m["kind"] for m in members}) > 1:
        found.append(_of("kind", [(m, m["kind"]) for m in members]))
    for channel, group in itertools.groupby(sorted(members, key=_identity), key=lambda m: m["channel"]):
        rows = list(group)
        if len(rows) > 1:
            found.append(_of("twice", [(m, f"{channel}: {m['lens_id']}") for m in rows]))
    return found


def _limit(a: Member, b: Member, rules: Mapping[str, ChannelMapping], settings: Settings) -> float:
    """From which |dz| / (1 + z) on two stated redshifts disagree."""
    exact = all(rules[m["channel"]].redshifts == "spectroscopic" or m["label"] in SPECTROSCOPIC for m in (a, b))
    return settings.z_conflict_spec if exact and a is not b else settings.z_conflict


def _stated(member: Member, name: str) -> list[float]:
    """Every value a member states for a redshift: the one that is used, and the others of its cell or row."""
    found = [] if member[name] is None else [float(member[name])]
    for remark in member.get("notes") or ():
        where, odd, text = split_note(remark)
        if where == name and odd in (values.SEVERAL, DISAGREE, REPEATED):
            found += values.reading(text).values
            found += [v for part in text.split(";") for v in values.reading(part.split(" ")[-1]).values]
    return [v for v in dict.fromkeys(found) if math.isfinite(v)]


def _identity(member: Member) -> tuple[str, str]:
    return member["channel"], member["lens_id"]


def _of(name: str, stated: Sequence[tuple[Member, Any]], tolerance: float | None = None) -> Disagreement:
    ordered = sorted(stated, key=lambda pair: (_identity(pair[0]), str(pair[1])))
    return Disagreement(
        name,
        tuple(f"{v:g}" if isinstance(v, float) else str(v) for _, v in ordered),
        tuple(f"{m['channel']}:{m['lens_id']}" for m, _ in ordered),
        tolerance,
        tuple(sorted({m["channel"] for m, _ in ordered})),
    )


def conflicts(
    channels: pl.DataFrame,
    registry: pl.DataFrame,
    mappings: Mapping[str, ChannelMapping] | Iterable[ChannelMapping],
    settings: Settings | None = None,
) -> pl.DataFrame:
    """The ``lens_conflicts`` table of a registry, from the same ``channels`` it was built from.

    Returns one row a (system_id, field), sorted; ``used`` is what the registry says. Raises :class:`BadInput` for a row
    of the channels that no system of the registry has.
    """
    settings = settings or Settings()
    rules = by_channel(mappings)
    home = {name: row["system_id"] for row in registry.iter_rows(named=True) for name in row["lens_ids"]}
    systems: dict[str, list[Member]] = {}
    for row in channels.iter_rows(named=True):
        name = f"{row['channel']}:{row['lens_id']}"
        if name not in home:
            raise BadInput(f"{name} is in no system: this registry was made from other channels", column="lens_ids")
        systems.setdefault(home[name], []).append(row)
    made = []
    for row in registry.iter_rows(named=True):
        members = systems.get(row["system_id"], [])
        found = disagreements(members, rules, settings)
        if row["extent_arcsec"] > settings.fof_radius_arcsec:
            found.append(_of("extent", [(m, m["lens_id"]) for m in members], settings.fof_radius_arcsec))
        odd = [(m, remark) for m in members for remark in m["notes"] or ()]
        if odd:
            found.append(_of("cell", odd))
        made += [
            {
                "system_id": row["system_id"], "field": d.field, "values": list(d.values), "channels": list(d.channels),
                "lens_ids": list(d.lens_ids), "tolerance": d.tolerance, "used": _used(row, d.field),
            }
            for d in found
        ]  # fmt: skip
    return LENS_CONFLICTS.conform(pl.DataFrame(made, schema={c.name: c.dtype for c in LENS_CONFLICTS.columns}))


def _used(system: Mapping[str, Any], name: str) -> str:
    """What the registry says about a field, as text; empty where it says nothing."""
    source = {"grade": "label", "extent": "extent_arcsec", "z_order": "z_lens", "twice": "n_members"}.get(name, name)
    value = system.get(source)
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
