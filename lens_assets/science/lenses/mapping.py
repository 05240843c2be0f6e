"""Mapping files: how one published table becomes a channel, as data (``lens_assets/config/channels/NAME.yaml``).

A new catalogue needs a YAML file and no code. A file without one is tried with the ``generic`` mapping, which knows the
usual column names; it may then be looked at and excluded from negatives, but it neither trains nor counts as
independent, because nobody has said what it was derived from.
"""

from __future__ import annotations

import fnmatch
import re
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from lens_assets.science.errors import BadInput
from lens_assets.science.lenses.settings import SPECTROSCOPIC, Kind, Label
from lens_assets.science.storage import safe_key

GENERIC = "generic"
UNKNOWN_ORIGIN = "unknown"
"""In ``derived_from``: nobody has said; such a channel is independent of nothing."""
Role = Literal["train", "evaluation", "label-truth"]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Reader(_Strict):
    """How the file is read. ``auto`` encoding: by its byte-order mark, else UTF-8; a file in another one is refused
    until it is named here, because a guess turns names into other names."""

    format: Literal["auto", "csv", "parquet", "fits", "ecsv", "votable"] = "auto"
    delimiter: str = "auto"
    encoding: str = "auto"
    allow_empty: bool = Field(False, description="a header without a row is an empty list, not a fault")


class Columns(_Strict):
    """Names of the input columns, the first one present wins (``z_lens``, ``z_source``: the first with a number wins,
    row by row). Several ``lens_id`` columns are joined with ``-`` when ``join_id`` is set. Names match regardless of
    case."""

    lens_id: tuple[str, ...] = ()
    join_id: bool = False
    ra: tuple[str, ...]
    dec: tuple[str, ...]
    z_lens: tuple[str, ...] = ()
    z_source: tuple[str, ...] = ()
    theta_e: tuple[str, ...] = ()
    grade: tuple[str, ...] = ()
    kind: tuple[str, ...] = ()
    reference: tuple[str, ...] = ()


class Units(_Strict):
    """Units of the input. Positions are decimal degrees unless it says otherwise here: ``auto`` suspects hours aloud,
    ``deg`` overrules the suspicion, ``hours`` converts, ``sexagesimal`` reads hours-minutes-seconds (right ascension)
    and degrees-minutes-seconds. Sexagesimal text where it was not announced is an error, never a guess."""

    ra: Literal["auto", "deg", "hours", "sexagesimal"] = "auto"
    dec: Literal["auto", "deg", "sexagesimal"] = "auto"
    theta_e: Literal["arcsec", "mas"] = "arcsec"


class Filter(_Strict):
    """Rows whose column contains one of some texts, or equals one of some (blanks and case ignored)."""

    column: str
    contains: tuple[str, ...] = ()
    equals: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _one(self) -> Self:
        if bool(self.contains) == bool(self.equals):
            raise ValueError("give either contains or equals")
        return self

    def holds(self, cell: str) -> bool:
        """Whether a cell passes."""
        if self.contains:
            return any(text in cell for text in self.contains)
        return cell.strip().lower() in {text.strip().lower() for text in self.equals}

    def __str__(self) -> str:
        return f"{self.column} without {' or '.join(self.contains or self.equals)}"


class Rule(Filter):
    """The label of the rows that pass."""

    label: Label


class Trust(Filter):
    """A condition on which a row's redshifts (of those named) count; where it fails they are taken as not given."""

    of: tuple[Literal["z_lens", "z_source"], ...] = ("z_lens", "z_source")


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, dict) else value or ()


Filters = Annotated[tuple[Filter, ...], BeforeValidator(_as_tuple)]


class LabelRules(_Strict):
    """The label of a row: the first of ``when`` that holds, else ``map`` of the grade (case and blanks ignored; ``part``
    is a pattern whose group picks the grade out of a longer cell), else ``at_least`` (number -> label, the highest
    threshold reached), else ``default``; a grade that none of them covers is an error that names the row."""

    when: tuple[Rule, ...] = ()
    part: str = ""
    map: dict[str, Label] = {}
    at_least: tuple[tuple[float, Label], ...] = ()
    default: Label | None = None

    @field_validator("map")
    @classmethod
    def _lower(cls, value: dict[str, Label]) -> dict[str, Label]:
        return {key.strip().lower(): label for key, label in value.items()}

    @property
    def labels(self) -> frozenset[Label]:
        """Every label a row may get."""
        found = {rule.label for rule in self.when} | set(self.map.values()) | {label for _, label in self.at_least}
        return frozenset(found | ({self.default} if self.default else set()))


class ChannelMapping(_Strict):
    """One channel: where it comes from, what it may be used for, and how its file is read."""

    channel: str
    title: str = ""
    reference: str = ""
    year: int = Field(9999, description="of publication: the earliest channel names and places a system")
    files: tuple[str, ...] = Field((), description="patterns of file names, besides CHANNEL.*")
    role: Role
    derived_from: tuple[str, ...] = ()
    kind: Kind = "galaxy"
    kinds: dict[str, Kind] = {}
    imaging: Literal["ground", "hst"] = Field(
        "ground", description="hst: a grade A or two redshifts of this list stand on HST images, and confirm"
    )
    compiles: bool = Field(
        False, description="a compilation: its grades restate those of the lists it was made from, more coarsely"
    )
    evidence: Literal["visual", "spectroscopic"] = Field(
        "visual", description="what the labels stand on; a visual grade can never become a spectroscopic label"
    )
    redshifts: Literal["spectroscopic", "photometric", "mixed"] = "mixed"
    reader: Reader = Reader()
    columns: Columns
    units: Units = Units()
    filter: Filters = ()
    trust_z: tuple[Trust, ...] = Field((), description="the row's redshifts count only where all of these hold")
    labels: LabelRules
    verified: bool = Field(True, description="the column names were read from the table or its documented layout")
    unsure: tuple[str, ...] = Field((), description="of our names: columns not verified, whose absence is no error")
    source: str = Field("", description="where the column names come from")
    to_verify: str = Field("", description="what would show whether the column names are those of the table")

    @field_validator("channel")
    @classmethod
    def _key(cls, value: str) -> str:
        return safe_key(value)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        spectroscopic = sorted(self.labels.labels & SPECTROSCOPIC)
        if spectroscopic and (self.evidence == "visual" or self.redshifts == "photometric"):
            raise ValueError(
                f"labels {', '.join(spectroscopic)} need evidence: spectroscopic, and redshifts that are not photometric"
            )
        if not (self.verified or (self.source and self.to_verify)):
            raise ValueError(
                "columns that are not verified need source and to_verify: where they come from, what would verify them"
            )
        unknown = sorted(set(self.unsure) - set(Columns.model_fields))
        if unknown:
            raise ValueError(f"unsure names no column of ours: {', '.join(unknown)}")
        return self

    @property
    def identity(self) -> dict[str, Any]:
        """What decides which rows come out of a file and how they are read, without the name of the channel."""
        return self.model_dump(mode="json", include={"reader", "columns", "units", "filter", "labels", "trust_z"})


def mapping_names() -> list[str]:
    """Sorted names of the mapping files."""
    folder = files("lens_assets") / "config" / "channels"
    return sorted(p.name[:-5] for p in folder.iterdir() if p.name.endswith(".yaml"))


@lru_cache
def load_mapping(name: str) -> ChannelMapping:
    """The mapping called ``name``; :class:`BadInput` that names the file and field when it is absent or wrong."""
    place = files("lens_assets") / "config" / "channels" / f"{safe_key(name)}.yaml"
    if not place.is_file():
        raise BadInput(f"no mapping is called {name!r}; there are {', '.join(mapping_names())}", file=str(place))
    return parse_mapping(place.read_text(encoding="utf-8"), str(place))


def parse_mapping(text: str, file: str) -> ChannelMapping:
    """A mapping from YAML text; ``file`` is named in errors."""
    try:
        return ChannelMapping.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as fault:
        raise BadInput(f"not YAML: {fault}", file=file) from fault
    except ValidationError as fault:
        first = fault.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        where = f"mapping field {field!r}" if field else "mapping"
        raise BadInput(f"{where}: {first['msg']}", file=file, column=field or None) from fault


def mapping_for_file(path: str | Path) -> ChannelMapping:
    """The mapping of a catalogue file: a YAML file beside it (same stem), the one called like its stem, the one with a
    matching pattern, or ``generic`` under the stem as channel key (validated before it can become a path)."""
    path = Path(path)
    stem = path.name.split(".")[0] if path.suffix == ".gz" else path.stem
    beside = path.with_name(f"{stem}.yaml")
    if beside.is_file():
        return parse_mapping(beside.read_text(encoding="utf-8"), str(beside))
    names = [n for n in mapping_names() if n != GENERIC]
    if stem in names:
        return load_mapping(stem)
    for name in names:
        mapping = load_mapping(name)
        if any(fnmatch.fnmatch(path.as_posix(), f"*/{p}") or fnmatch.fnmatch(path.name, p) for p in mapping.files):
            return mapping
    return load_mapping(GENERIC).model_copy(update={"channel": safe_key(stem)})


def how_to_map(found: list[str]) -> str:
    """The lesson in an error message: what to write, with the columns found."""
    return (
        f"columns found: {', '.join(found) or 'none'}. Put a mapping beside the file (same stem, .yaml; docs/channels.md), "
        "such as:\n"
        "channel: my-channel\nrole: evaluation            # train | evaluation | label-truth\n"
        "derived_from: []            # channels or families whose output or pixels it was made from\n"
        "columns: {lens_id: [NAME], ra: [RA], dec: [DEC], grade: [GRADE]}\n"
        "labels: {map: {A: visual_A, B: visual_B, C: visual_C}, default: candidate}"
    )


def normal(name: str) -> str:
    """A column name for comparison: lower case, without units in brackets, only letters and digits."""
    return re.sub(r"[^a-z0-9]+", "", re.sub(r"[\[(].*?[\])]", "", name.lower()))
