"""MLflow: parameters, curves, figures and checkpoints of one training, with the way back to the orchestrator's run.

A thin wrapper over ``MlflowClient``: no global active run, no environment, no start of a server; the caller gives the
tracking URI (``sqlite:///...`` where there is no server) and the place for artefacts. A training that is continued
after a kill continues its MLflow run: a run is found again by ``key``. Every method can be left out: training takes
``None``.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.tracking import MlflowClient

KEY = "lens_assets.key"
_MAX_PARAM = 6000  # MLflow's limit on the length of a parameter's value
_MAX_BATCH = 100  # and on the number of parameters or tags in one call


class Tracking:
    """One MLflow run. Use as a context: it ends ``FINISHED``, or ``FAILED`` where an exception passes through."""

    def __init__(self, client: MlflowClient, run: Run, uri: str) -> None:
        self._client, self.run_id, self.uri = client, str(run.info.run_id), uri
        self.experiment_id = str(run.info.experiment_id)
        self._logged: set[str] = set(run.data.params)

    @classmethod
    def start_run(
        cls,
        uri: str,
        experiment: str,
        run_name: str,
        *,
        tags: Mapping[str, str] | None = None,
        key: str | None = None,
        again: bool = False,
        artifact_root: str | Path | None = None,
    ) -> Tracking:
        """Start a run, or take up the unfinished one with the same ``key`` (with ``again`` a finished one too: what is
        told of one detector at several times belongs to one run).

        ``tags`` link back to the orchestrator (run id, its address, asset, partition); ``artifact_root`` is used when
        the experiment is made, and only for a database: a server decides by itself.
        """
        client = MlflowClient(tracking_uri=uri)
        found = client.get_experiment_by_name(experiment)
        if found is None:
            remote = artifact_root is None or uri.startswith(("http://", "https://"))
            location = None if remote else Path(str(artifact_root)).resolve().as_uri()
            experiment_id = client.create_experiment(experiment, artifact_location=location)
        else:
            experiment_id = found.experiment_id
        all_tags = {**(tags or {}), **({KEY: key} if key else {})}
        if key:
            quoted = key.replace("'", "")
            query = f"tags.`{KEY}` = '{quoted}'" + ("" if again else " and attributes.status = 'RUNNING'")
            left = client.search_runs([experiment_id], filter_string=query, max_results=1)
            if left:
                run = left[0]
                if run.info.status != "RUNNING":
                    client.update_run(run.info.run_id, status="RUNNING")
                for name, value in all_tags.items():
                    client.set_tag(run.info.run_id, name, value)
                return cls(client, run, uri)
        return cls(client, client.create_run(experiment_id, run_name=run_name, tags=all_tags), uri)

    @property
    def url(self) -> str:
        """Where a browser finds the run on a server; for a database the URI and the run's id."""
        if self.uri.startswith(("http://", "https://")):
            return f"{self.uri.rstrip('/')}/#/experiments/{self.experiment_id}/runs/{self.run_id}"
        return f"{self.uri}#experiments/{self.experiment_id}/runs/{self.run_id}"

    @property
    def has_params(self) -> bool:
        """Whether parameters were told before."""
        return bool(self._logged)

    def params(self, values: Mapping[str, Any]) -> None:
        """Parameters, in few calls. Those a continued run has already are left as they are (MLflow forbids a
        change)."""
        new = {name: value for name, value in values.items() if name not in self._logged}
        rows = [Param(name, _text(value)[:_MAX_PARAM]) for name, value in new.items()]
        for start in range(0, len(rows), _MAX_BATCH):
            self._client.log_batch(self.run_id, params=rows[start : start + _MAX_BATCH])
        self._logged |= set(new)

    def metrics(self, values: Mapping[str, float | None], step: int = 0) -> None:
        """Numbers at a step, in one call; what is not finite is left out."""
        now = int(time.time() * 1000)
        rows = [
            Metric(name, float(value), now, step)
            for name, value in values.items()
            if value is not None and math.isfinite(value)
        ]
        for start in range(0, len(rows), 1000):
            self._client.log_batch(self.run_id, metrics=rows[start : start + 1000])

    def curves(self, history: Mapping[str, Sequence[float]], steps: Sequence[int]) -> None:
        """Whole curves, one value a step, in few calls."""
        now = int(time.time() * 1000)
        rows = [
            Metric(name, float(value), now, int(step))
            for name, values in history.items()
            for step, value in zip(steps, values, strict=True)
            if value is not None and math.isfinite(value)
        ]
        for start in range(0, len(rows), 1000):
            self._client.log_batch(self.run_id, metrics=rows[start : start + 1000])

    def tags(self, values: Mapping[str, str]) -> None:
        """Tags."""
        self._client.log_batch(self.run_id, tags=[RunTag(name, str(value)) for name, value in values.items()])

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """A file, or a folder with all its files."""
        if path.is_dir():
            self._client.log_artifacts(self.run_id, str(path), folder)
        else:
            self._client.log_artifact(self.run_id, str(path), folder)

    def end(self, status: str = "FINISHED") -> None:
        """End the run: ``FINISHED``, ``FAILED`` or ``KILLED``."""
        self._client.set_terminated(self.run_id, status)

    def __enter__(self) -> Tracking:
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, _: TracebackType | None) -> None:
        if kind is not None:
            self.tags({"lens_assets.fault": f"{kind.__name__}: {fault}"[:500]})
        self.end("FINISHED" if kind is None else "FAILED")


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True) if isinstance(value, (Mapping, list, tuple)) else str(value)
