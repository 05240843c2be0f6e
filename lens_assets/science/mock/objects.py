"""The objects of a brick: drawn one by one from their identity, painted noise-free, and remembered with their truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.wcs import WCS

from lens_assets.science.hashing import generator
from lens_assets.science.mock import galaxies, stars
from lens_assets.science.mock.conditions import BandConditions, ebv
from lens_assets.science.mock.deflectors import deflector_light
from lens_assets.science.mock.footprint import BrickPlan
from lens_assets.science.mock.lensing import arcs, draw_arcs, make_lens
from lens_assets.science.mock.render import Component, Knots, Profile, draw, paste, psf_at, stamp_side
from lens_assets.science.mock.settings import MockSize
from lens_assets.science.mock.tractor import Scene
from lens_assets.science.mock.visibility import visibility
from lens_assets.science.surveys.layout import BANDS, EXTINCTION, PIXEL_SCALE

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
MARGIN = 60
"""Pixels from an image's edge that no object's centre comes closer than: a stamp of 101 pixels always fits."""
TEMPLATES = 48
"""Shapes that the faint galaxies of a brick share (their positions, fluxes and colours are their own)."""


class Painter:
    """Draws the objects of one brick onto ``canvas`` (nanomaggies a pixel) and lists them in ``scene``."""

    def __init__(self, size: MockSize, plan: BrickPlan, seed: int, wcs: WCS, seen: dict[str, BandConditions]) -> None:
        self.size, self.plan, self.seed, self.wcs, self.seen = size, plan, seed, wcs, seen
        n = size.brick_pixels
        self.canvas: dict[str, F32] = {b: np.zeros((n, n), np.float32) for b in plan.bands}
        self.scene = Scene()
        self.lenses: list[dict[str, Any]] = []
        self.bright_stars: list[tuple[float, float, float]] = []
        self.large_galaxies: list[tuple[float, float, float]] = []
        self.sigma = [seen[b].typical_sigma if b in seen else 1.0 for b in BANDS]
        self.width = {b: float(np.median(c.psfsize[c.psfsize > 0])) for b, c in seen.items()}

    def paint(self) -> None:
        """All objects, in a fixed order: stars, galaxies, lenses, the faint background."""
        for i in range(self.size.stars):
            self._star(i)
        kinds = list(self.size.settings.classes)
        shares = np.array([self.size.settings.classes[k] for k in kinds])
        for i in range(self.size.galaxies):
            self._galaxy(i, kinds, shares / shares.sum())
        for i in range(self.size.lenses):
            self._lens(i)
        self._faint()

    # ------------------------------------------------------------------ places
    def _rng(self, what: str, i: int) -> np.random.Generator:
        return generator("mock", what, self.seed, self.plan.cell.brickid, i)

    def _place(self, rng: np.random.Generator) -> tuple[float, float, float, float]:
        """A position inside both the primary area and the image: ra, dec (deg) and zero-based pixels."""
        cell = self.plan.cell
        span = (self.size.brick_pixels - 2 * MARGIN) * PIXEL_SCALE / 3600
        wide = min((cell.ra2 - cell.ra1) * 0.999, span / np.cos(np.radians(cell.dec)))
        high = min((cell.dec2 - cell.dec1) * 0.999, span)
        ra = cell.ra + (rng.random() - 0.5) * wide
        dec = cell.dec + (rng.random() - 0.5) * high
        x, y = self.wcs.wcs_world2pix(ra, dec, 0)
        return float(ra), float(dec), float(x), float(y)

    def _near_star(self, rng: np.random.Generator) -> tuple[float, float, float, float] | None:
        """A position in the glare of a bright star, if the brick has one: the artefact-near-star confusers."""
        if not self.bright_stars:
            return None
        sx, sy, gaia = self.bright_stars[int(rng.integers(len(self.bright_stars)))]
        r, angle = stars.mask_radius(gaia) / PIXEL_SCALE * rng.uniform(0.4, 1.6), rng.uniform(0, 2 * np.pi)
        x, y = sx + r * np.cos(angle), sy + r * np.sin(angle)
        if not (MARGIN < x < self.size.brick_pixels - MARGIN and MARGIN < y < self.size.brick_pixels - MARGIN):
            return None
        ra, dec = (float(v) for v in self.wcs.wcs_pix2world(x, y, 0))
        cell = self.plan.cell
        if not (cell.ra1 <= ra < cell.ra2 and cell.dec1 <= dec < cell.dec2):
            return None
        return ra, dec, float(x), float(y)

    def _extinction(self, ra: float, dec: float) -> tuple[float, F64]:
        e = float(ebv(self.size.settings, self.seed, ra, dec))
        return e, 10 ** (-0.4 * e * np.array([EXTINCTION[b] for b in BANDS]))

    def _fwhm(self, x: float, y: float) -> list[float]:
        """FWHM (pixels) a band at a position; 0 where the band saw nothing there."""
        return [float(self.seen[b].at("psfsize", x, y)) / PIXEL_SCALE if b in self.seen else 0.0 for b in BANDS]

    def _stamps(self, parts: list[Component], x: float, y: float) -> list[F32 | None]:
        fwhm = self._fwhm(x, y)
        side = stamp_side(parts, self.sigma, max(*fwhm, 3.0))
        psf = [psf_at(side, self.seen[b], w) if w > 0 else None for b, w in zip(BANDS, fwhm, strict=True)]
        return draw(parts, x - round(x), y - round(y), side, psf)

    def _paste(self, images: list[F32 | None], x: float, y: float) -> None:
        for b, image in zip(BANDS, images, strict=True):
            if image is not None:
                paste(self.canvas[b], image, round(x), round(y))

    # ------------------------------------------------------------------ kinds
    def _star(self, i: int) -> None:
        rng = self._rng("star", i)
        ra, dec, x, y = self._place(rng)
        s, (e, through) = stars.star(rng), self._extinction(ra, dec)
        flux = s.flux * through
        self._paste(self._stamps([Profile(0.5, 0.02, 1.0, 0.0, flux)], x, y), x, y)
        if s.gaia < stars.MEDIUM:
            self.bright_stars.append((x, y, s.gaia))
            for k, b in enumerate(BANDS):
                if b in self.seen:
                    stars.add_wings(self.canvas[b], x, y, float(flux[k]), b, self.sigma[k])
        self.scene.add(kind="star", ra=ra, dec=dec, x=x, y=y, flux=flux, re=0.0, q=1.0, pa=0.0, n=0.0, z=0.0,
                       gaia=s.gaia, ebv=e, identity=f"star-{i}")  # fmt: skip

    def _galaxy(self, i: int, kinds: list[str], shares: F64) -> None:
        rng = self._rng("galaxy", i)
        place = self._near_star(rng) if rng.random() < 0.04 else None
        ra, dec, x, y = place or self._place(rng)
        g = galaxies.galaxy(str(rng.choice(kinds, p=shares)), self.size.settings, rng)
        e, through = self._extinction(ra, dec)
        self._paste(self._stamps(_dimmed(g.parts, through), x, y), x, y)
        if g.kind == "large" and g.flux[1] > 500:
            self.large_galaxies.append((x, y, g.re))
        self._list(g, g.kind, i, (ra, dec, x, y), e, through, g.flux, g.re)

    def _list(
        self, g: galaxies.Galaxy, kind: str, i: int, at: tuple[float, float, float, float], e: float, through: F64,
        flux: F64, re: float,
    ) -> None:  # fmt: skip
        """List a galaxy, and those of its blobs that stand far enough out to be catalogued on their own."""
        ra, dec, x, y = at
        width = max(*self._fwhm(x, y), 3.0)
        own = flux.copy()
        listed = []
        for dx, dy, blob, size in g.blobs:
            if np.hypot(dx, dy) > max(1.2 * width, 1.2 * re / PIXEL_SCALE):
                listed.append((dx, dy, blob, size))
            else:
                own = own + blob
        self.scene.add(kind=kind, ra=ra, dec=dec, x=x, y=y, flux=own * through, re=re, q=g.q, pa=g.pa, n=g.n, z=g.z,
                       gaia=np.nan, ebv=e, identity=f"{'lens' if kind == 'lens' else 'galaxy'}-{i}")  # fmt: skip
        for k, (dx, dy, blob, size) in enumerate(listed):
            bra, bdec = (float(v) for v in self.wcs.wcs_pix2world(x + dx, y + dy, 0))
            cell = self.plan.cell
            if cell.ra1 <= bra < cell.ra2 and cell.dec1 <= bdec < cell.dec2:
                self.scene.add(kind="faint", ra=bra, dec=bdec, x=x + dx, y=y + dy, flux=blob * through, re=size, q=0.8,
                               pa=0.0, n=1.0, z=g.z, gaia=np.nan, ebv=e, identity=f"blob-{kind}-{i}-{k}")  # fmt: skip

    def _lens(self, i: int) -> None:
        s, rng = self.size.settings, self._rng("lens", i)
        at = ra, dec, x, y = self._place(rng)
        d = deflector_light(s, rng)
        g = galaxies.early_type(d.flux, d.re, d.q, d.pa, d.n, d.z, rng)
        if rng.random() < s.neighbours:
            galaxies.add_neighbours(g, s, rng)
        lens = make_lens(d, s, rng)
        if lens.perturber is not None:
            p = lens.perturber
            g.parts.append(p)
            g.blobs.append((p.dx, p.dy, p.flux, p.re * PIXEL_SCALE))
        e, through = self._extinction(ra, dec)
        host = self._stamps(_dimmed(g.parts, through), x, y)
        spectrum, total, points = arcs(lens)
        n = spectrum.shape[1]
        fwhm = self._fwhm(x, y)
        psf = [psf_at(n, self.seen[b], w) if w > 0 else None for b, w in zip(BANDS, fwhm, strict=True)]
        quasar = None if lens.quasar is None else lens.quasar * through
        images = draw_arcs(spectrum * through[:, None, None], points, quasar, x - round(x), y - round(y), psf)
        self._paste(host, x, y)
        self._paste(images, x, y)
        total = total * through
        sky = [self.seen[b].sky if b in self.seen else 1.0 for b in BANDS]
        sigma = [
            float(self.seen[b].at("invvar", x, y)) ** -0.5 if b in self.seen and fwhm[k] > 0 else np.inf
            for k, b in enumerate(BANDS)
        ]
        seen = visibility(
            images, host, sigma, sky, d.theta_e, fwhm[1] * PIXEL_SCALE, float(total[1] / lens.source_flux[1])
        )
        # a fit of one galaxy takes in part of the arcs: all of it when they hide in the seeing, little when
        # they stand clear
        taken = float(np.exp(-0.5 * (d.theta_e / (0.8 * d.re + 0.45 * max(fwhm[1], 3) * PIXEL_SCALE)) ** 2))
        own = g.flux + taken * total / through
        if d.theta_e > 1.3 * fwhm[1] * PIXEL_SCALE and rng.random() < 0.5:
            angle = np.arctan2(lens.beta[1], lens.beta[0])
            r = (d.theta_e + np.hypot(*lens.beta)) / PIXEL_SCALE
            blob = 0.6 * (1 - taken) * total / through
            g.blobs.append((float(r * np.cos(angle)), float(r * np.sin(angle)), blob, 0.4))
        self._list(g, "lens", i, at, e, through, own, d.re * (1 + 0.1 * taken))
        self.lenses.append(
            {
                "lens": f"{self.plan.cell.name}-L{i:04d}", "brickid": self.plan.cell.brickid,
                "tile": self.plan.tile.key, "ra": ra, "dec": dec, **lens.truth,
                **{f"lensed_mag_{b}": _mag(total[k]) for k, b in enumerate(BANDS)},
                **{f"host_mag_{b}": _mag(g.flux[k] * through[k]) for k, b in enumerate(BANDS)},
                "magnification": float(total[1] / (lens.source_flux[1] * through[1])), "images": len(points),
                **seen, "regime": self.plan.regime, "identity": f"lens-{i}",
            }
        )  # fmt: skip

    def _faint(self) -> None:
        """The background of 20 < z < 23.5: many faint galaxies that share a set of shapes."""
        rng = self._rng("templates", 0)
        templates, side = [], 48
        for _ in range(TEMPLATES):
            re, q, pa = 0.32 * np.exp(0.45 * rng.normal()), rng.uniform(0.3, 1), rng.uniform(0, np.pi)
            dx, dy = rng.uniform(-0.5, 0.5, 2)
            part = Profile(1.0, re / PIXEL_SCALE, q, pa, np.ones(3))
            psf = [psf_at(side, self.seen[b], self.width[b] / PIXEL_SCALE) if b in self.seen else None for b in BANDS]
            templates.append(
                (draw([part], float(dx), float(dy), side, psf), float(dx), float(dy), float(re), float(q), float(pa))
            )
        for i in range(self.size.faint):
            rng = self._rng("faint", i)
            ra, dec, x, y = self._place(rng)
            mag = 23.5 + np.log10(rng.random() * (1 - 10**-1.155) + 10**-1.155) / 0.33
            flux = galaxies.fluxes(float(mag), rng.normal(0.55, 0.35), rng.normal(0.6, 0.45))
            e, through = self._extinction(ra, dec)
            flux = flux * through
            images, dx, dy, re, q, pa = templates[int(rng.integers(TEMPLATES))]
            ix, iy = round(x), round(y)
            for k, b in enumerate(BANDS):
                image = images[k]
                if image is not None:
                    paste(self.canvas[b], image * np.float32(flux[k]), ix, iy)
            x, y = ix + dx, iy + dy
            ra, dec = (float(v) for v in self.wcs.wcs_pix2world(x, y, 0))
            self.scene.add(kind="faint", ra=ra, dec=dec, x=x, y=y, flux=flux, re=re, q=q, pa=pa, n=1.0, z=0.7,
                           gaia=np.nan, ebv=e, identity=f"faint-{i}")  # fmt: skip

    # ------------------------------------------------------------------ truth
    def truth(
        self, objid: npt.NDArray[np.int64], rows: npt.NDArray[np.void]
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Truth rows of all objects and of the lenses, with the galaxy_id each has in the sweep (null if not
        catalogued)."""
        release = int(rows["RELEASE"][0]) if len(rows) else 10000
        s, brickid = self.scene, self.plan.cell.brickid
        ids = [f"{release}-{brickid}-{o}" if o >= 0 else None for o in objid]
        objects = [
            {
                "object": f"{self.plan.cell.name}-{s.identity[i]}", "galaxy_id": ids[i], "tile": self.plan.tile.key,
                "brickid": brickid, "ra": s.ra[i], "dec": s.dec[i], "class": s.kind[i], "z": s.z[i],
                **{f"mag_{b}": _mag(s.flux[i][k]) for k, b in enumerate(BANDS)},
                "re": s.re[i], "q": s.q[i], "n": s.n[i],
            }
            for i in range(len(s.x))
        ]  # fmt: skip
        known = {name: ids[i] for i, name in enumerate(s.identity)}
        lenses = [
            {**{k: v for k, v in row.items() if k != "identity"}, "galaxy_id": known[row["identity"]]}
            for row in self.lenses
        ]
        return objects, lenses


def _mag(flux: float) -> float | None:
    return float(22.5 - 2.5 * np.log10(flux)) if flux > 0 else None


def _dimmed(parts: list[Component], through: F64) -> list[Component]:
    out: list[Component] = []
    for p in parts:
        if isinstance(p, Knots):
            out.append(Knots(p.x, p.y, p.share, p.sigma, p.flux * through))
        else:
            out.append(Profile(p.n, p.re, p.q, p.pa, p.flux * through, p.dx, p.dy))
    return out
