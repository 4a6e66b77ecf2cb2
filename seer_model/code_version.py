"""Which code this is."""

import subprocess
from pathlib import Path

__all__ = ["GIT_COMMIT", "GIT_DIRTY", "VERSION", "code_version"]

VERSION = "0.1.0"
GIT_COMMIT = "mlflow.source.git.commit"
GIT_DIRTY = "mlflow.source.git.dirty"

_PACKAGES = ("jobs", "schemas", "seer_model")


def code_version() -> dict[str, str]:
    """Tags for an MLflow run.

    Returns:
        `package_version`; and where the packages lie in a checkout, be it no wheel and no zip, also
        its commit, and as `true` or `false` whether they differ from it.
    """
    code = {"package_version": VERSION}
    root = Path(__file__).parents[1]
    if (root / ".git").exists():
        try:
            commit = _git(root, "rev-parse", "HEAD")
            changes = _git(root, "status", "--porcelain", "--", *_PACKAGES)
        except (OSError, subprocess.SubprocessError):
            return code  # No git, or one that does not trust the checkout's owner.
        code |= {GIT_COMMIT: commit, GIT_DIRTY: str(bool(changes)).lower()}
    return code


def _git(root: Path, *command: str) -> str:
    done = subprocess.run(  # noqa: S603
        ["git", "--no-optional-locks", "-C", str(root), *command],  # noqa: S607
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout.strip()
