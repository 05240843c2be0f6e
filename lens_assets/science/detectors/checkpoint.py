"""A detector on disk: ``weights.safetensors`` and ``spec.json``, and nothing that could run code when it is read.

The specification carries what a scorer must agree with (recipe, normalisation) and what made the weights (data and code
digests, versions). Neither file holds a time, a host or a run, so the same training gives the same bytes. Loading
refuses a normalisation other than the one the caller will use, weights that are not those the specification names,
and a network of another size. The state of an unfinished training (``last.ckpt``) is ``train``'s.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from lens_assets.science.cutouts.normalise import NormalisationSpec, refuse_mismatch
from lens_assets.science.detectors.effective import BLOCKED, WHOLE
from lens_assets.science.detectors.networks import LensNet, build_network, count_parameters
from lens_assets.science.detectors.recipes import Recipe
from lens_assets.science.detectors.score import Scorer
from lens_assets.science.detectors.settings import Settings
from lens_assets.science.detectors.train import TrainResult
from lens_assets.science.errors import BadInput

WEIGHTS, SPEC = "weights.safetensors", "spec.json"
FORMAT = 1


class DetectorSpec(BaseModel):
    """What ``spec.json`` holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = FORMAT
    key: str
    recipe: Recipe
    normalisation_digest: str
    weights_sha256: str
    parameters: int
    family: str = "residual network"
    """The family of the network, in words."""
    encoder: str = "none"
    """What its frozen encoder is (``encoder.RANDOM`` where it has learnt nothing), or ``none``."""
    domain: str = WHOLE
    """What part of the sample it learnt from."""
    split: str = BLOCKED
    """How training and choice of the epoch were kept apart. (The defaults are true of every detector of before these
    fields.)"""
    best_epoch: int
    select_auc: float
    bf16_drift: float | None
    identity: str
    """Digest of everything that decided the training."""
    training: dict[str, Any]
    """The effective configuration: counts, loss weights, mixture, precision, threads, digests of data and code,
    versions."""


def spec_of(result: TrainResult, weights: bytes) -> DetectorSpec:
    """The specification of a training's result."""
    return DetectorSpec(
        key=result.recipe.key,
        recipe=result.recipe,
        normalisation_digest=result.recipe.normalisation.digest,
        weights_sha256=hashlib.sha256(weights).hexdigest(),
        parameters=result.config["parameters"],
        family=result.config["family"],
        encoder=result.config["encoder"]["statement"] if result.config["encoder"] else "none",
        domain=result.config["domain"],
        split=result.config["split"],
        best_epoch=result.best_epoch,
        select_auc=result.facts["select_auc"],
        bf16_drift=result.facts["bf16_drift"],
        identity=result.identity,
        training={name: value for name, value in result.config.items() if name != "recipe"},
    )


def save(folder: Path, result: TrainResult) -> DetectorSpec:
    """Write ``weights.safetensors``, ``spec.json`` and ``history.parquet`` into the (draft) folder."""
    weights = save_tensors({name: tensor.contiguous() for name, tensor in sorted(result.weights.items())})
    spec = spec_of(result, weights)
    (folder / WEIGHTS).write_bytes(weights)
    text = json.dumps(spec.model_dump(mode="json"), sort_keys=True, indent=1, allow_nan=False)
    (folder / SPEC).write_text(text + "\n")
    result.history.write_parquet(folder / "history.parquet", compression="zstd")
    return spec


def read_spec(folder: Path, name: str = SPEC) -> DetectorSpec:
    """The specification in a network's folder; :class:`BadInput` naming the file when it cannot be used."""
    path = folder / name
    try:
        spec = DetectorSpec.model_validate(json.loads(path.read_text()))
    except (OSError, ValueError, ValidationError) as fault:
        raise BadInput(f"not a detector's specification: {fault}", file=str(path)) from fault
    if spec.format != FORMAT:
        raise BadInput(f"format {spec.format}; this code reads format {FORMAT}", file=str(path))
    if spec.recipe.normalisation.digest != spec.normalisation_digest:
        raise BadInput("the normalisation and its digest disagree", file=str(path), column="normalisation_digest")
    return spec


def load_network(folder: Path, *, weights: str = WEIGHTS, spec: str = SPEC) -> tuple[LensNet, DetectorSpec]:
    """The network in eval mode and its specification, from files of these names."""
    return _network(read_spec(folder, spec), folder / weights)


def _network(spec: DetectorSpec, path: Path) -> tuple[LensNet, DetectorSpec]:
    try:
        data = path.read_bytes()
        tensors: Mapping[str, torch.Tensor] = load_tensors(data)
    except (OSError, SafetensorError) as fault:
        raise BadInput(f"cannot be read: {fault}", file=str(path)) from fault
    if hashlib.sha256(data).hexdigest() != spec.weights_sha256:
        raise BadInput("these are not the weights that the specification names", file=str(path))
    net = build_network(spec.recipe.network)
    if count_parameters(net) != spec.parameters:
        raise BadInput(f"the network has {count_parameters(net)} parameters, not {spec.parameters}", file=str(path))
    net.load_state_dict(tensors)
    return net.eval(), spec


def is_ensemble(folder: Path) -> bool:
    """Whether a detector's folder holds an ensemble."""
    try:
        value = json.loads((folder / SPEC).read_text())
    except (OSError, ValueError) as fault:
        raise BadInput(f"not a detector's specification: {fault}", file=str(folder / SPEC)) from fault
    return isinstance(value, dict) and value.get("kind") == "ensemble"


def load(folder: Path, expect: NormalisationSpec | None = None, settings: Settings | None = None) -> Scorer:
    """The scorer of a detector's folder, one network's or an ensemble's.

    ``expect`` is the normalisation the caller believes in (that of the cutout settings, of the injections); another one
    than the detector's raises :class:`BadInput` naming the fields that differ.
    """
    settings = settings or Settings()
    if is_ensemble(folder):
        from lens_assets.science.detectors import ensemble_disk  # which reads its members by this module

        return ensemble_disk.load(folder, expect, settings)
    net, spec = load_network(folder)
    if expect is not None:
        refuse_mismatch(spec.recipe.normalisation, expect)
    return Scorer(
        net,
        spec.recipe.normalisation,
        spec.recipe.input_size,
        key=spec.key,
        precision=settings.score_precision,
        drift=spec.bf16_drift,
        max_drift=settings.max_drift,
        batch=settings.score_batch,
    )
