"""Checkpoints of a training run: all of it or nothing, checked before it is used, never pickle.

    FOLDER/step-00001234/checkpoint.json      format, step, SHA-256 of the other two
    FOLDER/step-00001234/state.json
    FOLDER/step-00001234/tensors.safetensors

A checkpoint is written under `FOLDER/.saving`, flushed to the disk and renamed, so a folder of that
name is complete whenever the process or the machine died. One process writes to a folder at a time.
"""

import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from schemas.errors import BundleError, SettingsError
from seer_model.files import digest_file, read_json, write_json

__all__ = [
    "Checkpoint",
    "flatten_state",
    "has_checkpoints",
    "load_latest",
    "save_checkpoint",
    "unflatten_state",
]

log = logging.getLogger(__name__)

_FORMAT = 1
_FILES = ("state.json", "tensors.safetensors")
# While a step's checkpoint is replaced, the one before it is the same name with `.old`.
_NAME = re.compile(r"step-(\d{8,})(\.old)?")


@dataclass(frozen=True)
class Checkpoint:
    """What `save_checkpoint` was given.

    Attributes:
        path: The checkpoint's folder.
        step: Steps done when it was saved.
        tensors: On the CPU, bit for bit.
        state: The JSON object.
    """

    path: Path
    step: int
    tensors: dict[str, torch.Tensor]
    state: dict[str, Any]


def save_checkpoint(
    folder: Path,
    step: int,
    tensors: Mapping[str, torch.Tensor],
    state: Mapping[str, Any],
    *,
    keep: int = 2,
) -> Path:
    """Write the checkpoint of a step, then remove those of earlier steps but the newest.

    A checkpoint of the same step is replaced. Those of later steps, which another run left, stay.

    Args:
        folder: Where the checkpoints of this run are; made if need be.
        step: Steps done, from 0.
        tensors: Of any dtype and device; some may share memory, and come back with their own.
        state: A JSON object: tuples come back as lists. `flatten_state` makes one of anything.
        keep: How many checkpoints to keep, this one included.

    Returns:
        The checkpoint's folder.

    Raises:
        SettingsError: It cannot be written: the disk is full, say. Those before it are untouched.
        TypeError: The state is not JSON.
        ValueError: The step is negative, or none is to be kept.
    """
    if step < 0 or keep < 1:
        raise ValueError(f"step must be 0 or more and keep 1 or more, not {step} and {keep}")
    target = folder / f"step-{step:08d}"
    staged = folder / ".saving"
    with _may_fail(target):
        folder.mkdir(parents=True, exist_ok=True)
        if staged.exists():  # A run died here.
            shutil.rmtree(staged)
        try:
            staged.mkdir()
            _write(staged, step, tensors, state)
            _put_in_place(staged, target)
        except BaseException:
            shutil.rmtree(staged, ignore_errors=True)
            raise
        _flush(folder)
    _prune(folder, step, keep)
    return target


@contextmanager
def _may_fail(target: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SettingsError(
            f"{target}: the checkpoint cannot be written ({reason}); those before it are untouched"
        ) from error


def _write(
    staged: Path, step: int, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]
) -> None:
    write_json(state, staged / "state.json")
    save_file(_separate(tensors), staged / "tensors.safetensors")
    # A wrong digest or step cannot match, so this file needs no digest of its own.
    digests = {name: digest_file(staged / name) for name in _FILES}
    write_json({"format": _FORMAT, "step": step, "sha256": digests}, staged / "checkpoint.json")
    for path in staged.iterdir():
        _flush(path)
    _flush(staged)


def _separate(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Contiguous tensors on the CPU, no two of which share memory: safetensors refuses others."""
    separate, storages = {}, set()
    for name, tensor in tensors.items():
        flat = tensor.detach().cpu().contiguous()
        storage = flat.untyped_storage().data_ptr()
        separate[name] = flat.clone() if storage in storages else flat
        storages.add(storage)
    return separate


def _put_in_place(staged: Path, target: Path) -> None:
    """Rename; at every moment the new checkpoint or the one it replaces has a name of its own."""
    if target.exists():
        old = target.with_name(f"{target.name}.old")
        if old.exists():
            shutil.rmtree(old)
        target.rename(old)
    staged.rename(target)


def _flush(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _newest_first(folder: Path) -> list[tuple[int, Path]]:
    """The folder's checkpoints, good or not, with their steps; `.old` after the one of its step."""
    try:
        names = [(_NAME.fullmatch(path.name), path) for path in folder.iterdir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise SettingsError(f"{folder}: cannot be read ({error.strerror})") from error
    found = [(int(name[1]), name[2] is None, path) for name, path in names if name]
    return [(step, path) for step, _, path in sorted(found, reverse=True)]


def _prune(folder: Path, step: int, keep: int) -> None:
    paths = [path for other, path in _newest_first(folder) if other <= step]
    kept = [path for path in paths if path.suffix != ".old"][:keep]
    for path in paths:
        if path not in kept:
            try:
                shutil.rmtree(path)
            except OSError as error:
                log.warning("%s: an old checkpoint cannot be removed (%s)", path, error.strerror)


def has_checkpoints(folder: Path) -> bool:
    """Whether a folder holds checkpoints, intact or not.

    Raises:
        SettingsError: It exists and cannot be listed.
    """
    return bool(_newest_first(folder))


def load_latest(folder: Path) -> Checkpoint | None:
    """Read the newest checkpoint that is intact; a warning names each newer one and its damage.

    Returns:
        The checkpoint, or None where there is none that is intact.

    Raises:
        SettingsError: The folder exists and cannot be listed.
    """
    for step, path in _newest_first(folder):
        try:
            return _load(path, step)
        except BundleError as error:
            log.warning("damaged checkpoint, trying the one before: %s", error)
    return None


def _load(path: Path, step: int) -> Checkpoint:
    record = read_json(path / "checkpoint.json")
    digests = record.pop("sha256", None)
    if record != {"format": _FORMAT, "step": step} or not isinstance(digests, dict):
        raise BundleError(f"{path / 'checkpoint.json'}: not of step {step} in format {_FORMAT}")
    for name in _FILES:
        if digest_file(path / name) != digests.get(name):
            raise BundleError(f"{path / name}: its digest is not the one in checkpoint.json")
    # Not `load_tensors`, which refuses what is not finite: a checkpoint gives back what it got.
    tensors = load_file(path / "tensors.safetensors")
    return Checkpoint(path, step, tensors, read_json(path / "state.json"))


def flatten_state(state: Mapping[Any, Any]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Take a nested state apart into tensors and JSON, for `save_checkpoint`.

    One call takes a whole training state, such as `{"model": model.state_dict(), "optimizer":
    optimizer.state_dict(), "torch_rng": torch.get_rng_state(), "epoch": 3}`.

    Args:
        state: Mappings, lists, tuples, tensors (uint8 states of generators too), numbers, strings,
            booleans and None, nested at will; the keys of a mapping are any of the last four.

    Returns:
        The tensors, named by where they were, and a JSON object that refers to them.

    Raises:
        TypeError: Something else is in there; the message says where.
    """
    tensors: dict[str, torch.Tensor] = {}
    record = _flatten(state, (), tensors)
    return tensors, record


def _flatten(value: Any, path: tuple[Any, ...], tensors: dict[str, torch.Tensor]) -> Any:
    """Scalars and lists are themselves; a JSON object with one key stands for anything else."""
    if isinstance(value, torch.Tensor):
        name = ".".join(map(str, path))
        while name in tensors:  # Of {1: {}, "1": {}}, say.
            name += "_"
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {
            "dict": [
                [_flatten_scalar(key, path), _flatten(item, (*path, key), tensors)]
                for key, item in value.items()
            ]
        }
    if isinstance(value, list | tuple):
        items = [_flatten(item, (*path, index), tensors) for index, item in enumerate(value)]
        return {"tuple": items} if isinstance(value, tuple) else items
    return _flatten_scalar(value, path)


def _flatten_scalar(value: Any, path: tuple[Any, ...]) -> bool | int | float | str | None:
    if value is None or isinstance(value, bool):
        return value
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind(value)
    where = "".join(f"[{key!r}]" for key in path)
    raise TypeError(f"a state may not hold a {type(value).__qualname__}: state{where}")


def unflatten_state(
    tensors: Mapping[str, torch.Tensor], record: Mapping[str, Any]
) -> dict[Any, Any]:
    """Put together what `flatten_state` took apart; every mapping is a plain dict.

    Raises:
        KeyError: A tensor is missing.
    """
    state: dict[Any, Any] = _unflatten(record, tensors)
    return state


def _unflatten(record: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    if isinstance(record, list):
        return [_unflatten(item, tensors) for item in record]
    if not isinstance(record, Mapping):
        return record
    ((kind, content),) = record.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: _unflatten(item, tensors) for key, item in content}
    return tuple(_unflatten(item, tensors) for item in content)
