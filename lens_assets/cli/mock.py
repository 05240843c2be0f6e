"""``lens-assets mock``: write the practice release."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from lens_assets.cli.home import default_home


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("mock")(mock)


def mock(
    size: Annotated[str, typer.Option(help="tiny (seconds), demo (minutes) or survey (any number of tiles).")] = "demo",
    seed: Annotated[int, typer.Option(help="Seed of the sky; the same seed gives the same bytes.")] = 20261123,
    home: Annotated[Path | None, typer.Option(help="Folder of the installation.")] = None,
    workers: Annotated[int, typer.Option(help="Processes; no effect on the bytes.")] = 2,
    tiles: Annotated[int | None, typer.Option(help="Number of tiles, for `survey`.")] = None,
    late: Annotated[
        bool, typer.Option("--late", help="Deliver one more lens catalogue of the existing release instead.")
    ] = False,
    psf: Annotated[
        Path | None, typer.Option(help="Write the PSF image of every brick into this folder instead (LENS_ASSETS_PSF).")
    ] = None,
) -> None:
    """Write a release in the layout of DR10 below <home>/release, its truth below <home>/truth.

    An interrupted writing is continued by the same command.
    """
    root = (home or default_home()).absolute()
    if psf is not None:
        from lens_assets.science.mock.footprint import plan
        from lens_assets.science.mock.psf_images import write_psf_images
        from lens_assets.science.mock.settings import load_size

        chosen = load_size(size)
        chosen = chosen if tiles is None else chosen.model_copy(update={"n_tiles": tiles})
        typer.echo(f"{len(write_psf_images(psf, chosen, plan(chosen, seed), seed))} PSF images in {psf}")
        return
    if late:
        from lens_assets.science.mock.catalogues import late_catalogue

        path = root / "catalogues" / "mock-late-imaging.csv"
        late_catalogue(root / "truth", path, seed)
        typer.echo(f"delivered {path}")
        return
    write(root, size, seed, workers, tiles)


def write(root: Path, size: str, seed: int, workers: int, tiles: int | None = None) -> None:
    """Write (or finish) the mock release below ``root`` with a progress bar."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from lens_assets.science.mock.settings import load_size
    from lens_assets.science.mock.writer import write_release

    chosen = load_size(size)
    if tiles is not None:
        chosen = chosen.model_copy(update={"n_tiles": tiles})
    if not sys.stdout.isatty():  # a log wants a few lines, not a bar

        def lines(what: str, done: int, total: int) -> None:
            if done == total or done % max(total // 6, 1) == 0:
                typer.echo(f"mock release: {what} {done}/{total}")

        write_release(
            root / "release", root / "truth", root / "catalogues", chosen, seed=seed, workers=workers, progress=lines
        )
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns) as bar:
        tasks: dict[str, object] = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(f"mock release: {what}", total=total)
            bar.update(tasks[what], completed=done, total=total)  # type: ignore[arg-type]

        write_release(
            root / "release", root / "truth", root / "catalogues", chosen, seed=seed, workers=workers, progress=progress
        )
