"""A frozen self-supervised encoder (DINOv2: Oquab et al. 2024, arXiv:2304.07193) with a linear head.

The encoder is a vision transformer of the ``transformers`` package. Its shape stands in the recipe, so that a detector is
built and loaded without a network; its weights come from a local folder or a hub id in the hub's layout (``config.json``
and ``*.safetensors``; no pickle), and travel with the detector afterwards: ``weights.safetensors`` of a trained detector
holds the whole network.

``weights: random`` makes an encoder that has learnt nothing. It serves tests and as a control (what does a linear head make
of random projections?), and says so wherever it is described: :data:`RANDOM`.

What the encoder sees: bands z, r, g as red, green, blue; ``gain * asinh(x) / asinh(10)`` of the normalised pixels (in units of
the background's MAD, clipped at +-10), which puts them into the range of the pictures it was trained on, cores included;
each pixel repeated ``repeat`` times along both axes (a copy, no interpolation of the noise), so that a patch is
``patch / repeat`` pixels wide; and the central part whose side is a multiple of the patch (101 pixels repeated twice: 196
of 202, the outermost 1.5 pixels are not seen). Its features are the class token and the mean of the patch tokens, as in
the linear evaluation of the paper (section 7.1).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn

from lens_assets.science.detectors.layers import LensNet
from lens_assets.science.errors import BadInput

RANDOM = "random encoder: not a self-supervised one"
_CLIP = 10.0  # of the normalisation


class EncoderSpec(BaseModel):
    """The shape of a DINOv2 encoder (the default is ViT-S/14), how stamps are shown to it, and where it was learnt."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["dinov2"]
    weights: str
    """A hub id (``facebook/dinov2-small``), or ``random``. Settings say where a copy lies (``encoders``)."""
    revision: str = "main"
    """Revision of the hub id; the digest of the weights that were used is recorded in any case."""
    width: int = Field(default=384, gt=0)
    layers: int = Field(default=12, gt=0)
    heads: int = Field(default=6, gt=0)
    mlp_ratio: int = Field(default=4, gt=0)
    patch: int = Field(default=14, gt=0)
    positions: int = Field(default=518, gt=0)
    """Side, in pixels, of the pictures for which position embeddings were learnt; they are interpolated to ours."""
    swiglu: bool = False
    repeat: int = Field(default=1, gt=0)
    gain: float = Field(default=2.0, gt=0)

    @model_validator(mode="after")
    def _sound(self) -> EncoderSpec:
        if self.width % self.heads or self.positions % self.patch:
            raise ValueError("the width must be a multiple of the heads, the positions of the patch")
        return self

    @property
    def random(self) -> bool:
        """Whether the encoder has learnt nothing."""
        return self.weights == "random"

    def transformers(self) -> dict[str, Any]:
        """The fields of ``transformers.Dinov2Config`` that decide shapes and results."""
        return {
            "hidden_size": self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "mlp_ratio": self.mlp_ratio,
            "patch_size": self.patch,
            "image_size": self.positions,
            "use_swiglu_ffn": self.swiglu,
            "num_channels": 3,
            "qkv_bias": True,
            "hidden_act": "gelu",
            "layer_norm_eps": 1e-6,
        }


class EncoderNet(LensNet):
    """The network of an :class:`EncoderSpec`; all but the head is frozen."""

    frozen = True

    def __init__(self, spec: EncoderSpec) -> None:
        from transformers import Dinov2Config, Dinov2Model  # seconds of imports that no other network needs

        super().__init__()
        self.spec = spec
        self.encoder = Dinov2Model(Dinov2Config(**spec.transformers()))
        self.encoder.train(False).requires_grad_(False)
        self.n_features = 2 * spec.width
        self.head = nn.Linear(self.n_features, 1)

    def train(self, mode: bool = True) -> EncoderNet:
        """The head alone changes its mode."""
        super().train(mode)
        self.encoder.train(False)
        return self

    def shown(self, x: torch.Tensor) -> torch.Tensor:
        """What the encoder sees of normalised stamps (n, 3, h, w) in g, r, z."""
        spec = self.spec
        x = torch.asinh(x.flip(1)) * (spec.gain / math.asinh(_CLIP))
        x = x.repeat_interleave(spec.repeat, 2).repeat_interleave(spec.repeat, 3)
        height, width = (side - side % spec.patch for side in x.shape[2:])
        if not height or not width:
            raise BadInput(f"stamps of {tuple(x.shape[2:])} pixels are smaller than a patch of {spec.patch}")
        top, left = (x.shape[2] - height) // 2, (x.shape[3] - width) // 2
        return x[:, :, top : top + height, left : left + width]

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Class token and mean patch token, (n, 2 width) float32."""
        tokens = self.encoder(pixel_values=self.shown(x)).last_hidden_state.float()
        return torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], 1)


def place_weights(net: EncoderNet, encoders: Mapping[str, Path]) -> dict[str, Any]:
    """Give the encoder its learnt weights and say what they are: ``weights``, ``statement``, ``sha256`` of the files.

    ``encoders`` maps a hub id to a local folder; without an entry the hub's cache on this machine is asked, then the hub.
    Raises :class:`BadInput` where no weights are to be had, where they are not safetensors, or of another shape.
    """
    spec = net.spec
    if spec.random:
        return {"weights": "random", "statement": RANDOM, "sha256": None}
    folder = encoders.get(spec.weights) or _fetched(spec)
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    if not files or not (folder / "config.json").is_file():
        raise BadInput("holds no encoder: config.json and *.safetensors are needed (no pickle)", file=str(folder))
    stated = json.loads((folder / "config.json").read_text())
    differ = {
        name: (stated[name], value)
        for name, value in spec.transformers().items()
        if name in stated and stated[name] != value
    }
    if stated.get("model_type") != "dinov2" or differ:
        raise BadInput(f"not the encoder the recipe describes: {differ or stated.get('model_type')}", file=str(folder))
    from transformers import Dinov2Model

    loaded: Any = Dinov2Model.from_pretrained(
        folder, use_safetensors=True, local_files_only=True, dtype=torch.float32, output_loading_info=True
    )
    given, report = loaded
    absent = sorted(report["missing_keys"]) + sorted(map(str, report["mismatched_keys"]))
    if absent:
        raise BadInput(f"lacks tensors of the encoder: {', '.join(absent[:5])}", file=str(folder))
    net.encoder.load_state_dict(given.state_dict())
    total = hashlib.sha256()
    for file in files:
        total.update(file.read_bytes())
    return {
        "weights": spec.weights,
        "statement": f"self-supervised encoder {spec.weights}, frozen",
        "sha256": total.hexdigest(),
    }


def _fetched(spec: EncoderSpec) -> Path:
    """The folder of a hub id: from the cache of this machine, else from the hub."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    wanted = ["config.json", "*.safetensors"]
    try:
        return Path(
            snapshot_download(spec.weights, revision=spec.revision, allow_patterns=wanted, local_files_only=True)
        )
    except (LocalEntryNotFoundError, OfflineModeIsEnabled):
        pass
    try:
        return Path(snapshot_download(spec.weights, revision=spec.revision, allow_patterns=wanted))
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, RepositoryNotFoundError, OSError) as fault:
        raise BadInput(
            f"the weights of encoder {spec.weights!r} are neither in this machine's hub cache nor to be had from the hub "
            f"({type(fault).__name__}); give a folder with config.json and *.safetensors in the profile: "
            f"detectors: {{encoders: {{{spec.weights}: FOLDER}}}}"
        ) from fault
