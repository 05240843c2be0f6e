"""``lens-assets shard``: shards of stamps to keep or to move, and back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lens_assets.cli.home import default_home

if TYPE_CHECKING:
    from lens_assets.science.storage import Store

app = typer.Typer(
    help="Archives of stamps: a quantised, compressed form of a shard, for keeping and moving many stamps, and back.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def register(parent: typer.Typer) -> None:
    """Add the commands."""
    parent.add_typer(app, name="shard")


@app.command()
def archive(
    tiles: Annotated[
        list[str], typer.Argument(help="Keys of tiles, for instance 150p000, or `all`.", metavar="TILE...")
    ],
    home: Annotated[Path | None, typer.Option(help="Folder of the installation.")] = None,
    out: Annotated[Path, typer.Option(help="Folder in which each archive becomes a folder.")] = Path("archive"),
    levels: Annotated[float, typer.Option(help="Steps per sigma of the noise; at least 10.")] = 16.0,
) -> None:
    """Write the shards of tiles as archives OUT/cutouts-TILE: about a seventh of the bytes, at a stated loss.

    Images are kept in steps of noise / LEVELS, per stamp and band, in Rice-compressed FITS (stamps.fits, whose header says how to
    read it without this package); which pixels are valid is kept exactly. The loss is measured on what was written: archive.json
    and the line printed here. The shard itself is not touched. What would saturate is refused, never clipped.
    """
    from lens_assets.resources.workspace import Workspace
    from lens_assets.science.cutouts.archive import archive_shard
    from lens_assets.science.errors import BadInput

    workspace = Workspace(home=str((home or default_home()).absolute()))
    store, spec = workspace.store(), workspace.profile().cutouts.normalisation
    try:
        for tile in _tiles(store, tiles):
            shard = store.get("cutouts", tile)
            target = out / f"cutouts-{tile}"
            facts = archive_shard(shard.folder, target, spec, levels, f"cutouts[{tile}] {shard.digest}")
            typer.echo(f"{target}: {told(facts)}")
    except BadInput as fault:
        typer.echo(str(fault), err=True)
        raise typer.Exit(1) from fault


@app.command()
def restore(
    archives: Annotated[list[Path], typer.Argument(help="Folders that `archive` wrote.", metavar="ARCHIVE...")],
    out: Annotated[Path, typer.Option(help="Folder in which each shard becomes a folder.")] = Path("shards"),
) -> None:
    """Write archives back as shards OUT/NAME, to be read with lens_assets.science.cutouts.shard.Shard.

    Every file is held against its digest first. The pixels are those of the archive, quantised; `stamp_digest` is theirs. They do
    not go into an installation: the asset `cutouts` holds only what was cut.
    """
    from lens_assets.science.cutouts.archive import restore_shard
    from lens_assets.science.errors import BadInput

    try:
        for one in archives:
            facts = restore_shard(one, out / one.name)
            typer.echo(f"{out / one.name}: {told(facts)}")
    except BadInput as fault:
        typer.echo(str(fault), err=True)
        raise typer.Exit(1) from fault


def told(facts: dict[str, Any]) -> str:
    """The line about an archive: size and loss."""
    if not facts["stamps"]:
        return "0 stamps"
    error = ", ".join(
        f"{band} {rms:.4f}" for band, rms in zip(facts["bands"], facts["rms_sigma"], strict=True) if rms is not None
    )
    return (
        f"{facts['stamps']} stamps, {facts['bytes_archive'] / 1e6:.1f} MB for {facts['bytes_shard'] / 1e6:.1f} "
        f"(ratio {facts['ratio']:.3f}); rms error in sigma of the noise {error} (quantum sigma / {facts['levels']:g}); "
        f"inverse variance within {facts['invvar_error']:.2%}, valid pixels the same"
    )


def _tiles(store: Store, asked: list[str]) -> list[str]:
    from lens_assets.science.errors import BadInput

    there = store.partitions("cutouts")
    if not there:
        raise BadInput(f"no stamps in {store.root}: materialise the asset `cutouts`, or name another --home")
    if asked == ["all"]:
        return list(there)
    if unknown := [tile for tile in asked if tile not in there]:
        raise BadInput(
            f"no shard {unknown[0]!r}; there are {', '.join(there[:12])}{', ...' if len(there) > 12 else ''}"
        )
    return asked
