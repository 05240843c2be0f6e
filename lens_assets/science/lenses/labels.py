"""The label of a row, by the rules of its mapping and by what the row proves.

Two things keep a visual grade from ever being quoted as spectroscopy: a mapping whose evidence is visual cannot state a
spectroscopic label (refused when it is loaded), and a spectroscopic label falls back to what the row's own redshifts
support.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

from lens_assets.science.errors import BadInput
from lens_assets.science.lenses import values
from lens_assets.science.lenses.mapping import ChannelMapping
from lens_assets.science.lenses.settings import SPECTROSCOPIC, Label


def label_of(
    grade: str,
    mapping: ChannelMapping,
    path: Path,
    column: str | None,
    row: int,
    cell: Callable[[str], str] = lambda name: "",
) -> Label:
    """The label that the mapping's rules give (see :class:`LabelRules`); ``cell`` gives the row's text in a column of the
    file. Raises :class:`BadInput` for a grade the rules do not cover."""
    rules = mapping.labels
    for rule in rules.when:
        if rule.holds(cell(rule.column)):
            return rule.label
    part = re.search(rules.part, grade) if rules.part else None
    known = part.group(1) if part else grade
    if (label := rules.map.get(known.strip().lower())) is not None:
        return label
    value = values.number(known)
    reached = [(bound, label) for bound, label in rules.at_least if value >= bound]
    if reached:
        return max(reached, key=lambda pair: pair[0])[1]
    if rules.default is not None:
        return rules.default
    message = (
        f"grade {grade!r} has no label in the mapping of channel {mapping.channel!r} (knows {', '.join(rules.map)})"
    )
    raise BadInput(message, file=str(path), column=column, row=row)


def proven(label: Label, z_lens: float, z_source: float) -> Label:
    """A spectroscopic label as far as the row's redshifts go: two, the deflector's, the source's, or none (then it is a
    candidate). It never becomes more than it was; other labels stay."""
    if label not in SPECTROSCOPIC:
        return label
    lens = math.isfinite(z_lens) and label != Label.SPEC_SOURCE_Z
    source = math.isfinite(z_source) and label != Label.SPEC_LENS_Z
    if lens and source:
        return Label.SPEC_BOTH_Z
    return Label.SPEC_LENS_Z if lens else Label.SPEC_SOURCE_Z if source else Label.CANDIDATE
