"""``lens-assets closure``: does the surface's interval hold the truth, measured on a sky of its own."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from lens_assets.cli.home import default_home, prepare_home

if TYPE_CHECKING:
    from lens_assets.science.profile import Profile


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("closure")(closure)


def closure(
    profile: Annotated[str, typer.Option(help="demo, tiny, or the path of a profile YAML of a mock.")] = "demo",
    seed: Annotated[int, typer.Option(help="Seed of the practice sky, where it is not there yet.")] = 20261123,
    sky_seed: Annotated[int | None, typer.Option(help="Seed of the closure sky; default: the profile's.")] = None,
    home: Annotated[Path | None, typer.Option(help="Folder of the installation.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the figure and the tables; default: <home>/closure/<sky seed>/result."),
    ] = None,
) -> None:
    """Measure true completeness on thousands of lenses of a sky that no step has seen, and compare with the surface.

    From a finished installation it takes some minutes; what is missing of the chain is made first. Writes, of each surface, a
    figure (`closure-<surface>.png`), the numbers as JSON and the tables as Parquet. The asset `closure_experiment` holds the same.
    A killed run is continued. Another --sky-seed is an independent repetition: its sky and result stand beside the first, the
    asset holds the last one.
    """
    root = (home or default_home()).absolute()
    prepare_home(root)
    started = time.monotonic()

    import dagster as dg

    from lens_assets.chain import ChainFailed, run_chain
    from lens_assets.cli.demo import demo
    from lens_assets.definitions import defs
    from lens_assets.partitions import folder_key, surface_key
    from lens_assets.resources.workspace import Workspace
    from lens_assets.science.errors import BadInput
    from lens_assets.science.profile import load_profile

    try:
        chosen = load_profile(profile)
        folder = root / "closure" / str(chosen.closure.seed if sky_seed is None else sky_seed)
        runs, workspace = chosen.runs, Workspace(home=str(root))
        keys = [folder_key(surface_key(d, v)) for d in runs.detectors for v in runs.variants]
        if any(workspace.store().find("completeness_surface", key) is None for key in keys):
            demo(seed=seed, profile=profile, home=root)
        os.environ["LENS_ASSETS_PROFILE"] = profile if sky_seed is None else _with_sky(chosen, sky_seed, folder)
        with dg.DagsterInstance.from_config(str(root / "dagster")) as instance:
            for done in run_chain(defs, workspace, instance, only=("closure_experiment",)):
                typer.echo(f"{done.partition}: {done.seconds:.0f} s")
    except (BadInput, ChainFailed) as fault:
        typer.echo(str(fault), err=True)
        raise typer.Exit(1) from fault
    place = out or folder / "result"
    place.mkdir(parents=True, exist_ok=True)
    for key in keys:
        made = workspace.store().get("closure_experiment", key)
        several = "" if len(keys) == 1 else f"-{key}"
        for name in ("closure.png", "closure.json", "data.parquet", "steps.parquet", "cells.parquet"):
            stem, suffix = name.split(".")
            shutil.copyfile(made.file(name), place / f"{'arms' if stem == 'data' else stem}{several}.{suffix}")
        typer.echo(_words(made.read("steps").to_dicts(), made.read().to_dicts(), key))
    typer.echo(f"\nfigure, tables and numbers: {place}\ntime {time.monotonic() - started:.0f} s")


def _with_sky(profile: Profile, seed: int, folder: Path) -> str:
    """The path of ``profile`` written with another seed of the closure sky, beside that sky."""
    folder.mkdir(parents=True, exist_ok=True)
    own = profile.model_copy(update={"closure": profile.closure.model_copy(update={"seed": seed})})
    path = folder / "profile.yaml"
    path.write_text(yaml.safe_dump(own.model_dump(mode="json"), sort_keys=False))
    return str(path)


def _words(steps: list[dict[str, Any]], arms: list[dict[str, Any]], key: str) -> str:
    lines = [f"\n{key.replace('+', ' x ')}", f"  {'step':48s} {'before':>7s} {'after':>7s}   difference [68 %]"]
    for r in steps:
        lines.append(
            "  {closure_step:48s} {completeness_before:7.3f} {completeness_after:7.3f}   "
            "{step_difference:+.3f} [{step_lo68:+.3f}, {step_hi68:+.3f}]  n {n_before} and {n_after}".format(**r)
        )
    lines.append(f"  {'surface':48s} {'cells':>5s}  inside 68 % and 95 % [95 % of the share; expected]")
    for r in sorted(arms, key=lambda r: (str(r["closure_against"]), str(r["closure_arm"]))):
        shares = ", ".join(
            "{:.2f} [{:.2f}, {:.2f}; {:.2f}]".format(
                *(
                    r[f"{name}_inside{v}{end}"]
                    for name, end in (("share", ""), ("share", "_lo95"), ("share", "_hi95"), ("expected", ""))
                )
            )
            for v in (68, 95)
            if r["n_compared"]
        )
        lines.append(f"  {r['closure_arm']:48s} {r['n_compared']:>5}  {shares}   ({r['closure_against']})")
    return "\n".join(lines)
