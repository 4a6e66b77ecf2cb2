"""A screener's concepts, such as weapons: a multi-label head on a photo's embedding, and its model.

    screener.json                 format, licence, training, digests of the other files
    concepts.json                 the concepts in the order of the head's rows, their thresholds
    head.safetensors              weight and bias; a logit's sigmoid is a probability
    backbone/backbone.json        architecture, preprocessing, licence
    backbone/weights.safetensors
    backbone/network.xml, .bin    since format 1.1, see `seer_model.backbones.backbone`

`screener.json` holds the SHA-256 of every other file, so its own SHA-256 is the model's digest.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, Field
from scipy.special import expit

from schemas.errors import BundleError
from seer_model.backbones.backbone import (
    NETWORK_FILES,
    Backbone,
    load_backbone,
    save_backbone,
)
from seer_model.files import (
    Record,
    check_content,
    check_digests,
    digest_file,
    load_arrays,
    new_model,
    parse_record,
    read_json,
    read_versioned,
    save_arrays,
    short_repr,
    write_json,
)
from seer_model.linear_head import LinearHead

__all__ = [
    "SCREENER_FILE",
    "Concept",
    "Concepts",
    "ResolvedScreener",
    "ScreenerModel",
    "load_concepts",
    "load_screener_model",
    "save_concepts",
    "save_screener_model",
]

Floats = npt.NDArray[np.float32]

SCREENER_FILE = "screener.json"
_FORMAT = "1.1"
_CONCEPTS, _HEAD = "concepts.json", "head.safetensors"
_FILES = ("backbone/backbone.json", "backbone/weights.safetensors", _CONCEPTS, _HEAD)
_NETWORK = tuple(f"backbone/{name}" for name in NETWORK_FILES)
_ALL_PATHS = frozenset({SCREENER_FILE, "backbone", *_FILES, *_NETWORK})

_Share = Annotated[float, Field(ge=0, le=1)]


class Concept(Record):
    """A concept and its thresholds.

    Attributes:
        name: As in the labels.
        review_at: The probability from which on a photo is for people to look at.
        block_at: The probability from which on it must not be shown; None for never.
    """

    name: str = Field(min_length=1, max_length=100)
    review_at: _Share
    block_at: _Share | None


class _ConceptsRecord(Record):
    concepts: tuple[Concept, ...] = Field(min_length=1, max_length=1000)


@dataclass(frozen=True)
class Concepts:
    """The concepts and their head.

    Attributes:
        concepts: In the order of the head's rows.
        head: Features to logits.
    """

    concepts: tuple[Concept, ...]
    head: LinearHead

    @property
    def names(self) -> list[str]:
        """The concepts' names, in order."""
        return [concept.name for concept in self.concepts]

    def probabilities(self, vectors: Sequence[bytes]) -> Floats:
        """How likely each photo shows each concept.

        Args:
            vectors: Embeddings of photos, little-endian float16.

        Returns:
            float32, (photos, concepts).
        """
        width = self.head.weight.shape[1]
        features = np.frombuffer(b"".join(vectors), "<f2").reshape(-1, width)
        return np.asarray(expit(self.head.logits(features.astype(np.float32))), np.float32)


@dataclass(frozen=True)
class ScreenerModel:
    """Everything that turns photos into probabilities of concepts.

    Attributes:
        backbone: Photos to features.
        concepts: Features to concepts.
        training: How they were trained: data, settings, figures on the listings calibrated on.
        digest: SHA-256 (hex) of `screener.json`; empty until the model is saved.
    """

    backbone: Backbone
    concepts: Concepts
    training: dict[str, Any] = field(default_factory=dict)
    digest: str = ""


@dataclass(frozen=True)
class ResolvedScreener:
    """A screener's model on local disk, and the name and version that its findings carry.

    Attributes:
        folder: Where it is.
        bundle: Its content, checked.
        name: Registered name, or else the name of its folder or run.
        version: Registered version, or else the first 12 digits of the digest.
    """

    folder: Path
    bundle: ScreenerModel
    name: str
    version: str


def save_concepts(concepts: Concepts, folder: Path) -> None:
    """Write what `load_concepts` reads into a folder."""
    record = _ConceptsRecord(concepts=concepts.concepts)
    write_json(record.model_dump(), folder / _CONCEPTS)
    save_arrays(vars(concepts.head), folder / _HEAD)


def load_concepts(folder: Path) -> Concepts | None:
    """Open the concepts of a folder; None if it has none.

    Raises:
        BundleError: A file is damaged, or contradicts the other.
    """
    path = folder / _CONCEPTS
    if not path.exists():
        return None
    concepts = parse_record(read_json(path), _ConceptsRecord, path).concepts
    if len({concept.name for concept in concepts}) < len(concepts):
        raise BundleError(f"{path}: a concept is named twice")
    shapes = {"weight": (len(concepts), None), "bias": (len(concepts),)}
    return Concepts(concepts, LinearHead(**load_arrays(folder / _HEAD, shapes)))


def save_screener_model(model: ScreenerModel, folder: Path) -> ScreenerModel:
    """Write a model's folder, replacing an older model.

    Returns:
        The model as read back, with its digest.

    Raises:
        BundleError: The folder has other content, which is not overwritten.
    """
    with new_model(folder, SCREENER_FILE, "a screener") as new:
        save_backbone(model.backbone, new / "backbone")
        save_concepts(model.concepts, new)
        files = [*_FILES, *(name for name in _NETWORK if (new / name).exists())]
        write_json(
            {
                "format": _FORMAT,
                "licence": model.backbone.licence,
                "training": model.training,
                "files": {name: digest_file(new / name) for name in files},
            },
            new / SCREENER_FILE,
        )
    return load_screener_model(folder)


class _ScreenerRecord(Record):
    """Content of `screener.json`; a newer minor format may have more keys."""

    model_config = ConfigDict(extra="ignore")

    licence: str
    training: dict[str, Any]
    files: dict[str, str]


def load_screener_model(folder: Path) -> ScreenerModel:
    """Read and check a model's folder.

    Raises:
        BundleError: The format is newer, or a file is missing, damaged, does not belong into a
            screener, leads out of the folder, or contradicts another.
    """
    path = folder / SCREENER_FILE
    record = parse_record(read_versioned(path, _FORMAT), _ScreenerRecord, path)
    check_content(folder, _ALL_PATHS, "a screener")
    check_digests(path, record.files, _FILES, *_NETWORK)
    backbone = load_backbone(folder / "backbone")
    if backbone.licence != record.licence:
        raise BundleError(f"{path}: licence is not the backbone's, {short_repr(backbone.licence)}")
    concepts = load_concepts(folder)
    if concepts is None or concepts.head.weight.shape[1] != backbone.width:
        raise BundleError(f"{folder / _HEAD}: its width is not the backbone's, {backbone.width}")
    return ScreenerModel(backbone, concepts, record.training, digest_file(path))
