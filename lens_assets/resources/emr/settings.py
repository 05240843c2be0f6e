"""What a run on EMR uses and may cost: one YAML file, every value explicit, wrong ones refused before anything is started.

No credentials: they come from the role of the machine or boto3's own chain. A key or value that looks like one is refused,
so that nobody gets used to writing secrets here. ``deploy/emr.yaml`` is a commented example.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from lens_assets.science.errors import BadInput

_SECRET_NAME = re.compile(r"secret|passw|credential|session.?token|access.?key", re.I)
_SECRET_VALUE = re.compile(r"\b(AKIA|ASIA)[0-9A-Z]{16}\b")
_OURS = ("spark.archives", "spark.yarn.dist.archives", "spark.yarn.maxAppAttempts", "spark.submit.deployMode")
_ARM = re.compile(r"^[a-z]+\d+[a-z]*g[a-z]*(-[a-z]+)?\.")


def _matching(pattern: str, what: str) -> Any:
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if not compiled.fullmatch(value):
            raise ValueError(f"{value!r} is not {what}")
        return value

    return AfterValidator(check)


Region = Annotated[str, _matching(r"[a-z]{2}(-[a-z]+)+-\d", "an AWS region such as us-west-2")]
Bucket = Annotated[str, _matching(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", "the name of a bucket (no s3://, no folder)")]
Prefix = Annotated[str, _matching(r"[A-Za-z0-9][A-Za-z0-9._/-]*[A-Za-z0-9]", "a prefix (no slash at either end)")]
Archive = Annotated[str, _matching(r"s3://[^/]+/.+\.(tar\.gz|tgz)", "an archive on S3 (deploy/pack-venv.sh makes one)")]
Entry = Annotated[str, _matching(r"s3://[^/]+/.+\.py", "a Python file on S3 (deploy/pack-venv.sh uploads it)")]
Release = Annotated[str, _matching(r"emr-(spark-)?\d+\.\d+\.\d+(-latest)?", "a release label such as emr-spark-8.0.0")]
InstanceType = Annotated[
    str, _matching(r"[a-z]+\d+[a-z]*(-[a-z]+)?\.(\d+)?[a-z]+", "an instance type such as m7i.2xlarge")
]
Role = Annotated[str, _matching(r"arn:aws[a-z-]*:iam::\d{12}:role/.+", "the ARN of a role")]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Nodes(_Strict):
    """Machines of one kind. ``spot``: spare capacity, at most at the on-demand price, or ``spot_max_usd`` a machine hour."""

    instance_type: InstanceType
    count: int = Field(ge=1, le=1000)
    spot: bool = False
    spot_max_usd: float | None = Field(None, gt=0, le=100)
    disk_gb: int = Field(64, ge=32, le=16384)

    @model_validator(mode="after")
    def _bid_needs_spot(self) -> Self:
        if self.spot_max_usd is not None and not self.spot:
            raise ValueError("spot_max_usd is for spot machines: set spot: true, or leave it out")
        return self


class Cluster(_Strict):
    """A cluster on EC2, found again by name and configuration and reused until it has been idle for ``idle_minutes``."""

    release_label: Release = "emr-spark-8.0.0"
    name: str = Field("lens-assets", min_length=1, max_length=200)
    primary: Nodes
    core: Nodes
    task: Nodes | None = None
    service_role: str = Field(min_length=1)
    instance_profile: str = Field(min_length=1)
    subnet: Annotated[str, _matching(r"subnet-[0-9a-f]+", "a subnet")]
    idle_minutes: int = Field(ge=1, le=10080)
    step_concurrency: int = Field(1, ge=1, le=256)
    configurations: tuple[dict[str, Any], ...] = ()
    """EMR classifications of your own (``spark-defaults``, ``spark-env``...). Ours travel as arguments and are not touched."""
    tags: dict[str, str] = {}

    @model_validator(mode="after")
    def _affordable_and_alive(self) -> Self:
        if self.primary.spot:
            raise ValueError("primary: a spot primary node takes the cluster and all steps with it; use on-demand")
        if self.primary.count != 1:
            raise ValueError("primary: one node (three would keep the cluster alive and protected from termination)")
        if self.core.spot and self.task is None:
            raise ValueError("core: spot core nodes lose HDFS when they are taken; put spot machines under task")
        return self


class Serverless(_Strict):
    """An EMR Serverless application, found again by name and stopped after ``idle_minutes``; capped by ``max_vcpu``."""

    release_label: Release = "emr-7.13.0"
    name: str = Field("lens-assets", min_length=1, max_length=64)
    execution_role: Role
    idle_minutes: int = Field(ge=1, le=10080)
    max_vcpu: int = Field(ge=4, le=4000)
    max_memory_gb: int = Field(ge=8, le=30000)
    cores: Literal[1, 2, 4, 8, 16] = 4
    """Cores of the driver and of each executor."""
    memory_gb: int = Field(14, ge=2, le=108)
    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()
    tags: dict[str, str] = {}

    @model_validator(mode="after")
    def _room_for_one(self) -> Self:
        if self.max_vcpu < 2 * self.cores:
            raise ValueError(f"max_vcpu {self.max_vcpu} has no room for a driver and an executor of {self.cores} cores")
        return self


class EmrSettings(_Strict):
    """Everything a run on EMR depends on besides the data (frozen).

    ``bucket`` and ``prefix`` hold messages, contexts and logs; ``archive`` and ``entry`` are what ``deploy/pack-venv.sh``
    uploaded; ``max_hours`` ends a run whatever it does; ``cache`` is a folder of the executors' own disk; ``partitions`` and
    ``spark_conf`` go to Spark.
    """

    region: Region
    bucket: Bucket
    prefix: Prefix = "lens-assets/emr"
    archive: Archive
    entry: Entry
    architecture: Literal["x86_64", "arm64"] = "x86_64"
    max_hours: float = Field(gt=0, le=168)
    poll_seconds: float = Field(15.0, ge=0.1, le=300)
    log_wait_seconds: float = Field(60.0, ge=0, le=600)
    """How long to wait for the logs of a failed job to appear in the bucket."""
    cache: str = "/mnt/tmp/lens_assets"
    partitions: int | None = Field(None, ge=1)
    spark_conf: dict[str, str] = {}
    cluster: Cluster | None = None
    serverless: Serverless | None = None

    @property
    def log_uri(self) -> str:
        """Where EMR puts its logs."""
        return f"s3://{self.bucket}/{self.prefix}/logs/"

    @model_validator(mode="after")
    def _one_way_and_ours_alone(self) -> Self:
        if self.cluster is None and self.serverless is None:
            raise ValueError("name a `cluster`, a `serverless` application, or both")
        for key in self.spark_conf:
            if not key.startswith("spark."):
                raise ValueError(f"spark_conf: {key!r} does not start with spark.")
            if key in _OURS or key.endswith(("PYSPARK_PYTHON", "PYSPARK_DRIVER_PYTHON")):
                raise ValueError(f"spark_conf: {key!r} is set by the platform")
        if self.cluster:
            for kind in (self.cluster.primary, self.cluster.core, self.cluster.task):
                if kind and (_ARM.match(kind.instance_type) is not None) != (self.architecture == "arm64"):
                    raise ValueError(
                        f"{kind.instance_type} is not {self.architecture}, for which the archive was packed"
                    )
        return self


def load_settings(path: str | Path, need: Literal["cluster", "serverless"] | None = None) -> EmrSettings:
    """The settings in a YAML file; :class:`BadInput` names the file and what is wrong in it.

    ``need`` is the section that the chosen engine uses.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput(
            "no such file: LENS_ASSETS_EMR names the settings (deploy/emr.yaml is an example)", file=str(path)
        )
    try:
        raw = yaml.safe_load(path.read_text())
    except yaml.YAMLError as fault:
        raise BadInput(f"not YAML: {fault}", file=str(path)) from fault
    if found := _secrets(raw):
        raise BadInput(
            f"{found} looks like a credential: credentials come from the role or the environment, never from this file",
            file=str(path),
        )
    try:
        settings = EmrSettings.model_validate(raw)
    except ValueError as fault:
        raise BadInput(str(fault), file=str(path)) from fault
    if need and getattr(settings, need) is None:
        raise BadInput(f"the section `{need}` is needed for this engine", file=str(path))
    return settings


def _secrets(value: Any, at: str = "") -> str | None:
    """Where something looks like a credential."""
    if isinstance(value, dict):
        for key, inner in value.items():
            place = f"{at}.{key}".lstrip(".")
            if _SECRET_NAME.search(str(key)):
                return place
            if found := _secrets(inner, place):
                return found
    elif isinstance(value, (list, tuple)):
        for i, inner in enumerate(value):
            if found := _secrets(inner, f"{at}[{i}]"):
                return found
    elif isinstance(value, str) and _SECRET_VALUE.search(value):
        return at
    return None
