"""Random numbers of a batch of which each process holds a part."""

from typing import NamedTuple

import torch

__all__ = ["BatchDraws"]


class BatchDraws(NamedTuple):
    """Draws for every photo of a global batch, and hands out those of this process's photos.

    So a photo's numbers do not depend on the number of processes that share the batch.

    Attributes:
        generator: On the CPU, in the same state in all processes; it is advanced.
        batch: Photos of the global batch.
        first: Where this process's photos begin in it.
        photos: How many this process has.
    """

    generator: torch.Generator
    batch: int
    first: int
    photos: int

    def uniform(self, *shape: int) -> torch.Tensor:
        """Uniform on [0, 1), float32, of shape (*shape, photos)."""
        drawn = torch.rand(*shape, self.batch, generator=self.generator)
        return drawn[..., self.first : self.first + self.photos]
