"""What a stamp may lose, stated against its noise: the quantum of each stamp and band. Arithmetic only; files are ``archive``'s.

Images are kept in units of their noise, on steps of 1 / levels. The noise is the smaller of what is measured (1.4826 MAD of the
background annulus) and what the inverse variance allows in the best pixel of the plane, so no pixel has less noise than is stated.
Steps are dithered, and the dither is subtracted when they are read (Pence, Seaman & White 2009, arXiv:0903.2140; Zheng, Taylor &
Pence 2010, arXiv:1007.1179): the error is then uniform and without bias, rms 1 / (levels sqrt(12)) = 0.018 of the noise with 16
levels, which adds 0.016 % to its scatter. Without dither every background would lie on a grid of 13 steps a MAD, and the MAD that
stamps are normalised by would be wrong by up to 4 %. Fewer than 10 levels are refused (float16, whose step follows the brightness,
loses faint arcs on bright haloes). Exact zeros stay exact zeros.

inverse variance = 2^((integer - 1 + base) / 256), 0 for integer 0: within 0.14 %, a hundredth of what the resampling leaves
unknown of it. So ``invvar > 0`` is kept exactly, pixel by pixel, and so is which pixels of the image are finite; what an invalid
pixel held may be clipped, that of a valid one never: it is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from lens_assets.science.cutouts.features import MAD_TO_SIGMA, RESAMPLED_SIGMA
from lens_assets.science.cutouts.normalise import NormalisationSpec, background
from lens_assets.science.cutouts.quality import valid_pixels
from lens_assets.science.errors import BadInput

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]

LEVELS, FEWEST = 16, 10
"""Steps per sigma of the noise: the default, and the fewest that are accepted (quantum <= sigma / 10)."""
STEPS = 256
"""Integers per factor of two of the inverse variance."""
_MOST = 2**30
"""Steps from zero that integers of 32 bits hold whatever else is in the tile."""
_LOWEST = -149  # log2 of the smallest float32 above 0


@dataclass(frozen=True)
class Scaled:
    """n stamps as they are kept: ``image`` float32 (n, bands, h, w) in units of ``noise`` (n, bands; nanomaggies per pixel), and
    the logarithm of their inverse variance as integers ``invvar`` above ``base`` (int32)."""

    image: F32
    noise: F64
    invvar: I32
    base: I32


@dataclass(frozen=True)
class Loss:
    """Error of restored stamps in units of each plane's noise: over valid pixels, per band, so that blocks add up.

    ``beyond`` is the largest error but for what float32 itself leaves open (2^-22 of the value): at most half a quantum.
    """

    squares: F64
    largest: F64
    beyond: F64
    pixels: npt.NDArray[np.int64]
    invvar: float

    def __add__(self, other: Loss) -> Loss:
        return Loss(
            self.squares + other.squares,
            np.maximum(self.largest, other.largest),
            np.maximum(self.beyond, other.beyond),
            self.pixels + other.pixels,
            max(self.invvar, other.invvar),
        )

    @property
    def rms(self) -> F64:
        """Rms error per band, in sigma; ``nan`` without a valid pixel."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.sqrt(self.squares / self.pixels), np.float64)


def noise_of(images: F32, invvar: F32, spec: NormalisationSpec) -> F64:
    """The noise that a quantum is stated against, (n, bands), nanomaggies per pixel; ``nan`` where neither way gives one."""
    good = valid_pixels(images, invvar)
    measured = MAD_TO_SIGMA * background(images, spec, good)[1].astype(np.float64)
    best = np.where(good, invvar, np.float32(0)).max(axis=(2, 3), initial=0).astype(np.float64)
    with np.errstate(divide="ignore"):
        stated = min(RESAMPLED_SIGMA.values()) / np.sqrt(best)
    both = np.stack([np.where(v > 0, v, np.inf) for v in (np.nan_to_num(measured), stated)]).min(axis=0)
    return np.where(np.isfinite(both), both, np.nan)


def scale(
    images: F32, invvar: F32, spec: NormalisationSpec, levels: float = LEVELS, names: Sequence[str] | None = None
) -> Scaled:
    """Stamps (n, bands, h, w) and their inverse variance as they are kept.

    Raises :class:`BadInput` for fewer than 10 levels, a plane without noise to state a quantum against, and what integers of 32
    bits cannot hold: a valid pixel beyond +-2^30 steps, or a negative or endless inverse variance. ``names``: ids, for the
    message.
    """
    if not levels >= FEWEST:
        raise BadInput(f"{levels} levels per sigma: a quantum above sigma / {FEWEST} loses faint arcs")
    noise = noise_of(images, invvar, spec)
    good = valid_pixels(images, invvar)

    def refuse(wrong: npt.NDArray[np.bool_], what: str) -> None:
        if wrong.any():
            row, band = (int(i) for i in np.argwhere(wrong.reshape(*wrong.shape[:2], -1).any(axis=2))[0])
            who = names[row] if names is not None else f"stamp {row}"
            raise BadInput(f"{who}, band {spec.bands[band]}: {what}", row=row)

    refuse(~np.isfinite(noise), "no noise in its background and none in its inverse variance")
    refuse(~np.isfinite(invvar) | (invvar < 0), "an inverse variance that is negative or not finite")
    most = np.float32(_MOST / levels)
    with np.errstate(over="ignore", invalid="ignore"):
        image = (images / noise[..., None, None]).astype(np.float32)
        refuse(good & ~(np.abs(image) <= most), f"a pixel beyond {most:.3g} times its noise: it would saturate")
        image = np.where(np.isfinite(images), np.clip(image, -most, most), np.float32(np.nan))

    weighed = invvar > 0
    with np.errstate(divide="ignore"):
        power = np.rint(np.log2(invvar) * np.float32(STEPS))
    lowest = np.where(weighed, power, np.inf).min(axis=(2, 3), initial=np.inf)
    base = np.where(np.isfinite(lowest), lowest, 0).astype(np.int32)
    weight = np.where(weighed, power - base[..., None, None] + 1, 0).astype(np.int32)
    return Scaled(image, noise, weight, base)


def restore(kept: Scaled) -> tuple[F32, F32]:
    """Stamps (nanomaggies per pixel) and inverse variance, float32."""
    pixels = (kept.image * kept.noise[..., None, None]).astype(np.float32)
    place = kept.invvar + (kept.base - 1 - _LOWEST * STEPS)[..., None, None]
    return pixels, _powers().take(np.where(kept.invvar > 0, place, -1), mode="wrap")


@lru_cache(maxsize=1)
def _powers() -> F32:
    """2^(k / 256) of every power that float32 holds, and 0 at the end."""
    powers = np.exp2(np.arange(_LOWEST * STEPS, 128 * STEPS + 1) / STEPS)
    return np.append(np.minimum(powers, np.finfo(np.float32).max), 0.0).astype(np.float32)


def loss(before: tuple[F32, F32], after: tuple[F32, F32], noise: F64, names: Sequence[str] | None = None) -> Loss:
    """What was lost between (images, invvar) before and after. Raises :class:`BadInput` when a pixel is valid in one and not in
    the other, which never happens."""
    good = valid_pixels(*before)
    if wrong := np.flatnonzero((good != valid_pixels(*after)).any(axis=(1, 2, 3))).tolist():
        who = names[wrong[0]] if names is not None else f"stamp {wrong[0]}"
        raise BadInput(f"{who}: the valid pixels would not be the same", row=wrong[0])
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        error = np.where(good, np.abs(after[0].astype(np.float64) - before[0]) / noise[..., None, None], 0.0)
        beyond = np.where(good, error - np.abs(before[0]) * 2.0**-22 / noise[..., None, None], 0.0)
        weight = np.where(good, after[1] / before[1].astype(np.float64) - 1, 0.0)
    return Loss(
        (error**2).sum(axis=(0, 2, 3)),
        error.max(axis=(0, 2, 3), initial=0.0),
        beyond.max(axis=(0, 2, 3), initial=0.0),
        good.sum(axis=(0, 2, 3)),
        float(np.abs(weight).max(initial=0.0)),
    )
