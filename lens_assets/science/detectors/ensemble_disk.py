"""An ensemble on disk: whole in itself, and nothing that could run code when it is read.

``spec.json`` holds the definition, the finished rule, what was told of the fit, and for each member the names of its
files and the digest of the network it is a copy of; ``<key>.safetensors`` and ``<key>.json`` are the member's weights
and specification. So a detector stays what it was when its networks are trained again or deleted.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from lens_assets.science.cutouts.normalise import NormalisationSpec, refuse_mismatch
from lens_assets.science.detectors.checkpoint import SPEC, WEIGHTS, DetectorSpec, load_network
from lens_assets.science.detectors.ensemble_combine import Rule
from lens_assets.science.detectors.ensemble_score import EnsembleScorer, Member
from lens_assets.science.detectors.ensembles import Ensemble
from lens_assets.science.detectors.settings import Settings
from lens_assets.science.errors import BadInput

FORMAT = 1


class MemberFiles(BaseModel):
    """One member: its key, the digest of the artefact it is a copy of, and its files."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    network_digest: str
    spec: str
    weights: str


class EnsembleSpec(BaseModel):
    """What ``spec.json`` of an ensemble holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = FORMAT
    kind: Literal["ensemble"] = "ensemble"
    key: str
    ensemble: Ensemble
    members: tuple[MemberFiles, ...]
    rule: Rule
    parameters: int
    """Sum of the members'."""
    normalisation_digests: tuple[str, ...]
    bf16_drift: float | None
    """Largest |logit(bf16) - logit(fp32)| of the combined logit over the ``select`` stamps."""
    fit: dict[str, Any]
    """On how many rows the rule was fitted, how it did out of fold, and why it is a plain mean where it fell back."""


def copy_members(folder: Path, networks: Mapping[str, tuple[str, Path]]) -> dict[str, DetectorSpec]:
    """Copy the networks (key -> digest and folder) into the ensemble's; their specifications by key."""
    specs = {}
    for key, (_, place) in networks.items():
        shutil.copyfile(place / SPEC, folder / f"{key}.json")
        shutil.copyfile(place / WEIGHTS, folder / f"{key}.safetensors")
        _, specs[key] = load_network(folder, weights=f"{key}.safetensors", spec=f"{key}.json")
    return specs


def load_members(folder: Path, keys: tuple[str, ...]) -> list[Member]:
    """The members' networks from their copies."""
    found = []
    for key in keys:
        net, spec = load_network(folder, weights=f"{key}.safetensors", spec=f"{key}.json")
        found.append(Member(key, net, spec.recipe.normalisation, spec.recipe.input_size))
    return found


def save(
    folder: Path,
    ensemble: Ensemble,
    networks: Mapping[str, str],
    specs: Mapping[str, DetectorSpec],
    rule: Rule,
    drift: float | None,
    fit: Mapping[str, Any],
) -> EnsembleSpec:
    """Write ``spec.json`` beside the copies; ``networks`` maps key -> digest of the artefact copied."""
    spec = EnsembleSpec(
        key=ensemble.key,
        ensemble=ensemble,
        members=tuple(
            MemberFiles(key=k, network_digest=networks[k], spec=f"{k}.json", weights=f"{k}.safetensors")
            for k in ensemble.members
        ),
        rule=rule,
        parameters=sum(specs[k].parameters for k in ensemble.members),
        normalisation_digests=tuple(specs[k].normalisation_digest for k in ensemble.members),
        bf16_drift=drift,
        fit=dict(fit),
    )
    text = json.dumps(spec.model_dump(mode="json"), sort_keys=True, indent=1, allow_nan=False)
    (folder / SPEC).write_text(text + "\n")
    return spec


def read_spec(folder: Path) -> EnsembleSpec:
    """The specification in an ensemble's folder; :class:`BadInput` naming the file when it cannot be used."""
    path = folder / SPEC
    try:
        spec = EnsembleSpec.model_validate(json.loads(path.read_text()))
    except (OSError, ValueError, ValidationError) as fault:
        raise BadInput(f"not an ensemble's specification: {fault}", file=str(path)) from fault
    if spec.format != FORMAT:
        raise BadInput(f"format {spec.format}; this code reads format {FORMAT}", file=str(path))
    if tuple(m.key for m in spec.members) != spec.ensemble.members:
        raise BadInput("its members and its definition disagree", file=str(path), column="members")
    return spec


def load(folder: Path, expect: NormalisationSpec | None, settings: Settings) -> EnsembleScorer:
    """The scorer of an ensemble's folder; every member's normalisation must be the one that is expected, if one is."""
    spec = read_spec(folder)
    members = load_members(folder, spec.ensemble.members)
    for member in members:
        if expect is not None:
            refuse_mismatch(member.normalisation, expect)
    return EnsembleScorer(
        members,
        spec.rule,
        key=spec.key,
        precision=settings.score_precision,
        drift=spec.bf16_drift,
        max_drift=settings.max_drift,
        batch=settings.score_batch,
    )
