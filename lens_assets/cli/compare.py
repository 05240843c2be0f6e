"""``lens-assets compare``: two releases side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("compare")(compare)


def compare(
    a: Annotated[Path, typer.Argument(help="Folder of the first release.")],
    b: Annotated[Path, typer.Argument(help="Folder of the second release.")],
    out: Annotated[Path, typer.Option(help="The page that is written: one HTML file.")] = Path("comparison.html"),
    surface_a: Annotated[str | None, typer.Option(help="Surface of the first; default: its primary one.")] = None,
    surface_b: Annotated[str | None, typer.Option(help="Surface of the second; default: its primary one.")] = None,
    threshold_a: Annotated[str, typer.Option(help="Threshold of the first.")] = "default",
    threshold_b: Annotated[str, typer.Option(help="Threshold of the second.")] = "default",
) -> None:
    """Where two releases differ beyond their errors: map, largest differences with intervals, metadata."""
    from lens_assets.science.errors import BadInput
    from lens_assets.science.release.compare import compare_releases
    from lens_assets.science.release.compare_page import answer_line, comparison_page

    try:
        found = compare_releases(a, b, surfaces=(surface_a, surface_b), thresholds=(threshold_a, threshold_b))
    except (BadInput, FileNotFoundError, ValueError) as fault:
        typer.echo(str(fault), err=True)
        raise typer.Exit(1) from fault
    out.write_text(comparison_page(found))
    typer.echo(f"{answer_line(found)}\n{out}")
