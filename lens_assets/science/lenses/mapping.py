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
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from lens_assets.science.errors import BadInput
from lens_assets.science.lenses.settings import Kind, Label
from lens_assets.science.storage import safe_key

GENERIC = "generic"
UNKNOWN_ORIGIN = "unknown"
"""In ``derived_from``: nobody has said; such a channel is independent of nothing."""
Role = Literal["train", "evaluation", "label-truth"]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Reader(_Strict):
    """How the file is read."""

    format: Literal["auto", "csv", "parquet", "fits", "ecsv", "votable"] = "auto"
    delimiter: str = "auto"
    encoding: str = "utf-8-sig"


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
    """Units of the input. ``auto`` for positions means degrees, with sexagesimal text recognised and hours suspected
    aloud; ``deg`` overrules the suspicion, ``hours`` converts."""

    ra: Literal["auto", "deg", "hours"] = "auto"
    theta_e: Literal["arcsec", "mas"] = "arcsec"


class Filter(_Strict):
    """Keep the rows whose column contains a text (or one of several); the others are counted as rejected."""

    column: str
    contains: tuple[str, ...]


class LabelRules(_Strict):
    """The label of a row: ``map`` of the grade (case and blanks ignored), else ``at_least`` (number -> label, the
    highest threshold reached), else ``default``; a grade that none of them covers is an error that names the row."""

    map: dict[str, Label] = {}
    at_least: tuple[tuple[float, Label], ...] = ()
    default: Label | None = None

    @field_validator("map")
    @classmethod
    def _lower(cls, value: dict[str, Label]) -> dict[str, Label]:
        return {key.strip().lower(): label for key, label in value.items()}


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
    imaging: Literal["ground", "hst"] = "ground"
    redshifts: Literal["spectroscopic", "photometric", "mixed"] = "mixed"
    reader: Reader = Reader()
    columns: Columns
    units: Units = Units()
    filter: Filter | None = None
    labels: LabelRules

    @field_validator("channel")
    @classmethod
    def _key(cls, value: str) -> str:
        return safe_key(value)


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
        raise BadInput(f"mapping field {field!r}: {first['msg']}", file=file, column=field) from fault


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
        f"columns found: {', '.join(found) or 'none'}. Put a mapping beside the file (same stem, .yaml), such as:\n"
        "channel: my-channel\nrole: evaluation            # train | evaluation | label-truth\n"
        "derived_from: []            # channels or families whose output or pixels it was made from\n"
        "columns: {lens_id: [NAME], ra: [RA], dec: [DEC], grade: [GRADE]}\n"
        "labels: {map: {A: visual_A, B: visual_B, C: visual_C}, default: candidate}"
    )


def normal(name: str) -> str:
    """A column name for comparison: lower case, without units in brackets, only letters and digits."""
    return re.sub(r"[^a-z0-9]+", "", re.sub(r"[\[(].*?[\])]", "", name.lower()))
