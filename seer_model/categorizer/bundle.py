"""The model bundle: one folder with everything that scoring needs, usable without MLflow.

    bundle.json                   format, classes, calibration, training, digests of the other files
    backbone/backbone.json        architecture, preprocessing, licence
    backbone/weights.safetensors
    backbone/network.xml, .bin    since format 1.2, see `seer_model.backbones.backbone`
    head.safetensors
    familiarity.safetensors       since format 1.1; a bundle without it finds nothing unfamiliar
    taxonomy.parquet

`bundle.json` holds the SHA-256 of every other file, so its own SHA-256 is the bundle's digest.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ConfigDict, FailFast

from schemas.errors import BundleError, DataContractError, TaxonomyError
from schemas.taxonomy import TAXONOMY, Taxonomy
from seer_model.backbones.backbone import (
    NETWORK_FILES,
    Backbone,
    load_backbone,
    save_backbone,
)
from seer_model.categorizer.familiarity import Familiarity
from seer_model.categorizer.hierarchy import ClassTree
from seer_model.categorizer.thresholds import Calibration
from seer_model.files import (
    Record,
    check_content,
    check_digests,
    digest_file,
    load_arrays,
    new_model,
    parse_record,
    read_versioned,
    save_arrays,
    short_repr,
    write_json,
)
from seer_model.linear_head import LinearHead

__all__ = ["FORMAT", "Bundle", "ResolvedBundle", "load_bundle", "save_bundle"]

FORMAT = "1.2"
"""Major and minor version of the layout; a reader refuses a newer major version."""

_FILES = (
    "backbone/backbone.json",
    "backbone/weights.safetensors",
    "head.safetensors",
    "taxonomy.parquet",
)
_FAMILIARITY = "familiarity.safetensors"
_NETWORK = tuple(f"backbone/{name}" for name in NETWORK_FILES)
_ALL_PATHS = frozenset({"bundle.json", "backbone", *_FILES, *_NETWORK, _FAMILIARITY})
_MAX_CATEGORIES = 1_000_000  # Shopify's taxonomy has 10,600.


@dataclass(frozen=True)
class Bundle:
    """Everything that turns a listing's photos into a category.

    Attributes:
        backbone: Photos to features.
        head: Features to logits.
        tree: The classes, in the order of the head's rows, and their taxonomy.
        calibration: Logits to decisions.
        training: How the head was trained: fingerprint of the data, settings, figures on `val`.
        familiarity: Features to distances from the classes; None if nothing is unfamiliar.
        digest: SHA-256 (hex) of `bundle.json`; empty until the bundle is saved.
    """

    backbone: Backbone
    head: LinearHead
    tree: ClassTree
    calibration: Calibration
    training: dict[str, Any] = field(default_factory=dict)
    familiarity: Familiarity | None = None
    digest: str = ""


@dataclass(frozen=True)
class ResolvedBundle:
    """A bundle on local disk, and the name and version that its predictions carry.

    Attributes:
        folder: Where it is.
        bundle: Its content, checked.
        name: Registered name, or else the name of its folder or run.
        version: Registered version, or else the first 12 digits of the digest.
    """

    folder: Path
    bundle: Bundle
    name: str
    version: str


def save_bundle(bundle: Bundle, folder: Path) -> Bundle:
    """Write a bundle's folder, replacing an older bundle.

    Returns:
        The bundle as read back, with its digest.

    Raises:
        BundleError: The folder has other content, which is not overwritten.
    """
    with new_model(folder, "bundle.json", "a bundle") as new:
        save_backbone(bundle.backbone, new / "backbone")
        files = [*_FILES, *(name for name in _NETWORK if (new / name).exists())]
        save_arrays(vars(bundle.head), new / "head.safetensors")
        if bundle.familiarity is not None:
            save_arrays(vars(bundle.familiarity), new / _FAMILIARITY)
            files.append(_FAMILIARITY)
        pq.write_table(bundle.tree.taxonomy.to_table(), new / "taxonomy.parquet")
        write_json(
            {
                "format": FORMAT,
                "licence": bundle.backbone.licence,
                "taxonomy_version": bundle.tree.taxonomy.version,
                "taxonomy_digest": bundle.tree.taxonomy.digest,
                "classes": list(bundle.tree.classes),
                "calibration": asdict(bundle.calibration),
                "training": bundle.training,
                "files": {name: digest_file(new / name) for name in files},
            },
            new / "bundle.json",
        )
    return load_bundle(folder)


class _BundleRecord(Record):
    """Content of `bundle.json`; a newer minor format may have more keys."""

    model_config = ConfigDict(extra="ignore")

    licence: str
    taxonomy_version: str
    taxonomy_digest: str
    classes: Annotated[tuple[str, ...], FailFast()]
    calibration: Calibration
    training: dict[str, Any]
    files: dict[str, str]


def load_bundle(folder: Path) -> Bundle:
    """Read and check a bundle's folder.

    Raises:
        BundleError: The format is newer, or a file is missing, damaged, does not belong into a
            bundle, leads out of the folder, or contradicts another.
    """
    path = folder / "bundle.json"
    record = parse_record(read_versioned(path, FORMAT), _BundleRecord, path)
    check_content(folder, _ALL_PATHS, "a model bundle")
    check_digests(path, record.files, _FILES, *_NETWORK, _FAMILIARITY)
    tree = _load_tree(folder, record)
    backbone = load_backbone(folder / "backbone")
    if backbone.licence != record.licence:
        raise BundleError(f"{path}: licence is not the backbone's, {short_repr(backbone.licence)}")
    head = _load_head(folder / "head.safetensors", len(tree.classes), backbone.width)
    familiarity = None
    if _FAMILIARITY in record.files:
        familiarity = _load_familiarity(folder / _FAMILIARITY, tree, backbone.width)
    return Bundle(
        backbone, head, tree, record.calibration, record.training, familiarity, digest_file(path)
    )


def _load_tree(folder: Path, record: _BundleRecord) -> ClassTree:
    """The classes within their taxonomy, once both fit the rest of the record."""
    path = folder / "bundle.json"
    taxonomy = _load_taxonomy(folder / "taxonomy.parquet")
    try:
        tree = ClassTree(taxonomy, record.classes)
    except DataContractError as error:
        raise BundleError(f"{path}: classes: {_line(error)}") from error
    if tree.classes != record.classes:
        raise BundleError(f"{path}: the classes are not in the order of the taxonomy")
    if taxonomy.digest != record.taxonomy_digest:
        raise BundleError(f"{path}: taxonomy_digest is not that of taxonomy.parquet")
    thresholds = len(record.calibration.thresholds)
    if thresholds != len(tree.levels):
        raise BundleError(f"{path}: {thresholds} thresholds for {len(tree.levels)} levels")
    return tree


def _load_taxonomy(path: Path) -> Taxonomy:
    try:
        with pq.ParquetFile(path) as file:
            # Ask for nothing of a row group or column: pyarrow aborts where those are damaged.
            if file.metadata.num_rows > _MAX_CATEGORIES:
                raise BundleError(f"{path}: more than {_MAX_CATEGORIES} categories")
            return Taxonomy.from_table(file.read(columns=TAXONOMY.names))
    except (OSError, ValueError, pa.ArrowException, TaxonomyError) as error:
        raise BundleError(f"{path}: {_line(error)}") from error


def _line(error: Exception) -> str:
    """First line of a message, cut: it may quote untrusted text of any length."""
    return str(error).partition("\n")[0][:500]


def _load_head(path: Path, classes: int, width: int) -> LinearHead:
    return LinearHead(**load_arrays(path, {"weight": (classes, width), "bias": (classes,)}))


def _load_familiarity(path: Path, tree: ClassTree, width: int) -> Familiarity:
    tensors = {
        "mean": (width,),
        "scale": (width,),
        "axes": (None, width),
        "weight": (len(tree.classes), width),
        "bias": (len(tree.classes),),
        "limits": (len(tree.levels),),
    }
    familiarity = Familiarity(**load_arrays(path, tensors))
    if not (familiarity.scale > 0).all():
        raise BundleError(f"{path}: scale is not positive")
    return familiarity
