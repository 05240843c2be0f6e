"""How a check is built here: it reads the artefact of its own partition and returns problems; no problem means passed.

A waiver (of the profile, or one that the judge found recorded) is a decision to go on, so a waived gate counts as passed
wherever going on is decided: in its own run and when the renewal asks whether the gates of an input let go (Dagster counts a
mere warning as failed there, and a waived gate would hold back every renewal for ever). Its problems stay in its words, which
begin with WAIVED, in its metadata and in the log of the run.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from lens_assets.partitions import folder_key
from lens_assets.preview import accepted
from lens_assets.resources.workspace import Workspace
from lens_assets.science.storage import Artefact


@dataclass
class Outcome:
    """What a gate found: ``problems`` in words (none: passed), and figures for the UI. ``waived`` records an override."""

    problems: list[str]
    figures: dict[str, Any] = field(default_factory=dict)
    waived: str | None = None


def gate(
    asset: dg.AssetsDefinition,
    name: str,
    description: str,
    judge: Callable[[Artefact, Workspace], Outcome],
    *,
    blocking: bool = True,
) -> dg.AssetChecksDefinition:
    """An asset check that calls ``judge`` with the artefact of the partition under check."""
    key = asset.key
    partitioned = asset.partitions_def is not None

    def check(context: dg.AssetCheckExecutionContext, workspace: Workspace) -> dg.AssetCheckResult:
        partition = folder_key(context.partition_key) if partitioned else "all"
        found = judge(workspace.store().get(key.path[-1], partition), workspace)
        reason = found.waived or workspace.profile().waivers.get(name)
        waived = reason if found.problems else None
        words = "; ".join(found.problems) or "passed"
        if waived:
            context.log.warning(f"{name} of {key.to_user_string()}[{partition}] is WAIVED ({waived}): {words}")
        return dg.AssetCheckResult(
            passed=not found.problems or waived is not None,
            description=f"WAIVED ({waived}): {words}" if waived else words,
            metadata={**found.figures, **({"waived": waived} if waived else {})},
        )

    with accepted():
        return dg.asset_check(
            asset=asset, name=name, description=description, blocking=blocking, partitions_def=asset.partitions_def
        )(check)
