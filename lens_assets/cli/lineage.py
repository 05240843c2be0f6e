"""``lens-assets lineage``: what one number of a release was counted from, down to the survey's files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lens_assets.cli.home import default_home
from lens_assets.cli.options import Depth, Psf, Release, ThetaE, newest


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("lineage")(lineage)


def lineage(
    theta_e: ThetaE,
    psf: Psf,
    depth: Depth,
    release: Release = None,
    surface: Annotated[str | None, typer.Option(help="Surface `detector|variant`; default: the primary one.")] = None,
    home: Annotated[Path | None, typer.Option(help="Folder of the installation.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write one row an injection here (.csv or .parquet).")] = None,
) -> None:
    """The cell that holds these conditions: its injections, hosts, stamps, bricks and sweep files, each by its digest."""
    import polars as pl

    from lens_assets.resources.workspace import Workspace
    from lens_assets.science.errors import BadInput
    from lens_assets.science.release.cell import cell_lineage

    root = (home or default_home()).absolute()
    try:
        found = cell_lineage(
            release or newest(root),
            Workspace(home=str(root)).store(),
            theta_e=theta_e,
            psf=psf,
            depth=depth,
            surface=surface,
        )
    except (BadInput, FileNotFoundError, ValueError) as fault:
        typer.echo(str(fault), err=True)
        raise typer.Exit(1) from fault
    c, rows = found.cell, found.injections
    cell = ", ".join(str(c[i]) for i in ("i_theta", "i_psf", "i_depth"))
    typer.echo(
        f"{c['release']}, {c['surface']}\n"
        f'cell theta_E {c["theta_e"]:g}", PSF {c["psf"]:g}", depth {c["depth"]:g} mag ({cell}): '
        f"{c['completeness']:.4f} [{c['lo68']:.4f}, {c['hi68']:.4f}], n {c['n']}, {c['flag']}\n"
        f"  {rows.height} injections into {c['hosts']} hosts on {c['bricks']} bricks of {len(c['tiles'])} sweep files"
    )
    by = rows.group_by("tile", "sweep_digest").agg(
        pl.len().alias("injections"), pl.col("host").n_unique().alias("hosts"), pl.col("brickname").unique().sort()
    )
    for r in by.sort("tile").iter_rows(named=True):
        typer.echo(
            f"  tile {r['tile']}: sweep file {r['sweep_digest'][:16]}, {r['injections']} injections, {r['hosts']} hosts, "
            f"bricks {', '.join(r['brickname'])}"
        )
    typer.echo("  made from")
    for name, digest in found.artefacts.items():
        typer.echo(f"    {name:48s} {digest[:16]}")
    if out is not None:
        (rows.write_csv if out.suffix == ".csv" else rows.write_parquet)(out)
        typer.echo(f"  one row an injection, with the digests of stamp and brick files: {out}")
