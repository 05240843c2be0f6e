"""``lens-assets panel``: the blinded panel of a surface, and the score of its votes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(
        help="The blinded panel: real lenses and injections to be told apart by eye.", no_args_is_help=True
    )
    group.command("page")(page)
    group.command("score")(score)
    app.add_typer(group, name="panel")


def page(
    detector: Annotated[str, typer.Argument(help="Detector, for instance compact-s1.")],
    variant: Annotated[str, typer.Argument(help="Injection variant, for instance sersic-population.")],
    home: Annotated[Path | None, typer.Option(help="Folder of the installation.")] = None,
    out: Annotated[Path, typer.Option(help="The page that is written: one HTML file.")] = Path("panel.html"),
) -> None:
    """Write the page that a person grades; the key stays in the store."""
    from lens_assets.cli.home import default_home
    from lens_assets.resources.workspace import Workspace

    artefact = Workspace(home=str(home or default_home())).store().find("realism", f"{detector}+{variant}")
    if artefact is None or not (artefact.folder / "panel.html").is_file():
        typer.echo(
            f"no panel of {detector} and {variant}: its realism report is not there, or had too few stamps", err=True
        )
        raise typer.Exit(1)
    out.write_bytes((artefact.folder / "panel.html").read_bytes())
    typer.echo(f"{out}: open it in a browser, grade with the keys 0 to 3, export; then `lens-assets panel score FILES`")


def score(
    votes: Annotated[list[Path], typer.Argument(help="Vote files that the page exported (JSON or CSV), of one panel.")],
    key: Annotated[Path | None, typer.Option(help="The key (panel-key.json); default: found in the store.")] = None,
    home: Annotated[Path | None, typer.Option(help="Folder of the installation.")] = None,
    keep: Annotated[
        bool, typer.Option(help="Keep the votes in the installation: the next report counts them.")
    ] = False,
) -> None:
    """Accuracy and AUC of each grader and of all, with intervals: 0.5 is as good as guessing."""
    from lens_assets.cli.home import default_home
    from lens_assets.resources.workspace import Workspace
    from lens_assets.science.errors import BadInput
    from lens_assets.science.realism import votes as ballot

    workspace = Workspace(home=str(home or default_home()))
    try:
        panel, _ = ballot.read_votes(votes)
        answers = json.loads(key.read_text()) if key else _key_of(workspace, panel)
        found = ballot.score(answers, votes)
    except (BadInput, OSError) as fault:
        typer.echo(str(fault), err=True)
        raise typer.Exit(1) from fault
    rows = [*found["graders"].items(), ("all together", found["pooled"])]
    for name, r in rows:
        value = r.get("auc", r.get("auc_of_mean_vote"))
        typer.echo(
            f"{name}: {r['right']} of {r['called']} right ({r['accuracy']:.2f}, 95 % {r['lo95']:.2f} to {r['hi95']:.2f}; "
            f"p of guessing {r['p_guessing']:.3f}); AUC {value:.2f} (95 % {r['auc_lo95']:.2f} to {r['auc_hi95']:.2f})"
        )
    if keep:
        folder = workspace.votes_folder / panel
        folder.mkdir(parents=True, exist_ok=True)
        for path in votes:
            (folder / path.name).write_bytes(path.read_bytes())
        typer.echo(f"kept in {folder}")


def _key_of(workspace: object, panel: str) -> dict[str, object]:
    from lens_assets.resources.workspace import Workspace
    from lens_assets.science.errors import BadInput

    assert isinstance(workspace, Workspace)
    store = workspace.store()
    for partition in store.partitions("realism"):
        artefact = store.get("realism", partition)
        if (artefact.folder / "panel-key.json").is_file():
            key: dict[str, object] = artefact.json("panel-key")
            if key["digest"] == panel:
                return key
    raise BadInput(f"no report in the store has panel {panel}: give the key with --key")
