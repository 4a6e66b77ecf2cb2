"""Watches the loops of a training, as jobs do to show progress."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


class Watched:
    """A `seer_model.training.watch.Watch` that remembers.

    Attributes:
        loops: Label, unit, total and number of items of every loop, in the order in which they
            ended.
    """

    def __init__(self) -> None:
        self.loops: list[tuple[str, str, int, int]] = []

    def __call__(self, items: Iterable[Item], label: str, unit: str, total: int) -> Iterator[Item]:
        count = 0
        try:
            for item in items:
                count += 1
                yield item
        finally:
            self.loops.append((label, unit, total, count))
