"""``lens-assets realism``: all realism reports of an installation side by side, made first where that is asked for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from lens_assets.cli.home import default_home, prepare_home

STEPS = ("injection_hosts", "prior_calibration", "injection_batch", "realism")
"""What stands between a finished detector and the reports of other variants."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("realism")(realism)


def realism(
    home: Annotated[Path | None, typer.Option(help="Folder of the installation.")] = None,
    out: Annotated[
        Path, typer.Option(help="The page that is written, one HTML file; a figure is put beside it.")
    ] = Path("realism.html"),
    make: Annotated[
        str | None, typer.Option(help="A profile whose reports are made first (its detectors must be there).")
    ] = None,
    variant: Annotated[
        list[str] | None, typer.Option(help="With --make: this variant, not the profile's. May be given again.")
    ] = None,
) -> None:
    """Verdict, probe and gates of every detector and variant, and the two-by-two of source and host.

    `--make realism` on a finished demonstration injects and judges five variants, down to the depth of its deep tile: batches and
    reports alone, no training, no surface. What is there already is not made again.
    """
    from lens_assets.resources.workspace import Workspace
    from lens_assets.science.injections.variants import load_variants
    from lens_assets.science.realism.overview import Entry, lines, overview_page
    from lens_assets.science.realism.overview_figure import overview_figure

    root, known = (home or default_home()).absolute(), load_variants()
    if make:
        _make(root, make, tuple(variant or ()))
    elif variant:
        typer.echo("--variant needs --make PROFILE", err=True)
        raise typer.Exit(2)
    store = Workspace(home=str(root)).store()
    entries = []
    for partition in sorted(store.partitions("realism")):
        detector, _, name = partition.partition("+")
        if name in known:
            entries.append(Entry(detector, known[name], store.get("realism", partition).json("report")))
    if not entries:
        typer.echo("no realism report yet: make a surface first (`lens-assets demo`)", err=True)
        raise typer.Exit(1)
    out.write_text(overview_page(entries), encoding="utf-8")
    figure = overview_figure(entries, out.with_suffix(".png"))
    typer.echo("\n".join([*lines(entries), str(out), str(figure)]))


def _make(root: Path, profile: str, variants: tuple[str, ...]) -> None:
    """Batches and reports of a profile's variants, through Dagster."""
    prepare_home(root)
    os.environ["LENS_ASSETS_PROFILE"] = profile

    import dagster as dg

    from lens_assets.chain import ChainFailed, run_chain
    from lens_assets.definitions import defs
    from lens_assets.resources.workspace import Workspace
    from lens_assets.science.errors import BadInput
    from lens_assets.science.injections.variants import load_variants

    unknown = sorted(set(variants) - set(load_variants()))
    if unknown:
        typer.echo(f"no such variants: {', '.join(unknown)} (there are {', '.join(load_variants())})", err=True)
        raise typer.Exit(2)
    workspace = Workspace(home=str(root))
    try:
        missing = [d for d in workspace.profile().runs.detectors if workspace.store().find("detector", d) is None]
        if missing:
            raise BadInput(f"no detector {', '.join(missing)} yet: run the chain first (`lens-assets demo`)")
        with dg.DagsterInstance.from_config(str(root / "dagster")) as instance:
            for done in run_chain(defs, workspace, instance, only=STEPS, variants=variants or None):
                typer.echo(f"{done.step.title} {done.number}/{done.of} {done.partition or ''}: {done.seconds:.0f} s")
    except (BadInput, ChainFailed) as fault:
        typer.echo(str(fault), err=True)
        raise typer.Exit(1) from fault
