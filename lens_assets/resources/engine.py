"""Which engine makes the tiles. Read from the environment when a run starts, never at import.

``LENS_ASSETS_ENGINE``        ``local`` (default), ``processes``, ``spark``, ``emr`` or ``emr-serverless``
``LENS_ASSETS_EMR``           settings of EMR: path of a YAML file (``deploy/emr.yaml`` is an example)
``LENS_ASSETS_SPARK_MASTER``  master of the engine ``spark`` (default ``local[cores]``)

The engine changes where and when a tile is made, never its bytes, its digest or whether it is made at all.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import dagster as dg

from lens_assets.resources.workspace import Workspace
from lens_assets.science.engines.code import package_digest
from lens_assets.science.engines.kernels import make_tile
from lens_assets.science.engines.local import in_process, in_processes
from lens_assets.science.engines.place import Place
from lens_assets.science.engines.report import LostTiles, TileReport, complete
from lens_assets.science.engines.spark import SparkSettings, in_spark
from lens_assets.science.errors import BadInput

Kind = Literal["local", "processes", "spark", "emr", "emr-serverless"]
REMOTE = ("emr", "emr-serverless")


class Engine(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The engine of one run; an empty field means: the environment, then the default."""

    name: str = ""
    emr: str = ""
    master: str = ""

    @property
    def kind(self) -> Kind:
        """Name of the engine; :class:`BadInput` for an unknown one."""
        name = self.name or os.environ.get("LENS_ASSETS_ENGINE", "") or "local"
        if name not in get_args(Kind):
            raise BadInput(f"no engine {name!r} (LENS_ASSETS_ENGINE); there are {', '.join(get_args(Kind))}")
        return name  # type: ignore[return-value]

    def place(self, workspace: Workspace) -> Place:
        """Where the kernels read and write. A remote engine needs roots that its machines can reach."""
        place = Place.of(
            workspace.release_root, str(workspace.store().root), workspace.cache_folder, workspace.profile()
        ).model_copy(update={"max_cache_bytes": workspace.max_cache_bytes})
        if self.kind in REMOTE:
            for what, where, schemes in (
                ("the store", place.store, ("s3://",)),
                ("the data release", place.release, ("s3://", "https://")),
            ):
                if not where.startswith(schemes):
                    raise BadInput(f"{what} ({where}) cannot be reached from EMR: it must be {' or '.join(schemes)}...")
        return place

    def make(
        self,
        context: dg.AssetExecutionContext,
        asset: str,
        tiles: Sequence[str],
        workspace: Workspace,
        *,
        force: bool = False,
    ) -> tuple[list[TileReport], dict[str, Any]]:
        """Make (or recognise) ``tiles`` of ``asset`` in one go.

        Returns
        -------
        one report a tile, sorted by tile, and metadata of the engine's run for the UI. A tile that could not be made is a
        report with an error, not an exception, unless it was the only one asked of the local engine.

        Raises
        ------
        LostTiles : the engine did not answer for every tile, or the store does not hold what it reported.
        """
        kind, place = self.kind, self.place(workspace)
        about: dict[str, Any] = {"engine": kind}
        if kind == "local" and len(tiles) == 1:
            return [make_tile(asset, tiles[0], place, force=force)], about
        if kind == "local":
            reports = complete(asset, tiles, in_process(asset, tiles, place, force=force))
        elif kind == "processes":
            workers = workspace.profile().workers
            reports = complete(asset, tiles, in_processes(asset, tiles, place, workers, force=force))
        elif kind == "spark":
            reports = complete(asset, tiles, in_spark(asset, tiles, place, self.spark(), force=force))
        else:
            reports, more = self._on_emr(context, asset, tiles, place, force)
            about.update(more)
        confirm(workspace, reports)
        return reports, about

    def spark(self) -> SparkSettings:
        """Settings of a Spark session of this machine."""
        master = self.master or os.environ.get("LENS_ASSETS_SPARK_MASTER", "") or f"local[{os.cpu_count() or 1}]"
        return SparkSettings(master=master)

    def _on_emr(
        self, context: dg.AssetExecutionContext, asset: str, tiles: Sequence[str], place: Place, force: bool
    ) -> tuple[list[TileReport], dict[str, Any]]:
        import boto3  # type: ignore[import-untyped]
        from botocore.config import Config  # type: ignore[import-untyped]

        from lens_assets.resources.emr.client import EmrPipes
        from lens_assets.resources.emr.clusters import EmrSteps
        from lens_assets.resources.emr.job import Target
        from lens_assets.resources.emr.serverless import EmrServerlessJobs
        from lens_assets.resources.emr.settings import load_settings

        on_cluster = self.kind == "emr"
        path = Path(self.emr or os.environ.get("LENS_ASSETS_EMR", "") or "emr.yaml")
        settings = load_settings(path, "cluster" if on_cluster else "serverless")
        patient = Config(retries={"mode": "adaptive", "max_attempts": 10})
        target: Target
        if on_cluster:
            target = EmrSteps(settings, boto3.client("emr", region_name=settings.region, config=patient))
        else:
            client = boto3.client("emr-serverless", region_name=settings.region, config=patient)
            target = EmrServerlessJobs(settings, client)
        s3 = boto3.client("s3", region_name=settings.region, config=patient)
        extras = {
            "asset": asset,
            "tiles": list(tiles),
            "place": place.model_copy(update={"cache": settings.cache}).model_dump(mode="json"),
            "force": force,
            "code": package_digest(),
            "spark": SparkSettings(partitions=settings.partitions).model_dump(mode="json"),
        }
        remote = EmrPipes(settings, target, s3).run(context=context, name=f"{asset} x {len(tiles)}", extras=extras)
        told = [TileReport.from_json(m["report"]) for m in remote.messages if m["kind"] == "tile"]
        return complete(asset, tiles, told), remote.metadata


def confirm(workspace: Workspace, reports: Sequence[TileReport]) -> None:
    """Raise :class:`LostTiles` unless the store holds what was reported: a claim from another machine is not a file here."""
    store, good = workspace.store(), [report for report in reports if report.ok]
    for asset in sorted({report.asset for report in good}):
        mine = [report for report in good if report.asset == asset]
        for report, found in zip(mine, store.find_all(asset, [r.tile for r in mine]), strict=True):
            if found is None or found.digest != report.digest:
                held = "nothing" if found is None else found.digest[:16]
                raise LostTiles(
                    f"{report.asset}[{report.tile}]: {report.worker} reported {report.digest[:16]}, the store "
                    f"({store.root}) holds {held}: do both sides use the same store?"
                )
