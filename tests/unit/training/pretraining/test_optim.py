"""LARS against the paper's formula, AdamW's groups, and the schedule."""

import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from seer_model.training.pretraining.optim import _parameter_groups, adamw, cosine_with_warmup, lars

Floats = npt.NDArray[np.float64]


def module() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))


def test_vectors_are_neither_decayed_nor_adapted() -> None:
    model = module()
    model[2].weight.requires_grad_(False)
    tensors, vectors = _parameter_groups(model, 0.5)
    assert [tuple(one.shape) for one in tensors["params"]] == [(4, 3, 3, 3)]
    assert sorted(tuple(one.shape) for one in vectors["params"]) == [(2,), (4,), (4,), (4,)]
    assert (tensors["weight_decay"], tensors["adapt"]) == (0.5, True)
    assert (vectors["weight_decay"], vectors["adapt"]) == (0.0, False)
    assert len(_parameter_groups(nn.Linear(2, 2, bias=False), 0.5)) == 1


def reference_step(
    weight: Floats, gradient: Floats, velocity: Floats, *, lr: float, decay: float
) -> tuple[Floats, Floats]:
    norm, slope = np.linalg.norm(weight), np.linalg.norm(gradient)
    rate = 0.001 * norm / (slope + decay * norm)
    velocity = 0.9 * velocity + rate * (gradient + decay * weight)
    return weight - lr * velocity, velocity


@pytest.mark.parametrize("decay", [0.1, 0.0])
def test_lars_steps_as_in_the_paper_and_vectors_as_sgd(decay: float) -> None:
    generator = torch.Generator().manual_seed(0)
    layer = nn.Linear(5, 4)
    optimiser = lars(layer, lr=0.3, weight_decay=decay)
    weight, bias = (one.detach().double().numpy().copy() for one in (layer.weight, layer.bias))
    velocity, bias_velocity = np.zeros_like(weight), np.zeros_like(bias)
    for _ in range(3):
        layer.weight.grad = torch.randn(4, 5, generator=generator)
        layer.bias.grad = torch.randn(4, generator=generator)
        gradient = layer.weight.grad.double().numpy().copy()
        bias_velocity = 0.9 * bias_velocity + layer.bias.grad.double().numpy()
        bias = bias - 0.3 * bias_velocity
        weight, velocity = reference_step(weight, gradient, velocity, lr=0.3, decay=decay)
        optimiser.step()
    np.testing.assert_allclose(layer.weight.detach().numpy(), weight, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(layer.bias.detach().numpy(), bias, rtol=1e-4, atol=1e-6)
    assert [group["weight_decay"] for group in optimiser.param_groups] == [decay, 0.0]


def plain(weight: float, gradient: float | None, *, lr: float, decay: float = 0.0) -> torch.Tensor:
    """A layer's weights after one step of LARS."""
    layer = nn.Linear(2, 2, bias=False)
    nn.init.constant_(layer.weight, weight)
    if gradient is not None:
        layer.weight.grad = torch.full((2, 2), gradient)
    lars(layer, lr=lr, weight_decay=decay).step()
    return layer.weight.detach()


def test_lars_of_zero_weights_or_gradients_takes_a_plain_step() -> None:
    torch.testing.assert_close(plain(0.0, 1.0, lr=0.5), torch.full((2, 2), -0.5))
    assert torch.equal(plain(1.0, 0.0, lr=0.5), torch.ones(2, 2))


def test_lars_leaves_parameters_without_gradients_alone() -> None:
    assert torch.equal(plain(1.0, None, lr=0.5, decay=0.1), torch.ones(2, 2))


def test_adamw_has_the_same_groups() -> None:
    optimiser = adamw(module(), lr=1e-3, weight_decay=0.2)
    assert [group["weight_decay"] for group in optimiser.param_groups] == [0.2, 0.0]
    assert [len(group["params"]) for group in optimiser.param_groups] == [2, 4]


def test_schedule_rises_in_a_line_and_falls_in_a_cosine() -> None:
    rates = [
        cosine_with_warmup(step, total=50, warmup=10, base=2.0, final=0.5) for step in range(56)
    ]
    assert rates[0] == 0
    assert rates[5] == pytest.approx(1.0)
    assert rates[10] == 2.0
    assert rates[20] == pytest.approx(0.5 + 1.5 * (1 + math.cos(math.pi / 4)) / 2)
    assert rates[30] == pytest.approx(1.25)
    assert rates[50:] == [0.5] * 6
    assert all(a < b for a, b in itertools.pairwise(rates[:11]))
    assert all(a > b for a, b in itertools.pairwise(rates[10:51]))


def test_schedule_without_warmup_starts_at_the_top() -> None:
    assert cosine_with_warmup(0, total=10, warmup=0, base=1.0) == 1.0
    assert cosine_with_warmup(10, total=10, warmup=10, base=1.0) == 0.0


@pytest.mark.parametrize(("step", "warmup"), [(-1, 0), (0, 11), (0, -1)])
def test_schedule_refuses(step: int, warmup: int) -> None:
    with pytest.raises(ValueError, match="of 10 steps"):
        cosine_with_warmup(step, total=10, warmup=warmup, base=1.0)
