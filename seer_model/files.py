"""Read and write the files of a model, none of which is trusted: digests, JSON, safetensors.

Whoever sends a model can write anything into it. Reading one executes nothing, follows no link out
of the model's folder, takes bounded memory, and refuses in one line that names the file.
"""

import hashlib
import json
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from reprlib import Repr
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from schemas.errors import BundleError

__all__ = [
    "STRICT",
    "Record",
    "check_content",
    "check_digests",
    "digest_file",
    "digest_folder",
    "digest_json",
    "load_arrays",
    "new_model",
    "parse_record",
    "read_json",
    "read_safetensors",
    "read_versioned",
    "save_arrays",
    "short_repr",
    "write_json",
]

STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
"""Pydantic's settings for what stands in a file: no conversions, no unknown keys."""

# 10,000 classes take 1 MB of JSON, a trunk of 1,000 tensors takes a header of 0.1 MB.
_MAX_JSON_BYTES = 16 << 20
_MAX_HEADER_BYTES = 8 << 20

_repr = Repr()
_repr.maxstring = _repr.maxother = 100
short_repr = _repr.repr
"""`repr` cut to one short line, to quote an untrusted value in a message."""


class Record(BaseModel):
    """Base of the models for JSON files."""

    model_config = STRICT | ConfigDict(frozen=True)


R = TypeVar("R", bound=Record)
T = TypeVar("T")


def digest_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex.

    Raises:
        BundleError: The file is missing, not a regular file, or a link out of its folder.
    """
    _check_file(path)
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror}") from error


def _check_file(path: Path) -> int:
    """Size in bytes of a file that is safe to open."""
    try:
        found = path.stat()
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror}") from error
    if not stat.S_ISREG(found.st_mode):
        raise BundleError(f"{path}: not a regular file")
    if not path.resolve().is_relative_to(path.parent.resolve()):
        raise BundleError(f"{path}: a link out of its folder; put the file itself there")
    return found.st_size


def digest_folder(folder: Path) -> str:
    """SHA-256 (hex) of a flat folder's files and their names."""
    return digest_json({path.name: digest_file(path) for path in folder.iterdir()})


def digest_json(record: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of a record's canonical JSON; the order of keys does not change it."""
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        BundleError: The file is missing, not a regular file, a link out of its folder, too large,
            or not a JSON object without duplicate keys.
    """
    if _check_file(path) > _MAX_JSON_BYTES:
        raise BundleError(f"{path}: larger than {_MAX_JSON_BYTES} bytes")
    try:
        record = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_unique_keys)
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path}: not JSON: {error}") from error
    if not isinstance(record, dict):
        raise BundleError(f"{path}: not a JSON object")
    return record


def _unique_keys(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse duplicate keys, since JSON parsers disagree on which one counts."""
    record: dict[str, Any] = {}
    for key, value in pairs:
        if key in record:
            raise ValueError(f"the key {short_repr(key)} appears twice")
        record[key] = value
    return record


def parse_record(record: Mapping[str, Any], kind: type[R], path: Path) -> R:
    """Check what `read_json` read and give it its types.

    Args:
        record: The file's content.
        kind: What it has to be.
        path: The file, for the message.

    Raises:
        BundleError: A key is missing or unknown, or a value is of the wrong type or out of range.
    """
    try:
        # As JSON: in Python values pydantic's strict mode takes no list for a tuple.
        return kind.model_validate_json(json.dumps(record))
    except ValidationError as error:
        raise BundleError(f"{path}: {_first_problem(error)}") from error
    except RecursionError as error:
        raise BundleError(f"{path}: nested too deeply") from error


def _first_problem(error: ValidationError) -> str:
    """One line from pydantic's report, which has several a problem."""
    problem = error.errors(include_url=False, include_context=False)[0]
    if not problem["loc"]:
        return problem["msg"]
    key = ".".join(str(part) if isinstance(part, int) else _short(part) for part in problem["loc"])
    match problem["type"]:
        case "missing" | "missing_argument":
            return f"key {key} is missing"
        case "extra_forbidden" | "unexpected_keyword_argument":
            return f"unknown key {key}"
    expected = problem["msg"].removeprefix("Input ").removeprefix("Value error, ")
    return f"{key} {expected}, not {short_repr(problem['input'])}"


def _short(key: str) -> str:
    return key if key.isidentifier() and len(key) <= 100 else short_repr(key)


def write_json(record: Mapping[str, Any], path: Path) -> None:
    """Write a record as indented JSON."""
    path.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_safetensors(path: Path, load: Callable[[Path], dict[str, T]]) -> dict[str, T]:
    """Read a safetensors file, which cannot carry code.

    Args:
        path: The file.
        load: The library's `load_file` for the kind of array that is wanted.

    Raises:
        BundleError: The file is missing, not a regular file, a link out of its folder or damaged,
            or has a type of number that `load` does not know.
    """
    _check_file(path)
    try:
        _check_header(path)
        return load(path)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        reason = str(error).partition("\n")[0]
        raise BundleError(f"{path}: not a readable safetensors file: {reason}") from error


def _check_header(path: Path) -> None:
    """Refuse long headers and duplicate names, both of which the library accepts."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > _MAX_HEADER_BYTES:
            raise ValueError(f"its header is longer than {_MAX_HEADER_BYTES} bytes")
        json.loads(file.read(size), object_pairs_hook=_unique_keys)


def read_versioned(path: Path, newest: str) -> dict[str, Any]:
    """Read the JSON object of a bundle; its `format` is a major and a minor version.

    Raises:
        BundleError: As `read_json`, and if there is no format or its major version is newer.
    """
    record = read_json(path)
    version = re.fullmatch(r"([0-9]{1,4})(\.[0-9]{1,4})?", str(record.get("format", "")))
    if not version:
        raise BundleError(f"{path}: no format version; this is not a model bundle")
    if int(version[1]) > int(newest.partition(".")[0]):
        raise BundleError(
            f"{path}: format {version[0]} is newer than {newest}, the newest this version "
            "of the package reads; update the package"
        )
    return record


def check_content(folder: Path, allowed: Collection[str], what: str) -> None:
    """Refuse foreign files, which would be registered and sent to executors with the rest.

    Args:
        folder: The model's folder.
        allowed: Files and folders that may be there, by their path in it.
        what: Names the model in messages.

    Raises:
        BundleError: There is another, or a link.
    """
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            raise BundleError(f"{path}: a link, which {what} must not hold")
        name = path.relative_to(folder)
        hidden = name.name.startswith(".") and path.is_file()  # Such as .DS_Store.
        if name.as_posix() not in allowed and not hidden:
            raise BundleError(f"{path}: does not belong into {what}; remove it")


@contextmanager
def new_model(folder: Path, record: str, what: str) -> Iterator[Path]:
    """Write a model, which takes an older one's place when it is complete.

    Args:
        folder: The model's folder, there or not.
        record: The file that every such model has.
        what: Names the model in messages.

    Yields:
        The folder to write to.

    Raises:
        BundleError: The folder has other content, which is not overwritten.
    """
    used = folder.is_file() or (folder.is_dir() and any(folder.iterdir()))
    if used and not (folder / record).is_file():
        raise BundleError(f"{folder}: exists and is not {what}; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    # Inside, so that it is on the same file system.
    with tempfile.TemporaryDirectory(dir=folder, prefix=".new-") as new:
        yield Path(new)
        for older in folder.iterdir():
            if older.name == Path(new).name:
                continue
            if older.is_dir() and not older.is_symlink():
                shutil.rmtree(older)
            else:
                older.unlink()
        for path in Path(new).iterdir():
            path.rename(folder / path.name)


def check_digests(
    record: Path, files: Mapping[str, str], needed: Sequence[str], *optional: str
) -> None:
    """Check that a record names the files of its folder, with their digests.

    Raises:
        BundleError: A file is missing, superfluous or damaged.
    """
    folder = record.parent
    if files.keys() - set(optional) != set(needed):
        also = f", with or without {', '.join(optional)}" if optional else ""
        raise BundleError(f"{record}: files must be exactly {', '.join(needed)}{also}")
    for name in optional:
        if name not in files and (folder / name).exists():
            raise BundleError(f"{folder / name}: is not among the files of {record.name}")
    for name in files:
        if digest_file(folder / name) != files[name]:
            raise BundleError(f"{folder / name}: its digest is not the one in {record.name}")


def save_arrays(arrays: Mapping[str, npt.NDArray[np.float32]], path: Path) -> None:
    """Write named arrays to a safetensors file."""
    # The library itself makes files that nobody else can read.
    path.write_bytes(save({name: np.ascontiguousarray(each) for name, each in arrays.items()}))


def load_arrays(
    path: Path, expected: Mapping[str, tuple[int | None, ...]]
) -> dict[str, npt.NDArray[np.float32]]:
    """Read arrays of these shapes, in which None stands for any length, as float32.

    Raises:
        BundleError: As `read_safetensors`, and if there are others, or they are not float16 or
            float32, or hold NaN or infinity.
    """
    arrays = read_safetensors(path, load_file)
    found = {name: array.shape for name, array in arrays.items()}
    fits = found.keys() == expected.keys() and all(
        len(shape) == len(found[name])
        and all(n in (None, m) for n, m in zip(shape, found[name], strict=True))
        for name, shape in expected.items()
    )
    if not fits:
        raise BundleError(f"{path}: tensors are {short_repr(found)}, expected {dict(expected)}")
    for name, array in arrays.items():
        if array.dtype not in (np.float16, np.float32):
            raise BundleError(f"{path}: tensor {short_repr(name)} is of type {array.dtype}")
        if not np.isfinite(array).all():
            raise BundleError(f"{path}: tensor {short_repr(name)} is not finite")
    return {name: array.astype(np.float32) for name, array in arrays.items()}
