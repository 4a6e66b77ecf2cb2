"""How a training shows its progress, without knowing where."""

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

__all__ = ["Watch", "unwatched"]

Item = TypeVar("Item")


class Watch(Protocol):
    """Yields items one by one and shows how many are done, as tqdm does."""

    def __call__(self, items: Iterable[Item], label: str, unit: str, total: int) -> Iterator[Item]:
        """Watch a loop.

        Args:
            items: What it loops over.
            label: What it does.
            unit: What the items are, in the plural.
            total: Number of items; there may be fewer.
        """
        ...


def unwatched(items: Iterable[Item], label: str, unit: str, total: int) -> Iterator[Item]:  # noqa: ARG001
    """Show nothing."""
    yield from items
