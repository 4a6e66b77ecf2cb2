"""Measure photos for a manifest's slices, each in a process that it cannot take down with it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from queue import SimpleQueue

from seer_model.photos.attributes import MEASURED_SIDE, photo_attributes
from seer_model.photos.isolated import IsolatedDecoder
from seer_model.photos.limits import PhotoLimits, PhotoRejected
from seer_model.photos.source import PhotoSource
from seer_model.photos.square import load_square

__all__ = ["Measure", "photo_measure"]

Measure = Callable[[bytes], dict[str, str]]
"""The attributes of an encoded photo by name; none of one that cannot be decoded."""


@contextmanager
def photo_measure(processes: int) -> Iterator[Measure]:
    """Make a `Measure` for any number of threads.

    Args:
        processes: Photos decoded at once.
    """
    load = partial(load_square, size=MEASURED_SIDE, limits=PhotoLimits())
    idle: SimpleQueue[IsolatedDecoder] = SimpleQueue()

    def measure(photo: bytes) -> dict[str, str]:
        decoder = idle.get()
        try:
            square = decoder.load(load, PhotoSource(None, photo))
        except PhotoRejected:
            return {}
        finally:
            idle.put(decoder)
        return photo_attributes(square.pixels)

    with ExitStack() as on_exit:
        for _ in range(processes):
            idle.put(on_exit.enter_context(closing(IsolatedDecoder())))
        yield measure
