"""How an asset is made: recognised when it is there, made when it is not, never half made; and how its inputs are loaded."""

from collections.abc import Callable

import dagster as dg
import pytest

from lens_assets.assets.stage import FORCE_TAG, digests, stage
from lens_assets.partitions import ALL, SAME
from lens_assets.resources.workspace import Workspace
from lens_assets.science.storage import Artefact, Draft, verify

# Dagster's own initialisation of a nested resource calls what Dagster has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run is deprecated:DeprecationWarning")
KEYS = dg.StaticPartitionsDefinition(["c", "a", "b"])


class Maker:
    """A toy asset whose content and identity can be turned, and which counts how often it was made."""

    def __init__(self) -> None:
        self.made, self.text, self.identity, self.fails = 0, "one", {"settings": 1}, False

    def asset(self) -> dg.AssetsDefinition:
        @dg.asset(name="toy", io_manager_key="artefacts")
        def toy(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult[Artefact]:
            def make(draft: Draft) -> None:
                self.made += 1
                draft.path("text.txt").write_text(self.text)
                draft.facts["rows"] = len(self.text)
                if self.fails:
                    raise RuntimeError("the disk is full")

            return stage(
                context, workspace, self.identity, make, lambda made: {"said": made.file("text.txt").read_text()}
            )

        return toy


def run(maker: Maker, resources: dict, instance: dg.DagsterInstance, **tags: str) -> dg.AssetMaterialization:
    """Materialise the toy once; its materialisation."""
    result = dg.materialize([maker.asset()], instance=instance, resources=resources, tags=tags)
    (event,) = result.asset_materializations_for_node("toy")
    return event


def version(event: dg.AssetMaterialization) -> str:
    """Data version of a materialisation."""
    return event.tags["dagster/data_version"]


def test_the_same_identity_is_recognised_and_not_made_again(resources, instance):
    maker = Maker()
    first, second = run(maker, resources, instance), run(maker, resources, instance)
    assert maker.made == 1
    assert (first.metadata["reused"].value, second.metadata["reused"].value) == (False, True)
    assert version(first) == version(second)
    assert second.metadata["said"].value == "one"
    assert second.metadata["dagster/row_count"].value == 3


def test_another_identity_is_made_again_with_a_data_version_of_its_content(resources, instance):
    maker = Maker()
    first = run(maker, resources, instance)
    maker.identity = {"settings": 2}
    same_content = run(maker, resources, instance)
    assert maker.made == 2
    assert same_content.metadata["reused"].value is False
    assert version(same_content) == version(first)
    maker.identity, maker.text = {"settings": 3}, "other"
    assert version(run(maker, resources, instance)) != version(first)


def test_an_identity_that_came_back_is_made_again_as_only_the_newest_artefact_is_kept(resources, instance):
    maker = Maker()
    for settings in (1, 2, 1):
        maker.identity = {"settings": settings}
        run(maker, resources, instance)
    assert maker.made == 3


def test_the_force_tag_makes_again_what_is_there(resources, instance):
    maker = Maker()
    run(maker, resources, instance)
    forced = run(maker, resources, instance, **{FORCE_TAG: "true"})
    assert maker.made == 2
    assert forced.metadata["reused"].value is False
    run(maker, resources, instance, **{FORCE_TAG: "false"})
    assert maker.made == 2


def test_a_make_that_fails_leaves_the_old_artefact_as_it_was(resources, workspace, instance):
    maker = Maker()
    run(maker, resources, instance)
    before = workspace.store().get("toy")
    maker.identity, maker.text, maker.fails = {"settings": 2}, "half", True
    with pytest.raises(RuntimeError, match="disk is full"):
        run(maker, resources, instance)
    after = workspace.store().get("toy")
    verify(after)
    assert after.manifest == before.manifest
    assert after.file("text.txt").read_text() == "one"
    assert not [p for p in after.folder.parent.iterdir() if p.name.startswith(".draft")]


def test_an_artefact_that_was_deleted_is_made_again(resources, workspace, instance):
    maker = Maker()
    run(maker, resources, instance)
    workspace.store().delete("toy", "all")
    assert run(maker, resources, instance).metadata["reused"].value is False
    assert maker.made == 2


def put(workspace: Workspace, asset: str, partition: str, text: str = "x") -> Artefact:
    """An artefact written past Dagster."""
    with workspace.store().draft(asset, partition, made_from={}) as draft:
        draft.path("text.txt").write_text(text)
    return workspace.store().get(asset, partition)


def load(
    resources: dict,
    instance: dg.DagsterInstance,
    upstream: dg.PartitionsDefinition | None,
    how: dg.AssetIn,
    kind: type,
    partition: str | None = None,
) -> Artefact | list[Artefact]:
    """What an asset downstream of ``source`` is handed."""
    seen: list = []

    def body(source):
        seen.append(source)

    body.__annotations__ = {"source": kind, "return": None}
    down = dg.asset(name="down", ins={"source": how}, partitions_def=KEYS if partition else None)(body)
    source = dg.AssetSpec("source", partitions_def=upstream).with_io_manager_key("artefacts")
    dg.materialize([down, source], resources=resources, instance=instance, partition_key=partition)
    return seen[0]


@pytest.mark.parametrize("there", [[], ["b"], ["c", "a", "b"]])
def test_a_fan_in_over_none_one_or_several_partitions_is_a_sorted_list(resources, workspace, instance, there):
    partitions = dg.DynamicPartitionsDefinition(name="axis")
    instance.add_dynamic_partitions("axis", there)
    for key in there:
        put(workspace, "source", key)
    found = load(resources, instance, partitions, dg.AssetIn(partition_mapping=ALL), list[Artefact])
    assert isinstance(found, list)
    assert [a.partition for a in found] == sorted(there)


def test_one_partition_is_handed_over_bare(resources, workspace, instance):
    for key in "abc":
        put(workspace, "source", key)
    found = load(resources, instance, KEYS, dg.AssetIn(partition_mapping=SAME), Artefact, "b")
    assert (found.asset, found.partition) == ("source", "b")


def test_an_unpartitioned_input_is_its_one_artefact_also_for_a_partitioned_asset(resources, workspace, instance):
    made = put(workspace, "source", "all")
    for partition, how in ((None, dg.AssetIn()), ("a", dg.AssetIn(partition_mapping=ALL))):
        assert load(resources, instance, None, how, Artefact, partition).digest == made.digest


def test_missing_partitions_are_named_in_the_error(resources, workspace, instance):
    put(workspace, "source", "b")
    with pytest.raises(FileNotFoundError, match=r"source: materialise these partitions first: a, c"):
        load(resources, instance, KEYS, dg.AssetIn(partition_mapping=ALL), list[Artefact])


def test_a_missing_single_input_is_named_in_the_error(resources, instance):
    with pytest.raises(FileNotFoundError, match=r"source\[b\] has not been materialised"):
        load(resources, instance, KEYS, dg.AssetIn(partition_mapping=SAME), Artefact, "b")


def test_an_input_marked_partial_may_lack_partitions(resources, workspace, instance):
    put(workspace, "source", "b")
    how = dg.AssetIn(partition_mapping=ALL, metadata={"partial": True})
    found = load(resources, instance, KEYS, how, list[Artefact])
    assert [a.partition for a in found] == ["b"]


def test_several_partitions_where_one_is_expected_are_refused(resources, workspace, instance):
    for key in "abc":
        put(workspace, "source", key)
    with pytest.raises(dg.DagsterInvariantViolationError, match=r"expected one partition, the mapping gives 3"):
        load(resources, instance, KEYS, dg.AssetIn(partition_mapping=ALL), Artefact)


def returning(value: Callable[[], object]) -> dg.AssetsDefinition:
    """An asset that hands over something that it did not make through ``stage``."""

    @dg.asset(name="loose", io_manager_key="artefacts")
    def loose():
        return value()

    return loose


def test_an_output_that_is_not_on_disk_is_refused(resources, workspace, instance):
    made = put(workspace, "loose", "all")
    workspace.store().delete("loose", "all")
    with pytest.raises(FileNotFoundError, match=r"loose\[all\]"):
        dg.materialize([returning(lambda: made)], resources=resources, instance=instance)


def test_an_output_that_another_artefact_replaced_is_refused(resources, workspace, instance):
    old = put(workspace, "loose", "all", "old")
    put(workspace, "loose", "all", "new")
    with pytest.raises(dg.DagsterInvariantViolationError, match="another artefact took its place"):
        dg.materialize([returning(lambda: old)], resources=resources, instance=instance)


def test_an_output_that_is_no_artefact_is_refused(resources, instance):
    with pytest.raises(dg.DagsterInvariantViolationError, match="assets return artefacts"):
        dg.materialize([returning(lambda: 3)], resources=resources, instance=instance)


def test_digests_name_asset_and_partition_of_every_input_whatever_their_order(workspace):
    a, b = put(workspace, "source", "a", "1"), put(workspace, "source", "b", "2")
    assert digests(a, [b]) == digests([b, a]) == {"source[a]": a.digest, "source[b]": b.digest}
