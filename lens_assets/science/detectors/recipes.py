"""Recipes: everything that decides what a detector becomes, as named configurations, and the keys of detectors.

A recipe is one YAML file under ``lens_assets/config/detectors``; its name is the file's stem, and ``base: NAME`` takes
what it does not state from another one. A detector is a recipe with a seed; its key is ``<recipe>-s<seed>`` (for
instance ``bottleneck-s1``). Where training writes, how large the scoring batches are and what is evaluated are settings
of the room, not parts of a recipe.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lens_assets.science.cutouts.normalise import NormalisationSpec
from lens_assets.science.detectors.encoder import EncoderSpec
from lens_assets.science.detectors.networks import NetworkSpec
from lens_assets.science.errors import BadInput
from lens_assets.science.hashing import digest

_KEY = re.compile(r"(?P<recipe>[a-z0-9][a-z0-9_]*)-s(?P<seed>\d{1,9})")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Schedule(_Part):
    """AdamW (Loshchilov & Hutter 2019) and its learning rate over the epochs."""

    epochs: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    """Stamps a forward pass."""
    accumulate: int = Field(default=1, gt=0)
    """Forward passes a step, for batches larger than memory allows."""
    lr: float = Field(gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    kind: Literal["cosine", "step", "constant"] = "cosine"
    warmup_epochs: float = Field(default=0.0, ge=0)
    milestones: tuple[int, ...] = ()
    """Epochs at which ``step`` multiplies the rate by ``gamma`` (Paper IV halves it at epoch 80)."""
    gamma: float = 0.5
    patience: int | None = Field(default=20, gt=0)
    """Epochs without a better AUC on the ``select`` rows before training stops; ``None``: it runs to its end."""
    clip: float | None = Field(default=1.0, gt=0)
    """Largest norm of the gradient; ``None``: any."""


class Mixture(_Part):
    """What an epoch is drawn from. Shares are of the epoch's negatives; ``positive_fraction`` is of the whole epoch.

    Positives are oversampled so that every batch has some; the log-odds that this adds are taken off again in the head
    (``dataset.prior_shift``), so that a score refers to the class ratio of the training sample, not to the
    oversampling.
    """

    n1: float | None = Field(default=0.85, ge=0)
    n2: float | None = Field(default=0.15, ge=0)
    """Both ``None``: as the sample has them."""
    positive_fraction: float | None = Field(default=None, gt=0, lt=1)
    """``None``: every positive once an epoch, at the sample's own ratio."""
    epoch_size: int | None = Field(default=None, gt=0)
    """Stamps an epoch; ``None``: as many as there are training rows."""

    @model_validator(mode="after")
    def _whole(self) -> Mixture:
        if (self.n1 is None) != (self.n2 is None):
            raise ValueError("shares of N1 and N2 are both given or both left to the sample")
        if self.n1 is not None and self.n2 is not None and abs(self.n1 + self.n2 - 1) > 1e-9:
            raise ValueError(f"shares of N1 and N2 add up to {self.n1 + self.n2}, not 1")
        return self


class Augmentation(_Part):
    """Label-preserving changes: flips, rotations by 90 degrees, shifts by whole pixels (no resampling of the noise)."""

    flips: bool = True
    rotations: bool = True
    shift: int = Field(default=3, ge=0)
    """Largest shift along each axis, pixels."""


class Interval(_Part):
    """``low <= value < high``; either side may be open."""

    low: float | None = None
    high: float | None = None


class Domain(_Part):
    """The part of the sample a specialist learns from: rows that fulfil any one of the alternatives.

    An alternative maps columns of the split table to an interval (numbers) or a list of values (strings), all of which must
    hold; a null fulfils nothing. Training and ``select`` rows are taken from the domain; scoring and evaluation are not
    confined to it.
    """

    about: str
    any_of: tuple[dict[str, Interval | tuple[str, ...]], ...] = Field(min_length=1)

    @property
    def columns(self) -> list[str]:
        """Columns it looks at, sorted."""
        return sorted({name for alternative in self.any_of for name in alternative})


class RandomSplit(_Part):
    """Training and choice of the epoch on rows split at random within the roles ``train`` and ``select``.

    Not blocked on the sky: neighbours share a noise field and a depth, so its ``select_auc`` flatters. Only the recipes that
    repeat a published search use it, to say what that costs; their evaluation is on the same held-out sets as any other.
    """

    train: float = Field(gt=0, lt=1)
    """Share of the rows that train."""


class Recipe(_Part):
    """One way of making a detector."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_]*$")
    about: str
    seed: int = Field(default=1, ge=0)
    seeds: tuple[int, ...] = (1,)
    """Seeds whose detectors are offered as partitions."""
    network: NetworkSpec
    input_size: int = Field(default=101, gt=0)
    """Side of the centre the network sees, pixels; the normalisation always sees the whole stamp."""
    normalisation: NormalisationSpec = Field(default_factory=NormalisationSpec)
    schedule: Schedule
    mixture: Mixture = Field(default_factory=Mixture)
    augmentation: Augmentation = Field(default_factory=Augmentation)
    domain: Domain | None = None
    """A specialist's part of the sample; ``None``: all of it."""
    random_split: RandomSplit | None = None
    """``None``, but for recipes that repeat a published search: train and select are blocks on the sky."""
    weighted: bool = True
    """Whether the loss is weighted by row; ``False``: plain cross-entropy."""
    tier_b_weight: float | None = Field(default=None, ge=0.3, le=0.6)
    """Weight of tier B positives in the loss; ``None``: the sample's own ``weight`` column."""
    label_smoothing_b: float = Field(default=0.0, ge=0, lt=0.5)
    """Off unless asked for, and then on tier B only: its target becomes ``1 - label_smoothing_b``."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """``auto``: bfloat16 matrix products (float32 weights) where the processor has them, else float32."""

    @model_validator(mode="after")
    def _agree(self) -> Recipe:
        if isinstance(self.network, EncoderSpec) and self.augmentation.shift:
            raise ValueError("a frozen encoder sees each orientation of a stamp once: its augmentation has no shift")
        if self.random_split is not None and not self.name.startswith("paper_"):
            raise ValueError("a split at random belongs to recipes that repeat a published search (paper_...)")
        if not self.weighted and (self.tier_b_weight is not None or self.label_smoothing_b):
            raise ValueError("an unweighted loss has no tier B weight and no label smoothing")
        return self

    @property
    def key(self) -> str:
        """The detector's key."""
        return f"{self.name}-s{self.seed}"

    @property
    def digest(self) -> str:
        """Digest of all that decides the result (not of the prose and the list of offered seeds)."""
        return digest(self.model_dump(mode="json", exclude={"about", "seeds"}))


def load_recipes() -> dict[str, Recipe]:
    """All packaged recipes by name. Raises :class:`BadInput` naming the file that is wrong."""
    folder = files("lens_assets").joinpath("config", "detectors")
    texts = {e.name: e.read_text() for e in folder.iterdir() if e.name.endswith(".yaml")}
    found = {}
    for file in sorted(texts):
        recipe = read_recipe(texts[file], file=file, others=texts)
        if recipe.name != file.removesuffix(".yaml"):
            raise BadInput(f"is called {recipe.name!r}, not as its file", file=file, column="name")
        found[recipe.name] = recipe
    return found


def read_recipe(text: str, *, file: str | None = None, others: Mapping[str, str] | None = None) -> Recipe:
    """A recipe from YAML text; ``base: NAME`` takes every field it does not state from that recipe among ``others``
    (texts by file name), which may have a base itself."""
    try:
        return Recipe.model_validate(_with_base(_fields(text), others or {}, ()))
    except (ValidationError, yaml.YAMLError, ValueError) as fault:
        raise BadInput(str(fault), file=file) from fault


def _fields(text: str) -> dict[str, Any]:
    value = yaml.safe_load(text)
    if not isinstance(value, dict):
        raise ValueError("a recipe is a mapping of fields")
    return value


def _with_base(value: dict[str, Any], others: Mapping[str, str], above: tuple[str, ...]) -> dict[str, Any]:
    base = value.pop("base", None)
    if base is None:
        return value
    if base in above or f"{base}.yaml" not in others:
        raise ValueError(f"base {base!r} is no recipe, or leads back to itself")
    whole = _with_base(_fields(others[f"{base}.yaml"]), others, (*above, base))
    if value.get("network", {}).get("kind", whole["network"]["kind"]) != whole["network"]["kind"]:
        whole["network"] = {}  # another kind of network has other fields
    _merge(whole, value)
    return whole


def parse_detector(
    key: str,
    recipes: Mapping[str, Recipe] | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
) -> Recipe:
    """The recipe of detector ``key`` with its seed, after the ``overrides`` a profile states for it.

    ``overrides`` maps a recipe's name (or ``"*"``, applied first) to nested fields, for instance
    ``{"*": {"schedule": {"epochs": 4}}}``. Raises :class:`BadInput` for a key that names no recipe or overrides that do
    not fit.
    """
    recipes = load_recipes() if recipes is None else recipes
    match = _KEY.fullmatch(key)
    if match is None or match["recipe"] not in recipes:
        raise BadInput(f"{key!r} names no detector; keys look like {', '.join(f'{n}-s1' for n in sorted(recipes))}")
    value = recipes[match["recipe"]].model_dump(mode="json")
    for name in ("*", match["recipe"]):
        _merge(value, (overrides or {}).get(name, {}))
    try:
        return Recipe.model_validate(value | {"seed": int(match["seed"])})
    except ValidationError as fault:
        raise BadInput(f"detector {key!r} with its overrides: {fault}") from fault


def detector_keys(recipes: Mapping[str, Recipe]) -> list[str]:
    """Keys of all offered detectors, sorted."""
    return sorted(f"{r.name}-s{seed}" for r in recipes.values() for seed in r.seeds)


def _merge(into: dict[str, Any], changes: Mapping[str, Any]) -> None:
    for name, value in changes.items():
        if isinstance(value, Mapping) and isinstance(into.get(name), dict):
            _merge(into[name], value)
        else:
            into[name] = value
