"""LARS and AdamW on the same parameter groups, and the learning-rate schedule."""

import math
from typing import Any

import torch
from timm.optim.lars import Lars
from torch import nn

__all__ = ["adamw", "cosine_with_warmup", "lars"]

_MOMENTUM = 0.9
_BETAS = (0.9, 0.95)


def lars(module: nn.Module, *, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """LARS: SGD with momentum and one adaptive rate per layer, for batches of thousands.

    You et al. 2017, Large Batch Training of Convolutional Networks
    (https://arxiv.org/abs/1708.03888), equation 6, with SwAV's and SEER's trust coefficient of
    0.001 and without the clipping of LARC. The layer's rate multiplies `lr`, which therefore is of
    order 1 (SwAV: 4.8 for a batch of 4096).

    Vectors, and layers whose weights or gradients are all zero, take a plain SGD step.
    """
    groups = _parameter_groups(module, weight_decay)
    for group in groups:
        # timm adapts by default only where there is weight decay; that may be 0 for matrices, too.
        group["always_adapt"] = group["adapt"]
    optimiser: torch.optim.Optimizer = Lars(groups, lr=lr, momentum=_MOMENTUM, eps=0.0)
    return optimiser


def adamw(module: nn.Module, *, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW, steadier than LARS for small batches.

    Loshchilov and Hutter 2019, Decoupled Weight Decay Regularization
    (https://arxiv.org/abs/1711.05101).
    """
    return torch.optim.AdamW(_parameter_groups(module, weight_decay), lr=lr, betas=_BETAS)


def _parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Trainable parameters: matrices and kernels with weight decay, then vectors without.

    Vectors are biases and the scales of batch normalisation. timm's `param_groups_weight_decay`
    makes the same groups in the opposite order, and a single one if `weight_decay` is 0; but the
    optimiser's state in a checkpoint is numbered by this order.
    """
    parameters = [one for one in module.parameters() if one.requires_grad]
    matrices = [one for one in parameters if one.ndim > 1]
    vectors = [one for one in parameters if one.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": weight_decay, "adapt": True},
        {"params": vectors, "weight_decay": 0.0, "adapt": False},
    ]
    return [group for group in groups if group["params"]]


def cosine_with_warmup(
    step: int, *, total: int, warmup: int, base: float, final: float = 0.0
) -> float:
    """Learning rate of a step: linear warm-up from 0, then half a cosine down.

    Loshchilov and Hutter 2017, SGDR (https://arxiv.org/abs/1608.03983), equation 5, without
    restarts; warm-up of Goyal et al. 2017 (https://arxiv.org/abs/1706.02677), section 2.2.

    timm's `CosineLRScheduler` cannot warm up for the whole training, and rounds a quarter of the
    rates differently, which would change digests of fine-tuned backbones.

    Args:
        step: From 0. From `total` on, the rate is `final`.
        total: Steps of the training.
        warmup: Steps of the warm-up; step `warmup` has the rate `base`.
        base: The highest rate.
        final: The rate at the end.

    Raises:
        ValueError: `step` is below 0, or `warmup` is not between 0 and `total`.
    """
    if step < 0 or not 0 <= warmup <= total:
        raise ValueError(f"step {step} of {total} steps, {warmup} of them warm-up")
    if step >= total:
        return final
    if step < warmup:
        return base * step / warmup
    progress = (step - warmup) / (total - warmup)
    return final + (base - final) * (1 + math.cos(math.pi * progress)) / 2
