"""Whether this machine can have a GPU, without torch, which takes seconds to import."""

import ctypes
from functools import lru_cache
from pathlib import Path

__all__ = ["has_gpu_driver"]

_CUDA, _ROCM = "libcuda.so.1", Path("/dev/kfd")


@lru_cache(maxsize=1)
def has_gpu_driver() -> bool:
    """Whether the driver of NVIDIA's or AMD's GPUs is installed."""
    if _ROCM.exists():
        return True
    try:
        ctypes.CDLL(_CUDA)
    except OSError:
        return False
    return True
