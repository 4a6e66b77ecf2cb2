"""Optimisers for large batches, and their learning rate."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

__all__ = ["Larc", "adamw", "cosine_with_warmup", "parameter_groups"]


def parameter_groups(module: nn.Module, *, weight_decay: float) -> list[dict[str, Any]]:
    """A module's trainable parameters: matrices and kernels, and the rest.

    Biases and the weights of batch normalisation, all that is a vector, get no weight decay, and no
    rate of their own from `Larc`: their norms say nothing about a good step.

    Args:
        module: Parameters that need no gradient are left out.
        weight_decay: Of the first group.

    Returns:
        Two groups with the keys `params`, `weight_decay` and `adapt`; an empty one is left out.
    """
    parameters = [one for one in module.parameters() if one.requires_grad]
    tensors = [one for one in parameters if one.ndim > 1]
    vectors = [one for one in parameters if one.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": tensors, "weight_decay": weight_decay, "adapt": True},
        {"params": vectors, "weight_decay": 0.0, "adapt": False},
    ]
    return [group for group in groups if group["params"]]


class Larc(torch.optim.SGD):
    """SGD with momentum whose rate is set for each layer by the ratio of weight and gradient.

    You et al. 2017, Large Batch Training of Convolutional Networks
    (https://arxiv.org/abs/1708.03888), equation 6: the layer's rate is
    trust * |w| / (|g| + decay * |w|), so that every layer moves by a like share of its weights.

    - `clip=False`, as SwAV and SEER have it, is that paper's LARS: the layer's rate multiplies the
      global one, which then is a schedule of order 1 (SwAV: 4.8 for a batch of 4096).
    - `clip=True`: the layer's rate is bounded by the global one, which keeps its usual size;
      adaptation then only slows layers down.

    A layer whose weights or gradients are all zero takes a plain step. Groups whose key `adapt` is
    false (see `parameter_groups`) always do. A step overwrites the gradients.

    Args:
        params: Parameters, or groups of them.
        lr: Global learning rate.
        momentum: Of SGD.
        weight_decay: For groups that have none of their own.
        trust: Trust coefficient.
        clip: See above.
    """

    def __init__(
        self,
        params: Iterable[torch.Tensor] | Iterable[dict[str, Any]],
        *,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 1e-6,
        trust: float = 0.001,
        clip: bool = False,
    ) -> None:
        super().__init__(params, lr=lr, momentum=momentum, weight_decay=weight_decay)
        self.trust = trust
        self.clip = clip

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move the parameters that have gradients.

        Args:
            closure: Computes the loss and the gradients anew, where they are not there yet.

        Returns:
            What the closure returned.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        decays = [group["weight_decay"] for group in self.param_groups]
        try:
            for group in self.param_groups:
                if group.get("adapt", True):
                    self._adapt(group)
                    group["weight_decay"] = 0.0
            super().step()
        finally:
            for group, decay in zip(self.param_groups, decays, strict=True):
                group["weight_decay"] = decay
        return loss

    def _adapt(self, group: dict[str, Any]) -> None:
        """Add the weight decay to a group's gradients and scale them by each layer's rate."""
        weights = [one for one in group["params"] if one.grad is not None]
        if not weights:
            return
        gradients = [one.grad for one in weights]
        decay = group["weight_decay"]
        weight_norms = torch.stack(torch._foreach_norm(weights))
        gradient_norms = torch.stack(torch._foreach_norm(gradients))
        rates = self.trust * weight_norms / (gradient_norms + decay * weight_norms)
        if self.clip:
            rates = (rates / group["lr"]).clamp(max=1.0)
        plain = (weight_norms == 0) | (gradient_norms == 0)
        rates = torch.where(plain, 1.0, rates)
        torch._foreach_add_(gradients, weights, alpha=decay)
        torch._foreach_mul_(gradients, list(rates.unbind()))


def adamw(
    module: nn.Module,
    *,
    lr: float,
    weight_decay: float = 0.05,
    betas: tuple[float, float] = (0.9, 0.95),
) -> torch.optim.AdamW:
    """AdamW over the same groups as `Larc`: the steadier choice for small batches.

    Loshchilov and Hutter 2019, Decoupled Weight Decay Regularization
    (https://arxiv.org/abs/1711.05101).
    """
    groups = parameter_groups(module, weight_decay=weight_decay)
    return torch.optim.AdamW(groups, lr=lr, betas=betas)


def cosine_with_warmup(
    step: int, *, total: int, warmup: int, base: float, final: float = 0.0, start: float = 0.0
) -> float:
    """Learning rate of a step: a straight line up, then half a cosine down.

    Loshchilov and Hutter 2017, SGDR (https://arxiv.org/abs/1608.03983), equation 5, without
    restarts; warm-up of Goyal et al. 2017 (https://arxiv.org/abs/1706.02677), section 2.2.

    Args:
        step: From 0. From `total` on the rate is `final`.
        total: Steps of the training.
        warmup: Steps of the line. `start` is step 0's rate, `base` step `warmup`'s.
        base: The highest rate.
        final: The rate at the end.
        start: The rate at the beginning of the warm-up.

    Raises:
        ValueError: `step` is below 0, or `warmup` is not between 0 and `total`.
    """
    if step < 0 or not 0 <= warmup <= total:
        raise ValueError(f"step {step} of {total} steps, {warmup} of them warm-up")
    if step >= total:
        return final
    if step < warmup:
        return start + (base - start) * step / warmup
    progress = (step - warmup) / (total - warmup)
    return final + (base - final) * (1 + math.cos(math.pi * progress)) / 2
