"""Batch normalisation over the batches of all processes, on any device.

torch's `SyncBatchNorm` refuses CPU tensors; this one also works on CPUs with gloo, where two
processes with half a batch each train as one does with the whole batch.
"""

from typing import Any

import torch
from torch import distributed, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

__all__ = ["SyncBatchNorm", "with_sync_batchnorm"]


class _Normalise(torch.autograd.Function):
    """Ioffe and Szegedy 2015, section 3, with sums over all processes.

    Keeps only the inputs for the backward pass; autograd would keep several float32 copies of them.
    """

    @staticmethod
    def forward(
        ctx: Any,
        inputs: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        eps: float,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Outputs; mean and biased variance of the whole batch, (C,)."""
        own = torch.stack(
            torch.var_mean(inputs.to(weight.dtype), _but_channels(inputs), correction=0)
        )
        parts = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, own)
        variances, means = torch.stack(parts, dim=1)
        mean = means.mean(dim=0)
        variance = variances.mean(dim=0) + (means - mean).square().mean(dim=0)
        ctx.save_for_backward(inputs, weight, mean, torch.rsqrt(variance + eps))
        ctx.count = inputs.numel() // inputs.shape[1] * len(parts)
        ctx.mark_non_differentiable(mean, variance)
        return functional.batch_norm(inputs, mean, variance, weight, bias, eps=eps), mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor, *_: Any) -> tuple[torch.Tensor | None, ...]:
        """Gradients of the inputs, and this process's share of those of weight and bias."""
        inputs, weight, mean, scale = ctx.saved_tensors
        shape = (1, -1) + (1,) * (inputs.ndim - 2)
        dims = _but_channels(inputs)
        gradient = gradient.to(weight.dtype)
        normalised = (inputs.to(weight.dtype) - mean.view(shape)) * scale.view(shape)
        own = torch.stack([gradient.sum(dims), (gradient * normalised).sum(dims)])
        total = own.clone()
        distributed.all_reduce(total)
        by_mean, by_scale = total.view(2, *shape) / ctx.count
        flowing = (gradient - by_mean - normalised * by_scale) * (weight * scale).view(shape)
        return flowing.to(inputs.dtype), own[1], own[0], None


def _but_channels(inputs: torch.Tensor) -> list[int]:
    return [dim for dim in range(inputs.ndim) if dim != 1]


class SyncBatchNorm(nn.Module):
    """Replaces a batch normalisation layer, with the same parameters and buffers.

    Ioffe and Szegedy 2015 (https://arxiv.org/abs/1502.03167), algorithm 1, with mean and variance
    over all processes, which must have batches of the same size. The activation of timm's combined
    layers is kept.

    Args:
        norm: The layer, with affine parameters, running statistics and a momentum.
    """

    running_mean: torch.Tensor
    running_var: torch.Tensor
    num_batches_tracked: torch.Tensor

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.weight: torch.Tensor = norm.weight  # type: ignore[assignment]
        self.bias: torch.Tensor = norm.bias  # type: ignore[assignment]
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(norm, name))
        self.eps: float = norm.eps  # type: ignore[assignment]
        self.momentum: float = norm.momentum  # type: ignore[assignment]
        self.act: nn.Module = getattr(norm, "act", nn.Identity())
        self.train(norm.training)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Normalise (N, C) or (N, C, H, W) and apply the activation; keeps shape and dtype."""
        if self.training:
            normalised, mean, variance = _Normalise.apply(inputs, self.weight, self.bias, self.eps)
            self._track(mean, variance, inputs.numel() // inputs.shape[1])
        else:
            normalised = functional.batch_norm(
                inputs, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return self.act(normalised)  # type: ignore[no-any-return]

    @torch.no_grad()
    def _track(self, mean: torch.Tensor, variance: torch.Tensor, own: int) -> None:
        count = own * distributed.get_world_size()
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (count / max(count - 1, 1)), self.momentum)
        self.num_batches_tracked += 1


def with_sync_batchnorm(module: nn.Module) -> nn.Module:
    """Replace every batch normalisation layer in a module, in place; returns the module."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
            setattr(module, name, SyncBatchNorm(child))
        else:
            with_sync_batchnorm(child)
    return module
