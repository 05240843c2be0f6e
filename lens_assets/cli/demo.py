"""``lens-assets demo``: the whole chain on the embedded practice release, and what it found."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path
from typing import Annotated

import typer

from lens_assets.cli.home import default_home, prepare_home
from lens_assets.cli.progress import Progress


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("demo")(demo)


def demo(
    seed: Annotated[int, typer.Option(help="Seed of the practice sky.")] = 20261123,
    profile: Annotated[str, typer.Option(help="tiny, demo, detectors, or the path of a profile YAML.")] = "demo",
    home: Annotated[Path | None, typer.Option(help="Folder of the installation.")] = None,
) -> None:
    """Write the mock release, materialise every asset through Dagster, and print what the finder would have missed.

    An interrupted demo is continued by the same command: nothing that is finished is done again. Another seed needs another
    --home (or `make clean`), because one release has one sky.
    """
    started = time.monotonic()
    root = (home or default_home()).absolute()
    prepare_home(root)
    os.environ["LENS_ASSETS_PROFILE"] = profile
    typer.echo(f"lens_assets demo: profile {profile}, seed {seed}, everything below {root}")

    from lens_assets.cli.mock import write
    from lens_assets.science.errors import BadInput
    from lens_assets.science.profile import load_profile

    try:
        chosen = load_profile(profile)
        if chosen.mock:
            write(root, chosen.mock, seed, chosen.workers)
    except BadInput as fault:
        typer.echo(str(fault), err=True)
        raise typer.Exit(2) from fault
    typer.echo(f"mock release written or found complete after {time.monotonic() - started:.0f} s")
    _chain(root, started)

    from lens_assets.cli.summary import summary
    from lens_assets.resources.workspace import Workspace

    typer.echo(summary(Workspace(home=str(root))))
    own, children = (resource.getrusage(w).ru_maxrss / 2**20 for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    typer.echo(
        f"\ntime {time.monotonic() - started:.0f} s; peak memory {own:.1f} GiB (largest worker process {children:.1f} GiB)\n"
        "look at it:  make ui   (or lens-assets ui)  ->  Dagster http://127.0.0.1:3000, MLflow http://127.0.0.1:5000\n"
        "ask it:      lens-assets lookup --theta-e 1.5 --psf 1.3 --depth 23.5"
    )


def _chain(root: Path, started: float) -> None:
    """Run the chain with one line a finished step."""
    import dagster as dg

    from lens_assets.chain import STEPS, ChainFailed, Step, run_chain
    from lens_assets.definitions import defs
    from lens_assets.resources.workspace import Workspace

    progress = Progress()

    def announce(step: Step, number: int, of: int) -> None:
        if progress.live:
            progress(f"{step.title} {number}/{of} ...")

    spent: dict[Step, float] = {}
    try:
        with dg.DagsterInstance.from_config(str(root / "dagster")) as instance:
            for done in run_chain(defs, Workspace(home=str(root)), instance, announce=announce, hear=progress):
                spent[done.step] = spent.get(done.step, 0.0) + done.seconds
                if done.number == done.of:
                    what = f"{done.of} partition{'s' if done.of > 1 else ''}" if done.partition else "1 run"
                    place = f"[{STEPS.index(done.step) + 1:2d}/{len(STEPS)}]"
                    progress.done(
                        f"{place} {done.step.title:45s} {what:14s} {spent[done.step]:6.1f} s"
                        + f"   (total {time.monotonic() - started:4.0f} s)"
                    )
    except ChainFailed as fault:
        typer.echo(f"\n{fault}", err=True)
        typer.echo("The same command continues from here; `lens-assets ui` shows the run.", err=True)
        raise typer.Exit(1) from fault
