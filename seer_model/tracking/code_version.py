"""The version and git commit of the code that runs."""

import subprocess
from pathlib import Path

from seer_model import __version__

__all__ = ["GIT_COMMIT", "GIT_DIRTY", "code_version"]

GIT_COMMIT = "mlflow.source.git.commit"
GIT_DIRTY = "mlflow.source.git.dirty"

_PACKAGES = ("jobs", "schemas", "seer_model")


def code_version() -> dict[str, str]:
    """Return the code's version as tags of an MLflow run.

    Returns:
        `package_version`. In a git checkout (not a wheel or zip) also its commit, and as `true` or
        `false` whether the packages differ from it.
    """
    tags = {"package_version": __version__}
    root = Path(__file__).parents[2]
    if (root / ".git").exists():
        try:
            commit = _git(root, "rev-parse", "HEAD")
            changes = _git(root, "status", "--porcelain", "--", *_PACKAGES)
        except (OSError, subprocess.SubprocessError):
            return tags  # No git, or one that does not trust the checkout's owner.
        tags |= {GIT_COMMIT: commit, GIT_DIRTY: str(bool(changes)).lower()}
    return tags


def _git(root: Path, *command: str) -> str:
    done = subprocess.run(  # noqa: S603
        ["git", "--no-optional-locks", "-C", str(root), *command],  # noqa: S607
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout.strip()
