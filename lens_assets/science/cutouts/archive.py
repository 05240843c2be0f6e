"""A shard to keep or to move: quantised and Rice-compressed, some seventh of its size. Hot shards stay as they are.

An archive is a folder: ``stamps.fits`` and the tables of the shard. The FITS file holds, in blocks of stamps (EXTVER), the images
in units of their noise (``IMAGE``: the standard's quantised floats, dithered, RICE_1, a tile a stamp, which every FITS reader
decodes), the logarithm of their inverse variance as integers (``INVVAR``, lossless), and a table ``SCALE`` with id, noise and base
of each stamp; its header says how they become fluxes. ``archive.json`` states the loss, measured on what was read back, and the
digests of everything.

A restored shard reads as any other (``Shard``). Its pixels are not those that were cut, and its ``stamp_digest`` is of the pixels
it has; it is written to a folder of the user's, never into the store as the asset ``cutouts``.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from astropy.io import fits

from lens_assets import __version__
from lens_assets.science.cutouts.fingerprint import stamp_digests
from lens_assets.science.cutouts.normalise import NormalisationSpec
from lens_assets.science.cutouts.quantise import LEVELS, Loss, Scaled, loss, restore, scale
from lens_assets.science.cutouts.shard import Shard
from lens_assets.science.cutouts.write import IMAGE, INDEX, INVVAR, REFUSED, REFUSED_IMAGE, REJECTED
from lens_assets.science.errors import BadInput
from lens_assets.science.storage import sha256_file
from lens_assets.science.surveys import fitsfile

STAMPS, FACTS = "stamps.fits", "archive.json"
FORMAT, VERSION = "lens-assets stamp archive", 1
BLOCK = 128
"""Stamps a block: what is in memory at a time (some 200 MB)."""
_HOW = (
    "IMAGE * NOISE of its stamp and band (table SCALE of the same EXTVER,",
    "row = the first axis) is in nanomaggies per pixel.",
    "INVVAR [1/nanomaggy^2] = 2**((integer - 1 + BASE) / 256), integer 0: 0;",
    "a pixel is valid where INVVAR > 0 and IMAGE is finite.",
)


def archive_shard(
    folder: str | Path, target: str | Path, spec: NormalisationSpec, levels: float = LEVELS, origin: str = ""
) -> dict[str, Any]:
    """Write the archive of the shard in ``folder`` to ``target``, whole or not at all.

    Parameters
    ----------
    spec : the normalisation whose background annulus the noise is measured in.
    levels : steps per sigma, at least 10.
    origin : what the shard is, for the header (for instance its key and digest).

    Returns
    -------
    Facts, also in ``archive.json``: stamps, sizes in bytes, ``rms_sigma`` and ``largest_sigma`` (error in units of the noise, per
    band, over all valid pixels of what was read back), ``invvar_error`` (largest relative one), quanta, digests of the files.

    Raises :class:`BadInput` for what cannot be held (``quantise``), or when ``target`` exists.
    """
    shard = Shard.open(folder)
    ids = shard.index["galaxy_id"].to_list()
    bands, side = len(spec.bands), shard.shape[-1]
    with _whole(target) as scratch:
        total = Loss(np.zeros(bands), np.zeros(bands), np.zeros(bands), np.zeros(bands, np.int64), 0.0)
        noises = []
        with open(scratch / STAMPS, "wb") as stream:
            stream.write(_primary(spec, levels, len(shard), side, origin))
            for k, start in enumerate(range(0, len(shard), BLOCK)):
                part = slice(start, min(start + BLOCK, len(shard)))
                before = np.array(shard.images()[part]), np.array(shard.invvar()[part])
                kept = scale(*before, spec, levels, ids[part])
                raw = _block(kept, ids[part], k + 1, levels)
                stream.write(raw)
                with fits.open(io.BytesIO(fits.PrimaryHDU().header.tostring().encode() + raw)) as hdus:
                    total += loss(before, restore(_read(hdus, 1)[0]), kept.noise, ids[part])
                noises.append(kept.noise)
        for name in (f"{INDEX}.parquet", f"{REJECTED}.parquet", f"{REFUSED}.parquet", REFUSED_IMAGE):
            if (shard.folder / name).is_file():
                shutil.copyfile(shard.folder / name, scratch / name)
        packed = (scratch / STAMPS).stat().st_size
        files = {p.name: {"bytes": p.stat().st_size, "sha256": sha256_file(p)} for p in sorted(scratch.iterdir())}
        size = sum((shard.folder / name).stat().st_size for name in (IMAGE, INVVAR))
        noise = np.concatenate(noises) if noises else np.empty((0, bands))
        facts = {
            "format": FORMAT, "version": VERSION, "creator": f"lens-assets {__version__}", "origin": origin,
            "stamps": len(shard), "bands": list(spec.bands), "size": side, "levels": levels,
            "normalisation": spec.digest,
            "bytes_shard": size, "bytes_archive": packed,
            "ratio": packed / size if len(shard) else None,
            "rms_sigma": _numbers(total.rms), "largest_sigma": _numbers(total.largest),
            "pixels": total.pixels.tolist(), "invvar_error": total.invvar,
            "noise_median": _numbers(np.median(noise, axis=0)) if len(shard) else None,
            "quantum_median": _numbers(np.median(noise, axis=0) / levels) if len(shard) else None,
            "files": files,
        }  # fmt: skip
        if total.beyond.max(initial=0.0) > 0.5 / levels * 1.001:
            raise BadInput(f"an error of {total.beyond.max():.4f} sigma, more than half a quantum", file=str(folder))
        (scratch / FACTS).write_text(json.dumps(facts, indent=1) + "\n")
    return facts


def restore_shard(archive: str | Path, target: str | Path) -> dict[str, Any]:
    """Write the shard of an archive to ``target`` (a folder that ``Shard`` opens), whole or not at all.

    Every file is held against its digest, every block against its DATASUM. Returns the archive's facts. Raises
    :class:`BadInput` for what is not an archive, is of another version, damaged, or when ``target`` exists.
    """
    source = Path(archive)
    facts = read_facts(source)
    index = pl.read_parquet(source / f"{INDEX}.parquet")
    n, bands, side = facts["stamps"], len(facts["bands"]), facts["size"]
    shape = (n, bands, side, side)
    if index.height != n:
        raise BadInput(f"the index holds {index.height} stamps, the archive {n}", file=str(source))
    with _whole(target) as scratch:
        digests: list[str] = []
        with (
            fitsfile.opened(source / STAMPS),
            fits.open(source / STAMPS, memmap=True) as hdus,
            open(scratch / IMAGE, "wb") as image,
            open(scratch / INVVAR, "wb") as invvar,
        ):
            for stream in (image, invvar):
                np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
            for k in range(-(-n // BLOCK)):
                kept, ids = _read(hdus, k + 1)
                if ids != index["galaxy_id"][k * BLOCK : (k + 1) * BLOCK].to_list():
                    raise BadInput(f"block {k + 1} holds other stamps than the index", file=str(source / STAMPS))
                pixels, weight = restore(kept)
                image.write(pixels.tobytes())
                invvar.write(weight.tobytes())
                digests += stamp_digests(pixels)
        index.with_columns(stamp_digest=pl.Series(digests, dtype=pl.String)).write_parquet(scratch / f"{INDEX}.parquet")
        for name in (f"{REJECTED}.parquet", f"{REFUSED}.parquet", REFUSED_IMAGE):
            if (source / name).is_file():
                shutil.copyfile(source / name, scratch / name)
        shutil.copyfile(source / FACTS, scratch / FACTS)
    return facts


def read_facts(archive: str | Path) -> dict[str, Any]:
    """The facts of an archive, after proof that its files are those that were written."""
    folder = Path(archive)
    try:
        facts: dict[str, Any] = json.loads((folder / FACTS).read_text())
    except (OSError, ValueError) as fault:
        raise BadInput(f"no archive of stamps: {fault}", file=str(folder)) from fault
    if facts.get("format") != FORMAT or facts.get("version") != VERSION:
        raise BadInput(
            f"version {facts.get('version')} of {facts.get('format')!r}; this is {VERSION}", file=str(folder)
        )
    for name, told in facts["files"].items():
        if not (folder / name).is_file() or sha256_file(folder / name) != told["sha256"]:
            raise BadInput("absent or damaged: it is not the file that was archived", file=str(folder / name))
    return facts


def _primary(spec: NormalisationSpec, levels: float, n: int, side: int, origin: str) -> bytes:
    header = fits.PrimaryHDU().header
    header["FORMAT"], header["VERSION"] = FORMAT, VERSION
    header["BANDS"], header["NSTAMPS"], header["NPIX"] = "".join(spec.bands), n, side
    header["LEVELS"] = (levels, "steps per sigma of the noise")
    header["CREATOR"] = f"lens-assets {__version__}"
    header["ORIGIN"] = origin
    for line in _HOW:
        header["COMMENT"] = line
    return str(header.tostring()).encode("ascii")


def _block(kept: Scaled, ids: list[str], number: int, levels: float) -> bytes:
    """Three HDUs as bytes: a FITS file without its primary HDU. Nothing in it depends on the time."""
    how: dict[str, Any] = {"compression_type": "RICE_1", "tile_shape": (1, *kept.image.shape[1:])}
    dither = {"quantize_level": -1 / levels, "quantize_method": 2, "dither_seed": 1 + number % 10_000}
    planes = [
        fits.CompImageHDU(kept.image, name="IMAGE", **how, **dither),
        fits.CompImageHDU(kept.invvar, name="INVVAR", **how),
    ]
    for hdu in planes:
        hdu.header["EXTVER"] = number
    bands = kept.noise.shape[1]
    table = fits.BinTableHDU.from_columns(
        [
            fits.Column("GALAXY_ID", f"{max(map(len, ids))}A", array=ids),
            fits.Column("NOISE", f"{bands}D", unit="nanomaggy", array=kept.noise),
            fits.Column("BASE", f"{bands}J", array=kept.base),
        ],
        name="SCALE",
        ver=number,
    )
    out = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), *planes, table]).writeto(out, checksum="datasum")
    return out.getvalue()[2880:]


def _read(hdus: fits.HDUList, number: int) -> tuple[Scaled, list[str]]:
    """A block (the only one, if there is but one) and the ids of its stamps."""
    image, invvar, table = hdus[3 * number - 2 : 3 * number + 1]
    rows = table.data
    kept = Scaled(
        np.asarray(image.data, np.float32),
        np.array(rows["NOISE"], np.float64),
        np.asarray(invvar.data, np.int32),
        np.array(rows["BASE"], np.int32),
    )
    return kept, [str(name) for name in rows["GALAXY_ID"]]


def _numbers(values: npt.NDArray[Any]) -> list[float | None]:
    return [float(v) if np.isfinite(v) else None for v in values]


@contextmanager
def _whole(target: str | Path) -> Iterator[Path]:
    """A scratch folder that becomes ``target`` when nothing went wrong, and vanishes otherwise."""
    final = Path(target)
    if final.exists():
        raise BadInput("it exists already: remove it or name another", file=str(final))
    final.parent.mkdir(parents=True, exist_ok=True)
    scratch = final.parent / f".new-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    scratch.mkdir()
    try:
        yield scratch
        os.replace(scratch, final)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
