"""``lens-assets injection``: one injection by its id, rendered again, as FITS and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lens_assets.cli.home import default_home

if TYPE_CHECKING:
    import polars as pl

    from lens_assets.resources.workspace import Workspace
    from lens_assets.science.injections.batch import Chunk


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("injection")(injection)


def injection(
    injection_id: Annotated[
        str, typer.Argument(help="For instance 'sersic-population|1.50|2|3|17' (quote it).", metavar="ID")
    ],
    home: Annotated[Path | None, typer.Option(help="Folder of the installation.")] = None,
    out: Annotated[Path, typer.Option(help="Folder to write to; made when it is not there.")] = Path("."),
) -> None:
    """Write one injection: its host, its arc and what the detector saw, as injection-ID.fits and injection-ID.png.

    An id is variant|theta_e|psf_bin|depth_bin|index; ids are in the tables of the asset `injection_batch`. Pixels are not
    stored: they are rendered from the row, bit for bit what was scored. The FITS file has the image HDUs INJECTED, HOST, ARC
    (nanomaggies per pixel, planes g, r, z) and INVVAR, and the row's parameters and truth as the table PARAMETERS.
    """
    from lens_assets.resources.workspace import Workspace
    from lens_assets.science.errors import BadInput

    workspace = Workspace(home=str((home or default_home()).absolute()))
    try:
        row = find(workspace, injection_id)
        chunk, host = again(workspace, row)
    except BadInput as fault:
        typer.echo(str(fault), err=True)
        raise typer.Exit(1) from fault
    for line in write(chunk, host, row, out):
        typer.echo(line)


def find(workspace: Workspace, injection_id: str) -> pl.DataFrame:
    """The row of an injection. Raises ``BadInput`` that says what there is instead."""
    import polars as pl

    from lens_assets.partitions import folder_key
    from lens_assets.science.errors import BadInput

    parts = injection_id.split("|")
    if len(parts) != 5:
        raise BadInput(f"{injection_id!r} is not an id: variant|theta_e|psf_bin|depth_bin|index")
    store = workspace.store()
    batch = store.find("injection_batch", folder_key(f"{parts[1]}|{parts[0]}"))
    if batch is None:
        made = store.partitions("injection_batch")
        raise BadInput(f"no batch of variant {parts[0]} at theta_E {parts[1]} in {store.root}; there are {made[:8]}")
    row = batch.scan().filter(pl.col("injection_id") == injection_id).collect()
    if row.height != 1:
        ids = batch.scan().select("injection_id").head(3).collect()["injection_id"].to_list()
        raise BadInput(f"the batch has no injection {injection_id!r}; its first are {ids}")
    return row


def again(workspace: Workspace, row: pl.DataFrame) -> tuple[Chunk, Any]:
    """The injection rendered from its row, and its host's pixels (3, s, s)."""
    from lens_assets.assets.calibration import priors_for
    from lens_assets.assets.injections import galaxies_for, variant_of
    from lens_assets.science.cutouts.shard import Shard, ShardSet
    from lens_assets.science.injections.batch import inject

    store, variant = workspace.store(), variant_of(row["variant"][0])
    stamps = ShardSet([Shard.open(store.get("cutouts", tile).folder) for tile in store.partitions("cutouts")])
    galaxies = galaxies_for(variant, priors_for(variant, workspace), workspace) if row["family"][0] == "real" else None
    chunk = next(inject(row, stamps, workspace.profile().injections, variant, galaxies))
    return chunk, stamps.images(row["galaxy_id"].to_list())[0]


def write(chunk: Chunk, host: Any, row: pl.DataFrame, out: Path) -> list[str]:
    """Write both files; what was written, as lines for the terminal."""
    from lens_assets.science.injections.picture import save_injection

    out.mkdir(parents=True, exist_ok=True)
    name = "injection-" + chunk.ids[0].replace("|", "-")
    facts = row.row(0, named=True)
    table, picture = save_injection(chunk, host, facts, out / name)
    return [
        f"{chunk.ids[0]}: on {facts['galaxy_id']}, family {facts['family']}, theta_E {facts['theta_e']:.2f}, "
        f"beta/theta_E {facts['beta']:.2f}, magnification {facts['magnification']:.2f}, arc SNR (r) {facts['arc_snr']:.1f}",
        f"  {table}  (INJECTED, HOST, ARC, INVVAR, PARAMETERS)",
        f"  {picture}  (host, arc, injected: colours with one stretch)",
    ]
