"""EMR Serverless: one application, found by name and configuration; parameters are built anew for every job."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from lens_assets.resources.emr.job import Handle, Phase, State
from lens_assets.resources.emr.settings import EmrSettings
from lens_assets.science.hashing import digest

MADE_OF_TAG = "lens-assets:made-of"
USABLE = ("STARTED", "STARTING", "CREATED", "CREATING", "STOPPED", "STOPPING")
_PHASES: dict[str, Phase] = {
    "SUCCESS": "succeeded",
    "SUCCEEDED": "succeeded",
    "FAILED": "failed",
    "CANCELLED": "cancelled",
    "CANCELLING": "running",
    "RUNNING": "running",
}


class EmrServerlessJobs:
    """Jobs of a Serverless application. ``emr`` is a boto3 client of ``emr-serverless``."""

    kind = "EMR Serverless job"

    def __init__(self, settings: EmrSettings, emr: Any) -> None:
        if settings.serverless is None:
            raise ValueError("the settings have no serverless application")
        self.settings, self.serverless, self.emr = settings, settings.serverless, emr

    def made_of(self) -> str:
        """Digest of what an application is made of."""
        return digest(self.settings.region, self.serverless.model_dump(mode="json"))[:16]

    def find(self) -> str | None:
        """Id of an application of this name made of these settings (a stopped one starts by itself)."""
        for page in self.emr.get_paginator("list_applications").paginate(states=list(USABLE)):
            for item in page["applications"]:
                if item["name"] != self.serverless.name:
                    continue
                about = self.emr.get_application(applicationId=item["id"])["application"]
                if about.get("tags", {}).get(MADE_OF_TAG) == self.made_of():
                    return str(item["id"])
        return None

    def create(self) -> str:
        """Make an application with its ceiling and its idle time; its id. It costs nothing while no job runs."""
        s = self.serverless
        network = {"subnetIds": list(s.subnets), "securityGroupIds": list(s.security_groups)} if s.subnets else None
        answer = self.emr.create_application(
            name=s.name,
            releaseLabel=s.release_label,
            type="SPARK",
            architecture="ARM64" if self.settings.architecture == "arm64" else "X86_64",
            maximumCapacity={"cpu": f"{s.max_vcpu} vCPU", "memory": f"{s.max_memory_gb} GB"},
            autoStartConfiguration={"enabled": True},
            autoStopConfiguration={"enabled": True, "idleTimeoutMinutes": s.idle_minutes},
            tags={**s.tags, MADE_OF_TAG: self.made_of()},
            **({"networkConfiguration": network} if network else {}),
        )
        return str(answer["applicationId"])

    def parameters(self, application: str, name: str, arguments: Sequence[str], tags: dict[str, str]) -> dict[str, Any]:
        """What ``start_job_run`` is called with: a new dictionary each time."""
        settings, s, python = self.settings, self.serverless, "./environment/bin/python"
        conf = {
            "spark.archives": f"{settings.archive}#environment",
            "spark.emr-serverless.driverEnv.PYSPARK_DRIVER_PYTHON": python,
            "spark.emr-serverless.driverEnv.PYSPARK_PYTHON": python,
            "spark.executorEnv.PYSPARK_PYTHON": python,
            "spark.emr-serverless.driverEnv.AWS_DEFAULT_REGION": settings.region,
            "spark.executorEnv.AWS_DEFAULT_REGION": settings.region,
            "spark.driver.cores": str(s.cores),
            "spark.driver.memory": f"{s.memory_gb}g",
            "spark.executor.cores": str(s.cores),
            "spark.executor.memory": f"{s.memory_gb}g",
            **settings.spark_conf,
        }
        return {
            "applicationId": application,
            "executionRoleArn": s.execution_role,
            "name": name[:256],
            "executionTimeoutMinutes": max(5, int(60 * settings.max_hours)),
            "jobDriver": {
                "sparkSubmit": {
                    "entryPoint": settings.entry,
                    "entryPointArguments": list(arguments),
                    "sparkSubmitParameters": " ".join(f"--conf {shlex.quote(f'{k}={v}')}" for k, v in conf.items()),
                }
            },
            "configurationOverrides": {
                "monitoringConfiguration": {"s3MonitoringConfiguration": {"logUri": settings.log_uri}}
            },
            "tags": dict(tags),
        }

    def submit(self, name: str, arguments: Sequence[str], tags: dict[str, str]) -> Handle:
        """Start a job on the application, made when there is none."""
        found = self.find()
        application = found or self.create()
        job = str(self.emr.start_job_run(**self.parameters(application, name, arguments, tags))["jobRunId"])
        about = {"EMR Serverless application": application, "EMR Serverless job": job}
        return Handle(application, job, {**about, "EMR Serverless application reused": found is not None})

    def state(self, handle: Handle) -> State:
        """State of the job; whatever is not known to be over is still to come."""
        run = self.emr.get_job_run(applicationId=handle.owner, jobRunId=handle.job)["jobRun"]
        why = run.get("stateDetails")
        return State(_PHASES.get(run["state"], "waiting"), f"{run['state']} ({why})" if why else str(run["state"]))

    def cancel(self, handle: Handle) -> None:
        """End the job."""
        self.emr.cancel_job_run(applicationId=handle.owner, jobRunId=handle.job)

    def log_prefixes(self, handle: Handle) -> list[str]:
        """The driver's logs."""
        return [f"applications/{handle.owner}/jobs/{handle.job}/SPARK_DRIVER/"]
