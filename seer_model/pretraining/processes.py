"""The processes that train together, as many as torch.distributed was set up with, or just one."""

from dataclasses import dataclass

import torch
from torch import distributed

__all__ = ["Processes"]


@dataclass(frozen=True)
class Processes:
    """Who trains together.

    Attributes:
        count: Their number.
        rank: Which one this is, from 0.
        group: All of them for torch.distributed, or None if there is only this one.
    """

    count: int = 1
    rank: int = 0
    group: distributed.ProcessGroup | None = None

    @classmethod
    def current(cls) -> "Processes":
        """Those of torch.distributed's default group, if it is initialised."""
        if not distributed.is_available() or not distributed.is_initialized():
            return cls()
        count = distributed.get_world_size()
        return cls(count, distributed.get_rank(), distributed.group.WORLD if count > 1 else None)

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over processes, the same to the bit in each; all must call."""
        total = tensor.clone()
        if self.group is not None:
            distributed.all_reduce(total, group=self.group)
        return total

    def gather(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """The tensors of all processes, by rank; all must call, with equal shapes."""
        if self.group is None:
            return [tensor]
        parts = [torch.empty_like(tensor) for _ in range(self.count)]
        distributed.all_gather(parts, tensor, group=self.group)
        return parts
