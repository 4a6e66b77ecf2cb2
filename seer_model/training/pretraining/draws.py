"""Random numbers for the crops of a batch, the same for any number of processes and any device."""

from typing import NamedTuple

import torch

__all__ = ["BatchDraws", "send"]


class BatchDraws(NamedTuple):
    """Random numbers for this process's photos, drawn on the CPU for the whole global batch.

    So a photo's numbers do not depend on how many processes share the batch.

    Attributes:
        generator: On the CPU, in the same state in all processes; it is advanced.
        batch: Photos in the global batch.
        first: Position of this process's photos in it.
        photos: Number of this process's photos.
    """

    generator: torch.Generator
    batch: int
    first: int
    photos: int

    def uniform(self, *shape: int) -> torch.Tensor:
        """Uniform on [0, 1), float32, (*shape, photos)."""
        drawn = torch.rand(*shape, self.batch, generator=self.generator)
        return drawn[..., self.first : self.first + self.photos]

    def normal(self, *shape: int) -> torch.Tensor:
        """Standard normal, float32, of that shape, shared by all photos of the global batch."""
        return torch.randn(*shape, generator=self.generator)


def send(device: torch.device, *tensors: torch.Tensor) -> list[torch.Tensor]:
    """Copy tensors to a device without waiting for work queued there."""
    return [tensor.to(device, non_blocking=True) for tensor in tensors]
