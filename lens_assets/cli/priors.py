"""``lens-assets priors``: what injections are drawn from, as a table of a paper."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("priors")(priors)


def priors(
    form: Annotated[
        Literal["markdown", "latex"], typer.Option("--format", help="markdown or latex (booktabs).")
    ] = "markdown",
    fitted: Annotated[Path | None, typer.Option(help="JSON of a fitted prior set, as one more column.")] = None,
    page: Annotated[bool, typer.Option("--page", help="The whole page docs/priors.md.")] = False,
) -> None:
    """Print the prior sets that the code reads, one column a set, with the digest that every surface records."""
    from lens_assets.science.errors import BadInput
    from lens_assets.science.injections import tables
    from lens_assets.science.injections.priors import load_priors, read_priors

    if page:
        typer.echo(tables.page(), nl=False)
        return
    sets = list(load_priors().values())
    if fitted is not None:
        try:
            sets.append(read_priors(fitted))
        except BadInput as fault:
            typer.echo(str(fault), err=True)
            raise typer.Exit(1) from fault
    typer.echo(tables.paper_table(form, sets), nl=False)
