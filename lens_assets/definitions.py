"""Everything Dagster loads, on one screen."""

from __future__ import annotations

import dagster as dg

from lens_assets import assets, checks
from lens_assets.assets.tiles import tiles_at_once
from lens_assets.automation.sensors import build_sensors
from lens_assets.checks.tables import registry_checks
from lens_assets.resources.artefacts import ArtefactIOManager
from lens_assets.resources.workspace import Workspace

_assets = dg.load_assets_from_package_module(assets, include_specs=True)
_workspace = Workspace()

defs = dg.Definitions(
    assets=_assets,
    asset_checks=[*dg.load_asset_checks_from_package_module(checks), *registry_checks(_assets)],
    jobs=[tiles_at_once()],
    sensors=build_sensors(),
    resources={"workspace": _workspace, "artefacts": ArtefactIOManager(workspace=_workspace)},
    executor=dg.in_process_executor,
)
