"""Files whose content is checked before it is used: digests, JSON records, safetensors."""

import hashlib
import json
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from reprlib import Repr
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from schemas.errors import BundleError

__all__ = [
    "DTYPES",
    "digest_file",
    "digest_json",
    "load_tensors",
    "read_json",
    "short_repr",
    "write_json",
]

DTYPES = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.int64})
"""Of the tensors of a model."""

# A bundle of 10,000 classes has a record of 1 MB, a trunk of 1,000 tensors a header of 0.1 MB.
_MOST_JSON_BYTES = 16 << 20
_MOST_HEADER_BYTES = 8 << 20

_repr = Repr()
_repr.maxstring = _repr.maxother = 100
short_repr = _repr.repr
"""What a file of others holds, in one short line for a message."""


def digest_file(path: Path) -> str:
    """SHA-256 of a file's bytes, hex.

    Raises:
        BundleError: The file is missing, no regular file, or a link out of its folder.
    """
    _check_file(path)
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror}") from error


def _check_file(path: Path) -> int:
    """The size in bytes of a file that may be read."""
    try:
        found = path.stat()
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror}") from error
    if not stat.S_ISREG(found.st_mode):
        raise BundleError(f"{path}: is no regular file")
    if not path.resolve().is_relative_to(path.parent.resolve()):
        raise BundleError(f"{path}: is a link out of its folder; put the file itself there")
    return found.st_size


def digest_json(record: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of a record in canonical JSON, so that key order does not count."""
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        BundleError: The file is missing, no regular file, a link out of its folder or too large,
            or is not a JSON object whose keys come once each.
    """
    if _check_file(path) > _MOST_JSON_BYTES:
        raise BundleError(f"{path}: is larger than {_MOST_JSON_BYTES} bytes")
    try:
        record = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_object)
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path}: not JSON: {error}") from error
    if not isinstance(record, dict):
        raise BundleError(f"{path}: not a JSON object")
    return record


def _object(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; of a key that comes twice, readers of JSON disagree which counts."""
    record: dict[str, Any] = {}
    for key, value in pairs:
        if key in record:
            raise ValueError(f"the key {short_repr(key)} comes twice")
        record[key] = value
    return record


def write_json(record: Mapping[str, Any], path: Path) -> None:
    """Write a record as indented JSON."""
    path.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file, which cannot carry code.

    Raises:
        BundleError: The file is missing, no regular file, a link out of its folder or damaged, or
            a tensor is neither int64 nor of floating-point numbers of 16 or 32 bits, all finite.
    """
    _check_file(path)
    try:
        _check_header(path)
        tensors = load_file(path)
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        reason = str(error).partition("\n")[0]
        raise BundleError(f"{path}: not a readable safetensors file: {reason}") from error
    for name, tensor in tensors.items():
        if tensor.dtype not in DTYPES:
            raise BundleError(f"{path}: tensor {short_repr(name)} is of type {tensor.dtype}")
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise BundleError(
                f"{path}: tensor {short_repr(name)} holds numbers that are not finite"
            )
    return tensors


def _check_header(path: Path) -> None:
    """The library takes long headers, and of a name that comes twice the last."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > _MOST_HEADER_BYTES:
            raise ValueError(f"its header is longer than {_MOST_HEADER_BYTES} bytes")
        json.loads(file.read(size), object_pairs_hook=_object)
