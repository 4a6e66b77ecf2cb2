"""How the threads of a training get along with other processes. Imports no torch."""

import os

__all__ = ["share_cores"]


def share_cores() -> None:
    """Let OpenMP's threads sleep while they wait for one another, in this process and its children.

    By default they spin, and so keep their cores from the very threads that they wait for where
    another process computes on these cores too. OpenMP reads the setting as it is loaded, so call
    this before torch is imported. `OMP_WAIT_POLICY` in the environment has precedence.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
