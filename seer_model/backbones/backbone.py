"""A backbone: a trunk, the preprocessing it expects and the licence of its weights.

A backbone is stored as a folder of `backbone.json` and `weights.safetensors`.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
from pydantic import AfterValidator, Field
from safetensors.torch import save_file

from schemas.errors import BundleError, SeerError
from seer_model.backbones.constants import STAGES
from seer_model.backbones.preprocessing import Preprocessing, PreprocessingRecord
from seer_model.backbones.trunk import blueprint, check_photo_size, make_trunk, width_of
from seer_model.files import (
    Record,
    digest_file,
    digest_json,
    load_tensors,
    parse_record,
    read_json,
    short_repr,
    write_json,
)
from seer_model.photos.pixels import DECODING

__all__ = [
    "COMMERCIAL_LICENCES",
    "Backbone",
    "load_backbone",
    "make_backbone",
    "random_backbone",
    "save_backbone",
]

COMMERCIAL_LICENCES = frozenset(
    {"apache-2.0", "mit", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "proprietary"}
)
"""Licences of weights that allow promotion without acknowledgement: lower-case SPDX, and
`proprietary` for weights trained from scratch on one's own photos."""


@dataclass(frozen=True)
class Backbone:
    """A trunk's weights, and all it takes to turn photos into features with them.

    Attributes:
        architecture: timm's name, such as `regnety_004`.
        feature_stages: How many of the last stages make up the features, see `make_trunk`.
        width: Length of a feature vector.
        preprocessing: Size and normalisation of the input.
        licence: Licence of the weights, lower-case SPDX where there is one; see
            `COMMERCIAL_LICENCES`.
        origin: Where the weights come from, in words.
        weights: State of the trunk by timm's names: float32, counters int64.
        digest: SHA-256 (hex) of architecture, stages, decoding, preprocessing and weights. It
            identifies the features, and so is the key of an embedding store.
    """

    architecture: str
    feature_stages: int
    width: int
    preprocessing: Preprocessing
    licence: str
    origin: str
    weights: Mapping[str, torch.Tensor]
    digest: str

    @property
    def commercial(self) -> bool:
        """Whether the licence is known to allow commercial use."""
        return self.licence in COMMERCIAL_LICENCES

    def build(self) -> torch.nn.Module:
        """Make the trunk, in evaluation mode: (N, 3, H, W) float32 in, (N, width) out."""
        module = make_trunk(self.architecture, self.feature_stages)
        module.load_state_dict(dict(self.weights), strict=True)
        return module.eval()


def random_backbone(
    architecture: str, image_size: int = 224, seed: int = 0, *, feature_stages: int = 1
) -> Backbone:
    """Make a backbone of seeded random weights, the baseline for every trained one.

    Raises:
        SettingsError: timm has no such network, or it does not take photos of that size.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = make_trunk(architecture)
    return make_backbone(
        architecture,
        Preprocessing(image_size=image_size),
        licence="apache-2.0",
        origin=f"random weights (seed {seed}), never trained",
        weights=module.state_dict(),
        feature_stages=feature_stages,
    )


def make_backbone(
    architecture: str,
    preprocessing: Preprocessing,
    *,
    licence: str,
    origin: str,
    weights: Mapping[str, torch.Tensor],
    feature_stages: int = 1,
) -> Backbone:
    """Make a backbone from weights; work out its width and digest.

    All floating-point weights become float32 first, so that the digest does not depend on how they
    are stored.

    Raises:
        SettingsError: timm has no such network, or it does not take photos of that size.
        BundleError: The weights do not fit the architecture in name, shape or type.
        ValueError: `feature_stages` is not 1 to 4.
    """
    trunk = blueprint(architecture, feature_stages)
    _check_fit(weights, trunk.state_dict(), architecture)
    check_photo_size(architecture, preprocessing.image_size)
    state = {k: w.float() if w.is_floating_point() else w for k, w in weights.items()}
    identity = {
        "architecture": architecture,
        "feature_stages": feature_stages,
        "decoding": DECODING,
        "preprocessing": asdict(preprocessing),
        "weights": {name: _digest_tensor(state[name]) for name in sorted(state)},
    }
    return Backbone(
        architecture,
        feature_stages,
        width_of(trunk),
        preprocessing,
        licence,
        origin,
        state,
        digest_json(identity),
    )


def _check_fit(
    weights: Mapping[str, torch.Tensor], trunk: Mapping[str, torch.Tensor], architecture: str
) -> None:
    """Compare names, shapes and kinds of weights with a trunk's."""
    for name in [*trunk, *(name for name in weights if name not in trunk)]:
        expected, found = _described(trunk, name), _described(weights, name)
        if found != expected:
            raise BundleError(
                f"weights do not fit {architecture}: {short_repr(name)} is {found}, not {expected}"
            )


def _described(weights: Mapping[str, torch.Tensor], name: str) -> str:
    if name not in weights:
        return "missing"
    kind = "floating point" if weights[name].is_floating_point() else "integer"
    return f"{kind} of shape {tuple(weights[name].shape)}"


def _digest_tensor(tensor: torch.Tensor) -> str:
    flat = tensor.detach().cpu().contiguous()
    header = f"{flat.dtype}{tuple(flat.shape)}".encode()
    return hashlib.sha256(header + flat.numpy().tobytes()).hexdigest()


def save_backbone(backbone: Backbone, folder: Path, *, half: bool = False) -> None:
    """Write a backbone's folder.

    Args:
        backbone: The backbone.
        folder: Made if it does not exist.
        half: Store matrices and kernels in float16; the rounded backbone has another digest.
            Vectors stay float32: they are small, and statistics of batch normalisation may exceed
            float16's range.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "weights.safetensors"
    stored = {
        # Copies: a network may have a tensor under two names, which the format refuses.
        name: (tensor.half() if half and tensor.ndim > 1 else tensor).clone(
            memory_format=torch.contiguous_format
        )
        for name, tensor in backbone.weights.items()
    }
    save_file(stored, weights)
    write_json(
        {
            "architecture": backbone.architecture,
            "feature_stages": backbone.feature_stages,
            "width": backbone.width,
            "preprocessing": asdict(backbone.preprocessing),
            "licence": backbone.licence,
            "origin": backbone.origin,
            "weights_sha256": digest_file(weights),
        },
        folder / "backbone.json",
    )


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be one line of printable text")
    return text


Line = Annotated[str, AfterValidator(_printable)]


class _BackboneRecord(Record):
    """Content of `backbone.json`, in the order `save_backbone` writes it."""

    architecture: str
    feature_stages: Annotated[int, Field(ge=1, le=STAGES)]
    width: int
    preprocessing: PreprocessingRecord
    licence: Line
    origin: Line
    weights_sha256: str


def load_backbone(folder: Path) -> Backbone:
    """Read and check a backbone's folder.

    Raises:
        BundleError: A file is missing, damaged, of another format, or contradicts the other.
    """
    path, weights = folder / "backbone.json", folder / "weights.safetensors"
    record = parse_record(read_json(path), _BackboneRecord, path)
    if digest_file(weights) != record.weights_sha256:
        raise BundleError(f"{weights}: its digest is not the one in backbone.json")
    tensors = load_tensors(weights)
    try:
        backbone = make_backbone(
            record.architecture,
            Preprocessing(**record.preprocessing.model_dump()),
            licence=record.licence,
            origin=record.origin,
            weights=tensors,
            feature_stages=record.feature_stages,
        )
    except SeerError as error:
        raise BundleError(f"{path}: {error}") from error
    if record.width != backbone.width:
        raise BundleError(
            f"{path}: width is {short_repr(record.width)}, but {backbone.architecture} has "
            f"{backbone.width}"
        )
    return backbone
