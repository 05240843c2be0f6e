"""Residual networks of basic or of bottlenecked, shielded blocks, written short by hand.

``basic`` is ResNet-18 (He et al. 2016, arXiv:1512.03385, table 1) when its widths are (64, 128, 256, 512) with two
blocks each: 11,176,512 parameters before the head. ``bottleneck`` follows the small network of the DESI lens searches
(Huang et al. 2021, arXiv:2005.04730; Storfer et al. 2024, arXiv:2206.02764; Inchausti et al. 2025, arXiv:2508.20087,
who state 194,433 parameters): five stages of three bottlenecked blocks after Lanusse et al. 2018 (arXiv:1703.02642),
with a 1 x 1 "shield" convolution that squeezes the channels between stages. The papers do not print the layer table,
so the layout is ours: it has 194,913 parameters, and is of their size and kind, not theirs layer by layer.

The first convolution has stride 2 (0.524"/pixel, still two samples across the best seeing of 0.9"), which makes the
small network four times cheaper than at full resolution.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, model_validator
from torch import nn

from lens_assets.science.detectors.layers import CHANNEL_MULTIPLE, ConvNorm, LensNet, pooled


class ResidualSpec(BaseModel):
    """The shape of a residual network: ``widths`` (channels out) and ``blocks`` per stage; ``mid``, ``shield`` for
    bottlenecks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["basic", "bottleneck"]
    stem: int
    stem_pool: bool = True
    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    mid: int = 0
    shield: int = 0
    features: int = 0
    """Channels of a last 1 x 1 convolution before pooling; 0 leaves the last stage's width."""

    @model_validator(mode="after")
    def _sound(self) -> ResidualSpec:
        if len(self.widths) != len(self.blocks) or not self.widths:
            raise ValueError("widths and blocks need one entry a stage")
        if self.kind == "bottleneck" and not self.mid:
            raise ValueError("a bottleneck needs its inner width `mid`")
        odd = [c for c in (self.stem, *self.widths, self.mid, self.shield, self.features) if c % CHANNEL_MULTIPLE]
        if odd:
            raise ValueError(
                f"channel counts {odd} are not multiples of {CHANNEL_MULTIPLE} (unsafe in channels-last order, see "
                "`layers`)"
            )
        return self


class Block(nn.Module):
    """A residual block: ``relu(path(x) + skip(x))``; the skip is projected where the shape changes."""

    def __init__(self, path: nn.Sequential, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.path = path
        self.skip = ConvNorm(n_in, n_out, 1, stride, None) if stride != 1 or n_in != n_out else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu_(self.path(x) + self.skip(x))


class ResidualNet(LensNet):
    """The network of a :class:`ResidualSpec`."""

    def __init__(self, spec: ResidualSpec) -> None:
        super().__init__()
        self.stem = ConvNorm(3, spec.stem, 7, 2)
        self.pool = nn.MaxPool2d(3, 2, 1) if spec.stem_pool else nn.Identity()
        layers: list[nn.Module] = []
        width = spec.stem
        for stage, (out, count) in enumerate(zip(spec.widths, spec.blocks, strict=True)):
            if stage and spec.shield:
                layers.append(ConvNorm(width, spec.shield, 1))
                width = spec.shield
            for i in range(count):
                stride = 2 if stage and not i else 1
                layers.append(_block(spec, width, out, stride))
                width = out
        if spec.features:
            layers.append(ConvNorm(width, spec.features, 1))
            width = spec.features
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(width, 1)
        self.n_features = width

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Penultimate features: the mean over pixels of the last feature map."""
        return pooled(self.body(self.pool(self.stem(x))))

    def initialise(self) -> None:
        """The last batch norm of each block starts at zero (Goyal et al. 2017, arXiv:1706.02677, section 5.1), so that
        a block starts as the identity."""
        for module in self.modules():
            if isinstance(module, Block):
                nn.init.zeros_(module.path[-1].norm.weight)  # type: ignore[union-attr,arg-type]


def _block(spec: ResidualSpec, n_in: int, n_out: int, stride: int) -> Block:
    if spec.kind == "basic":
        path = nn.Sequential(ConvNorm(n_in, n_out, 3, stride), ConvNorm(n_out, n_out, 3, act=None))
    else:
        path = nn.Sequential(
            ConvNorm(n_in, spec.mid, 1),
            ConvNorm(spec.mid, spec.mid, 3, stride),
            ConvNorm(spec.mid, n_out, 1, act=None),
        )
    return Block(path, n_in, n_out, stride)
