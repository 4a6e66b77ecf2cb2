"""Checkpoints of a training: written atomically, verified by digest when read, never pickle.

    FOLDER/step-00001234/checkpoint.json      format, step, SHA-256 of the other two files
    FOLDER/step-00001234/state.json
    FOLDER/step-00001234/tensors.safetensors

A checkpoint is written to `FOLDER/.saving`, flushed to disk and renamed. So a `step-` folder is
complete, whenever the process or the machine dies. Only one process may write to a folder at a
time.
"""

import json
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
# `.old` is a checkpoint that is being replaced by another of the same step.
_NAME = re.compile(r"step-(\d{8,})(\.old)?")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory.

    Attributes:
        path: The checkpoint's folder.
        step: Steps done when it was saved.
        tensors: The saved tensors, bit-identical, on the CPU.
        state: The saved JSON object.
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
    """Write the checkpoint of a step and remove the oldest ones.

    Replaces a checkpoint of the same step. Those of later steps, left by another run, stay.

    Args:
        folder: Folder of the run's checkpoints; created if missing.
        step: Steps done, from 0.
        tensors: Tensors of any dtype and device. Tensors that share memory are saved separately.
        state: A JSON object; tuples come back as lists. See `flatten_state`.
        keep: Checkpoints to keep, including this one.

    Returns:
        The checkpoint's folder.

    Raises:
        SettingsError: It cannot be written, for example because the disk is full. Earlier
            checkpoints are untouched.
        TypeError: The state is not JSON.
        ValueError: `step` is negative or `keep` is below 1.
    """
    if step < 0 or keep < 1:
        raise ValueError(f"step must be 0 or more and keep 1 or more, not {step} and {keep}")
    target = folder / f"step-{step:08d}"
    staged = folder / ".saving"
    with _may_fail(target):
        folder.mkdir(parents=True, exist_ok=True)
        if staged.exists():  # Left by a run that died while saving.
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
            f"{target}: the checkpoint cannot be written ({reason}); earlier ones are untouched"
        ) from error


def _write(
    staged: Path, step: int, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]
) -> None:
    # In one line: to indent it, json would take longer than a step of a small trunk.
    text = json.dumps(state, ensure_ascii=False)
    (staged / "state.json").write_text(f"{text}\n", encoding="utf-8")
    save_file(_separate(tensors), staged / "tensors.safetensors")
    # Damage to this file changes a digest or the step, so it needs no digest itself.
    digests = {name: digest_file(staged / name) for name in _FILES}
    write_json({"format": _FORMAT, "step": step, "sha256": digests}, staged / "checkpoint.json")
    for path in staged.iterdir():
        _flush(path)
    _flush(staged)


def _separate(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Contiguous CPU tensors without shared memory, as safetensors requires."""
    separate, storages = {}, set()
    for name, tensor in tensors.items():
        flat = tensor.detach().cpu().contiguous()
        storage = flat.untyped_storage().data_ptr()
        separate[name] = flat.clone() if storage in storages else flat
        storages.add(storage)
    return separate


def _put_in_place(staged: Path, target: Path) -> None:
    """Rename, so that at every moment the new checkpoint or the one it replaces has a name."""
    if target.exists():
        old = target.with_name(f"{target.name}.old")
        if old.exists():
            shutil.rmtree(old)
        target.rename(old)
    staged.rename(target)


def _flush(path: Path) -> None:
    """Flush a file, or a folder's entries, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _newest_first(folder: Path) -> list[tuple[int, Path]]:
    """Checkpoints with their steps, intact or not; `.old` comes after its replacement."""
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
                log.warning("%s: cannot remove the old checkpoint (%s)", path, error.strerror)


def has_checkpoints(folder: Path) -> bool:
    """Whether a folder holds checkpoints, intact or not.

    Raises:
        SettingsError: It exists and cannot be listed.
    """
    return bool(_newest_first(folder))


def load_latest(folder: Path) -> Checkpoint | None:
    """Read the newest intact checkpoint, with a warning for each damaged one that is newer.

    Returns:
        The checkpoint, or None if there is none that is intact.

    Raises:
        SettingsError: The folder exists and cannot be listed.
    """
    for step, path in _newest_first(folder):
        try:
            return _load(path, step)
        except BundleError as error:
            log.warning("damaged checkpoint, falling back to the previous one: %s", error)
    return None


def _load(path: Path, step: int) -> Checkpoint:
    record = read_json(path / "checkpoint.json")
    digests = record.pop("sha256", None)
    if record != {"format": _FORMAT, "step": step} or not isinstance(digests, dict):
        raise BundleError(f"{path / 'checkpoint.json'}: expected step {step} in format {_FORMAT}")
    for name in _FILES:
        if digest_file(path / name) != digests.get(name):
            raise BundleError(f"{path / name}: digest does not match checkpoint.json")
    # `seer_model.files.load_tensors` would refuse tensors that are not finite.
    tensors = load_file(path / "tensors.safetensors")
    return Checkpoint(path, step, tensors, read_json(path / "state.json"))


def flatten_state(state: Mapping[Any, Any]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Split a nested state into tensors and JSON, for `save_checkpoint`.

    Args:
        state: Mappings, lists, tuples, tensors, numbers, strings, booleans and None, nested to any
            depth; keys are numbers, strings, booleans or None. For example `{"model":
            model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}`.

    Returns:
        The tensors, named by their position, and a JSON object that refers to them.

    Raises:
        TypeError: A value or key has another type; the message says where.
    """
    tensors: dict[str, torch.Tensor] = {}
    record = _flatten(state, (), tensors)
    return tensors, record


def _flatten(value: Any, path: tuple[Any, ...], tensors: dict[str, torch.Tensor]) -> Any:
    """Encode scalars and lists as themselves, anything else as a JSON object with one key."""
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
    raise TypeError(f"state{where}: a {type(value).__qualname__} cannot be saved")


def unflatten_state(
    tensors: Mapping[str, torch.Tensor], record: Mapping[str, Any]
) -> dict[Any, Any]:
    """Invert `flatten_state`; every mapping becomes a plain dict.

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
