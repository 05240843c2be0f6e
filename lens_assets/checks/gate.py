"""How a check is built here: it reads the artefact of its own partition and returns problems; no problem means passed."""

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
        words = "; ".join(found.problems) or "passed"
        return dg.AssetCheckResult(
            passed=not found.problems,
            severity=dg.AssetCheckSeverity.WARN if reason else dg.AssetCheckSeverity.ERROR,
            description=f"{words} (waived: {reason})" if found.problems and reason else words,
            metadata=found.figures,
        )

    with accepted():
        return dg.asset_check(
            asset=asset, name=name, description=description, blocking=blocking, partitions_def=asset.partitions_def
        )(check)
