"""When an asset is renewed by itself: new content, a new partition; not the same content, not past a failed gate."""

import dagster as dg
import pytest

from lens_assets.automation.conditions import RENEW, RENEW_CHOSEN, renewal
from lens_assets.preview import accepted

pytestmark = pytest.mark.filterwarnings("ignore:Parameter `include_sources` of function `AssetSelection.all`")
TILES = dg.DynamicPartitionsDefinition(name="toy_tile")


class Toy:
    """files -> upper -> lower, upper with a blocking check, all by tile; what upper holds and its gate says can be turned."""

    def __init__(self, instance: dg.DagsterInstance, condition: dg.AutomationCondition = RENEW) -> None:
        self.instance, self.content, self.passes, self.cursor = instance, "one", True, None
        files = dg.AssetSpec("files", partitions_def=TILES)
        same = dg.IdentityPartitionMapping()

        @dg.asset(
            partitions_def=TILES, deps=[dg.AssetDep(files, partition_mapping=same)], automation_condition=condition
        )
        def upper():
            return dg.MaterializeResult(data_version=dg.DataVersion(self.content))

        @dg.asset(partitions_def=TILES, deps=[dg.AssetDep(upper, partition_mapping=same)], automation_condition=RENEW)
        def lower():
            return dg.MaterializeResult(data_version=dg.DataVersion(f"from {self.content}"))

        def body():
            return dg.AssetCheckResult(passed=self.passes)

        with accepted():
            check = dg.asset_check(asset=upper, name="fits", blocking=True, partitions_def=TILES)(body)
        self.defs = dg.Definitions(assets=[files, upper, lower], asset_checks=[check])

    def arrive(self, tile: str, version: str) -> None:
        """A file of a tile is there with this version, as a sensor reports it."""
        if tile not in self.instance.get_dynamic_partitions("toy_tile"):
            self.instance.add_dynamic_partitions("toy_tile", [tile])
        self.instance.report_runless_asset_event(
            dg.AssetMaterialization("files", partition=tile, tags={"dagster/data_version": version})
        )

    def make(self, asset: str, tile: str) -> None:
        """Materialise one asset of a tile with its checks."""
        self.defs.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=self.instance,
            asset_selection=[dg.AssetKey(asset)],
            partition_key=tile,
            raise_on_error=False,
        )

    def ask(self) -> dict[str, set[str]]:
        """One tick: the partitions requested of each asset."""
        found = dg.evaluate_automation_conditions(self.defs, self.instance, cursor=self.cursor)
        self.cursor = found.cursor
        asked = {name: found.get_requested_partitions(dg.AssetKey(name)) for name in ("upper", "lower")}
        return {name: set(keys) for name, keys in asked.items() if keys}


@pytest.fixture
def toy(instance) -> Toy:
    """One tile, made and looked at, at rest."""
    made = Toy(instance)
    made.arrive("a", "1")
    made.make("upper", "a")
    made.make("lower", "a")
    made.ask()
    assert made.ask() == {}
    return made


def test_new_content_of_a_file_renews_step_by_step_and_comes_to_rest(toy):
    toy.arrive("a", "2")
    assert toy.ask() == {"upper": {"a"}}
    toy.content = "two"
    toy.make("upper", "a")
    assert toy.ask() == {"lower": {"a"}}
    toy.make("lower", "a")
    assert toy.ask() == {}


def test_the_same_content_reported_again_renews_nothing(toy):
    toy.arrive("a", "1")
    assert toy.ask() == {}


def test_an_asset_that_came_out_the_same_renews_nothing_below_it(toy):
    toy.arrive("a", "2")
    assert toy.ask() == {"upper": {"a"}}
    toy.make("upper", "a")
    assert toy.ask() == {}


def test_a_failed_blocking_check_of_an_input_holds_back_and_a_repair_lets_go(toy):
    toy.arrive("a", "2")
    toy.ask()
    toy.content, toy.passes = "two", False
    toy.make("upper", "a")
    assert toy.ask() == {}
    toy.passes = True
    toy.make("upper", "a")
    assert toy.ask() == {"lower": {"a"}}


def test_a_failed_check_of_one_partition_does_not_hold_back_another(toy):
    toy.arrive("b", "1")
    toy.make("upper", "b")
    toy.make("lower", "b")
    toy.ask()
    toy.arrive("a", "2")
    toy.arrive("b", "2")
    assert toy.ask() == {"upper": {"a", "b"}}
    toy.content, toy.passes = "two", False
    toy.make("upper", "a")
    toy.passes = True
    toy.make("upper", "b")
    assert toy.ask() == {"lower": {"b"}}


def test_a_new_partition_is_requested_once_its_file_is_there_and_only_the_first_step_of_it(toy):
    toy.instance.add_dynamic_partitions("toy_tile", ["b"])
    assert toy.ask() == {}
    toy.arrive("b", "1")
    assert toy.ask() == {"upper": {"b"}}
    assert toy.ask() == {}
    toy.make("upper", "b")
    assert toy.ask() == {"lower": {"b"}}


def test_of_a_menu_only_what_was_asked_for_once_is_renewed(instance):
    """A catalogue that arrives must not train every recipe there is."""
    menu = Toy(instance, RENEW_CHOSEN)
    menu.arrive("asked", "1")
    menu.arrive("never", "1")
    menu.make("upper", "asked")
    menu.make("lower", "asked")
    menu.ask()
    menu.arrive("asked", "2")
    menu.arrive("never", "2")
    assert menu.ask() == {"upper": {"asked"}}
    menu.content = "two"
    menu.make("upper", "asked")
    assert menu.ask() == {"lower": {"asked"}}


def test_what_is_a_menu_and_of_which_inputs_a_part_is_enough_is_said_where_the_inputs_are():
    from lens_assets.definitions import defs

    conditions = {s.key.path[-1]: s.automation_condition for s in defs.resolve_all_asset_specs()}
    menus = {
        "network",
        "detector",
        "detector_comparison",
        "prior_calibration",
        "injection_batch",
        "injection_scores",
        "closure_experiment",
        "sensitivity",
        "release",
    }
    for made in defs.assets:
        for key in made.keys if isinstance(made, dg.AssetsDefinition) and made.is_executable else ():
            ins = made.node_def.input_defs
            partial = tuple(d.name for d in ins if (d.metadata or {}).get("partial"))
            if dg.AssetKey("prior_calibration") in made.dependency_keys:  # no input: only calibrated variants have one
                partial += ("prior_calibration",)
            assert conditions[key.path[-1]] == renewal(chosen=key.path[-1] in menus, partial=partial), key
    assert conditions["sweeps"] == RENEW
    assert conditions["network"] == RENEW_CHOSEN
    assert conditions["detector"] == renewal(chosen=True, partial=("network",))
    assert conditions["release"] == renewal(
        chosen=True, partial=("completeness_surface", "realism", "detector", "anchors")
    )


@pytest.mark.parametrize(("partial", "asked"), [(("batch",), True), ((), False)])
def test_of_some_inputs_a_part_is_enough_of_the_others_all_must_be_there(instance, partial, asked):
    keys = dg.StaticPartitionsDefinition(["1.00", "2.00"])
    batch = dg.AssetSpec("batch", partitions_def=keys)
    every = dg.AssetDep("batch", partition_mapping=dg.AllPartitionMapping())
    total = dg.AssetSpec("total", deps=[every], automation_condition=renewal(partial=partial))

    @dg.multi_asset(specs=[total], can_subset=True)
    def make():
        yield dg.MaterializeResult("total")

    defs = dg.Definitions(assets=[batch, make])
    cursor = None
    for version in ("1", "2"):
        instance.report_runless_asset_event(
            dg.AssetMaterialization("batch", partition="1.00", tags={"dagster/data_version": version})
        )
        found = dg.evaluate_automation_conditions(defs, instance, cursor=cursor)
        cursor = found.cursor
    assert (found.total_requested > 0) is asked


def test_what_hangs_on_a_change_by_a_short_and_a_long_way_waits_for_the_long_one(instance):
    """start -> one -> two -> end and start -> end: an end made of the new start and the old two would be wrong."""
    start = dg.AssetSpec("start")
    made: dict[str, int] = {"one": 0, "two": 0, "end": 0}

    def asset(name: str, *deps: str) -> dg.AssetsDefinition:
        @dg.asset(name=name, deps=list(deps), automation_condition=RENEW)
        def body():
            made[name] += 1
            return dg.MaterializeResult(data_version=dg.DataVersion(f"{name} {made[name]}"))

        return body

    defs = dg.Definitions(assets=[start, asset("one", "start"), asset("two", "one"), asset("end", "start", "two")])
    job = defs.resolve_implicit_global_asset_job_def()
    cursor, asked = None, []

    def arrive(version: str) -> None:
        instance.report_runless_asset_event(dg.AssetMaterialization("start", tags={"dagster/data_version": version}))

    def tick() -> set[str]:
        nonlocal cursor
        found = dg.evaluate_automation_conditions(defs, instance, cursor=cursor)
        cursor = found.cursor
        names = {n for n in made if found.get_num_requested(dg.AssetKey(n))}
        for name in sorted(names):
            job.execute_in_process(instance=instance, asset_selection=[dg.AssetKey(name)])
        return names

    arrive("1")
    for name in made:
        job.execute_in_process(instance=instance, asset_selection=[dg.AssetKey(name)])
    for _ in range(6):
        tick()
    arrive("2")
    asked = [tick() for _ in range(5)]
    assert [a for a in asked if a] == [{"one"}, {"two"}, {"end"}]
