"""``lens-assets cutout``: one object's stamp as FITS and as a picture."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lens_assets.cli.home import default_home

if TYPE_CHECKING:
    from lens_assets.science.storage import Artefact, Store

ID = re.compile(r"[0-9]{1,5}-[0-9]{1,6}-[0-9]{1,9}")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("cutout")(cutout)


def cutout(
    galaxy_id: Annotated[
        str, typer.Argument(help="RELEASE-BRICKID-OBJID, for instance 10000-456273-539.", metavar="ID")
    ],
    home: Annotated[Path | None, typer.Option(help="Folder of the installation.")] = None,
    out: Annotated[Path, typer.Option(help="Folder to write to; made when it is not there.")] = Path("."),
) -> None:
    """Write the stamp of one object of the sample: cutout-ID.fits and cutout-ID.png.

    The FITS file has two image HDUs, IMAGE (nanomaggies per pixel, planes in the order of BANDS) and INVVAR (their inverse
    square; 0 where a pixel may not be used), with the WCS of the survey's own grid. The header says where the pixels come
    from: release, brick, SHA-256 of the brick's files and of the shard, PSF FWHM, exposures and 5-sigma depths at the place.
    The picture shows colours, bands and inverse variance, with its stretch written on it.

    Stamps are those of the asset `cutouts` (`lens-assets demo` makes it): what was asked for and passed quality control. An
    object that was rejected is named with the reason. Ids are in the tables of the assets `splits` and `positives`.
    """
    if not ID.fullmatch(galaxy_id):
        _stop(f"{galaxy_id!r} is not an id: RELEASE-BRICKID-OBJID, for instance 10000-456273-539", 2)
    from lens_assets.resources.workspace import Workspace
    from lens_assets.science.errors import BadInput

    root = (home or default_home()).absolute()
    store = Workspace(home=str(root)).store()
    try:
        shard = find(store, galaxy_id)
    except BadInput as fault:
        _stop(str(fault), 1)
    for line in write(shard, galaxy_id, out, _sample_row(store, galaxy_id)):
        typer.echo(line)


def find(store: Store, galaxy_id: str) -> Artefact:
    """The shard with the object's stamp. Raises ``BadInput`` that says where was looked, or why it was rejected."""
    import polars as pl

    from lens_assets.science.errors import BadInput

    tiles = store.partitions("cutouts")
    if not tiles:
        raise BadInput(
            f"no stamps in {store.root}: materialise the asset `cutouts` (`lens-assets demo`), or name another --home"
        )
    stamps = 0
    for tile in tiles:
        shard = store.get("cutouts", tile)
        index = shard.read("index")
        stamps += index.height
        if galaxy_id in index["galaxy_id"]:
            return shard
        lost = shard.read("rejected").filter(pl.col("galaxy_id") == galaxy_id)
        if lost.height:
            raise BadInput(f"{galaxy_id} has no stamp: it was rejected in tile {tile}: {lost['detail'][0]}")
    listed = f"{', '.join(tiles[:8])}{', ...' if len(tiles) > 8 else ''}"
    row = _sample_row(store, galaxy_id)
    known = f"; it is in the sample (split {row['split']}, tile {row['tile']}), but was not cut" if row else ""
    raise BadInput(
        f"{galaxy_id} is among none of the {stamps} stamps of {len(tiles)} tiles ({listed}) in {store.root}{known}"
    )


def write(shard: Artefact, galaxy_id: str, out: Path, row: dict[str, Any] | None) -> list[str]:
    """Write both files; what was written, as lines for the terminal."""
    from lens_assets.science.cutouts.fits import to_fits
    from lens_assets.science.cutouts.picture import save_picture
    from lens_assets.science.cutouts.shard import Shard, ShardSet

    stamps = ShardSet([Shard.open(shard.folder)])
    facts = stamps.index.row(int(stamps.locate([galaxy_id])[0]), named=True)
    image, invvar = stamps.images([galaxy_id])[0], stamps.invvar([galaxy_id])[0]
    bands = "".join(name.removeprefix("psfsize_") for name in facts if name.startswith("psfsize_"))
    out.mkdir(parents=True, exist_ok=True)
    made = {
        "SHARD": f"cutouts[{shard.partition}]",
        "SHARDSHA": shard.digest,
        "SETTSHA": str(shard.facts.get("settings", "")),
    }
    table = to_fits(stamps, galaxy_id, out / f"cutout-{galaxy_id}.fits", bands, row, made)
    picture = save_picture(image, invvar, facts, out / f"cutout-{galaxy_id}.png", bands)
    side = image.shape[-1]
    seeing = ", ".join(f"{b} {facts[f'psfsize_{b}']:.2f}" for b in bands)
    kind = f"; {'lens or candidate' if row['label'] else 'no lens'}, split {row['split']}" if row else ""
    return [
        f"{galaxy_id}: RA {facts['ra']:.6f}, Dec {facts['dec']:+.6f}, brick {facts['brickname']}, source {facts['source']}{kind}",
        f"  PSF FWHM [arcsec] {seeing}",
        f"  {table}  ({side} x {side} px, bands {bands}: IMAGE in nanomaggies per pixel, INVVAR)",
        f"  {picture}  (colours, bands, inverse variance)",
    ]


def _sample_row(store: Store, galaxy_id: str) -> dict[str, Any] | None:
    import polars as pl

    sample = store.find("splits")
    if sample is None:
        return None
    found = sample.scan().filter(pl.col("galaxy_id") == galaxy_id).collect()
    return found.row(0, named=True) if found.height else None


def _stop(text: str, code: int) -> None:
    typer.echo(text, err=True)
    raise typer.Exit(code)
