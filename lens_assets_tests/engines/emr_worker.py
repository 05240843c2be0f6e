"""A stand-in for EMR: moto keeps the books, and this worker really runs what is submitted.

moto alone never runs a step (EMR: for ever RUNNING; Serverless: SUCCESS at once). The worker lives in the server's process,
takes submitted steps and jobs, runs ``spark-submit --master local[2]`` with the submitted arguments, stores stdout and
stderr where the LogUri says, and sets states from the exit status. A driver whose name begins with ``plain`` is run by
Python without Spark. If the worker itself fails, the cluster ends.
"""

import gzip
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
from moto.core.responses import ActionResult
from moto.emr.models import emr_backends
from moto.emr.responses import ElasticMapReduceResponse
from moto.emrserverless import models as serverless_models

ACCOUNT, REGION, BUCKET = "123456789012", "us-west-2", "engines-tests"
VALUED = ("--deploy-mode", "--name", "--archives", "--conf", "--master")


def environment(url: str) -> dict[str, str]:
    """What a process needs to speak to the server and to nothing else."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ENDPOINT_URL_S3": url,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    }


class Worker(threading.Thread):
    """Runs steps and jobs. ``lose_session`` drops the arguments that carry the Pipes session, as a lost environment does."""

    def __init__(self, url: str, scratch: Path) -> None:
        super().__init__(daemon=True, name="emr-worker")
        self.url, self.scratch, self.lose_session = url, scratch, False
        self.seen: set[str] = set()
        self.commands: list[list[str]] = []
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.finished: dict[str, int] = {}
        self.cancelled: set[str] = set()
        self.stopping = threading.Event()
        self.trouble: list[str] = []
        # once, in the thread that makes the worker: another may not go through `os.environ` while pytest notes its test there
        self.environment = {**os.environ, **environment(url)}
        self.store = boto3.client(
            "s3", endpoint_url=url, region_name=REGION, aws_access_key_id="t", aws_secret_access_key="t"
        )

    # --- the books ----------------------------------------------------------------------------------------------

    @property
    def clusters(self) -> dict[str, Any]:
        # moto reads the region of EMR from the host name; of a local server it takes its own default
        return {key: c for backend in list(emr_backends[ACCOUNT].values()) for key, c in list(backend.clusters.items())}

    @property
    def jobs(self) -> list[Any]:
        runs = serverless_models.emrserverless_backends[ACCOUNT][REGION].job_runs
        return [job for group in list(runs.values()) for job in list(group)]

    def run(self) -> None:
        while not self.stopping.wait(0.1):
            for cluster in list(self.clusters.values()):
                for step in list(cluster.steps):
                    if step.id not in self.seen and step.state in ("PENDING", "RUNNING"):
                        self.seen.add(step.id)
                        threading.Thread(target=self._step, args=(cluster, step), daemon=True).start()
            for job in self.jobs:
                if job.id not in self.seen and job.state == "SUBMITTED":
                    self.seen.add(job.id)
                    threading.Thread(target=self._job, args=(job,), daemon=True).start()
                elif job.state == "CANCELLED" and job.id in self.running:
                    self.cancel(job.id)

    def stop(self) -> None:
        self.stopping.set()
        for job in list(self.running):
            self.cancel(job)
        self.join(5)

    def forget(self) -> None:
        """Empty the books of EMR, and of nothing else."""
        for backend in list(emr_backends[ACCOUNT].values()):
            backend.clusters.clear()
        for backend in list(serverless_models.emrserverless_backends[ACCOUNT].values()):
            backend.applications.clear()
            backend.job_runs.clear()

    def cancel(self, job: str) -> None:
        """End the process of a step or job, as TERMINATE_PROCESS does."""
        self.cancelled.add(job)
        process = self.running.get(job)
        if process:
            os.killpg(process.pid, signal.SIGKILL)

    # --- running ------------------------------------------------------------------------------------------------

    def _step(self, cluster: Any, step: Any) -> None:
        try:
            step.state, cluster.state = "RUNNING", "RUNNING"
            args = list(step.args)
            assert args[0] == "spark-submit", args
            flags, rest = _split(args[1:])
            code = self._execute(step.id, flags, rest, f"{cluster.log_uri}{cluster.id}/steps/{step.id}")
            if cluster.state == "TERMINATED":
                step.state = "CANCELLED"
                return
            step.state = "CANCELLED" if step.id in self.cancelled else "FAILED" if code else "COMPLETED"
            ends = code and step.action_on_failure in ("TERMINATE_CLUSTER", "TERMINATE_JOB_FLOW")
            cluster.terminate() if ends else setattr(cluster, "state", "WAITING")
        except Exception:
            self.trouble.append(traceback.format_exc())
            cluster.terminate()

    def _job(self, job: Any) -> None:
        try:
            job.state = "RUNNING"
            driver = job.job_driver["sparkSubmit"]
            words = shlex.split(driver.get("sparkSubmitParameters", ""))
            log = job.configuration_overrides["monitoringConfiguration"]["s3MonitoringConfiguration"]["logUri"]
            to = f"{log}applications/{job.application_id}/jobs/{job.id}/SPARK_DRIVER"
            code = self._execute(job.id, words, [driver["entryPoint"], *driver["entryPointArguments"]], to)
            if job.state != "CANCELLED":
                job.state_details = f"exit status {code}" if code else ""
                job.state = "FAILED" if code else "SUCCESS"
        except Exception:
            self.trouble.append(traceback.format_exc())
            job.state = "FAILED"

    def _execute(self, job: str, flags: list[str], rest: list[str], log_uri: str) -> int:
        self.commands.append([*flags, *rest])
        entry, arguments = rest[0], rest[1:]
        if self.lose_session:
            arguments = [
                a
                for i, a in enumerate(arguments)
                if "--dagster-pipes" not in " ".join(arguments[max(i - 1, 0) : i + 1])
            ]
        folder = self.scratch / job
        folder.mkdir()
        script = folder / Path(entry).name
        bucket, key = _parts(entry)
        script.write_bytes(self.store.get_object(Bucket=bucket, Key=key)["Body"].read())
        if script.name.startswith("plain"):
            command = [sys.executable, str(script), *arguments]
        else:
            import pyspark

            submit = Path(pyspark.__file__).parent / "bin" / "spark-submit"
            command = [str(submit), "--master", "local[2]", *_kept(flags), str(script), *arguments]
        env = {**self.environment, "PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}
        with open(folder / "stdout", "wb") as out, open(folder / "stderr", "wb") as err:
            process = subprocess.Popen(command, stdout=out, stderr=err, env=env, start_new_session=True, cwd=folder)
            self.running[job] = process
            code = process.wait()
        self.running.pop(job)
        for name in ("stdout", "stderr"):
            bucket, key = _parts(f"{log_uri}/{name}.gz")
            self.store.put_object(Bucket=bucket, Key=key, Body=gzip.compress((folder / name).read_bytes()))
        self.finished[job] = code
        return code


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    """Flags of spark-submit, and from the entry on."""
    i = 0
    while words[i] in VALUED:
        i += 2
    return words[:i], words[i:]


def _kept(flags: list[str]) -> list[str]:
    """The flags that mean something on one machine: no cluster mode, no archive, this interpreter."""
    kept = []
    for flag, value in zip(flags[::2], flags[1::2], strict=True):
        cluster_only = (
            "PYSPARK" in value
            or "AWS" in value
            or value.startswith(("spark.yarn", "spark.archives", "spark.driver", "spark.executor."))
        )
        if flag == "--conf" and not cluster_only:
            kept += [flag, value]
    return [*kept, "--conf", "spark.ui.enabled=false", "--conf", "spark.driver.host=127.0.0.1"]


def _parts(uri: str) -> tuple[str, str]:
    parts = urlsplit(uri)
    return parts.netloc, parts.path.lstrip("/")


def teach_moto(worker: Worker) -> None:
    """What moto lacks: cancelling a step, and jobs that have not succeeded before they began."""

    def cancel_steps(self: Any) -> ActionResult:
        found = []
        for step in self._get_param("StepIds"):
            worker.cancel(step)
            found.append({"StepId": step, "Status": "SUBMITTED"})
        return ActionResult({"CancelStepsInfoList": found})

    ElasticMapReduceResponse.cancel_steps = cancel_steps
    serverless_models.JOB_STATUS = "SUBMITTED"


def wait_for(what: Any, seconds: float = 30) -> Any:
    """Wait until ``what()`` is true; its value."""
    until = time.monotonic() + seconds
    while not (value := what()):
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)
    return value
