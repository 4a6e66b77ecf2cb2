from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from seer_model.training.pretraining.model import SwavModel
from seer_model.training.pretraining.sync_batchnorm import SyncBatchNorm, with_sync_batchnorm
from tests.support.swav_training import run_processes

torch.set_num_threads(1)

PROCESSES = 2
CHANNELS = 3
LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "1d": (lambda: nn.BatchNorm1d(CHANNELS, momentum=0.3), (8, CHANNELS)),
    "2d": (lambda: nn.BatchNorm2d(CHANNELS, eps=1e-3), (8, CHANNELS, 4, 5)),
    "relu": (lambda: BatchNormAct2d(CHANNELS), (8, CHANNELS, 4, 5)),
    "silu": (lambda: BatchNormAct2d(CHANNELS, act_layer=nn.SiLU), (8, CHANNELS, 4, 5)),
}
Results = dict[str, torch.Tensor]


def make(name: str, dtype: torch.dtype) -> nn.Sequential:
    torch.manual_seed(0)
    layer = nn.Sequential(LAYERS[name][0]())
    nn.init.normal_(layer[0].weight, 1.0, 0.3)  # type: ignore[arg-type]
    nn.init.normal_(layer[0].bias, 0.0, 0.3)  # type: ignore[arg-type]
    return layer.to(dtype)


def batches(name: str, dtype: torch.dtype, offset: float) -> list[torch.Tensor]:
    """Whole batches: inputs and the output's gradient of two steps, and inputs for evaluation."""
    generator = torch.Generator().manual_seed(1)
    shape = LAYERS[name][1]
    made = [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(5)]
    # Rows differ, so that the processes' own means and variances do.
    rows = torch.arange(shape[0]).view(-1, *[1] * (len(shape) - 1))
    made[0], made[2] = made[0] * (1 + rows) + rows + offset, made[2] - 2 * rows + offset
    return [one.to(dtype) for one in made]


def use(layer: nn.Module, name: str, dtype: torch.dtype, part: slice, offset: float) -> Results:
    """Two steps and an evaluation, of a part of the batch."""
    one, by_one, two, by_two, evaluated = (x[part] for x in batches(name, dtype, offset))
    results = {}
    for step, (inputs, gradient) in enumerate(((one, by_one), (two, by_two))):
        inputs.requires_grad_()
        # A copy, because an activation may write over what it is given.
        outputs = layer(inputs * 1)
        outputs.backward(gradient)
        assert inputs.grad is not None
        results[f"outputs {step}"] = outputs.detach()
        results[f"inputs' gradient {step}"] = inputs.grad
    results |= {f"gradient of {n}": p.grad for n, p in layer.named_parameters()}  # type: ignore[misc]
    results |= {n: b.clone() for n, b in layer.named_buffers()}
    with torch.no_grad():
        results["evaluated"] = layer.eval()(evaluated)
    return results


def work(rank: int, folder: Path) -> None:
    part = slice(4 * rank, 4 * (rank + 1))
    results = {
        f"{name} {dtype} {offset}": use(
            with_sync_batchnorm(make(name, dtype)), name, dtype, part, offset
        )
        for name in LAYERS
        for dtype, offset in ((torch.float64, 0.0), (torch.float32, 0.0), (torch.float32, 1000.0))
    }
    layer = with_sync_batchnorm(make("relu", torch.float32))
    inputs = batches("relu", torch.float32, 0.0)[0][part].contiguous(
        memory_format=torch.channels_last
    )
    half = layer(inputs.to(torch.bfloat16))
    assert half.dtype == torch.bfloat16
    assert half.is_contiguous(memory_format=torch.channels_last)
    results["bfloat16"] = {"outputs": half.detach().float()}
    torch.save(results, folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Results]]:
    """What each process got, by case."""
    folder = tmp_path_factory.mktemp("processes")
    run_processes(PROCESSES, work, folder)
    ranks = [torch.load(folder / f"{r}.pt", weights_only=True) for r in range(PROCESSES)]
    return {case: [rank[case] for rank in ranks] for case in ranks[0]}


def whole(parts: list[Results]) -> Results:
    """What the processes got, put together."""
    together = {}
    for name in parts[0]:
        tensors = [part[name] for part in parts]
        if name.startswith("gradient of"):
            together[name] = torch.stack(tensors).sum(dim=0)
        elif name.startswith(("outputs", "inputs", "evaluated")):
            together[name] = torch.cat(tensors)
        else:
            assert all(tensor.equal(tensors[0]) for tensor in tensors), name
            together[name] = tensors[0]
    return together


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
def test_two_processes_do_what_one_does_with_the_whole_batch(
    name: str, processes: dict[str, list[Results]]
) -> None:
    expected = use(make(name, torch.float64), name, torch.float64, slice(None), 0.0)
    exact = whole(processes[f"{name} torch.float64 0.0"])
    assert exact.keys() == expected.keys()
    assert len(exact) == 2 * 2 + 2 + 3 + 1
    for case, tensor in expected.items():
        torch.testing.assert_close(exact[case], tensor, rtol=1e-12, atol=1e-12, msg=case)
    rounded = whole(processes[f"{name} torch.float32 0.0"])
    for case, tensor in expected.items():
        close = {"rtol": 1e-5, "atol": 1e-5, "check_dtype": False, "msg": case}
        torch.testing.assert_close(rounded[case], tensor, **close)


@pytest.mark.slow
def test_a_mean_far_from_zero_costs_no_precision(processes: dict[str, list[Results]]) -> None:
    """As the difference of mean square and squared mean, the variance would be all rounding."""
    expected = use(make("2d", torch.float64), "2d", torch.float64, slice(None), 1000.0)
    rounded = whole(processes["2d torch.float32 1000.0"])
    for case, tensor in expected.items():
        if case != "evaluated":
            close = {"rtol": 1e-3, "atol": 1e-3, "check_dtype": False, "msg": case}
            torch.testing.assert_close(rounded[case], tensor, **close)


@pytest.mark.slow
def test_bfloat16_stays_and_is_normalised_in_float32(processes: dict[str, list[Results]]) -> None:
    inputs = batches("relu", torch.float32, 0.0)[0].to(torch.bfloat16).float()
    expected = make("relu", torch.float32)(inputs).detach()
    outputs = whole(processes["bfloat16"])["outputs"]
    torch.testing.assert_close(outputs, expected, rtol=2**-8, atol=2**-8)


def test_a_models_state_keeps_its_names_and_tensors() -> None:
    model = SwavModel("regnety_002", projection=(8, 4), prototypes=5).eval()
    before = {
        name: (tensor.data_ptr(), tensor.shape) for name, tensor in model.state_dict().items()
    }
    photos = torch.rand(2, 3, 32, 32)
    expected = model([photos]).embeddings[0]
    assert with_sync_batchnorm(model) is model
    after = {name: (tensor.data_ptr(), tensor.shape) for name, tensor in model.state_dict().items()}
    assert list(after) == list(before)
    assert after == before
    kinds = {type(module) for module in model.modules()}
    assert SyncBatchNorm in kinds
    assert not any(issubclass(kind, nn.modules.batchnorm._BatchNorm) for kind in kinds)
    assert not any(module.training for module in model.modules())
    torch.testing.assert_close(model([photos]).embeddings[0], expected)
