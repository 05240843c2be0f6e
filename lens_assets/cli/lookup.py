"""``lens-assets lookup``: ask a released surface."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("lookup")(lookup)


def lookup(
    theta_e: Annotated[float, typer.Option(help="Einstein radius, arcsec.")],
    psf: Annotated[float, typer.Option(help="PSF FWHM in r, arcsec.")],
    depth: Annotated[float, typer.Option(help="5-sigma point-source depth in r, AB mag.")],
    release: Annotated[
        Path | None, typer.Option(help="Folder of the release; default: the newest of the installation.")
    ] = None,
    threshold: Annotated[
        str, typer.Option(help="Name of the score threshold; `default` is the release's own.")
    ] = "default",
    level: Annotated[float, typer.Option(help="Level of the interval: 0.68 or 0.95.")] = 0.68,
    model: Annotated[
        bool, typer.Option("--model", help="Ask the release's continuous model, where it has one.")
    ] = False,
) -> None:
    """Probability that a lens of these properties, under these conditions, is found: value, interval, flag.

    Outside the surface's support the value is nan and the flag says so; nothing is extrapolated.
    """
    from lens_assets import lookup as surfaces

    found = surfaces.load(release or newest())
    try:
        text = found.describe(theta_e=theta_e, psf=psf, depth=depth, threshold=threshold, level=level, model=model)
    except ValueError as fault:
        typer.echo(str(fault), err=True)
        raise typer.Exit(1) from fault
    typer.echo(text)


def newest() -> Path:
    """The release published last in the installation; says how to make one when there is none."""
    from lens_assets.cli.home import default_home

    folder = default_home() / "releases"
    found = sorted((p for p in folder.glob("*") if p.is_dir()), key=lambda p: (p.stat().st_mtime, p.name))
    if not found:
        typer.echo(f"no release below {folder}: run `lens-assets demo`, or name one with --release", err=True)
        raise typer.Exit(2)
    return found[-1]
