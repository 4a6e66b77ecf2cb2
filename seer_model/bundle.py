"""The model bundle: one folder with all that scoring needs, usable without MLflow.

    bundle.json                   format, classes, calibration, training, digests of the other files
    backbone/backbone.json        architecture, preprocessing, licence
    backbone/weights.safetensors
    head.safetensors
    taxonomy.parquet

`bundle.json` holds the SHA-256 of every other file, so its own SHA-256 is the bundle's digest.
"""

import re
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file

from schemas.errors import BundleError, DataContractError, TaxonomyError
from schemas.taxonomy import TAXONOMY, Taxonomy
from seer_model.backbone import Backbone, load_backbone, save_backbone
from seer_model.calibration import Calibration
from seer_model.files import digest_file, load_tensors, read_json, short_repr, write_json
from seer_model.head import LinearHead
from seer_model.hierarchy import ClassTree

__all__ = ["FORMAT", "Bundle", "load_bundle", "save_bundle"]

FORMAT = "1.0"
"""Major and minor version of the layout; a reader refuses a newer major version."""

_FILES = (
    "backbone/backbone.json",
    "backbone/weights.safetensors",
    "head.safetensors",
    "taxonomy.parquet",
)
_ALL_PATHS = frozenset({"bundle.json", "backbone", *_FILES})
_MOST_CATEGORIES = 1_000_000  # Shopify's taxonomy has 10,600.


@dataclass(frozen=True)
class Bundle:
    """Everything that turns a listing's photos into a category.

    Attributes:
        backbone: Photos to features.
        head: Features to logits.
        tree: The classes, in the order of the head's rows, within their taxonomy.
        calibration: Logits to decisions.
        training: Where the head comes from: fingerprint of the data, settings, figures on `val`.
        digest: SHA-256 (hex) of `bundle.json`; empty until the bundle was saved.
    """

    backbone: Backbone
    head: LinearHead
    tree: ClassTree
    calibration: Calibration
    training: dict[str, Any] = field(default_factory=dict)
    digest: str = ""


def save_bundle(bundle: Bundle, folder: Path) -> Bundle:
    """Write a bundle's folder, replacing an older bundle there; returns it with its digest.

    Raises:
        BundleError: The folder exists and is not a bundle, and so is not overwritten.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        if not (folder / "bundle.json").is_file():
            raise BundleError(f"{folder}: exists and is not a bundle; choose another folder")
        shutil.rmtree(folder)
    save_backbone(bundle.backbone, folder / "backbone")
    tensors = {"weight": bundle.head.weight, "bias": bundle.head.bias}
    save_file(
        {name: torch.from_numpy(array) for name, array in tensors.items()},
        folder / "head.safetensors",
    )
    pq.write_table(bundle.tree.taxonomy.to_table(), folder / "taxonomy.parquet")
    calibration = bundle.calibration
    write_json(
        {
            "format": FORMAT,
            "licence": bundle.backbone.licence,
            "taxonomy_version": bundle.tree.taxonomy.version,
            "taxonomy_digest": bundle.tree.taxonomy.digest,
            "classes": list(bundle.tree.classes),
            "calibration": {
                "temperature": calibration.temperature,
                "thresholds": list(calibration.thresholds),
                "target_precision": calibration.target_precision,
            },
            "training": bundle.training,
            "files": {name: digest_file(folder / name) for name in _FILES},
        },
        folder / "bundle.json",
    )
    return load_bundle(folder)


def load_bundle(folder: Path) -> Bundle:
    """Read and check a bundle's folder.

    Raises:
        BundleError: A file is missing, damaged, does not fit the others, is no part of a bundle or
            no file of its folder, or is of a newer format.
    """
    path = folder / "bundle.json"
    record = read_json(path)
    version = re.fullmatch(r"([0-9]{1,4})(\.[0-9]{1,4})?", str(record.get("format", "")))
    if not version:
        raise BundleError(f"{path}: no format version; this is not a model bundle")
    if int(version[1]) > int(FORMAT.partition(".")[0]):
        raise BundleError(
            f"{path}: format {version[0]} is newer than {FORMAT}, the newest this version "
            "of the package reads; update the package"
        )
    _check_content(folder)
    files = record.get("files")
    if not isinstance(files, dict) or files.keys() != set(_FILES):
        raise BundleError(f"{path}: files must be exactly {', '.join(_FILES)}")
    for name in _FILES:
        if digest_file(folder / name) != files[name]:
            raise BundleError(
                f"{folder / name}: its digest is not the one that bundle.json records"
            )
    taxonomy = _load_taxonomy(folder / "taxonomy.parquet")
    try:
        tree = ClassTree(taxonomy, record["classes"])
        classes = tuple(record["classes"])
        calibration = _calibration(record["calibration"])
        training = _mapping(record["training"])
    except (KeyError, TypeError, ValueError, DataContractError) as error:
        raise BundleError(f"{path}: {type(error).__name__}: {_line(error)}") from error
    if tree.classes != classes:
        raise BundleError(f"{path}: the classes are not in the order of the taxonomy")
    if tree.taxonomy.digest != record.get("taxonomy_digest"):
        raise BundleError(f"{path}: taxonomy_digest is not that of taxonomy.parquet")
    if len(calibration.thresholds) != len(tree.levels):
        raise BundleError(
            f"{path}: {len(calibration.thresholds)} thresholds for {len(tree.levels)} levels"
        )
    backbone = load_backbone(folder / "backbone")
    if backbone.licence != record.get("licence"):
        raise BundleError(f"{path}: licence is not the backbone's, {short_repr(backbone.licence)}")
    head = _load_head(folder / "head.safetensors", len(classes), backbone.width)
    return Bundle(backbone, head, tree, calibration, training, digest_file(path))


def _check_content(folder: Path) -> None:
    """Whoever sends or registers a bundle takes all that is in its folder."""
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            raise BundleError(f"{path}: is a link; a model bundle has none")
        name = path.relative_to(folder)
        hidden = name.name.startswith(".") and path.is_file()  # As file systems leave them.
        if name.as_posix() not in _ALL_PATHS and not hidden:
            raise BundleError(f"{path}: is no part of a model bundle; remove it")


def _load_taxonomy(path: Path) -> Taxonomy:
    try:
        with pq.ParquetFile(path) as file:
            # Not of its row groups or columns: pyarrow ends the process where those are damaged.
            if file.metadata.num_rows > _MOST_CATEGORIES:
                raise BundleError(f"{path}: more than {_MOST_CATEGORIES} categories")
            return Taxonomy.from_table(file.read(columns=TAXONOMY.names))
    except (OSError, ValueError, pa.ArrowException, TaxonomyError) as error:
        raise BundleError(f"{path}: {_line(error)}") from error


def _line(error: Exception) -> str:
    """The first line of a message, which may quote what others wrote at any length."""
    return str(error).partition("\n")[0][:500]


def _calibration(record: Any) -> Calibration:
    record = _mapping(record)
    thresholds = tuple(
        None if t is None else _number(t, "a threshold") for t in record["thresholds"]
    )
    temperature = _number(record["temperature"], "temperature")
    if temperature <= 0:
        raise ValueError(f"temperature must be above 0, not {temperature}")
    target = _number(record["target_precision"], "target_precision")
    return Calibration(temperature, thresholds, target)


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"expected an object, not {short_repr(value)}")
    return value


def _number(value: Any, what: str) -> float:
    """A finite number of JSON, which has true, text and infinity besides."""
    if type(value) not in (int, float) or not abs(value) <= sys.float_info.max:
        raise ValueError(f"{what} must be a finite number, not {short_repr(value)}")
    return float(value)


def _load_head(path: Path, classes: int, width: int) -> LinearHead:
    tensors = load_tensors(path)
    expected = {"weight": (classes, width), "bias": (classes,)}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if found != expected:
        raise BundleError(f"{path}: tensors are {short_repr(found)}, expected {expected}")
    if not all(tensor.is_floating_point() for tensor in tensors.values()):
        raise BundleError(f"{path}: tensors are not of floating-point numbers")
    arrays = {name: tensor.float().numpy() for name, tensor in tensors.items()}
    return LinearHead(arrays["weight"], arrays["bias"])
