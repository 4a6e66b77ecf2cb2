"""Promotion in the registry: a lock, and the evaluation that a version is tagged with."""

import getpass
import json
import os
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    RESOURCE_ALREADY_EXISTS,
    RESOURCE_DOES_NOT_EXIST,
    ErrorCode,
)

from schemas.errors import PartitionBusy

__all__ = ["EVALUATION_FILE", "load_evaluation", "promotion_lock"]

EVALUATION_FILE = "evaluation.json"
"""Artifact of an evaluation's run: the evaluation record."""

_LEASE_SECONDS = 300
# MLflow answers the second if the name is released while it looks up who took it.
_TAKEN = tuple(map(ErrorCode.Name, (RESOURCE_ALREADY_EXISTS, RESOURCE_DOES_NOT_EXIST)))


def load_evaluation(tags: Mapping[str, str]) -> dict[str, Any] | None:
    """Load the latest evaluation record of a registered version.

    Args:
        tags: The version's tags.

    Returns:
        None if it was never evaluated.

    Raises:
        MlflowException: The run named by its tag, or the run's file, is gone.
    """
    run = tags.get("evaluation_run")
    if run is None:
        return None
    path = mlflow.artifacts.download_artifacts(run_id=run, artifact_path=EVALUATION_FILE)
    record: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    return record


@contextmanager
def promotion_lock(name: str) -> Iterator[None]:
    """Lock a model against other promotions, on any machine, until the block ends.

    The lock is a registered model `NAME.promoting` without versions: the registry refuses a second
    model of the same name. A lock left behind by a dead process expires after five minutes.

    Raises:
        PartitionBusy: Another promotion holds the lock.
    """
    client, lock = MlflowClient(), f"{name}.promoting"
    owner = f"{getpass.getuser()}, process {os.getpid()} on {socket.gethostname()}"
    token = uuid.uuid4().hex
    _remove_expired(client, lock)
    try:
        client.create_registered_model(lock, {"owner": owner, "mark": token})
    except MlflowException as error:
        if error.error_code not in _TAKEN:
            raise
        holder = _tags(client, lock).get("owner", "another process")
        raise PartitionBusy(
            f"models:/{name}: {holder} is promoting; run again when it is done"
        ) from None
    try:
        yield
    finally:
        if _tags(client, lock).get("mark") == token:
            client.delete_registered_model(lock)


def _tags(client: MlflowClient, lock: str) -> dict[str, str]:
    try:
        return dict(client.get_registered_model(lock).tags)
    except MlflowException:
        return {}


def _remove_expired(client: MlflowClient, lock: str) -> None:
    try:
        made = client.get_registered_model(lock).creation_timestamp
    except MlflowException:
        return
    if made is not None and time.time() - made / 1000 > _LEASE_SECONDS:
        client.delete_registered_model(lock)
