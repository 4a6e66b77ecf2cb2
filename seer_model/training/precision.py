"""Mixed precision of a training."""

from typing import Any

import torch

__all__ = ["mixed_precision", "uses_bf16"]


def uses_bf16(device: torch.device, asked: bool | None) -> bool:
    """Whether to compute in bfloat16: as asked; None asks for it where the device has instructions.

    Elsewhere it is emulated, and slower than float32.
    """
    if asked is not None:
        return asked
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # torch 2.2, the last one for Intel Macs, does not tell.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def mixed_precision(device: torch.device, bf16: bool | None) -> torch.autocast:
    """A context in which matrix products and convolutions are in bfloat16, see `uses_bf16`."""
    return torch.autocast(device.type, torch.bfloat16, enabled=uses_bf16(device, bf16))
