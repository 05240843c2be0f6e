"""MLflow's model registry: which detectors there are, which is the champion, which is frozen for a surface.

A registered version is a run's folder ``checkpoint``: safetensors and a specification, no pickle and no flavour of MLflow's
that would run code when it is read. A detector is registered once, recognised by the digest of its artefact. Aliases point
at versions: ``champion`` by the rule of ``promotion``, ``frozen-for-<surface>`` when a surface has been measured with a
detector. The registry mirrors decisions that are artefacts already; nothing reads a decision out of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

CHAMPION = "champion"
CHECKPOINT = "checkpoint"
DIGEST = "lens_assets.digest"
KEY = "lens_assets.detector"


def model_name(profile: str) -> str:
    """Name of the registered model of a profile: detectors of a practice sky and of a survey do not compete."""
    return f"lens_assets-{re.sub(r'[^A-Za-z0-9_-]', '-', profile)}"


def frozen_alias(surface: str) -> str:
    """Alias of the detector that a surface (detector and variant) was measured with."""
    return f"frozen-for-{re.sub(r'[^A-Za-z0-9_-]+', '-', surface)}"[:255]


class Registry:
    """The versions and aliases of one registered model."""

    def __init__(self, uri: str, model: str) -> None:
        self.model = model
        self._client = MlflowClient(tracking_uri=uri, registry_uri=uri)

    def version_of(self, digest: str) -> str | None:
        """The version of the artefact with this digest."""
        return next((str(v.version) for v in self._versions() if v.tags.get(DIGEST) == digest), None)

    def register(self, run_id: str, key: str, digest: str, tags: Mapping[str, str] | None = None) -> str:
        """The version of a detector: that of its digest, or a new one from its run's folder ``checkpoint``."""
        own = {DIGEST: digest, KEY: key, **(tags or {})}
        version = self.version_of(digest)
        if version is None:
            self._ensure()
            run = self._client.get_run(run_id)
            made = self._client.create_model_version(
                self.model, f"{run.info.artifact_uri}/{CHECKPOINT}", run_id, tags=own, description=f"Detector {key}"
            )
            return str(made.version)
        for name, value in own.items():
            self._client.set_model_version_tag(self.model, version, name, value)
        return version

    def point(self, alias: str, version: str) -> None:
        """Let an alias point at a version; an older target loses it."""
        self._client.set_registered_model_alias(self.model, alias, version)

    def clear(self, alias: str) -> None:
        """Take an alias away, if there is one."""
        if alias in self.aliases():
            self._client.delete_registered_model_alias(self.model, alias)

    def aliases(self) -> dict[str, str]:
        """Alias -> version."""
        try:
            return {a: str(v) for a, v in self._client.get_registered_model(self.model).aliases.items()}
        except MlflowException as fault:
            if fault.error_code == "RESOURCE_DOES_NOT_EXIST":
                return {}
            raise

    def _versions(self) -> list[ModelVersion]:
        found: list[ModelVersion] = []
        token = None
        while True:
            page = self._client.search_model_versions(f"name = '{self.model}'", max_results=1000, page_token=token)
            found += page
            token = page.token
            if not token:
                return found

    def _ensure(self) -> None:
        try:
            self._client.create_registered_model(self.model, description="Lens finders; see the tags of each version")
        except MlflowException as fault:
            if fault.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
