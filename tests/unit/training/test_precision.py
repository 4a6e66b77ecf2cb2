"""bfloat16 where the device has instructions for it."""

import pytest
import torch

from seer_model.training.precision import mixed_precision, uses_bf16

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_f": True, "avx512_bf16": True}, True),
        ({"avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ({"neon": True, "bf16": True}, True),
        ({"neon": True}, False),
    ],
)
def test_a_processor_is_asked(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], expected: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert uses_bf16(CPU, None) is expected
    with mixed_precision(CPU, None):
        assert torch.is_autocast_enabled("cpu") is expected


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), False), ((8, 0), True)])
def test_a_gpu_is_asked(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], expected: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    assert uses_bf16(CUDA, None) is expected


@pytest.mark.parametrize("asked", [True, False])
def test_who_asks_is_obeyed(asked: bool) -> None:
    assert uses_bf16(CPU, asked) is asked
    with mixed_precision(CPU, asked):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype is (torch.bfloat16 if asked else torch.float32)
