"""Options that several commands have: one wording, one place. Imports nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lens_assets.cli.home import default_home

ThetaE = Annotated[float, typer.Option(help="Einstein radius, arcsec.")]
Psf = Annotated[float, typer.Option(help="PSF FWHM in r, arcsec.")]
Depth = Annotated[float, typer.Option(help="5-sigma point-source depth in r, AB mag.")]
Release = Annotated[Path | None, typer.Option(help="Folder of the release; default: the newest of the installation.")]


def newest(home: Path | None = None) -> Path:
    """The release published last in the installation; says how to make one when there is none."""
    folder = (home or default_home()) / "releases"
    found = sorted((p for p in folder.glob("*") if p.is_dir()), key=lambda p: (p.stat().st_mtime, p.name))
    if not found:
        typer.echo(f"no release below {folder}: run `lens-assets demo`, or name one with --release", err=True)
        raise typer.Exit(2)
    return found[-1]
