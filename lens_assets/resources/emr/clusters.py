"""EMR on EC2: one cluster, found by name and configuration, reused while it lives, replaced when it does not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lens_assets.resources.emr.job import Handle, Phase, State
from lens_assets.resources.emr.settings import EmrSettings, Nodes
from lens_assets.science.hashing import digest

MADE_OF_TAG = "lens-assets:made-of"
"""Tag of a cluster: digest of the settings it was made of. One made of others is left alone and a new one started."""
ALIVE = ("STARTING", "BOOTSTRAPPING", "RUNNING", "WAITING")
_PHASES: dict[str, Phase] = {
    "PENDING": "waiting",
    "CANCEL_PENDING": "running",
    "RUNNING": "running",
    "COMPLETED": "succeeded",
    "FAILED": "failed",
    "INTERRUPTED": "failed",
    "CANCELLED": "cancelled",
}


class EmrSteps:
    """Steps on a cluster. ``emr`` is a boto3 client."""

    kind = "EMR step"

    def __init__(self, settings: EmrSettings, emr: Any) -> None:
        if settings.cluster is None:
            raise ValueError("the settings have no cluster")
        self.settings, self.cluster, self.emr = settings, settings.cluster, emr

    def find(self) -> str | None:
        """Id of a live cluster of this name made of these settings; the one that is ready soonest."""
        made_of, best = self.made_of(), []
        for page in self.emr.get_paginator("list_clusters").paginate(ClusterStates=list(ALIVE)):
            for item in page["Clusters"]:
                if item["Name"] != self.cluster.name:
                    continue
                about = self.emr.describe_cluster(ClusterId=item["Id"])["Cluster"]
                tags = {t["Key"]: t["Value"] for t in about.get("Tags", [])}
                state = about["Status"]["State"]
                if tags.get(MADE_OF_TAG) == made_of and state in ALIVE:
                    best.append((-ALIVE.index(state), str(item["Id"])))
        return min(best)[1] if best else None

    def made_of(self) -> str:
        """Digest of what a cluster is made of (not of the archive: that travels with each step)."""
        return digest(self.settings.region, self.settings.log_uri, self.cluster.model_dump(mode="json"))[:16]

    def start(self) -> str:
        """Start a cluster; its id. It ends itself after ``idle_minutes`` without a step."""
        c = self.cluster
        groups = [_group("MASTER", c.primary), _group("CORE", c.core), *([_group("TASK", c.task)] if c.task else [])]
        tags = {**c.tags, MADE_OF_TAG: self.made_of()}
        answer = self.emr.run_job_flow(
            Name=c.name,
            ReleaseLabel=c.release_label,
            LogUri=self.settings.log_uri,
            Applications=[{"Name": "Spark"}],
            Instances={
                "InstanceGroups": groups,
                "Ec2SubnetId": c.subnet,
                "KeepJobFlowAliveWhenNoSteps": True,
                "TerminationProtected": False,
            },
            AutoTerminationPolicy={"IdleTimeout": 60 * c.idle_minutes},
            StepConcurrencyLevel=c.step_concurrency,
            ServiceRole=c.service_role,
            JobFlowRole=c.instance_profile,
            VisibleToAllUsers=True,
            Tags=[{"Key": key, "Value": value} for key, value in sorted(tags.items())],
            **({"Configurations": [dict(entry) for entry in c.configurations]} if c.configurations else {}),
        )
        return str(answer["JobFlowId"])

    def submit(self, name: str, arguments: Sequence[str], tags: dict[str, str]) -> Handle:
        """Add a step to the live cluster, or to a new one when there is none or it ends under our hands."""
        from botocore.exceptions import ClientError  # type: ignore[import-untyped]

        step = {
            "Name": name[:256],
            # The cluster stays for the next step; that a step failed is read from the step, never from the cluster.
            "ActionOnFailure": "CONTINUE",
            "HadoopJarStep": {"Jar": "command-runner.jar", "Args": self.command(name, arguments)},
        }
        cluster, reused = self.find(), True
        for attempt in (1, 2):
            if cluster is None:
                cluster, reused = self.start(), False
            try:
                answer = self.emr.add_job_flow_steps(JobFlowId=cluster, Steps=[step])
                break
            except ClientError:
                if attempt == 2 or not reused:
                    raise
                cluster = None  # it was terminated between the look and the step
        console = f"https://{self.settings.region}.console.aws.amazon.com/emr/home?region={self.settings.region}"
        return Handle(
            str(cluster),
            str(answer["StepIds"][0]),
            {
                "EMR cluster": cluster,
                "EMR step": answer["StepIds"][0],
                "EMR cluster reused": reused,
                "EMR console": f"{console}#/clusterDetails/{cluster}",
            },
        )

    def command(self, name: str, arguments: Sequence[str]) -> list[str]:
        """The step's arguments. All that the driver needs is in them: no classification or environment can lose it."""
        s, python = self.settings, "./environment/bin/python"
        conf = {
            "spark.yarn.appMasterEnv.PYSPARK_PYTHON": python,
            "spark.executorEnv.PYSPARK_PYTHON": python,
            # boto3 does not ask a machine for its region
            "spark.yarn.appMasterEnv.AWS_DEFAULT_REGION": s.region,
            "spark.executorEnv.AWS_DEFAULT_REGION": s.region,
            # the driver's Python shares its container: the default leaves it 384 MB
            "spark.driver.memoryOverhead": "2g",
            # a second attempt of the driver would write its messages over those of the first
            "spark.yarn.maxAppAttempts": "1",
            **s.spark_conf,
        }
        flags = [word for key, value in conf.items() for word in ("--conf", f"{key}={value}")]
        archives = ["--archives", f"{s.archive}#environment"]
        return ["spark-submit", "--deploy-mode", "cluster", "--name", name, *archives, *flags, s.entry, *arguments]

    def state(self, handle: Handle) -> State:
        """State of the step; of the cluster when that ended first."""
        status = self.emr.describe_step(ClusterId=handle.owner, StepId=handle.job)["Step"]["Status"]
        phase, words = _PHASES.get(status["State"], "running"), str(status["State"])
        why = (status.get("FailureDetails") or {}).get("Message") or (status.get("StateChangeReason") or {}).get(
            "Message"
        )
        if phase not in ("succeeded", "failed", "cancelled"):
            about = self.emr.describe_cluster(ClusterId=handle.owner)["Cluster"]["Status"]
            words += f", cluster {about['State']}"
            if about["State"] in ("TERMINATED", "TERMINATED_WITH_ERRORS"):
                phase = "failed"
                why = (about.get("StateChangeReason") or {}).get("Message") or "the cluster ended under the step"
        return State(phase, f"{words} ({why})" if why else words)

    def cancel(self, handle: Handle) -> None:
        """End the step's process; the cluster stays, and goes when idle."""
        self.emr.cancel_steps(ClusterId=handle.owner, StepIds=[handle.job], StepCancellationOption="TERMINATE_PROCESS")

    def log_prefixes(self, handle: Handle) -> list[str]:
        """Step logs first; the driver's own are the container logs (it runs on the cluster, not in the step)."""
        return [f"{handle.owner}/steps/{handle.job}/", f"{handle.owner}/containers/"]


def _group(role: str, nodes: Nodes) -> dict[str, Any]:
    group: dict[str, Any] = {
        "Name": role.lower(),
        "InstanceRole": role,
        "InstanceType": nodes.instance_type,
        "InstanceCount": nodes.count,
        "Market": "SPOT" if nodes.spot else "ON_DEMAND",
        "EbsConfiguration": {
            "EbsBlockDeviceConfigs": [
                {"VolumeSpecification": {"VolumeType": "gp3", "SizeInGB": nodes.disk_gb}, "VolumesPerInstance": 1}
            ]
        },
    }
    if nodes.spot_max_usd is not None:
        group["BidPrice"] = f"{nodes.spot_max_usd:g}"
    return group
