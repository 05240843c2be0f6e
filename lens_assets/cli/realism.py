"""``lens-assets realism``: all realism reports of an installation side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("realism")(realism)


def realism(
    home: Annotated[Path | None, typer.Option(help="Folder of the installation.")] = None,
    out: Annotated[Path, typer.Option(help="The page that is written: one HTML file.")] = Path("realism.html"),
) -> None:
    """Verdict, probe and gates of every detector and variant, and the two-by-two of source and host."""
    from lens_assets.cli.home import default_home
    from lens_assets.resources.workspace import Workspace
    from lens_assets.science.injections.variants import load_variants
    from lens_assets.science.realism.overview import Entry, lines, overview_page

    store, known = Workspace(home=str(home or default_home())).store(), load_variants()
    entries = []
    for partition in sorted(store.partitions("realism")):
        detector, _, name = partition.partition("+")
        if name in known:
            entries.append(Entry(detector, known[name], store.get("realism", partition).json("report")))
    if not entries:
        typer.echo("no realism report yet: make a surface first (`lens-assets demo`)", err=True)
        raise typer.Exit(1)
    out.write_text(overview_page(entries), encoding="utf-8")
    typer.echo("\n".join([*lines(entries), str(out)]))
