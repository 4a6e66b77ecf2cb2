"""Files whose content is checked before it is used: digests, JSON records, safetensors."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from schemas.errors import BundleError

__all__ = ["digest_file", "digest_json", "load_tensors", "read_json", "write_json"]


def digest_file(path: Path) -> str:
    """SHA-256 of a file's bytes, hex.

    Raises:
        BundleError: The file is missing.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror}") from error


def digest_json(record: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of a record in canonical JSON, so that key order does not count."""
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        BundleError: The file is missing, or is not a JSON object.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise BundleError(f"{path}: not JSON: {error}") from error
    if not isinstance(record, dict):
        raise BundleError(f"{path}: not a JSON object")
    return record


def write_json(record: Mapping[str, Any], path: Path) -> None:
    """Write a record as indented JSON."""
    path.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file, which cannot carry code.

    Raises:
        BundleError: The file is missing or damaged, or a floating-point tensor is not finite.
    """
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise BundleError(f"{path}: not a readable safetensors file: {error}") from error
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise BundleError(f"{path}: tensor {name} holds numbers that are not finite")
    return tensors
