"""Batch normalisation over the batches of all processes, on any device.

torch's own `SyncBatchNorm` trains on accelerators only; this one also runs on CPUs with gloo, where
it lets two processes train exactly as one does with the whole batch.
"""

from typing import Any

import torch
from torch import distributed, nn
from torch.nn import functional

__all__ = ["SyncBatchNorm", "with_sync_batchnorm"]


class _SumOverProcesses(torch.autograd.Function):
    """All-reduce with a gradient: what every process does with the sum flows back to each part."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, group: Any) -> torch.Tensor:
        ctx.group = group
        total = tensor.contiguous().clone()
        distributed.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        total = gradients[0].contiguous().clone()
        distributed.all_reduce(total, group=ctx.group)
        return total, None


class SyncBatchNorm(nn.Module):
    """Stands in for a batch normalisation layer, with the same parameters and buffers.

    Ioffe and Szegedy 2015 (https://arxiv.org/abs/1502.03167), algorithm 1, with mean and variance
    over the processes of `group`, all of which must have batches of one size. Where the layer was
    one of timm's with an activation, that follows.

    Args:
        norm: The layer, with affine parameters and running statistics.
        group: The processes; None is all.
    """

    running_mean: torch.Tensor
    running_var: torch.Tensor
    num_batches_tracked: torch.Tensor

    def __init__(self, norm: nn.Module, group: distributed.ProcessGroup | None = None) -> None:
        super().__init__()
        self.weight: torch.Tensor = norm.weight  # type: ignore[assignment]
        self.bias: torch.Tensor = norm.bias  # type: ignore[assignment]
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(norm, name))
        self.eps: float = norm.eps  # type: ignore[assignment]
        self.momentum: float = norm.momentum  # type: ignore[assignment]
        self.act: nn.Module = getattr(norm, "act", nn.Identity())
        self._group = group

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Normalise (N, C) or (N, C, H, W), and activate; same shape and dtype out."""
        if not self.training:
            normalised = functional.batch_norm(
                inputs, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
            return self.act(normalised)  # type: ignore[no-any-return]
        mean, variance = self._statistics(inputs)
        shape = (1, -1) + (1,) * (inputs.ndim - 2)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        normalised = inputs * scale.view(shape) + shift.view(shape)
        return self.act(normalised.to(inputs.dtype))  # type: ignore[no-any-return]

    def _statistics(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        dims = [dim for dim in range(inputs.ndim) if dim != 1]
        values = inputs.float()
        sums = torch.stack([values.sum(dims), values.square().sum(dims)])
        processes = distributed.get_world_size(self._group)
        count = inputs.numel() // inputs.shape[1] * processes
        mean, square = _SumOverProcesses.apply(sums, self._group) / count
        variance = (square - mean.square()).clamp(min=0.0)
        with torch.no_grad():
            unbiased = variance * (count / max(count - 1, 1))
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(unbiased, self.momentum)
            self.num_batches_tracked += 1
        return mean, variance


def with_sync_batchnorm(
    module: nn.Module, group: distributed.ProcessGroup | None = None
) -> nn.Module:
    """Replace every batch normalisation layer of a module, in place; returns the module."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
            setattr(module, name, SyncBatchNorm(child, group))
        else:
            with_sync_batchnorm(child, group)
    return module
