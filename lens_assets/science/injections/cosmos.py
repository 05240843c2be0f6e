"""Real galaxies from a catalogue in GalSim's RealGalaxyCatalog layout, such as the COSMOS samples.

The layout (Mandelbaum et al. 2012, arXiv:1107.4629; ``galsim.RealGalaxyCatalog``): a FITS table with IDENT, GAL_FILENAME,
GAL_HDU, PSF_FILENAME, PSF_HDU and PIXEL_SCALE, and files of images beside it. The galaxies of a catalogue are divided by
a hash of their identity into two pools, ``recovery`` and ``training``: injections come from the first, and whoever trains
on simulated lenses takes the second, so no galaxy is in both. Which pool a galaxy is in depends on its identity alone.

What does not belong here: what a plane is made of (``deconvolve``), which injection gets which galaxy (``galaxies``).
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
from astropy.io import fits

from lens_assets.science.errors import BadInput, Rejections
from lens_assets.science.hashing import digest, seed_of, uniform
from lens_assets.science.injections.deconvolve import Refused, plane_of
from lens_assets.science.injections.planes import Plane
from lens_assets.science.injections.settings import GalaxySettings

F64 = npt.NDArray[np.float64]
Pool = Literal["recovery", "training"]
SETTING = "LENS_ASSETS_GALAXIES"
_NAME = "`real_galaxy_catalog_*.fits`"
_FETCH = "galsim_download_cosmos -s 23.5 -d FOLDER --nolink"
_COLUMNS = ("IDENT", "GAL_FILENAME", "GAL_HDU", "PSF_FILENAME", "PSF_HDU", "PIXEL_SCALE")


def pool_of(idents: npt.ArrayLike, recovery_share: float) -> npt.NDArray[np.bool_]:
    """Whether each galaxy (integer IDENT) is in the recovery pool; the others are in the training pool."""
    ids = np.asarray(idents, dtype=np.int64)
    return np.asarray(uniform(ids, seed_of("galaxy pool")) < recovery_share)


@dataclass(frozen=True)
class GalaxySet:
    """Galaxies of one pool, ready to be lensed: see ``planes.Galaxies``.

    ``kept`` is each stamp's share of light inside its segment (what is outside is cut off); ``rejections`` count the
    galaxies of the pool that were looked at and left out; ``digest`` is the identity of all pixels.
    """

    ids: list[str]
    radius: F64
    q: F64
    kept: F64
    planes: list[Plane]
    pool: Pool
    rejections: Rejections = field(default_factory=Rejections)

    def plane(self, source_id: str) -> Plane:
        """The source plane of one of them; ``KeyError`` for another identity."""
        return self.planes[self._place[source_id]]

    def __post_init__(self) -> None:
        object.__setattr__(self, "_place", {name: i for i, name in enumerate(self.ids)})

    _place: dict[str, int] = field(init=False, repr=False, compare=False, default_factory=dict)

    @property
    def digest(self) -> str:
        """SHA-256 of identities, sizes and pixels."""
        total = hashlib.sha256(digest(self.ids, self.pool, [p.scale for p in self.planes]).encode())
        for plane, radius, q in zip(self.planes, self.radius, self.q, strict=True):
            total.update(plane.pixels.tobytes() + np.array([*plane.centre, radius, q]).tobytes())
        return total.hexdigest()

    def save(self, path: Path) -> None:
        """Write as one ``.npz``."""
        shapes = np.array([p.pixels.shape for p in self.planes], dtype=np.int64)
        np.savez(
            path, ids=np.array(self.ids), radius=self.radius, q=self.q, kept=self.kept, shapes=shapes,
            scale=np.array([p.scale for p in self.planes]), centre=np.array([p.centre for p in self.planes]),
            pixels=np.concatenate([p.pixels.ravel() for p in self.planes]), pool=np.array(self.pool),
            reasons=np.array(list(self.rejections.counts)), counts=np.array(list(self.rejections.counts.values())),
        )  # fmt: skip

    @classmethod
    def load(cls, path: Path) -> GalaxySet:
        """Read what ``save`` wrote."""
        with np.load(path, allow_pickle=False) as file:
            found: dict[str, Any] = {name: file[name] for name in file.files}
        edges = np.cumsum([0, *(h * w for h, w in found["shapes"])])
        planes = [
            Plane(found["pixels"][a:b].reshape(h, w), float(s), (float(c[0]), float(c[1])))
            for a, b, (h, w), s, c in zip(
                edges[:-1], edges[1:], found["shapes"], found["scale"], found["centre"], strict=True
            )
        ]
        rejections = Rejections()
        for reason, count in zip(found["reasons"].tolist(), found["counts"].tolist(), strict=True):
            rejections.add(reason, count)
        radius, q, kept, pool = found["radius"], found["q"], found["kept"], cast("Pool", str(found["pool"]))
        return cls(found["ids"].tolist(), radius, q, kept, planes, pool, rejections)


def _table(catalogue: Path) -> dict[str, npt.NDArray[Any]]:
    if not catalogue.is_file():
        raise BadInput(f"no catalogue of real galaxies there: {SETTING} names the FITS table", file=str(catalogue))
    try:
        data = fits.getdata(catalogue, 1)
        names = data.columns.names
    except (OSError, IndexError, AttributeError) as fault:
        raise BadInput(
            f"not a FITS table: {SETTING} names {_NAME}, not a file of images", file=str(catalogue)
        ) from fault
    for name in _COLUMNS:
        if name not in names:
            raise BadInput(
                f"a catalogue of real galaxies in GalSim's layout has this column: {SETTING} names {_NAME}, not the tables of "
                "fits or of the selection beside it",
                file=str(catalogue), column=name,
            )  # fmt: skip
    return {name: np.asarray(data[name]) for name in _COLUMNS}


def _complete(folder: Path, table: dict[str, npt.NDArray[Any]], rows: npt.NDArray[np.int64], deconvolve: bool) -> None:
    """Raise :class:`BadInput` with every file that these rows need and that is not in ``folder``."""
    missing: dict[str, list[str]] = {}
    for column, kind in (("GAL_FILENAME", "galaxies"), ("PSF_FILENAME", "PSF")):
        if kind == "galaxies" or deconvolve:
            names = sorted({str(name).strip() for name in table[column][rows]})
            missing[kind] = [name for name in names if not (folder / name).is_file()]
    lost = [f"images of the {kind}: {', '.join(names)}" for kind, names in missing.items() if names]
    if not lost:
        return
    way = f"the whole sample has them (`{_FETCH}`)"
    if not missing["galaxies"]:
        way += "; without them, `injections: {galaxies: {deconvolve: false}}` in the profile takes the galaxies as HST saw them"
    raise BadInput(f"beside the table are missing {'; '.join(lost)}; {way}", file=str(folder))


class _Images:
    """Images of a catalogue by file and HDU; the last file of each kind stays open."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.open: dict[str, tuple[str, fits.HDUList]] = {}

    def __call__(self, kind: str, name: str, hdu: int) -> F64:
        path = self.folder / name.strip()
        if kind not in self.open or self.open[kind][0] != name:
            if kind in self.open:
                self.open.pop(kind)[1].close()
            try:
                self.open[kind] = (name, fits.open(path, memmap=True))
            except OSError as fault:
                raise BadInput(
                    f"a file of the catalogue of real galaxies ({kind}) cannot be read", file=str(path)
                ) from fault
        hdus = self.open[kind][1]
        if not (0 <= hdu < len(hdus) and hdus[hdu].is_image and hdus[hdu].data is not None):
            raise BadInput(f"HDU {hdu}, which the catalogue names, is no image ({kind}): an extract?", file=str(path))
        return np.asarray(hdus[hdu].data, dtype=np.float64)

    def close(self) -> None:
        for _, file in self.open.values():
            file.close()


def read_galaxies(catalogue: Path, settings: GalaxySettings, pool: Pool = "recovery") -> GalaxySet:
    """Prepare galaxies of one pool: at most ``settings.most``, those of smallest hash, that can be used.

    Raises :class:`BadInput` for a catalogue or file that is missing, or a pool without a single usable galaxy.
    """
    table = _table(catalogue)
    ident = table["IDENT"].astype(np.int64)
    if np.unique(ident).size != ident.size:
        raise BadInput("an identity appears twice", file=str(catalogue), column="IDENT")
    member = pool_of(ident, settings.recovery_share) == (pool == "recovery")
    twin = _twins(table, ident)
    images, rejections = _Images(catalogue.parent), Rejections()
    rejections.add("another galaxy's image", int((member & twin).sum()))
    rows = np.flatnonzero(member & ~twin)
    rows = rows[np.argsort(uniform(ident[rows], seed_of("galaxy order")), kind="stable")]
    _complete(catalogue.parent, table, rows, settings.deconvolve)
    made: dict[str, tuple[Plane, float, float, float]] = {}
    try:
        for row in rows.tolist():
            if len(made) == settings.most:
                break
            name, psf = str(ident[row]), None
            if settings.deconvolve:
                psf = images("PSF", str(table["PSF_FILENAME"][row]), int(table["PSF_HDU"][row]))
            image = images("galaxy", str(table["GAL_FILENAME"][row]), int(table["GAL_HDU"][row]))
            try:
                made[name] = plane_of(image, psf, float(table["PIXEL_SCALE"][row]), settings)
            except Refused as reason:
                rejections.add(str(reason), 1)
    finally:
        images.close()
    if not made:
        raise BadInput(f"no usable galaxy in the {pool} pool of {ident.size}: {rejections.counts}", file=str(catalogue))
    ids = sorted(made)
    radius, q, kept = (np.array([made[name][k] for name in ids]) for k in (1, 2, 3))
    return GalaxySet(ids, radius, q, kept, [made[name][0] for name in ids], pool, rejections)


def _twins(table: dict[str, npt.NDArray[Any]], ident: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Galaxies whose image is also that of a smaller identity: one image in both pools would be a leak."""
    seen: set[tuple[str, int]] = set()
    twin = np.zeros(ident.size, bool)
    for row in np.argsort(ident, kind="stable").tolist():
        image = (str(table["GAL_FILENAME"][row]).strip(), int(table["GAL_HDU"][row]))
        twin[row] = image in seen
        seen.add(image)
    return twin


def prepared(catalogue: Path, settings: GalaxySettings, folder: Path, code: str) -> GalaxySet:
    """The recovery pool of a catalogue, prepared once and kept in ``folder``; made again for other code or settings."""
    if not catalogue.is_file():
        raise BadInput(f"no catalogue of real galaxies there: {SETTING} names the FITS table", file=str(catalogue))
    key = digest(hashlib.sha256(catalogue.read_bytes()).hexdigest(), settings, code)[:16]
    path = folder / f"galaxies-{key}.npz"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / f".galaxies-{key}-{os.getpid()}.npz"
        read_galaxies(catalogue, settings).save(unfinished)
        unfinished.replace(path)
    return GalaxySet.load(path)
