import copy
import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from seer_model.pretraining.optim import Larc, adamw, cosine_with_warmup, parameter_groups

Floats = npt.NDArray[np.float64]


def module() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))


def test_vectors_are_neither_decayed_nor_adapted() -> None:
    model = module()
    model[2].weight.requires_grad_(False)
    tensors, vectors = parameter_groups(model, weight_decay=0.5)
    assert [tuple(one.shape) for one in tensors["params"]] == [(4, 3, 3, 3)]
    assert sorted(tuple(one.shape) for one in vectors["params"]) == [(2,), (4,), (4,), (4,)]
    assert (tensors["weight_decay"], tensors["adapt"]) == (0.5, True)
    assert (vectors["weight_decay"], vectors["adapt"]) == (0.0, False)
    assert len(parameter_groups(nn.Linear(2, 2, bias=False), weight_decay=0.5)) == 1


def reference_step(
    weight: Floats,
    gradient: Floats,
    velocity: Floats,
    *,
    lr: float,
    decay: float,
    trust: float,
    clip: bool,
) -> tuple[Floats, Floats]:
    norm, slope = np.linalg.norm(weight), np.linalg.norm(gradient)
    rate = trust * norm / (slope + decay * norm)
    if clip:
        rate = min(rate / lr, 1.0)
    velocity = 0.9 * velocity + rate * (gradient + decay * weight)
    return weight - lr * velocity, velocity


@pytest.mark.parametrize(("clip", "trust"), [(False, 0.001), (True, 0.001), (True, 100.0)])
def test_larc_steps_as_the_paper_says(clip: bool, trust: float) -> None:
    generator = torch.Generator().manual_seed(0)
    layer = nn.Linear(5, 4)
    groups = parameter_groups(layer, weight_decay=0.1)
    optimiser = Larc(groups, lr=0.3, momentum=0.9, trust=trust, clip=clip)
    weight, bias = (one.detach().double().numpy().copy() for one in (layer.weight, layer.bias))
    velocity, bias_velocity = np.zeros_like(weight), np.zeros_like(bias)
    for _ in range(3):
        layer.weight.grad = torch.randn(4, 5, generator=generator)
        layer.bias.grad = torch.randn(4, generator=generator)
        gradient = layer.weight.grad.double().numpy().copy()
        bias_velocity = 0.9 * bias_velocity + layer.bias.grad.double().numpy()
        bias = bias - 0.3 * bias_velocity
        weight, velocity = reference_step(
            weight, gradient, velocity, lr=0.3, decay=0.1, trust=trust, clip=clip
        )
        optimiser.step()
    np.testing.assert_allclose(layer.weight.detach().numpy(), weight, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(layer.bias.detach().numpy(), bias, rtol=1e-4, atol=1e-6)
    assert [group["weight_decay"] for group in optimiser.param_groups] == [0.1, 0.0]


def test_larc_of_zero_weights_takes_a_plain_step() -> None:
    weight = nn.Parameter(torch.zeros(2, 2))
    optimiser = Larc([weight], lr=0.5)
    weight.grad = torch.ones(2, 2)
    optimiser.step()
    torch.testing.assert_close(weight.detach(), torch.full((2, 2), -0.5))


def test_larc_of_zero_gradients_stays_finite() -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    optimiser = Larc([weight], lr=0.0, clip=True, weight_decay=0.0)
    weight.grad = torch.zeros(2, 2)
    optimiser.step()
    assert torch.equal(weight.detach(), torch.ones(2, 2))


def test_larc_leaves_parameters_without_gradients_alone() -> None:
    moved, still = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    optimiser = Larc([moved, still], lr=0.5, weight_decay=0.1)
    loss = optimiser.step(lambda: _backward(moved))
    assert loss == 4.0
    assert not torch.equal(moved.detach(), torch.ones(2, 2))
    assert torch.equal(still.detach(), torch.ones(2, 2))


def _backward(weight: nn.Parameter) -> float:
    loss = weight.sum()
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.item()


def test_larc_resumes_from_its_state() -> None:
    first, second = (nn.Parameter(torch.ones(2, 2)) for _ in range(2))
    one, other = Larc([first], lr=0.5), Larc([second], lr=0.1)
    first.grad = torch.ones(2, 2)
    one.step()
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    with torch.no_grad():
        second.copy_(first)
    for weight, optimiser in ((first, one), (second, other)):
        weight.grad = torch.full((2, 2), 0.5)
        optimiser.step()
    torch.testing.assert_close(first, second)


def test_adamw_has_the_same_groups() -> None:
    optimiser = adamw(module(), lr=1e-3, weight_decay=0.2)
    assert [group["weight_decay"] for group in optimiser.param_groups] == [0.2, 0.0]
    assert [len(group["params"]) for group in optimiser.param_groups] == [2, 4]


def test_schedule_rises_in_a_line_and_falls_in_a_cosine() -> None:
    rates = [
        cosine_with_warmup(step, total=50, warmup=10, base=2.0, final=0.5, start=0.1)
        for step in range(56)
    ]
    assert rates[0] == 0.1
    assert rates[5] == pytest.approx(1.05)
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
