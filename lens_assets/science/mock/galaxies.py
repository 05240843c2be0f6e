"""Galaxies of the mock sky: what they are made of, by class. No pixels and no sky positions here.

Classes cover every confuser that the survey's negatives need: early types (with shells of neighbours), spirals with
arms, bars and rings, edge-on discs, blue clumpy irregulars, large galaxies, mergers with tidal arcs, small smooth
discs. The numbers of a class (sizes, colours, bulge shares) are assumptions within what is published for z < 20
unless a line says *measured*.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from lens_assets.science.mock.deflectors import deflector_light
from lens_assets.science.mock.render import Component, Knots, Profile
from lens_assets.science.mock.settings import Settings
from lens_assets.science.surveys.layout import PIXEL_SCALE

F64 = npt.NDArray[np.float64]
Rng = np.random.Generator


@dataclass
class Galaxy:
    """A galaxy before it is put anywhere: components (pixels, nanomaggies before extinction) and its summary.

    ``flux`` is the total in g, r, z; ``re`` (arcsec, major axis), ``q``, ``pa`` and ``n`` are what one fitted profile
    would find. ``blobs`` are neighbours that a catalogue would list on their own: (dx, dy in pixels, flux, re in
    arcsec).
    """

    kind: str
    parts: list[Component]
    flux: F64
    re: float
    q: float
    pa: float
    n: float
    z: float
    blobs: list[tuple[float, float, F64, float]] = field(default_factory=list)


def fluxes(z: float, rz: float, gr: float) -> F64:
    """Fluxes in g, r, z (nanomaggies) from the z magnitude and colours."""
    return np.asarray(10 ** (0.4 * (22.5 - np.array([z + rz + gr, z + rz, z]))))


def tint(flux: F64, gr: float, rz: float) -> F64:
    """Fluxes of the same r flux and other colours, ``gr`` and ``rz`` redder than these."""
    return np.asarray(flux * 10 ** (-0.4 * np.array([gr, 0.0, -rz])))


def field_magnitude(rng: Rng, brightest: float = 14.5) -> float:
    """z magnitude from Euclidean-like counts, slope 0.38 dex a magnitude, to 20."""
    return float(max(20.0 + np.log10(max(rng.random(), 1e-9)) / 0.38, brightest))


def galaxy(kind: str, s: Settings, rng: Rng) -> Galaxy:
    """A galaxy of a class, with neighbours where the draw says so."""
    made = _MAKERS[kind](s, rng)
    if kind != "merger" and rng.random() < s.neighbours:
        add_neighbours(made, s, rng)
    return made


def add_neighbours(g: Galaxy, s: Settings, rng: Rng) -> None:
    """One to three blobs within 1-6": red satellites and blue chance projections, some of them arc-like."""
    for _ in range(int(rng.choice([1, 2, 3], p=[0.6, 0.3, 0.1]))):
        r, angle = np.sqrt(rng.uniform(1.0, 36.0)) / PIXEL_SCALE, rng.uniform(0, 2 * np.pi)
        dx, dy = r * np.cos(angle), r * np.sin(angle)
        r_mag = float(np.clip(rng.normal(22.4, 0.8), 20.3, 24.5))
        red = rng.random() < 0.35
        gr, rz = (rng.normal(1.1, 0.3), rng.normal(0.7, 0.2)) if red else (rng.normal(0.25, 0.3), rng.normal(0.3, 0.25))
        flux = fluxes(r_mag - rz, rz, gr)
        re = 0.25 * np.exp(0.4 * rng.normal())
        if rng.random() < s.arclike:
            g.parts.append(
                arc(r, angle, rng.uniform(0.25, 0.7), 0.22 / PIXEL_SCALE, flux, rng, curved=rng.random() < 0.5)
            )
        else:
            q, pa = rng.uniform(0.35, 1.0), rng.uniform(0, np.pi)
            g.parts.append(Profile(1.0, re / PIXEL_SCALE, q, pa, flux, dx, dy))
        g.blobs.append((float(dx), float(dy), flux, re))


def arc(
    r: float, angle: float, span: float, sigma: float, flux: F64, rng: Rng, *, curved: bool = True, knots: int = 14
) -> Knots:
    """Knots along a tangent at radius ``r`` (pixels): bent round the centre, or straight or bent away (no lens does
    that)."""
    t = np.linspace(-1, 1, knots) * span
    bend = 1.0 if curved else rng.uniform(-0.6, 0.3)
    along, inward = r * np.sin(t), bend * r * (1 - np.cos(t))
    x = (r - inward) * np.cos(angle) - along * np.sin(angle)
    y = (r - inward) * np.sin(angle) + along * np.cos(angle)
    share = np.exp(-0.5 * (t / span / 0.6) ** 2) * np.exp(0.4 * rng.normal(size=knots))
    return Knots(x, y, share / share.sum(), sigma, flux)


def _early(s: Settings, rng: Rng) -> Galaxy:
    if rng.random() < s.host_like:
        light = deflector_light(s, rng)
        return early_type(light.flux, light.re, light.q, light.pa, light.n, light.z, rng)
    z = field_magnitude(rng)
    redshift = float(np.clip(0.12 + 0.09 * (z - 16.5) + 0.08 * rng.normal(), 0.03, 0.8))
    gr, rz = 0.75 + 1.9 * min(redshift, 0.45) + 0.08 * rng.normal(), 0.45 + 1.15 * redshift + 0.08 * rng.normal()
    re = 10 ** (0.02 - 0.13 * (z - 18) + 0.16 * rng.normal())
    q = float(np.clip(1 - abs(rng.normal(0, 0.28)), 0.3, 1.0))
    n = float(np.clip(rng.normal(4.0, 1.0), 1.5, 6.0))
    return early_type(fluxes(z, rz, gr), re, q, rng.uniform(0, np.pi), n, redshift, rng)


def early_type(flux: F64, re: float, q: float, pa: float, n: float, z: float, rng: Rng) -> Galaxy:
    """A bulge with an envelope of another shape, size and colour: no single Sersic fits it."""
    envelope = rng.uniform(0.1, 0.4)
    bluer = tint(flux, -abs(rng.normal(0, 0.08)), -abs(rng.normal(0, 0.05)))
    px = re / PIXEL_SCALE
    twist = pa + rng.normal(0, 0.15)
    parts: list[Component] = [
        Profile(n, px * 0.85, q, pa, flux * (1 - envelope)),
        Profile(1.0, px * rng.uniform(1.3, 2.2), min(1.0, q * rng.uniform(0.8, 1.15)), twist, bluer * envelope),
    ]
    return Galaxy("early", parts, flux * (1 - envelope) + bluer * envelope, re, q, pa, n, z)


def _disc_numbers(
    rng: Rng, gr: tuple[float, float], rz: tuple[float, float], re18: float
) -> tuple[F64, float, float, float]:
    z = field_magnitude(rng)
    flux = fluxes(z, rng.normal(*rz), rng.normal(*gr))
    re = re18 * 10 ** (-0.11 * (z - 18) + 0.15 * rng.normal())
    return (
        flux,
        re,
        float(rng.uniform(0.25, 1.0)),
        float(np.clip(0.08 + 0.06 * (z - 16) + 0.05 * rng.normal(), 0.02, 0.5)),
    )


def spiral_parts(flux: F64, re: float, q: float, pa: float, rng: Rng) -> tuple[list[Component], F64, float]:
    """Bulge, disc, logarithmic arms of knots, perhaps a bar: the parts, their total, and the bulge's share in r."""
    px, bulge = re / PIXEL_SCALE, float(rng.beta(1.5, 5))
    arms = rng.uniform(0.12, 0.45)
    red = tint(flux, rng.uniform(0.2, 0.5), rng.uniform(0.1, 0.3))
    blue = tint(flux, -rng.uniform(0.1, 0.45), -rng.uniform(0.05, 0.25))
    parts: list[Component] = [
        Profile(float(rng.uniform(1.5, 4)), px * rng.uniform(0.15, 0.3), min(1.0, q + 0.25), pa, red * bulge),
        Profile(1.0, px * 1.1, q, pa, flux * (1 - bulge) * (1 - arms)),
    ]
    m, winds = int(rng.choice([1, 2, 2, 3, 4])), rng.uniform(0.5, 1.3)
    pitch, count = np.radians(rng.uniform(10, 35)), int(rng.integers(35, 90))
    t = rng.uniform(0, 1, count)
    start = px * rng.uniform(0.35, 0.7)
    theta = t * winds * 2 * np.pi
    radius = np.minimum(start * np.exp(theta * np.tan(pitch)), 3.2 * px) * np.exp(0.06 * rng.normal(size=count))
    theta = theta * rng.choice([-1, 1]) + 2 * np.pi * rng.integers(0, m, count) / m + 0.12 * rng.normal(size=count)
    u, v = radius * np.cos(theta), q * radius * np.sin(theta)
    share = np.exp(-radius / (0.9 * px)) * np.exp(0.9 * rng.normal(size=count))
    x, y = u * np.cos(pa) - v * np.sin(pa), u * np.sin(pa) + v * np.cos(pa)
    parts.append(Knots(x, y, share / share.sum(), max(0.10 * px, 0.5), blue * (1 - bulge) * arms))
    if rng.random() < 0.3:
        bar = 0.12 * (1 - bulge)
        parts.append(Profile(0.5, px * 0.5, 0.3, pa + rng.uniform(-1, 1), red * bar))
    total = np.sum([c.flux for c in parts], axis=0)
    return parts, np.asarray(total, float), bulge


def _spiral(s: Settings, rng: Rng) -> Galaxy:
    flux, re, q, z = _disc_numbers(rng, (0.62, 0.17), (0.42, 0.13), 1.55)
    pa = rng.uniform(0, np.pi)
    parts, total, bulge = spiral_parts(flux, re, q, pa, rng)
    return Galaxy("spiral", parts, total, re, q, pa, 1.0 + 2.5 * bulge, z)


def _large(s: Settings, rng: Rng) -> Galaxy:
    mag, pa, q = float(rng.uniform(14.5, 17.8)), rng.uniform(0, np.pi), float(rng.uniform(0.3, 1.0))
    re = float(np.clip(2.6 * 10 ** (-0.15 * (mag - 17)) * np.exp(0.2 * rng.normal()), 2.0, 9.0))
    z = float(np.clip(0.03 + 0.02 * (mag - 14) + 0.02 * rng.normal(), 0.005, 0.2))
    if rng.random() < 0.4:
        made = early_type(fluxes(mag, rng.normal(0.6, 0.05), rng.normal(0.85, 0.06)), re, q, pa, 4.0, z, rng)
        made.kind = "large"
        return made
    parts, total, bulge = spiral_parts(fluxes(mag, rng.normal(0.45, 0.1), rng.normal(0.6, 0.13)), re, q, pa, rng)
    return Galaxy("large", parts, total, re, q, pa, 1.0 + 2.5 * bulge, z)


def _disc(s: Settings, rng: Rng) -> Galaxy:
    flux, re, q, z = _disc_numbers(rng, (0.85, 0.3), (0.5, 0.18), 0.85)
    pa = rng.uniform(0, np.pi)
    bulge = float(rng.beta(1, 6))
    parts: list[Component] = [
        Profile(1.0, re / PIXEL_SCALE, q, pa, flux * (1 - bulge)),
        Profile(2.0, 0.3 * re / PIXEL_SCALE, min(1.0, q + 0.2), pa, tint(flux, 0.2, 0.1) * bulge),
    ]
    total = np.sum([c.flux for c in parts], axis=0)
    return Galaxy("disc", parts, np.asarray(total), re, q, pa, 1.0 + bulge, z)


def _edge_on(s: Settings, rng: Rng) -> Galaxy:
    flux, re, _, z = _disc_numbers(rng, (0.85, 0.25), (0.55, 0.15), 1.8)
    q, pa, bulge = float(rng.uniform(0.12, 0.28)), rng.uniform(0, np.pi), float(rng.beta(2, 6))
    re = max(re, 0.7)
    parts: list[Component] = [
        Profile(1.0, re / PIXEL_SCALE, q, pa, flux * (1 - bulge)),
        Profile(2.5, 0.25 * re / PIXEL_SCALE, 0.7, pa, tint(flux, 0.25, 0.15) * bulge),
    ]
    total = np.sum([c.flux for c in parts], axis=0)
    return Galaxy("edge_on", parts, np.asarray(total), re, q, pa, 1.0 + bulge, z)


def _ring(s: Settings, rng: Rng) -> Galaxy:
    """A red core with a bluer ring, whole or broken: resonance and polar rings, the classic false lens."""
    made = _early(s, rng)
    core = made.re / PIXEL_SCALE
    radius = min(max(core * rng.uniform(1.4, 2.6), rng.uniform(1.3, 2.8) / PIXEL_SCALE), 4 / PIXEL_SCALE + core)
    q, pa, count = float(rng.uniform(0.45, 1.0)), rng.uniform(0, np.pi), 60
    t = np.arange(count) * 2 * np.pi / count
    share = np.exp(0.35 * rng.normal(size=count)) * (1 + rng.uniform(0, 0.9) * np.cos(t - rng.uniform(0, 2 * np.pi)))
    u, v = radius * np.cos(t), q * radius * np.sin(t)
    x, y = u * np.cos(pa) - v * np.sin(pa), u * np.sin(pa) + v * np.cos(pa)
    blue = tint(made.flux, -rng.uniform(0.4, 1.1), -rng.uniform(0.2, 0.6)) * rng.uniform(0.08, 0.35)
    made.parts.append(Knots(x, y, share / share.sum(), max(radius * rng.uniform(0.08, 0.16), 0.8), blue))
    made.flux = made.flux + blue
    made.kind, made.re = "ring", made.re * 1.2
    return made


def _clumpy(s: Settings, rng: Rng) -> Galaxy:
    flux, re, q, z = _disc_numbers(rng, (0.25, 0.12), (0.12, 0.12), 1.2)
    pa, px = rng.uniform(0, np.pi), re / PIXEL_SCALE
    clumps, count = rng.uniform(0.25, 0.6), int(rng.integers(4, 18))
    u, v = rng.normal(0, 0.75 * px, count), rng.normal(0, 0.75 * px * q, count)
    share = np.exp(0.9 * rng.normal(size=count))
    x, y = u * np.cos(pa) - v * np.sin(pa), u * np.sin(pa) + v * np.cos(pa)
    blue = tint(flux, -rng.uniform(0.05, 0.3), -rng.uniform(0.0, 0.2))
    parts: list[Component] = [
        Profile(1.0, px, q, pa, flux * (1 - clumps)),
        Knots(x, y, share / share.sum(), max(0.13 * px, 0.4), blue * clumps),
    ]
    total = np.sum([c.flux for c in parts], axis=0)
    return Galaxy("clumpy", parts, np.asarray(total), re, q, pa, 0.9, z)


def _merger(s: Settings, rng: Rng) -> Galaxy:
    """A galaxy with a companion of like brightness at 1.5-6", half of the time with a tidal arc."""
    made = _early(s, rng) if rng.random() < 0.55 else _spiral(s, rng)
    r, angle = rng.uniform(1.5, 6.0) / PIXEL_SCALE, rng.uniform(0, 2 * np.pi)
    ratio = 10 ** (-0.4 * abs(rng.normal(0, 1.0)))
    flux = tint(made.flux, rng.normal(0, 0.15), rng.normal(0, 0.1)) * ratio
    re = made.re * ratio**0.4
    dx, dy = float(r * np.cos(angle)), float(r * np.sin(angle))
    made.parts.append(
        Profile(float(rng.choice([1.0, 2.5, 4.0])), re / PIXEL_SCALE, rng.uniform(0.4, 1), angle, flux, dx, dy)
    )
    made.blobs.append((dx, dy, flux, re))
    if rng.random() < 0.5:
        tail = tint(made.flux, -rng.uniform(0.1, 0.5), -rng.uniform(0, 0.3)) * rng.uniform(0.03, 0.12)
        width = rng.uniform(0.3, 0.6) / PIXEL_SCALE
        at, span = rng.uniform(2, 6) / PIXEL_SCALE, rng.uniform(0.4, 1.2)
        made.parts.append(arc(at, rng.uniform(0, 2 * np.pi), span, width, tail, rng, knots=24))
        made.flux = made.flux + tail
    made.kind = "merger"
    return made


_MAKERS = {
    "early": _early, "spiral": _spiral, "disc": _disc, "edge_on": _edge_on, "ring": _ring, "clumpy": _clumpy,
    "large": _large, "merger": _merger,
}  # fmt: skip
KINDS = tuple(_MAKERS)
