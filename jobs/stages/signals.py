"""Which signals a run reads of photos beside their embeddings."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

from pyspark import TaskContext

from jobs.stages.store.base import SignalMakers
from schemas.embeddings import Signal
from seer_model.backbones.embedder import EmbeddedPhoto
from seer_model.photos.colours import COLOURED_BY
from seer_model.photos.perceptual_hash import HASHED_BY
from seer_model.screener.text_reader import READ_BY, TextReader

__all__ = ["NOTHING", "SignalReading", "as_colours", "as_hashes", "as_text"]


@dataclass(frozen=True)
class SignalReading:
    """What to read of photos beside their embeddings.

    Attributes:
        hashes: Whether to make their perceptual hashes.
        text: Whether to read what is written in them.
        colours: Whether to name the colours of their subjects.
    """

    hashes: bool = False
    text: bool = False
    colours: bool = False

    @classmethod
    def of(cls, signals: Iterable[Signal]) -> Self:
        """Read these."""
        wanted = set(signals)
        return cls(*(signal in wanted for signal in (Signal.HASHES, Signal.TEXT, Signal.COLOURS)))

    @property
    def made_by(self) -> SignalMakers:
        """Who makes each signal that is read."""
        makers = {}
        if self.hashes:
            makers[Signal.HASHES] = HASHED_BY
        if self.text:
            makers[Signal.TEXT] = READ_BY
        if self.colours:
            makers[Signal.COLOURS] = COLOURED_BY
        return makers

    def reader(self) -> TextReader | None:
        """What reads the text in a task of Spark, made once a worker process."""
        if not self.text:
            return None
        context = TaskContext.get()
        return _open_reader(context.cpus() if context else 1)


NOTHING = SignalReading()


@lru_cache(maxsize=1)
def _open_reader(threads: int) -> TextReader:
    return TextReader(threads=threads)


def as_hashes(photo: EmbeddedPhoto, signals: SignalReading) -> dict[str, Any] | None:
    """A photo's hashes as `schemas.embeddings.HASHES`."""
    if photo.hashes is None:
        return None
    return {"made_by": signals.made_by[Signal.HASHES], **photo.hashes._asdict()}


def as_text(photo: EmbeddedPhoto, signals: SignalReading) -> dict[str, Any] | None:
    """A photo's text as `schemas.embeddings.TEXT`."""
    if photo.text is None:
        return None
    lines = [line._asdict() for line in photo.text]
    return {"made_by": signals.made_by[Signal.TEXT], "lines": lines}


def as_colours(photo: EmbeddedPhoto, signals: SignalReading) -> dict[str, Any] | None:
    """A photo's colours as `schemas.embeddings.COLOURS`."""
    if photo.colours is None:
        return None
    colours = [colour._asdict() for colour in photo.colours]
    return {"made_by": signals.made_by[Signal.COLOURS], "colours": colours}
