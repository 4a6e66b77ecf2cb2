"""One promotion gate's result."""

from dataclasses import dataclass

__all__ = ["Gate"]


@dataclass(frozen=True)
class Gate:
    """One gate's result.

    Attributes:
        gate: Its name.
        passed: Whether the version passes.
        measured: The value found, in words.
        limit: The value required, in words.
    """

    gate: str
    passed: bool
    measured: str
    limit: str
