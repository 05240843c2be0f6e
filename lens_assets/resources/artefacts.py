"""The I/O manager: artefacts in, artefacts out, atomic both ways.

An asset writes through a :class:`~lens_assets.science.storage.Draft` (see ``lens_assets.assets.stage``) and hands the finished
:class:`~lens_assets.science.storage.Artefact` to this manager, which refuses one that is not complete on disk. Loading follows
the manifest. An input annotated ``Artefact`` is one partition, ``list[Artefact]`` any number of them in the order of their
keys (also exactly one, also none): Dagster's own managers hand over a bare object when the number happens to be one.
"""

import typing

import dagster as dg

from lens_assets.partitions import folder_key
from lens_assets.resources.workspace import Workspace
from lens_assets.science.storage import Artefact


class ArtefactIOManager(dg.ConfigurableIOManager):
    """Reads and acknowledges artefacts of the workspace's store."""

    workspace: dg.ResourceDependency[Workspace]

    def handle_output(self, context: dg.OutputContext, obj: Artefact) -> None:
        """Acknowledge an artefact that the asset has already made visible; raise when it is not there."""
        if not isinstance(obj, Artefact):
            raise dg.DagsterInvariantViolationError(f"{context.asset_key}: assets return artefacts, not {type(obj)}")
        on_disk = self.workspace.store().get(obj.asset, obj.partition)
        if on_disk.digest != obj.digest:
            raise dg.DagsterInvariantViolationError(
                f"{context.asset_key}: another artefact took its place while it ran"
            )

    def load_input(self, context: dg.InputContext) -> Artefact | list[Artefact]:
        """The artefact of the mapped partition, or the list of them (see the module)."""
        store = self.workspace.store()
        name = context.asset_key.path[-1]
        many = typing.get_origin(context.dagster_type.typing_type) is list
        keys = sorted(context.asset_partition_keys) if context.has_asset_partitions else ["all"]
        if not many:
            if len(keys) != 1:
                raise dg.DagsterInvariantViolationError(
                    f"{name}: expected one partition, the mapping gives {len(keys)}"
                )
            return store.get(name, folder_key(keys[0]))
        partial = bool((context.definition_metadata or {}).get("partial"))
        found = store.find_all(name, [folder_key(key) for key in keys])
        absent = [key for key, artefact in zip(keys, found, strict=True) if artefact is None]
        if absent and not partial:
            raise FileNotFoundError(f"{name}: materialise these partitions first: {', '.join(absent)}")
        return [artefact for artefact in found if artefact is not None]
