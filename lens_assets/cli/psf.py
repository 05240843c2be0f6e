"""``lens-assets psf``: does a folder of PSF images fit the hosts of an installation, and what is to be fetched."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Annotated, Literal

import typer

from lens_assets.cli.home import default_home


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("psf")(psf)


def psf(
    folder: Annotated[Path | None, typer.Option(help="Folder of the images (default: LENS_ASSETS_PSF).")] = None,
    wanted: Annotated[
        Path | None,
        typer.Option(help="Write what is missing as CSV: file name, position, and the address at the survey's viewer."),
    ] = None,
    per: Annotated[
        Literal["brick", "host"], typer.Option(help="With --wanted: an image a brick (of its hosts' middle) or a host.")
    ] = "brick",
    home: Annotated[Path | None, typer.Option(help="Folder of the installation.")] = None,
) -> None:
    """Hold the PSF images against the hosts of injections: one for each, readable, and as wide as PSFSIZE says.

    Ends with 1 where a batch of `sersic-psf-images` would stop.
    """
    from lens_assets.resources.workspace import Workspace
    from lens_assets.science.errors import BadInput
    from lens_assets.science.injections.psf import PsfSpec
    from lens_assets.science.injections.psf_check import examine
    from lens_assets.science.injections.psf_images import SETTING
    from lens_assets.science.injections.psf_wanted import positions

    workspace = Workspace(home=str(home or default_home()))
    store = workspace.store()
    if (artefact := store.find("injection_hosts")) is None:
        typer.echo("no hosts yet: run the chain as far as `injection_hosts` (`lens-assets demo`)", err=True)
        raise typer.Exit(2)
    hosts = artefact.read()
    spec = PsfSpec.model_validate({"kind": "images", "folder": str(folder or "")})
    try:
        if wanted is not None and not (spec.folder and Path(spec.folder).is_dir()):
            missing, problems = hosts["galaxy_id"].to_list(), [f"no folder yet ({SETTING} or --folder)"]
        else:
            found = examine(spec, hosts)
            missing, problems = found.missing, found.problems
            typer.echo(
                f"{found.hosts} hosts: {found.own} with an image of their own, {found.brick} with their brick's, "
                f"{len(missing)} without; {found.ratio.height} files in use, {found.unused} not asked for"
            )
            for band in "grz":
                if ratio := found.ratio[f"ratio_{band}"].to_list():
                    typer.echo(
                        f"width over PSFSIZE in {band}: median {median(ratio):.3f}, {min(ratio):.3f} to {max(ratio):.3f} "
                        f"over {len(ratio)} files"
                    )
    except BadInput as fault:
        typer.echo(str(fault), err=True)
        raise typer.Exit(1) from fault
    if wanted is not None:
        rows = positions(missing, store.get("splits").read(), workspace.profile().cutouts.viewer, per)
        rows.write_csv(wanted)
        typer.echo(f"{rows.height} positions in {wanted}")
    for problem in problems:
        typer.echo(problem, err=True)
    raise typer.Exit(1 if problems else 0)
