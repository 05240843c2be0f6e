"""The networks, written short by hand: a residual network of basic or of bottlenecked, shielded blocks.

``basic`` is ResNet-18 (He et al. 2016, arXiv:1512.03385, table 1) when its widths are (64, 128, 256, 512) with two
blocks each: 11,176,512 parameters before the head. ``bottleneck`` follows the small network of the DESI lens searches
(Huang et al. 2021, arXiv:2005.04730; Storfer et al. 2024, arXiv:2206.02764; Inchausti et al. 2025, arXiv:2508.20087,
who state 194,433 parameters): five stages of three bottlenecked blocks after Lanusse et al. 2018 (arXiv:1703.02642),
with a 1 x 1 "shield" convolution that squeezes the channels between stages. The papers do not print the layer table,
so the layout is ours: it has 194,913 parameters, and is of their size and kind, not theirs layer by layer.

Choices: the first convolution has stride 2 (0.524"/pixel, still two samples across the best seeing of 0.9"), which
makes the small network four times cheaper than at full resolution; convolution, batch norm and activation come in
that order everywhere, so that batch norm folds into the convolution when scoring; no dropout, so that a forward pass
draws nothing. All channel counts are multiples of 16: with others, training in channels-last order writes past its
buffers in torch 2.13 on x86 (heap corruption under MALLOC_CHECK_ with widths of 8, 10 and 40; none with 16, 32, 48,
64, seen 2026-11-23). Training recipes and weights do not belong here.
"""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, model_validator
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lens_assets.science.hashing import seed_of


class NetworkSpec(BaseModel):
    """The shape of a network: ``widths`` (channels out) and ``blocks`` per stage; ``mid``, ``shield`` for
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
    def _sound(self) -> NetworkSpec:
        if len(self.widths) != len(self.blocks) or not self.widths:
            raise ValueError("widths and blocks need one entry a stage")
        if self.kind == "bottleneck" and not self.mid:
            raise ValueError("a bottleneck needs its inner width `mid`")
        odd = [c for c in (self.stem, *self.widths, self.mid, self.shield, self.features) if c % 16]
        if odd:
            raise ValueError(
                f"channel counts {odd} are not multiples of 16 (unsafe in channels-last order, see the module)"
            )
        return self


class ConvNorm(nn.Sequential):
    """Convolution (no bias) and batch norm, with ReLU unless ``act`` is false."""

    def __init__(self, n_in: int, n_out: int, size: int, stride: int = 1, act: bool = True) -> None:
        layers: list[tuple[str, nn.Module]] = [
            ("conv", nn.Conv2d(n_in, n_out, size, stride, size // 2, bias=False)),
            ("norm", nn.BatchNorm2d(n_out)),
        ]
        if act:
            layers.append(("act", nn.ReLU(inplace=True)))
        super().__init__(OrderedDict(layers))


class Block(nn.Module):
    """A residual block: ``relu(path(x) + skip(x))``; the skip is projected where the shape changes."""

    def __init__(self, path: nn.Sequential, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.path = path
        self.skip = ConvNorm(n_in, n_out, 1, stride, act=False) if stride != 1 or n_in != n_out else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu_(self.path(x) + self.skip(x))


class LensNet(nn.Module):
    """``forward(x)``: (n, 3, h, w) normalised stamps to (n,) logits; ``features(x)``: the penultimate (n, f)
    vectors."""

    def __init__(self, spec: NetworkSpec) -> None:
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
        maps: torch.Tensor = self.body(self.pool(self.stem(x)))
        return maps.mean((2, 3), dtype=torch.float32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logit(self.features(x))

    def logit(self, features: torch.Tensor) -> torch.Tensor:
        """The head, (n, f) to (n,): float32 whatever the body's precision (a bfloat16 logit of 8 has steps of 0.06),
        and a sum per row rather than a matrix product, so that a row's value cannot depend on its place in the
        batch."""
        return (features * self.head.weight.float()).sum(1) + self.head.bias.float()


def _block(spec: NetworkSpec, n_in: int, n_out: int, stride: int) -> Block:
    if spec.kind == "basic":
        path = nn.Sequential(ConvNorm(n_in, n_out, 3, stride), ConvNorm(n_out, n_out, 3, act=False))
    else:
        path = nn.Sequential(
            ConvNorm(n_in, spec.mid, 1),
            ConvNorm(spec.mid, spec.mid, 3, stride),
            ConvNorm(spec.mid, n_out, 1, act=False),
        )
    return Block(path, n_in, n_out, stride)


def build_network(spec: NetworkSpec, *, seed: int = 0, prior_logit: float = 0.0) -> LensNet:
    """A network with weights drawn from ``seed`` alone (He et al. 2015 normal, fan out); the global generator is
    untouched.

    The last batch norm of each block starts at zero (Goyal et al. 2017, arXiv:1706.02677, section 5.1), so that a block
    starts as the identity. The head starts at weight 0 and bias ``prior_logit``: the first loss is that of the prior.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of("weights", seed) % 2**63)
        net = LensNet(spec)
        for module in net.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for module in net.modules():
            if isinstance(module, Block):
                nn.init.zeros_(module.path[-1].norm.weight)  # type: ignore[union-attr,arg-type]
        nn.init.normal_(net.head.weight, std=1e-3 / math.sqrt(net.n_features))
        nn.init.constant_(net.head.bias, prior_logit)
    return net


def fused(net: LensNet) -> LensNet:
    """A copy for scoring: eval mode, batch norms folded into their convolutions, channels last, no gradients."""
    out = copy.deepcopy(net).eval()
    for module in out.modules():
        if isinstance(module, ConvNorm):
            module.conv = fuse_conv_bn_eval(module.conv, module.norm)  # type: ignore[type-var,arg-type]
            del module.norm
    out.requires_grad_(False)
    return out.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def count_parameters(net: nn.Module) -> int:
    """Trainable parameters."""
    return sum(p.numel() for p in net.parameters() if p.requires_grad)
