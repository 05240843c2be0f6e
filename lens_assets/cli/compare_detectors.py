"""``lens-assets compare-detectors``: two detectors on the same objects."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lens_assets.cli.home import default_home


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("compare-detectors")(compare_detectors)


def compare_detectors(
    a: Annotated[str, typer.Argument(help="Key of the first detector, for instance compact-s1.")],
    b: Annotated[str, typer.Argument(help="Key of the second.")],
    out: Annotated[Path, typer.Option(help="The page that is written: one HTML file.")] = Path("detectors.html"),
    home: Annotated[Path | None, typer.Option(help="Folder of the installation.")] = None,
) -> None:
    """Which of two evaluated detectors is better, by how much, and on which stratum: DeLong, paired bootstrap, McNemar, Holm."""
    from lens_assets.resources.workspace import Workspace
    from lens_assets.science.detectors.compare import answer, compare
    from lens_assets.science.detectors.compare_page import page
    from lens_assets.science.errors import BadInput

    workspace = Workspace(home=str((home or default_home()).absolute()))
    store = workspace.store()
    try:
        for key in (a, b):
            if store.find("evaluation", key) is None:
                there = ", ".join(store.partitions("evaluation")) or "none"
                raise BadInput(f"no evaluated detector {key!r}; there are: {there}")
        if a == b:
            raise BadInput("a detector against itself: name two")
        independent = store.get("positives").read().select("galaxy_id", "independent").unique("galaxy_id")
        sample = store.get("splits").read().join(independent, on="galaxy_id", how="left")
        scores = [store.get("detector_scores", key).read() for key in (a, b)]
        points = [store.get("evaluation", key).read("thresholds") for key in (a, b)]
        found = compare(sample, scores[0], scores[1], points[0], points[1], workspace.profile().detectors, (a, b))
    except BadInput as fault:
        typer.echo(str(fault), err=True)
        raise typer.Exit(1) from fault
    out.write_text(page(found, {key: _about(store, key) for key in (a, b)}), encoding="utf-8")
    typer.echo(f"{answer(found)}\n{out}")


def _about(store: Any, key: str) -> dict[str, str]:
    made, gates = store.get("detector", key), store.find("detector_gates", key)
    facts = {
        name: made.facts[name] for name in ("parameters", "best_epoch", "select_auc", "members") if name in made.facts
    }
    shown = {
        name: f"{v:.4f}" if isinstance(v, float) else ", ".join(v) if isinstance(v, list) else str(v)
        for name, v in facts.items()
    }
    return {"gates": gates.facts["colour"] if gates else "insufficient", **shown, "digest": made.digest[:16]}
