"""The Pipes session around a job on EMR, and what counts as success.

Success is what the driver *said*, not what the service says: every tile that was asked for came back by message, signed
with the token of this very call, and the driver closed its session without an exception. A step that ends as COMPLETED and
says nothing has lost its environment, and is a failure. So is a driver that raised under ``ActionOnFailure=CONTINUE``.

The driver finds its session by command line arguments: environment variables and Spark classifications of a cluster
cannot take them away. Messages carry the driver's output too (logs of the service are read only after a failure), so that no
line is logged twice.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from lens_assets.resources.emr.job import Handle, State, Target, TookTooLong, read_logs, wait
from lens_assets.resources.emr.settings import EmrSettings

CANCEL_KEY = "cancel"
"""Object next to the messages whose appearance makes the driver stop: ending a step does not end what it started on YARN."""


class RemoteFailure(RuntimeError):
    """A job on EMR did not do what it was asked, with the reason and the end of its logs."""


@dataclass(frozen=True)
class Remote:
    """A finished job: the messages of its driver, and metadata for the UI."""

    messages: list[dict[str, Any]]
    metadata: dict[str, Any]


class EmrPipes(dg.PipesClient):
    """Runs the driver on ``target`` and returns what it reported.

    Parameters
    ----------
    s3 : boto3 client for messages, contexts and logs.
    clock, sleep : of the loop that waits.
    """

    def __init__(
        self,
        settings: EmrSettings,
        target: Target,
        s3: Any,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.settings, self.target, self.s3, self.clock, self.sleep = settings, target, s3, clock, sleep

    def run(  # type: ignore[override]
        self, *, context: dg.AssetExecutionContext | dg.OpExecutionContext, name: str, extras: Mapping[str, Any]
    ) -> Remote:
        """Submit, wait, listen; :class:`RemoteFailure` unless the driver reported success.

        When this process is interrupted, or the time is up, the job is cancelled before the exception goes on.
        """
        settings, token = self.settings, uuid.uuid4().hex
        base = f"{settings.prefix}/pipes/{context.run.run_id}/{token}"
        told = {
            **extras,
            "token": token,
            "cancel": [settings.bucket, f"{base}/{CANCEL_KEY}"],
            "region": settings.region,
        }
        submitted = datetime.now(UTC) - timedelta(minutes=1)
        reader, injector = self._reader(base), self._injector(base)
        with dg.open_pipes_session(
            # the inner context: Dagster's Pipes calls what Dagster has deprecated on the outer one
            context=context.op_execution_context if isinstance(context, dg.AssetExecutionContext) else context,
            message_reader=reader,
            context_injector=injector,
            extras={**told, "max_hours": settings.max_hours},
        ) as session:
            arguments = [word for pair in session.get_bootstrap_cli_arguments().items() for word in pair]
            handle = self.target.submit(name, arguments, dict(session.default_remote_invocation_info))
            context.log.info(f"{self.target.kind} {handle.job} submitted to {handle.owner}")
            try:
                state = wait(
                    self.target,
                    handle,
                    max_hours=settings.max_hours,
                    poll_seconds=settings.poll_seconds,
                    say=context.log.info,
                    clock=self.clock,
                    sleep=self.sleep,
                )
            except BaseException as fault:
                self._cancel(context, handle, base)
                if isinstance(fault, TookTooLong):
                    raise RemoteFailure(f"{fault}; it has been cancelled") from fault
                raise
        heard = session.message_handler
        messages = [m for m in session.get_custom_messages() if isinstance(m, dict) and m.get("token") == token]
        if problem := _problem(
            state, messages, opened=heard.received_opened_message, closed=heard.received_closed_message
        ):
            logs = self._logs(handle, submitted)
            raise RemoteFailure(
                f"{self.target.kind} {handle.owner} {handle.job}: {problem}\n{logs or 'It left no logs under ' + settings.log_uri}"
            )
        return Remote(messages, {**handle.metadata, "EMR logs": settings.log_uri})

    def _cancel(self, context: dg.AssetExecutionContext | dg.OpExecutionContext, handle: Handle, base: str) -> None:
        context.log.warning(f"cancelling {self.target.kind} {handle.job} on {handle.owner}")
        try:
            self.s3.put_object(
                Bucket=self.settings.bucket, Key=f"{base}/{CANCEL_KEY}", Body=b"cancelled by the orchestrator"
            )
        finally:
            self.target.cancel(handle)

    def _logs(self, handle: Handle, since: datetime) -> str:
        prefixes = [f"{self.settings.prefix}/logs/{p}" for p in self.target.log_prefixes(handle)]
        until = self.clock() + self.settings.log_wait_seconds
        while True:
            found = read_logs(self.s3, self.settings.bucket, prefixes, since=since)
            if found or self.clock() >= until:
                return found
            self.sleep(min(5.0, self.settings.poll_seconds))

    def _reader(self, base: str) -> Any:
        from dagster_aws.pipes import PipesS3MessageReader

        class Reader(PipesS3MessageReader):
            """Messages below our prefix rather than at the root of the bucket, from one writer (Dagster's own way to say
            so is a preview, and warns)."""

            expected_writer_count = 1

            @contextmanager
            def get_params(self) -> Iterator[Any]:
                with super().get_params() as params:
                    yield {**params, "key_prefix": f"{base}/messages"}

        return Reader(
            bucket=self.settings.bucket,
            client=self.s3,
            interval=min(10, max(1, int(self.settings.poll_seconds))),
            include_stdio_in_messages=True,
        )

    def _injector(self, base: str) -> Any:
        from dagster_aws.pipes import PipesS3ContextInjector

        return PipesS3ContextInjector(bucket=self.settings.bucket, client=self.s3, key_prefix=f"{base}/")


def _problem(state: State, messages: Sequence[Mapping[str, Any]], *, opened: bool, closed: bool) -> str | None:
    """Why a job that is over is no success; ``None`` when it is one."""
    said = [str(m.get("text", "")) for m in messages if m.get("kind") == "failed"]
    if said:
        return f"the driver failed: {said[0]}"
    if state.phase != "succeeded":
        return f"it ended as {state.detail}"
    if not opened:
        return (
            f"it ended as {state.detail}, but nothing came back: its Dagster Pipes session was lost, "
            "so nothing is known to be made"
        )
    if not any(m.get("kind") == "finished" for m in messages) or not closed:
        return f"it ended as {state.detail}, but the driver did not say that it finished: messages are missing"
    return None
