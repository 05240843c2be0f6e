"""What Dagster loads: the exact assets, axes and gates, and what each asset must carry."""

import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

import lens_assets
from lens_assets.chain import ON_REQUEST, STEPS
from lens_assets.definitions import defs
from lens_assets.partitions import (
    BATCH,
    CHANNEL,
    DETECTOR,
    NETWORK,
    SURFACE,
    SURFACES_OF_DETECTOR,
    TILE,
    VARIANT,
)

EXTERNAL = {
    "sweep_files": TILE,
    "channel_files": CHANNEL,
    "recipes": NETWORK,
    "compositions": DETECTOR,
    "variants": VARIANT,
    "surroundings": TILE,
}
ASSETS = {
    "sweeps": TILE,
    "conditions": TILE,
    "sweep_border": TILE,
    "lens_channel": CHANNEL,
    "lens_registry": None,
    "lens_matches": TILE,
    "positives": None,
    "negative_pool": TILE,
    "negative_sample": None,
    "splits": None,
    "cutouts": TILE,
    "cutout_quality": None,
    "detectability": None,
    "injection_hosts": None,
    "network": NETWORK,
    "prior_calibration": None,
    "detector": DETECTOR,
    "detector_scores": DETECTOR,
    "evaluation": DETECTOR,
    "detector_gates": DETECTOR,
    "detector_comparison": None,
    "anchors": DETECTOR,
    "injection_batch": BATCH,
    "injection_scores": SURFACE,
    "realism": SURFACE,
    "completeness_surface": SURFACE,
    "closure": SURFACE,
    "closure_experiment": SURFACE,
    "sensitivity": None,
    "release": None,
}
BLOCKING = {
    "splits": {
        "keys_complete",
        "ids_disjoint",
        "cells_disjoint",
        "train_clear_of_evaluation",
        "splits_apart",
        "shares_achieved",
        "same_screen",
        "metadata_alone_tells_nothing",
    },
    "negative_sample": {"no_known_lens"},
    "cutouts": {"all_accounted"},
    "cutout_quality": {
        "digests_disjoint",
        "one_source",
        "no_noise_shortcut",
        "noise_at_chance",
        "no_copies_across_splits",
    },
    "injection_hosts": {"hosts_fit"},
    "injection_scores": {"all_scored"},
    "prior_calibration": {"halves_apart"},
    "realism": {"injections_look_real"},
    "detector_gates": {"gates_let_the_chain_go_on"},
}
WARNING = {
    "negative_pool": {"borders_read"},
    "release": {"published"},
    "splits": {"conditions_balanced"},
    "negative_sample": {"mixture_as_asked", "strata_filled", "like_its_parent"},
    "cutout_quality": {"lost_alike"},
    "prior_calibration": {"closer_to_unseen_lenses"},
    "completeness_surface": {"physics", "fit_error_known"},
    "closure": {"closes"},
    "detector_gates": {"no_red_gate"},
    "detector_comparison": {"there_is_a_champion"},
}
SPECS = {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}
GRAPH = defs.resolve_asset_graph()
BUILT = {a.key.to_user_string(): a for a in defs.assets if isinstance(a, dg.AssetsDefinition)}


def test_the_definitions_load_with_every_warning_an_error():
    program = "import lens_assets.definitions as d, dagster as dg; dg.Definitions.validate_loadable(d.defs)"
    # Warnings of third parties while they are imported are theirs; everything Dagster says about us is an error.
    flags = [
        "-W", "error::DeprecationWarning:lens_assets",
        "-c",
        "import warnings, dagster, mlflow, lightning, torch, astropy, sklearn\n"
        "warnings.simplefilter('error')\n" + program,
    ]  # fmt: skip
    done = subprocess.run([sys.executable, *flags], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Warning" not in done.stderr, done.stderr[-3000:]


def test_an_unaccepted_preview_interface_would_be_heard():
    program = (
        "import warnings, dagster as dg\n"
        "warnings.simplefilter('error')\n"
        "p = dg.StaticPartitionsDefinition(['a'])\n"
        "dg.AssetCheckSpec('c', asset='a', partitions_def=p)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "partitions_def" in done.stderr


def test_the_assets_and_their_axes_are_exactly_these():
    assert {name: spec.partitions_def for name, spec in SPECS.items()} == {**EXTERNAL, **ASSETS}


def test_the_definitions_are_loadable_as_a_whole():
    dg.Definitions.validate_loadable(defs)


@pytest.mark.parametrize("name", [*EXTERNAL, *ASSETS])
def test_an_asset_says_what_it_is_and_whose(name):
    spec = SPECS[name]
    assert spec.group_name not in (None, "", "default")
    assert spec.kinds
    assert list(spec.owners) == ["team:lens-assets"]
    assert len(spec.description or "") > 40


@pytest.mark.parametrize("name", ASSETS)
def test_an_executable_asset_has_a_code_version_a_condition_and_a_described_column_schema(name):
    spec = SPECS[name]
    assert spec.code_version
    assert spec.automation_condition is not None
    assert spec.automation_condition.get_label() in ("renew", "renew what was chosen")
    schema = spec.metadata["dagster/column_schema"]
    schema = getattr(schema, "schema", schema)
    assert len(schema.columns) >= 2
    assert all(column.description and column.type for column in schema.columns)


def test_the_steps_of_the_chain_make_every_executable_asset_once_in_the_order_of_their_inputs():
    steps = (*STEPS, *ON_REQUEST)
    order = [name for step in steps for name in step.assets]
    assert sorted(order) == sorted(ASSETS)
    place = {name: number for number, step in enumerate(steps) for name in step.assets}
    for name in ASSETS:
        for parent in GRAPH.get(dg.AssetKey(name)).parent_keys:
            parent_name = parent.to_user_string()
            if parent_name not in EXTERNAL:
                assert place[parent_name] <= place[name], f"{name} is made before its input {parent_name}"


def test_the_assets_of_a_step_lie_on_the_axis_of_the_step():
    axes = {
        "tile": TILE, "channel": CHANNEL, "network": NETWORK, "detector": DETECTOR, "batch": BATCH, "surface": SURFACE,
        None: None,
    }  # fmt: skip
    for step in (*STEPS, *ON_REQUEST):
        assert {ASSETS[name] for name in step.assets} == {axes[step.axis]}, step.title


def test_no_mapping_between_two_partitioned_assets_is_inferred():
    for name in ASSETS:
        for dep in SPECS[name].deps:
            parent = dep.asset_key.to_user_string()
            if ASSETS[name] is not None and {**EXTERNAL, **ASSETS}[parent] is not None:
                assert dep.partition_mapping is not None, f"{name} <- {parent}: say how the partitions map"


def test_every_partitioned_input_of_an_unpartitioned_asset_asks_for_all_of_them():
    for name, axis in ASSETS.items():
        for dep in SPECS[name].deps:
            parent = dep.asset_key.to_user_string()
            if axis is None and {**EXTERNAL, **ASSETS}[parent] is not None:
                assert isinstance(dep.partition_mapping, dg.AllPartitionMapping), f"{name} <- {parent}"


def test_a_mapping_between_equal_axes_is_the_identity_unless_all_of_a_detector_are_read():
    for name, axis in ASSETS.items():
        for dep in SPECS[name].deps:
            parent = dep.asset_key.to_user_string()
            if (name, parent) == ("closure_experiment", "completeness_surface"):
                assert dep.partition_mapping == SURFACES_OF_DETECTOR
            elif axis is not None and {**EXTERNAL, **ASSETS}[parent] == axis:
                assert isinstance(dep.partition_mapping, dg.IdentityPartitionMapping), f"{name} <- {parent}"


def checks(blocking: bool) -> dict[str, set[str]]:
    """Names of the checks by asset, without the derived one of the registry."""
    found: dict[str, set[str]] = {}
    for key in GRAPH.asset_check_keys:
        if key.name != "follows_the_registry" and GRAPH.get(key).blocking == blocking:
            found.setdefault(key.asset_key.to_user_string(), set()).add(key.name)
    return found


def test_the_blocking_gates_are_exactly_these():
    assert checks(blocking=True) == BLOCKING


def test_the_warning_checks_are_exactly_these():
    assert checks(blocking=False) == WARNING


def test_every_executable_asset_has_a_blocking_check_against_the_registry():
    found = {
        key.asset_key.to_user_string()
        for key in GRAPH.asset_check_keys
        if key.name == "follows_the_registry" and GRAPH.get(key).blocking
    }
    assert found == set(ASSETS)


def test_a_check_has_the_partitions_of_its_asset_and_a_description():
    for key in GRAPH.asset_check_keys:
        node = GRAPH.get(key)
        assert node.partitions_def == ASSETS[key.asset_key.to_user_string()], key
        assert node.description, key


def test_training_and_scoring_wait_for_the_pool_of_the_gpu_and_nothing_else_does():
    pools = {name: {op.pool for op in asset.node_def.iterate_op_defs()} for name, asset in BUILT.items()}
    assert {name for name, pool in pools.items() if pool == {"gpu"}} == {
        "network",
        "detector",
        "detector_scores",
        "detector_gates",
        "injection_scores",
    }
    assert {name for name, pool in pools.items() if pool - {"gpu", None}} == set()


def test_the_workspace_file_loads_this_module():
    text = (Path(lens_assets.__file__).parents[1] / "workspace.yaml").read_text()
    assert "lens_assets.definitions" in text
