"""The processes that train together: torch.distributed's, or only this one."""

from dataclasses import dataclass

import torch
from torch import distributed

__all__ = ["Processes"]


@dataclass(frozen=True)
class Processes:
    """The processes that train together.

    Attributes:
        count: Number of processes.
        rank: This process's number, from 0.
        group: torch.distributed's group of all processes, or None if this is the only one.
    """

    count: int = 1
    rank: int = 0
    group: distributed.ProcessGroup | None = None

    @classmethod
    def current(cls) -> "Processes":
        """torch.distributed's default group if it is initialised, else this process."""
        if not distributed.is_available() or not distributed.is_initialized():
            return cls()
        count = distributed.get_world_size()
        return cls(count, distributed.get_rank(), distributed.group.WORLD if count > 1 else None)

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum over processes, bit-identical in each; all must call."""
        total = tensor.clone()
        if self.group is not None:
            distributed.all_reduce(total, group=self.group)
        return total

    def gather(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """Tensors of all processes, by rank; all must call, with equal shapes."""
        if self.group is None:
            return [tensor]
        parts = [torch.empty_like(tensor) for _ in range(self.count)]
        distributed.all_gather(parts, tensor, group=self.group)
        return parts
