"""The networks by name: a specification makes a network with weights drawn from a seed, and a network a form for scoring.

``basic`` and ``bottleneck`` are in ``residual``, ``efficientnetv2`` in ``efficientnet``, ``dinov2`` (a frozen encoder) in
``encoder``. Training recipes and trained weights do not belong here.
"""

from __future__ import annotations

import copy
import math
from typing import Annotated

import torch
from pydantic import Field
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lens_assets.science.detectors.efficientnet import EfficientNetV2, EfficientNetV2Spec
from lens_assets.science.detectors.encoder import EncoderNet, EncoderSpec
from lens_assets.science.detectors.layers import ConvNorm, LensNet
from lens_assets.science.detectors.residual import ResidualNet, ResidualSpec
from lens_assets.science.hashing import seed_of

__all__ = ["SOURCES", "LensNet", "NetworkSpec", "build_network", "count_parameters", "family", "fused"]

NetworkSpec = Annotated[ResidualSpec | EfficientNetV2Spec | EncoderSpec, Field(discriminator="kind")]
SOURCES = tuple(f"detectors/{name}.py" for name in ("layers", "residual", "efficientnet", "encoder", "networks"))
"""Source files whose change makes other networks."""


def build_network(spec: NetworkSpec, *, seed: int = 0, prior_logit: float = 0.0) -> LensNet:
    """A network with weights drawn from ``seed`` alone; the global generator is untouched.

    Convolutions are He et al. 2015 normal (fan out, of one group); an encoder is drawn as its package does. The head
    starts near weight 0 and at bias ``prior_logit``: the first loss is that of the prior.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of("weights", seed) % 2**63)
        net = _empty(spec)
        for module in net.modules():
            if isinstance(module, nn.Conv2d) and not net.frozen:
                fan_out = module.weight[0, 0].numel() * module.out_channels / module.groups
                nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if isinstance(net, ResidualNet):
            net.initialise()
        nn.init.normal_(net.head.weight, std=1e-3 / math.sqrt(net.n_features))
        nn.init.constant_(net.head.bias, prior_logit)
    return net


def _empty(spec: NetworkSpec) -> LensNet:
    if isinstance(spec, EfficientNetV2Spec):
        return EfficientNetV2(spec)
    return EncoderNet(spec) if isinstance(spec, EncoderSpec) else ResidualNet(spec)


def family(spec: NetworkSpec) -> str:
    """The family of a network in words, for specifications, runs and cards."""
    if isinstance(spec, EfficientNetV2Spec):
        return "EfficientNetV2 (Tan & Le 2021), not EfficientNet (2019)"
    if isinstance(spec, EncoderSpec):
        return f"DINOv2 vision transformer, width {spec.width}, {spec.layers} layers, patch {spec.patch}, with a linear head"
    return "residual network of bottlenecked, shielded blocks" if spec.kind == "bottleneck" else "residual network"


def fused(net: LensNet) -> LensNet:
    """A copy for scoring: eval mode, batch norms folded into their convolutions, no gradients, and the order of pixels in
    memory that suits the network."""
    out = copy.deepcopy(net).eval()
    for module in out.modules():
        if isinstance(module, ConvNorm):
            module.conv = fuse_conv_bn_eval(module.conv, module.norm)  # type: ignore[type-var,arg-type]
            del module.norm
    out.requires_grad_(False)
    return out.to(memory_format=net.memory_format)  # type: ignore[call-overload,no-any-return]


def count_parameters(net: nn.Module) -> int:
    """All parameters, trained or frozen."""
    return sum(p.numel() for p in net.parameters())
