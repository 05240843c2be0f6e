"""The ``lens-assets`` command. One module a command; importing this package must stay light so that ``lookup`` is quick."""

from __future__ import annotations

import faulthandler

import typer

app = typer.Typer(
    help=(
        "The selection function of a strong-lens search: which lenses would your finder have missed?\n\n"
        "Start with `lens-assets demo` (the whole chain on an embedded practice release), look at it with `lens-assets ui`, "
        "ask the result with `lens-assets lookup --theta-e 1.5 --psf 1.3 --depth 23.5`. To work on the real survey, set "
        "LENS_ASSETS_RELEASE to the root of a Legacy Surveys DR10 mirror and LENS_ASSETS_PROFILE to `paper`."
    ),
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


def main() -> None:
    """Entry point of the console script."""
    faulthandler.enable()  # a fault in native code then names the line of Python that called it
    from lens_assets.cli import (
        bench,
        closure,
        compare,
        compare_detectors,
        cutout,
        demo,
        doctor,
        injection,
        lineage,
        lookup,
        mock,
        panel,
        priors,
        psf,
        realism,
        release,
        shard,
        ui,
    )

    for module in (
        demo,
        ui,
        lookup,
        lineage,
        cutout,
        shard,
        injection,
        priors,
        psf,
        release,
        compare,
        compare_detectors,
        closure,
        mock,
        realism,
        panel,
        bench,
        doctor,
    ):
        module.register(app)
    app()
