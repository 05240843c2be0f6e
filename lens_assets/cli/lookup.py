"""``lens-assets lookup``: ask a released surface."""

from __future__ import annotations

from typing import Annotated

import typer

from lens_assets.cli.options import Depth, Psf, Release, ThetaE, newest


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("lookup")(lookup)


def lookup(
    theta_e: ThetaE,
    psf: Psf,
    depth: Depth,
    release: Release = None,
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
