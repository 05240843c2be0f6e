"""``lens-assets release``: what has been published, and whether it is intact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from lens_assets.cli.home import default_home


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("release")(release)


def release(
    folder: Annotated[Path | None, typer.Argument(help="A release; default: list those of the installation.")] = None,
    home: Annotated[Path | None, typer.Option(help="Folder of the installation.")] = None,
) -> None:
    """List the releases of the installation, or verify one: every file against its checksum, then its verdict.

    A release is made by the asset `release` (`lens-assets demo`, or materialise it in the UI); a version is never
    overwritten.
    """
    from lens_assets.science.errors import BadInput
    from lens_assets.science.release.publish import verify

    root = (home or default_home()).absolute() / "releases"
    places = [folder] if folder else sorted(p for p in root.glob("*") if p.is_dir() and not p.name.startswith("."))
    if not places:
        typer.echo(f"no release below {root}: run `lens-assets demo`", err=True)
        raise typer.Exit(2)
    for place in places:
        try:
            files = verify(place)
        except BadInput as fault:
            typer.echo(f"{place}: {fault}", err=True)
            raise typer.Exit(1) from fault
        header = json.loads(next(place.glob("surface*.json")).read_text())
        typer.echo(f"{place}\n  {len(files)} files intact; {header['name']} {header['version']}; {header['verdict']}")
