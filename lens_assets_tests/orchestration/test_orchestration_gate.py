"""Gates: pass, fail and hold back, or are waived with a reason that stays visible."""

from pathlib import Path

import dagster as dg
import pytest

from lens_assets.assets.stage import stage
from lens_assets.checks.gate import Outcome, gate
from lens_assets.resources.artefacts import ArtefactIOManager
from lens_assets.resources.workspace import Workspace
from lens_assets.science.profile import load_profile
from lens_assets.science.storage import Artefact

pytestmark = pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run is deprecated:DeprecationWarning")
TINY = Path(__file__).parents[2] / "lens_assets" / "config" / "profiles" / "tiny.yaml"
TILES = dg.StaticPartitionsDefinition(["a", "b"])


@dg.asset(name="upper", partitions_def=TILES, io_manager_key="artefacts")
def upper(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult[Artefact]:
    return stage(context, workspace, {}, lambda draft: draft.path("text.txt").write_text(context.partition_key))


@dg.asset(
    name="lower",
    partitions_def=TILES,
    io_manager_key="artefacts",
    ins={"upper": dg.AssetIn(partition_mapping=dg.IdentityPartitionMapping())},
)
def lower(context: dg.AssetExecutionContext, workspace: Workspace, upper: Artefact) -> dg.MaterializeResult[Artefact]:
    return stage(context, workspace, {}, lambda draft: draft.path("text.txt").write_text("below"))


class Run:
    """One run of upper, its gate, and lower."""

    def __init__(self, workspace: Workspace, outcome: Outcome, *, blocking: bool = True) -> None:
        self.judged: list[str] = []

        def judge(artefact: Artefact, place: Workspace) -> Outcome:
            self.judged.append(artefact.file("text.txt").read_text())
            return outcome

        check = gate(upper, "toy_gate", "A toy.", judge, blocking=blocking)
        with dg.DagsterInstance.ephemeral() as instance:
            result = dg.materialize(
                [upper, lower, check],
                resources={"workspace": workspace, "artefacts": ArtefactIOManager(workspace=workspace)},
                instance=instance,
                partition_key="b",
                raise_on_error=False,
            )
            (self.evaluation,) = result.get_asset_check_evaluations()
        self.success = result.success
        self.went_on = bool(workspace.store().find("lower", "b"))


def waiving(workspace: Workspace, tmp_path: Path, check: str, reason: str) -> Workspace:
    """The same installation with a profile that waives a check."""
    text = TINY.read_text().replace("waivers:\n", f"waivers:\n  {check}: {reason}\n")
    (tmp_path / "profile.yaml").write_text(text)
    assert load_profile(str(tmp_path / "profile.yaml")).waivers[check] == reason
    return Workspace(home=workspace.home, profile_name=str(tmp_path / "profile.yaml"))


def test_a_gate_without_problems_passes_and_shows_its_figures(workspace):
    run = Run(workspace, Outcome([], {"rows": 7}))
    assert (run.success, run.went_on, run.evaluation.passed) == (True, True, True)
    assert run.evaluation.description == "passed"
    assert run.evaluation.metadata["rows"].value == 7


def test_a_gate_reads_the_artefact_of_its_own_partition(workspace):
    run = Run(workspace, Outcome([]))
    assert run.judged == ["b"]
    assert run.evaluation.partition == "b"


def test_a_failed_blocking_gate_names_every_problem_and_stops_what_follows(workspace):
    run = Run(workspace, Outcome(["two ids are equal", "a cell is in two splits"]))
    assert (run.success, run.went_on, run.evaluation.passed) == (False, False, False)
    assert run.evaluation.severity == dg.AssetCheckSeverity.ERROR
    assert run.evaluation.description == "two ids are equal; a cell is in two splits"


def test_a_failed_gate_that_does_not_block_is_shown_and_the_run_goes_on(workspace):
    run = Run(workspace, Outcome(["not balanced"]), blocking=False)
    assert (run.went_on, run.evaluation.passed) == (True, False)


def test_a_waiver_of_the_profile_lets_go_on_and_shows_problem_and_reason(workspace, tmp_path):
    run = Run(waiving(workspace, tmp_path, "toy_gate", "a sky of six bricks"), Outcome(["too few"], {"rows": 7}))
    assert (run.success, run.went_on, run.evaluation.passed) == (True, True, True)
    assert run.evaluation.description == "WAIVED (a sky of six bricks): too few"
    assert run.evaluation.metadata["waived"].value == "a sky of six bricks"
    assert run.evaluation.metadata["rows"].value == 7


def test_a_waiver_of_another_check_changes_nothing(workspace, tmp_path):
    run = Run(waiving(workspace, tmp_path, "other_gate", "a reason"), Outcome(["too few"]))
    assert (run.went_on, run.evaluation.severity) == (False, dg.AssetCheckSeverity.ERROR)


def test_a_waiver_does_not_mark_a_gate_that_passes(workspace, tmp_path):
    run = Run(waiving(workspace, tmp_path, "toy_gate", "a reason"), Outcome([]))
    assert (run.evaluation.passed, run.evaluation.description) == (True, "passed")
    assert "waived" not in run.evaluation.metadata


def test_an_override_that_the_judge_records_counts_as_a_waiver(workspace):
    run = Run(workspace, Outcome(["no-go: too bright"], waived="a demonstration"))
    assert run.went_on
    assert run.evaluation.description == "WAIVED (a demonstration): no-go: too bright"
