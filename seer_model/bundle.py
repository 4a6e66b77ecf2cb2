"""The model bundle: one folder with all that scoring needs, usable without MLflow.

    bundle.json                   format, classes, calibration, training, digests of the other files
    backbone/backbone.json        architecture, preprocessing, licence
    backbone/weights.safetensors
    head.safetensors
    taxonomy.parquet

`bundle.json` holds the SHA-256 of every other file, so its own SHA-256 is the bundle's digest.
"""

import math
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file

from schemas.errors import BundleError, DataContractError
from schemas.taxonomy import Taxonomy
from seer_model.backbone import Backbone, load_backbone, save_backbone
from seer_model.calibration import Calibration
from seer_model.files import digest_file, load_tensors, read_json, write_json
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
        BundleError: A file is missing, damaged, does not fit the others, or is of a newer format.
    """
    path = folder / "bundle.json"
    record = read_json(path)
    major = str(record.get("format", "")).partition(".")[0]
    if not major.isdecimal():
        raise BundleError(f"{path}: no format version; this is not a model bundle")
    if int(major) > int(FORMAT.partition(".")[0]):
        raise BundleError(
            f"{path}: format {record['format']} is newer than {FORMAT}, the newest this version "
            "of the package reads; update the package"
        )
    files = record.get("files")
    if not isinstance(files, dict) or files.keys() != set(_FILES):
        raise BundleError(f"{path}: files must be exactly {', '.join(_FILES)}")
    for name in _FILES:
        if digest_file(folder / name) != files[name]:
            raise BundleError(
                f"{folder / name}: its digest is not the one that bundle.json records"
            )
    try:
        tree = ClassTree(_load_taxonomy(folder), record["classes"])
        classes = tuple(record["classes"])
        calibration = _calibration(record["calibration"])
        training = dict(record["training"])
    except (KeyError, TypeError, ValueError, DataContractError) as error:
        raise BundleError(f"{path}: {type(error).__name__}: {error}") from error
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
        raise BundleError(f"{path}: licence is not that of the backbone, {backbone.licence}")
    head = _load_head(folder / "head.safetensors", len(classes), backbone.width)
    return Bundle(backbone, head, tree, calibration, training, digest_file(path))


def _load_taxonomy(folder: Path) -> Taxonomy:
    try:
        table = pq.read_table(folder / "taxonomy.parquet")
    except (OSError, pa.ArrowException) as error:
        raise BundleError(f"{folder / 'taxonomy.parquet'}: {error}") from error
    return Taxonomy.from_table(table)


def _calibration(record: dict[str, Any]) -> Calibration:
    thresholds = tuple(None if t is None else float(t) for t in record["thresholds"])
    temperature = float(record["temperature"])
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be above 0, not {temperature}")
    if not all(t is None or math.isfinite(t) for t in thresholds):
        raise ValueError(f"thresholds must be finite, not {thresholds}")
    return Calibration(temperature, thresholds, float(record["target_precision"]))


def _load_head(path: Path, classes: int, width: int) -> LinearHead:
    tensors = load_tensors(path)
    expected = {"weight": (classes, width), "bias": (classes,)}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if found != expected:
        raise BundleError(f"{path}: tensors are {found}, expected {expected}")
    arrays = {name: tensor.float().numpy() for name, tensor in tensors.items()}
    return LinearHead(arrays["weight"], arrays["bias"])
