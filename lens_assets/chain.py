"""The whole chain, run in order in one process through Dagster: what ``make demo`` does and what a batch job would do.

Each step materialises its assets for every partition of its axis with their checks, as ordinary Dagster runs of the
instance, so that the user interface shows them afterwards. Nothing is decided here: whether a partition must be
computed at all is known to the asset (``lens_assets.assets.stage``), which is why a killed chain is simply started
again.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import dagster as dg
import psutil

from lens_assets.assets.calibration import needs_calibration
from lens_assets.assets.injections import variant_of
from lens_assets.automation.sensors import AXES, synchronise
from lens_assets.automation.watch import wait_until_settled
from lens_assets.partitions import CHANNEL, TILE, batch_key, surface_key
from lens_assets.resources.artefacts import ArtefactIOManager
from lens_assets.resources.workspace import Workspace
from lens_assets.science.detectors.ensembles import networks_of
from lens_assets.science.profile import Profile

HOST_TAG, PID_TAG = "lens_assets/host", "lens_assets/pid"


@dataclass(frozen=True)
class Step:
    """Assets that share an axis and are made together, and the axis."""

    title: str
    axis: str | None
    assets: tuple[str, ...]
    wanted: Callable[[Profile], bool] = lambda profile: True
    """Whether a profile's runs need the step at all."""


def _calibrates(profile: Profile) -> bool:
    """Whether a variant of the profile draws from the fitted priors."""
    return any(needs_calibration(variant_of(name)) for name in profile.runs.variants)


STEPS = (
    Step("reading sweeps and observing conditions", "tile", ("sweeps", "conditions", "sweep_border")),
    Step("reading lens catalogues", "channel", ("lens_channel",)),
    Step("uniting them into one registry", None, ("lens_registry",)),
    Step("matching lenses, selecting non-lenses", "tile", ("lens_matches", "negative_pool")),
    Step("sampling and splitting", None, ("positives", "negative_sample", "splits")),
    Step("cutting stamps from bricks", "tile", ("cutouts",)),
    Step("quality of the stamps, gate, hosts", None, ("cutout_quality", "detectability", "injection_hosts")),
    Step("training networks", "network", ("network",)),
    Step(
        "making and evaluating detectors",
        "detector",
        ("detector", "detector_scores", "evaluation", "detector_gates", "anchors"),
    ),
    Step("comparing detectors", None, ("detector_comparison",)),
    Step("fitting the priors to held-out lenses", None, ("prior_calibration",), _calibrates),
    Step("injecting arcs", "batch", ("injection_batch",)),
    Step("scoring injections", "surface", ("injection_scores",)),
    Step("judging realism", "surface", ("realism",)),
    Step("completeness and closure", "surface", ("completeness_surface", "closure")),
    Step("comparing surfaces, releasing", None, ("sensitivity", "release")),
)

ON_REQUEST = (Step("closure experiment", "surface", ("closure_experiment",)),)
"""Steps that a chain takes only when it is asked for one of their assets: minutes of work that no other step needs."""


@dataclass(frozen=True)
class Progress:
    """One finished run of the chain."""

    step: Step
    number: int
    of: int
    partition: str | None
    seconds: float


class ChainFailed(RuntimeError):
    """A run failed, or a blocking check did; the message says which and where to look."""


def partitions_of(axis: str | None, profile: Profile, instance: dg.DagsterInstance) -> list[str | None]:
    """The partition keys a chain makes along an axis."""
    runs = profile.runs
    if axis is None:
        return [None]
    if axis in ("tile", "channel"):
        keys = (TILE if axis == "tile" else CHANNEL).get_partition_keys(dynamic_partitions_store=instance)
        return [*sorted(keys)]
    if axis == "network":
        return [*networks_of(runs.detectors)]
    if axis == "detector":
        return list(runs.detectors)
    if axis == "batch":
        return [batch_key(v, t) for v in runs.variants for t in runs.theta_e]
    return [surface_key(d, v) for d in runs.detectors for v in runs.variants]


def end_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Report runs of this host whose process is gone as failed (Dagster leaves them STARTED), and give back the places
    in pools that ended runs still hold; returns the ids of the runs that were reported.

    A run killed inside a step of a pool never returns its place, and the next step of that pool would wait for ever.
    """
    active = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING]
    ended = []
    for run in instance.get_runs(filters=dg.RunsFilter(statuses=active)):
        pid = run.tags.get(PID_TAG)
        if pid and run.tags.get(HOST_TAG) == socket.gethostname() and not psutil.pid_exists(int(pid)):
            instance.report_run_failed(run, message="Its process is gone; the chain has been started again.")
            ended.append(run.run_id)
    log = instance.event_log_storage
    for pool in sorted(log.get_concurrency_keys()):
        info = log.get_concurrency_info(pool)
        for run_id in sorted(info.active_run_ids | info.assigned_run_ids | info.pending_run_ids):
            holder = instance.get_run_by_id(run_id)
            if holder is None or holder.is_finished:
                log.free_concurrency_slots_for_run(run_id)
    return ended


def run_chain(
    defs: dg.Definitions,
    workspace: Workspace,
    instance: dg.DagsterInstance,
    *,
    announce: Callable[[Step, int, int], None] = lambda step, number, of: None,
    hear: Callable[[str], None] = lambda line: None,
    only: tuple[str, ...] | None = None,
    variants: tuple[str, ...] | None = None,
) -> Iterator[Progress]:
    """Materialise everything, step by step; yields after every run. Raises :class:`ChainFailed` at the first failure.

    ``announce`` is called when a run starts, ``hear`` with each line that an asset logs meanwhile. ``only`` limits the
    chain to steps that make one of these assets, and is the one way to those of :data:`ON_REQUEST`. ``variants`` takes
    the place of the profile's.
    """
    end_dead_runs(instance)
    wait_until_settled(workspace.catalogue_folder)
    for axis in AXES:
        synchronise(axis, workspace, instance)
    profile = workspace.profile()
    if variants:
        profile = profile.model_copy(update={"runs": profile.runs.model_copy(update={"variants": variants})})
    job = _placed(defs, workspace, hear).resolve_implicit_global_asset_job_def()
    tags = {HOST_TAG: socket.gethostname(), PID_TAG: str(os.getpid())}
    for step in (*STEPS, *(ON_REQUEST if only else ())):
        if (only and not set(only) & set(step.assets)) or not step.wanted(profile):
            continue
        keys = partitions_of(step.axis, profile, instance)
        for number, key in enumerate(keys, 1):
            announce(step, number, len(keys))
            started = time.monotonic()
            result = job.execute_in_process(
                instance=instance,
                asset_selection=[dg.AssetKey(name) for name in step.assets],
                partition_key=key,
                tags=tags,
                run_config={"loggers": {"console": {"config": {"log_level": "WARNING"}}, "heard": {}}},
                raise_on_error=False,
            )
            if not result.success:
                raise ChainFailed(_explain(step, key, result))
            yield Progress(step, number, len(keys), key, time.monotonic() - started)


class _Heard(logging.Handler):
    """Hands on what assets log themselves; Dagster's own events (a step began, an output was handled) are left out."""

    def __init__(self, hear: Callable[[str], None]) -> None:
        super().__init__(logging.INFO)
        self._hear = hear

    def emit(self, record: logging.LogRecord) -> None:
        meta = getattr(record, "dagster_meta", {})
        if meta.get("dagster_event") is None and meta.get("orig_message"):
            self._hear(str(meta["orig_message"]))


def _placed(defs: dg.Definitions, workspace: Workspace, hear: Callable[[str], None]) -> dg.Definitions:
    """The definitions, writing where ``workspace`` says (theirs ask the environment, which may say otherwise), and
    heard."""

    @dg.logger
    def heard(_: dg.InitLoggerContext) -> logging.Logger:
        logger = logging.Logger("lens_assets.chain", logging.INFO)  # of this chain alone: not of the process's tree
        logger.addHandler(_Heard(hear))
        return logger

    return dg.Definitions(
        assets=defs.assets,
        asset_checks=defs.asset_checks,
        resources={
            **(defs.resources or {}),
            "workspace": workspace,
            "artefacts": ArtefactIOManager(workspace=workspace),
        },
        executor=defs.executor,
        loggers={"console": dg.colored_console_logger, "heard": heard},
    )


def _explain(step: Step, key: str | None, result: dg.ExecuteInProcessResult) -> str:
    lines = [f"{step.title}{f' [{key}]' if key else ''} failed (run {result.run_id})"]
    for check in result.get_asset_check_evaluations():
        if not check.passed:
            lines.append(f"  check {check.check_name} on {check.asset_key.to_user_string()}: {check.description}")
    for event in result.all_events:
        if event.is_step_failure and event.step_failure_data.error:
            error = event.step_failure_data.error
            while error.cause is not None and (error.cls_name or "").startswith("Dagster"):
                error = error.cause  # to what the asset raised, not to what that was raised from
            lines.append(f"  {event.step_key}: {error.message.strip()}")
    return "\n".join(lines)
