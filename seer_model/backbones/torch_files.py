"""Tensors from files: safetensors, and what `torch.save` wrote.

The latter is a pickle, read without executing the code that it may hold.
"""

import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from schemas.errors import BundleError, SettingsError
from seer_model.files import read_safetensors, short_repr

__all__ = ["State", "check_tensors", "load_tensors", "read_torch_file"]

State = dict[str, torch.Tensor]

DTYPES = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.int64})
"""Types that a model's tensors may have."""


def load_tensors(path: Path) -> State:
    """Read a safetensors file, which cannot carry code.

    Raises:
        BundleError: The file is missing, not a regular file, a link out of its folder or damaged,
            or a tensor is of a type not in `DTYPES` or holds NaN or infinity.
    """
    tensors: State = read_safetensors(path, load_file)
    for name, tensor in tensors.items():
        if tensor.dtype not in DTYPES:
            raise BundleError(f"{path}: tensor {short_repr(name)} is of type {tensor.dtype}")
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise BundleError(f"{path}: tensor {short_repr(name)} is not finite")
    return tensors


def read_torch_file(path: Path) -> Any:
    """Read a file's content; tensors are mapped from it where its format allows.

    Raises:
        SettingsError: There is no such file.
        BundleError: It holds pickled code, or is damaged.
    """
    if not path.is_file():
        raise SettingsError(f"{path}: no such file")
    try:
        zipped = zipfile.is_zipfile(path)
        if zipped:
            _check_stored(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # About content that is refused below.
            # Only the zip format, torch's since 1.6, can be mapped.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:  # A damaged pickle can raise anything.
        named = re.search(r"GLOBAL (\S+)", str(error))
        reason = (
            f"holds pickled code ({named[1]}), which is not run"
            if named
            else f"not a readable checkpoint ({type(error).__name__})"
        )
        raise BundleError(f"{path}: {reason}; download it again from its publisher") from error


def _check_stored(path: Path) -> None:
    """Refuse compressed entries: torch writes none, and one may unpack to 1,000 times its size."""
    with zipfile.ZipFile(path) as file:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in file.infolist()):
            raise zipfile.BadZipFile("compressed")


def check_tensors(state: Any, where: str, path: Path) -> State:
    """Refuse everything but plain finite tensors that together fit into the file.

    Args:
        state: What `read_torch_file` read, or a part of it.
        where: Names that part, for the message.
        path: The file.

    Raises:
        BundleError: Names the first thing that is something else.
    """
    if not isinstance(state, Mapping):
        raise BundleError(f"{path}: {where} is not a mapping of tensors")
    for name, tensor in state.items():
        if not isinstance(tensor, torch.Tensor):
            raise BundleError(f"{path}: {short_repr(name)} in {where} is not a tensor")
        if not _is_plain(tensor):
            raise BundleError(
                f"{path}: tensor {short_repr(name)} is not a plain array of "
                f"{', '.join(sorted(str(dtype).removeprefix('torch.') for dtype in DTYPES))}"
            )
    # Tensors may share their memory, and so be larger than what is stored.
    if sum(tensor.nbytes for tensor in state.values()) > path.stat().st_size:
        raise BundleError(f"{path}: its tensors are larger than the file")
    for name, tensor in state.items():
        if not bool(torch.isfinite(tensor).all()):
            raise BundleError(f"{path}: tensor {short_repr(name)} is not finite")
    return {str(name): tensor.detach() for name, tensor in state.items()}


def _is_plain(tensor: torch.Tensor) -> bool:
    """Whether each value has a place in memory of its own; their order may be another."""
    return (
        tensor.layout == torch.strided
        and tensor.device.type == "cpu"
        and tensor.dtype in DTYPES
        and (tensor.is_contiguous() or tensor.untyped_storage().nbytes() == tensor.nbytes)
    )
