"""Ensembles: which networks are combined into one detector, and how, as named configurations; and the keys of detectors.

An ensemble is one YAML file under ``lens_assets/config/ensembles``; its name is the file's stem and its key is
``<name>-e<edition>`` (for instance ``mean_compact-e1``). A detector is one network (``bottleneck-s1``) or an ensemble
of networks; ensembles of ensembles are refused, so that every detector's score is one combination of networks. How the
members' logits are put together is ``ensemble_combine``, how that is fitted ``ensemble_fit``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lens_assets.science.detectors.recipes import load_recipes, parse_detector
from lens_assets.science.errors import BadInput
from lens_assets.science.hashing import digest

_KEY = re.compile(r"(?P<name>[a-z0-9][a-z0-9_]*)-e(?P<edition>\d{1,9})")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Combiner(_Part):
    """How the logits of the members become one."""

    kind: Literal["mean", "calibrated", "routed", "stacked"]
    """``mean``: nothing is fitted. ``calibrated``: each member's logit through its own monotone map, then the mean.
    ``routed``: the same with each map fitted in the domain of the member's recipe, and for each stamp the mean of the
    members whose domain it lies in (a member without a domain is asked everywhere). ``stacked``: a
    logistic regression on the members' logits."""
    scale: Literal["logit", "probability"] = "logit"
    """What is averaged; no matter for ``stacked``. ``logit`` is the normalised geometric mean of the odds (Hinton 2002,
    doi:10.1162/089976602760128018): it keeps apart the scores that decide at low false-positive rates, where the
    probabilities of confident members all lie at 1 and a mean of them hears the loudest member only. ``probability``
    is what the published search averaged (Inchausti et al. 2025)."""
    map: Literal["platt", "isotonic"] = "platt"
    """The map of ``calibrated`` and ``routed``; see ``ensemble_combine``."""
    min_positives: int = Field(default=10, ge=3)
    """Fewest lenses of the role ``calibrate`` to fit anything on."""
    fallback: Literal["refuse", "mean"] = "refuse"
    """With fewer: ``refuse`` stops; ``mean`` averages and says so in specification, facts and metadata."""


class Ensemble(_Part):
    """One way of making a detector out of several networks."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_]*$")
    about: str
    edition: int = Field(default=1, ge=1)
    """Part of the key: raise it when a definition that was published changes."""
    members: tuple[str, ...] = Field(min_length=2)
    """Keys of networks, in the order in which features are put side by side."""
    combiner: Combiner

    @model_validator(mode="after")
    def _sound(self) -> Ensemble:
        if len({*self.members}) != len(self.members):
            raise ValueError(f"a member is named twice: {', '.join(self.members)}")
        return self

    @property
    def key(self) -> str:
        """The detector's key."""
        return f"{self.name}-e{self.edition}"

    @property
    def digest(self) -> str:
        """Digest of all that decides the result besides the members themselves (not of the prose)."""
        return digest(self.model_dump(mode="json", exclude={"about"}))


@dataclass(frozen=True)
class Composition:
    """What a detector is made of: one network, or several and their ensemble."""

    key: str
    members: tuple[str, ...]
    ensemble: Ensemble | None = None

    @property
    def digest(self) -> str:
        """Digest of the composition; of a network by itself, of its key."""
        return digest(self.key, self.members) if self.ensemble is None else self.ensemble.digest


def load_ensembles() -> dict[str, Ensemble]:
    """All packaged ensembles by key. Raises :class:`BadInput` naming the file that is wrong."""
    found: dict[str, Ensemble] = {}
    folder = files("lens_assets").joinpath("config", "ensembles")
    recipes = load_recipes()
    for entry in sorted(folder.iterdir(), key=lambda e: e.name) if folder.is_dir() else ():
        if entry.name.endswith(".yaml"):
            ensemble = read_ensemble(entry.read_text(), file=entry.name)
            if ensemble.name != entry.name.removesuffix(".yaml"):
                raise BadInput(f"is called {ensemble.name!r}, not as its file", file=entry.name, column="name")
            for member in ensemble.members:
                try:
                    parse_detector(member, recipes)
                except BadInput as fault:
                    raise BadInput(f"member: {fault}", file=entry.name, column="members") from fault
            found[ensemble.key] = ensemble
    return found


def read_ensemble(text: str, *, file: str | None = None) -> Ensemble:
    """An ensemble from YAML text."""
    try:
        return Ensemble.model_validate(yaml.safe_load(text))
    except (ValidationError, yaml.YAMLError) as fault:
        raise BadInput(str(fault), file=file) from fault


def composition(key: str, ensembles: Mapping[str, Ensemble] | None = None) -> Composition:
    """What detector ``key`` is made of; :class:`BadInput` for a key of an ensemble that there is not."""
    if not _KEY.fullmatch(key):
        return Composition(key, (key,))
    ensembles = load_ensembles() if ensembles is None else ensembles
    if key not in ensembles:
        raise BadInput(f"{key!r} names no ensemble; there are {', '.join(sorted(ensembles)) or 'none'}")
    return Composition(key, ensembles[key].members, ensembles[key])


def networks_of(detectors: Iterable[str], ensembles: Mapping[str, Ensemble] | None = None) -> tuple[str, ...]:
    """Keys of the networks that these detectors are made of, each once, in the order in which they are first named."""
    ensembles = load_ensembles() if ensembles is None else ensembles
    return tuple(dict.fromkeys(member for key in detectors for member in composition(key, ensembles).members))
