"""The driver of a job on EMR: make the tiles that the orchestrator names, report one message a tile.

    spark-submit [--archives ...] spark_main.py --dagster-pipes-context ... --dagster-pipes-messages ...

Who called, what to make and where is in the Pipes context (an object on S3, found by the arguments). A call without one is an
error, never a run that makes nothing and succeeds. Code other than the orchestrator's is refused before any work. The
driver ends when an object ``cancel`` appears, or when its time is up, even if nobody is left to end it.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from typing import Any

WATCH_SECONDS = 10.0
GONE = 70
"""Exit status of a driver that was told to stop."""


def main() -> None:
    """Entry point of the file."""
    import boto3  # type: ignore[import-untyped]
    from dagster_pipes import PipesCliArgsParamsLoader, PipesS3ContextLoader, PipesS3MessageWriter, open_dagster_pipes

    params = PipesCliArgsParamsLoader()  # type: ignore[no-untyped-call]
    if not params.is_dagster_pipes_process():
        raise SystemExit("spark_main: called without a Dagster Pipes session: there is nothing to make")
    s3 = boto3.client("s3")
    with open_dagster_pipes(
        params_loader=params,
        context_loader=PipesS3ContextLoader(client=s3),
        message_writer=PipesS3MessageWriter(client=s3, interval=5),
    ) as pipes:
        job, token = dict(pipes.extras), str(pipes.get_extra("token"))

        def tell(kind: str, **more: Any) -> None:
            pipes.report_custom_message({"kind": kind, "token": token, **more})

        try:
            watch(s3, tuple(job["cancel"]), 3600 * float(job["max_hours"]))
            done = make(job, lambda text: tell("tile", report=text))
            tell("finished", tiles=done)
        except BaseException as fault:
            tell("failed", text=f"{type(fault).__name__}: {fault}", trace=traceback.format_exc(limit=-8))
            raise


def make(job: dict[str, Any], tell: Callable[[str], None]) -> int:
    """Make the tiles of ``job`` (asset, tiles, place, force, code, spark); every report as JSON to ``tell``. How many."""
    from lens_assets.science.engines.code import package_digest
    from lens_assets.science.engines.place import Place
    from lens_assets.science.engines.report import TileReport, complete
    from lens_assets.science.engines.spark import SparkSettings, in_spark

    if (ours := package_digest()) != job["code"]:
        raise RuntimeError(
            f"the archive holds other code than the orchestrator ({ours}, not {job['code']}): "
            "run deploy/pack-venv.sh and name the new archive in the settings"
        )
    place, settings = Place.model_validate(job["place"]), SparkSettings.model_validate(job["spark"])
    reports: Iterable[TileReport] = in_spark(job["asset"], job["tiles"], place, settings, force=bool(job["force"]))
    done = complete(job["asset"], job["tiles"], reports)
    for report in done:
        tell(report.to_json())
    return len(done)


def watch(s3: Any, cancel: tuple[str, str], seconds: float, *, every: float = WATCH_SECONDS) -> threading.Thread:
    """End this process when the object ``cancel`` (bucket, key) appears or ``seconds`` are over."""
    until = time.monotonic() + seconds

    def look() -> None:
        while True:
            time.sleep(every)
            if time.monotonic() > until:
                _leave("its time is up")
            try:
                s3.head_object(Bucket=cancel[0], Key=cancel[1])
            except Exception:
                continue
            _leave("it was cancelled")

    thread = threading.Thread(target=look, daemon=True, name="watch")
    thread.start()
    return thread


def _leave(why: str) -> None:
    sys.stderr.write(f"spark_main: ending, {why}\n")
    sys.stderr.flush()
    os._exit(GONE)


if __name__ == "__main__":
    main()
