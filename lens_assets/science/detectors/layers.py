"""What all networks share: the frame of a network (features, head, logit) and the convolution with its batch norm.

Convolution, batch norm and activation come in that order everywhere, so that batch norm folds into the convolution when
scoring. No network draws anything in a forward pass (no dropout, no stochastic depth): a training is a function of its
seed and its epochs. The networks themselves: ``residual``, ``efficientnet``, ``encoder``.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

CHANNEL_MULTIPLE = 16
"""Networks whose channel counts are not all multiples of this train in contiguous order: with others, training in
channels-last order writes past its buffers in torch 2.13 on x86 (heap corruption under MALLOC_CHECK_ with widths of 8,
10 and 40; none with 16, 32, 48, 64, seen 2026-11-23)."""


class ConvNorm(nn.Sequential):
    """Convolution (no bias), batch norm, and the activation ``act`` unless it is ``None``."""

    def __init__(
        self,
        n_in: int,
        n_out: int,
        size: int,
        stride: int = 1,
        act: type[nn.Module] | None = nn.ReLU,
        *,
        groups: int = 1,
        eps: float = 1e-5,
    ) -> None:
        layers: list[tuple[str, nn.Module]] = [
            ("conv", nn.Conv2d(n_in, n_out, size, stride, size // 2, groups=groups, bias=False)),
            ("norm", nn.BatchNorm2d(n_out, eps=eps)),
        ]
        if act is not None:
            layers.append(("act", act(inplace=True)))
        super().__init__(OrderedDict(layers))


class LensNet(nn.Module):
    """``forward(x)``: (n, 3, h, w) normalised stamps to (n,) logits; ``features(x)``: the penultimate (n, f) vectors.

    A network gives ``features`` and ``n_features``, and sets ``head``, the linear layer from features to one logit.
    """

    head: nn.Linear
    n_features: int
    frozen = False
    """Whether all but the head stays as it was given."""

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Penultimate features, float32."""
        raise NotImplementedError

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logit(self.features(x))

    def logit(self, features: torch.Tensor) -> torch.Tensor:
        """The head, (n, f) to (n,): float32 whatever the body's precision (a bfloat16 logit of 8 has steps of 0.06),
        and a sum per row rather than a matrix product, so that a row's value cannot depend on its place in the
        batch."""
        return (features * self.head.weight.float()).sum(1) + self.head.bias.float()

    @property
    def memory_format(self) -> torch.memory_format:
        """The order of pixels in memory to train and score in: channels last where that is safe and faster."""
        convolutions = [m for m in self.modules() if isinstance(m, nn.Conv2d)]
        counts = {m.out_channels for m in convolutions} | {m.in_channels for m in convolutions if m.in_channels != 3}
        safe = not any(count % CHANNEL_MULTIPLE for count in counts)
        return torch.channels_last if convolutions and safe else torch.contiguous_format


def pooled(maps: torch.Tensor) -> torch.Tensor:
    """The mean over pixels of feature maps (n, f, h, w), in float32."""
    return maps.mean((2, 3), dtype=torch.float32)
