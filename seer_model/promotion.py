"""Promotion in the registry: one at a time, and on the evaluation that a version carries."""

import getpass
import json
import os
import socket
import time
import uuid
from collections.abc import Iterator
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

__all__ = ["EVALUATION_FILE", "evaluation_of", "promotion_lock"]

EVALUATION_FILE = "evaluation.json"
"""Name of the artifact that an evaluation's figures are logged as."""

_LEASE_SECONDS = 300
# The second is what MLflow says of a name that was taken, and let go a moment later.
_TAKEN = tuple(map(ErrorCode.Name, (RESOURCE_ALREADY_EXISTS, RESOURCE_DOES_NOT_EXIST)))


def evaluation_of(tags: dict[str, str]) -> dict[str, Any] | None:
    """The latest evaluation of a registered version, by its tags; None where it has none.

    Raises:
        MlflowException: The run it names, or its file, is gone.
    """
    run = tags.get("evaluation_run")
    if run is None:
        return None
    path = mlflow.artifacts.download_artifacts(run_id=run, artifact_path=EVALUATION_FILE)
    found: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    return found


@contextmanager
def promotion_lock(name: str) -> Iterator[None]:
    """Keep other promotions of the model out until the block ends, on whichever machine they run.

    The registry refuses a second model of one name, which is what makes the lock: a model
    `NAME.promoting`, without versions. It ends with the block; one that its process left behind
    counts for five minutes.

    Raises:
        PartitionBusy: Another promotion is under way.
    """
    client, lock = MlflowClient(), f"{name}.promoting"
    owner = f"{getpass.getuser()}, process {os.getpid()} on {socket.gethostname()}"
    mark = uuid.uuid4().hex
    _remove_if_dead(client, lock)
    try:
        client.create_registered_model(lock, {"owner": owner, "mark": mark})
    except MlflowException as error:
        if error.error_code not in _TAKEN:
            raise
        holder = _tags(client, lock).get("owner", "another process")
        raise PartitionBusy(
            f"models:/{name}: {holder} is promoting; wait for it to end and run again"
        ) from None
    try:
        yield
    finally:
        if _tags(client, lock).get("mark") == mark:
            client.delete_registered_model(lock)


def _tags(client: MlflowClient, lock: str) -> dict[str, str]:
    try:
        return dict(client.get_registered_model(lock).tags)
    except MlflowException:
        return {}


def _remove_if_dead(client: MlflowClient, lock: str) -> None:
    try:
        made = client.get_registered_model(lock).creation_timestamp
    except MlflowException:
        return
    if made is not None and time.time() - made / 1000 > _LEASE_SECONDS:
        client.delete_registered_model(lock)
