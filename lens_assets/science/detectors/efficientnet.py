"""EfficientNetV2 (Tan & Le 2021, arXiv:2104.00298), of the second family only, written short by hand.

The family matters: a published reproduction took EfficientNet (2019) for EfficientNetV2. With the stages of table 4
(``V2_S``) it has 20,177,488 parameters before the head, the number of torchvision's ``efficientnet_v2_s`` (21,458,488
with its 1,000 classes); Inchausti et al. 2025 state 20,542,883 for theirs and do not name the variant. Left out are
dropout and stochastic depth, which draw in a forward pass (see ``layers``).

Channel counts such as 24 are not multiples of 16, so it trains in contiguous order (``LensNet.memory_format``).
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, model_validator
from torch import nn

from lens_assets.science.detectors.layers import ConvNorm, LensNet, pooled

Stage = tuple[Literal["fused", "mbconv"], int, int, int, int]
EPS = 1e-3  # of the batch norms, as in the published code

V2_S: tuple[Stage, ...] = (
    ("fused", 1, 1, 24, 2),
    ("fused", 4, 2, 48, 4),
    ("fused", 4, 2, 64, 4),
    ("mbconv", 4, 2, 128, 6),
    ("mbconv", 6, 1, 160, 9),
    ("mbconv", 6, 2, 256, 15),
)
"""Table 4 of the paper: operator, expansion, stride of the first block, channels out, number of blocks."""


class EfficientNetV2Spec(BaseModel):
    """The shape of an EfficientNetV2; the default is the variant S."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["efficientnetv2"]
    stem: int = 24
    stages: tuple[Stage, ...] = V2_S
    features: int = 1280

    @model_validator(mode="after")
    def _sound(self) -> EfficientNetV2Spec:
        if not self.stages or any(min(stage[1:]) < 1 or stage[2] > 2 for stage in self.stages):
            raise ValueError("a stage is (fused or mbconv, expansion, stride 1 or 2, channels, blocks), all positive")
        return self


class SqueezeExcite(nn.Module):
    """Channels weighted by what the whole map holds (Hu et al. 2018, arXiv:1709.01507)."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = torch.sigmoid(self.fc2(nn.functional.silu(self.fc1(x.mean((2, 3), keepdim=True)))))
        return x * gate


class MobileBlock(nn.Module):
    """Expand, convolve (depthwise with squeeze and excitation, or ``fused`` with the expansion), project; added to the
    input where the shapes allow."""

    def __init__(self, fused: bool, n_in: int, n_out: int, expand: int, stride: int) -> None:
        super().__init__()
        wide = n_in * expand
        layers: list[nn.Module] = []
        if fused:
            layers.append(ConvNorm(n_in, wide if expand > 1 else n_out, 3, stride, nn.SiLU, eps=EPS))
        else:
            if expand > 1:
                layers.append(ConvNorm(n_in, wide, 1, 1, nn.SiLU, eps=EPS))
            layers.append(ConvNorm(wide, wide, 3, stride, nn.SiLU, groups=wide, eps=EPS))
            layers.append(SqueezeExcite(wide, max(1, n_in // 4)))
        if not fused or expand > 1:
            layers.append(ConvNorm(wide, n_out, 1, 1, None, eps=EPS))
        self.path = nn.Sequential(*layers)
        self.adds = stride == 1 and n_in == n_out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.path(x)
        return out + x if self.adds else out


class EfficientNetV2(LensNet):
    """The network of an :class:`EfficientNetV2Spec`."""

    def __init__(self, spec: EfficientNetV2Spec) -> None:
        super().__init__()
        self.stem = ConvNorm(3, spec.stem, 3, 2, nn.SiLU, eps=EPS)
        blocks: list[nn.Module] = []
        width = spec.stem
        for kind, expand, stride, out, count in spec.stages:
            for i in range(count):
                blocks.append(MobileBlock(kind == "fused", width, out, expand, stride if not i else 1))
                width = out
        self.body = nn.Sequential(*blocks, ConvNorm(width, spec.features, 1, 1, nn.SiLU, eps=EPS))
        self.head = nn.Linear(spec.features, 1)
        self.n_features = spec.features

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Penultimate features: the mean over pixels of the last feature map."""
        return pooled(self.body(self.stem(x)))
