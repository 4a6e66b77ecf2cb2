"""Register a trained model, or leave it in the folder that was asked for; never lose it."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jobs.command import job_run
from seer_model.tracking.registration import keep_on_failure

__all__ = ["save_and_register"]


def save_and_register(
    folder: Path, digest: str, name: str | None, register: Callable[[Path, str], str]
) -> dict[str, Any]:
    """Register a model's folder.

    Args:
        folder: The saved model.
        digest: Its digest.
        name: The name in the registry; None to leave it in its folder.
        register: Registers a folder under a name and returns the version.

    Returns:
        For the report: `model`, its address or folder, and `version`.

    Raises:
        RegistrationFailed: The registry failed; the model was kept, and the message says where.
    """
    version = None
    if name is not None:
        with keep_on_failure(name, lambda: _keep(folder, f"{name}-{digest[:12]}")):
            version = register(folder, name)
    job_run.writes(f"models:/{name}" if name else folder, version=version or digest)
    return {"model": f"models:/{name}/{version}" if version else str(folder), "version": version}


def _keep(folder: Path, name: str) -> Path:
    """Move a model that could not be registered out of the scratch folder.

    Returns:
        Its new path: in the working directory or, if that cannot be written, in a new folder.
    """
    try:
        return Path(shutil.move(folder, Path.cwd() / name))
    except OSError:
        return Path(shutil.move(folder, Path(tempfile.mkdtemp(prefix="kept-")) / name))
