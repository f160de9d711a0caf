"""Tracking with MLflow: what was trained, how, and how it went. Tracking never changes a result."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cellfleet.errors import ConfigError, TrainError
from cellfleet.ports import make_dir

_LONGEST = 500


class Tracker:
    """One run in MLflow.

    Args:
        uri: a tracking URI (``sqlite:///...``, ``http://...``), or empty for a SQLite file in ``folder``.
        folder: where the default database lies.
        experiment: name of the experiment.

    Raises:
        ConfigError: no tracking URI.
        TrainError: MLflow is not installed, or the tracking store cannot be reached.
    """

    def __init__(self, uri: str, folder: Path, experiment: str) -> None:
        self.uri = uri or f"sqlite:///{make_dir(folder).absolute() / 'mlflow.db'}"
        if urlsplit(self.uri).scheme not in (
            "sqlite",
            "postgresql",
            "mysql",
            "mssql",
            "http",
            "https",
            "file",
            "databricks",
        ):
            raise ConfigError(
                f"training.tracking_uri {uri!r} is not a tracking URI",
                hint="for example sqlite:////data/mlflow.db or https://mlflow.example.org",
            )
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                from mlflow.tracking import MlflowClient
        except ImportError as e:
            raise TrainError("MLflow is not installed", hint="pip install 'cellfleet[train]'") from e
        with self._talking():
            self._client: Any = MlflowClient(tracking_uri=self.uri)
            found = self._client.get_experiment_by_name(experiment)
            self._experiment = found.experiment_id if found else self._client.create_experiment(experiment)
        self.run_id = ""

    def start(self, name: str, params: Mapping[str, Any], tags: Mapping[str, str], run_id: str = "") -> str:
        """Begin a run, or go on with ``run_id`` where the store still has it; returns the run's id."""
        with self._talking():
            if run_id and self._knows(run_id):
                self.run_id = run_id
                self._client.update_run(run_id, status="RUNNING")
                return run_id
            run = self._client.create_run(self._experiment, run_name=name, tags=dict(tags))
            self.run_id = str(run.info.run_id)
            for key, value in params.items():
                self._client.log_param(self.run_id, key, str(value)[:_LONGEST])
        return self.run_id

    def log(self, epoch: int, metrics: Mapping[str, float]) -> str:
        """Log the numbers of an epoch; a store that fails by now costs its numbers, not the training.

        Returns:
            What went wrong, or an empty string.
        """
        try:
            with self._talking():
                for key, value in metrics.items():
                    self._client.log_metric(self.run_id, key, float(value), step=epoch)
        except TrainError as e:
            return e.message
        return ""

    def end(self, status: str) -> str:
        """End the run: ``FINISHED``, ``FAILED`` or ``KILLED``; returns as ``log`` does."""
        try:
            with self._talking():
                self._client.set_terminated(self.run_id, status)
        except TrainError as e:
            return e.message
        return ""

    def _knows(self, run_id: str) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            self._client.get_run(run_id)
        except MlflowException:
            return False
        return True

    @contextlib.contextmanager
    def _talking(self) -> Any:
        """Quiet libraries, and their errors as ours."""
        noisy = [logging.getLogger(n) for n in ("mlflow", "alembic", "sqlalchemy")]
        levels = [x.level for x in noisy]
        for logger in noisy:
            logger.setLevel(logging.CRITICAL)  # what fails is raised as well
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except Exception as e:  # MLflow, SQLAlchemy and the web client share no base
            reason = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
            raise TrainError(
                f"the tracking store {_shown(self.uri)} cannot be used: {reason}",
                hint="check training.tracking_uri, or leave it empty for a local file",
            ) from e
        finally:
            for logger, level in zip(noisy, levels, strict=True):
                logger.setLevel(level)


def _shown(uri: str) -> str:
    """The URI without a password."""
    parts = urlsplit(uri)
    return uri.replace(f":{parts.password}@", ":***@") if parts.password else uri
