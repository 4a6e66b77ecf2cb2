"""Backbones: a RegNetY trunk, the preprocessing it expects and the licence of its weights.

A backbone's folder holds `backbone.json` and `weights.safetensors`.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from schemas.errors import BundleError, SeerError
from seer_model.files import (
    digest_file,
    digest_json,
    load_tensors,
    read_json,
    short_repr,
    write_json,
)
from seer_model.preprocessing import DECODING, Preprocessing
from seer_model.trunk import STAGES, Trunk

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
"""Licences of weights under which a model may be promoted without a question: SPDX, lower case, and
`proprietary`, which stands for weights trained from scratch on photos of one's own."""

_KEYS = {
    *("architecture", "feature_stages", "width", "preprocessing"),
    *("licence", "origin", "weights_sha256"),
}


@dataclass(frozen=True)
class Backbone:
    """A trunk that turns photos into features.

    Attributes:
        architecture: timm's name, such as `regnety_004`.
        feature_stages: How many of its last stages make up the features, see `Trunk`.
        width: Length of a feature vector.
        preprocessing: What its input looks like.
        licence: Licence of the weights, lower-case SPDX where there is one; see
            `COMMERCIAL_LICENCES`.
        origin: Where the weights come from, for people.
        weights: float32 state of the trunk, by timm's names.
        digest: SHA-256 (hex) of architecture, stages, preprocessing and weights: the identity of
            the features, and so the key of everything that stores them.
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
        """The trunk in evaluation mode: (N, 3, H, W) float32 in, (N, width) out."""
        module = Trunk(self.architecture, self.feature_stages)
        module.load_state_dict(dict(self.weights), strict=True)
        return module.eval()


def random_backbone(
    architecture: str, image_size: int = 224, seed: int = 0, *, feature_stages: int = 1
) -> Backbone:
    """A trunk with seeded random weights: it has learned nothing, and is the baseline for all else.

    Raises:
        SettingsError: timm has no RegNetY of that name.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = Trunk(architecture)
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
    """A backbone of these weights, with its width and digest.

    Weights of other floating-point types become float32 first: the digest is of what computes the
    features, however it is stored.

    Raises:
        SettingsError: timm has no RegNetY of that name.
        BundleError: The weights are not those of the architecture, by name, shape or type.
        ValueError: It has not so many stages.
    """
    with torch.device("meta"):
        trunk = Trunk(architecture, feature_stages)
    _check_fit(weights, trunk.state_dict(), architecture)
    state = {k: w.float() if w.is_floating_point() else w for k, w in weights.items()}
    identity = {
        "architecture": architecture,
        "feature_stages": feature_stages,
        "decoding": DECODING,
        "preprocessing": preprocessing.to_json(),
        "weights": {name: _digest_tensor(state[name]) for name in sorted(state)},
    }
    return Backbone(
        architecture,
        feature_stages,
        trunk.num_features,
        preprocessing,
        licence,
        origin,
        state,
        digest_json(identity),
    )


def _check_fit(
    weights: Mapping[str, torch.Tensor], trunk: Mapping[str, torch.Tensor], architecture: str
) -> None:
    """Compare weights with those of a trunk that takes no memory."""
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
        backbone: What to write.
        folder: Where to; made if need be.
        half: Store matrices and kernels in float16. What is read back is the rounded backbone,
            with a digest of its own. Vectors, the statistics of batch normalisation among them,
            stay as they are: they are few, and may be out of float16's range.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "weights.safetensors"
    stored = {
        name: (tensor.half() if half and tensor.ndim > 1 else tensor).contiguous()
        for name, tensor in backbone.weights.items()
    }
    save_file(stored, weights)
    write_json(
        {
            "architecture": backbone.architecture,
            "feature_stages": backbone.feature_stages,
            "width": backbone.width,
            "preprocessing": backbone.preprocessing.to_json(),
            "licence": backbone.licence,
            "origin": backbone.origin,
            "weights_sha256": digest_file(weights),
        },
        folder / "backbone.json",
    )


def load_backbone(folder: Path) -> Backbone:
    """Read a backbone's folder.

    Raises:
        BundleError: A file is missing, damaged, of unknown shape, or not what it says it is.
    """
    path, weights = folder / "backbone.json", folder / "weights.safetensors"
    record = read_json(path)
    if record.keys() != _KEYS:
        raise BundleError(f"{path}: the keys must be {sorted(_KEYS)}")
    if digest_file(weights) != record["weights_sha256"]:
        raise BundleError(f"{weights}: its digest is not the one that backbone.json records")
    stages = record["feature_stages"]
    if type(stages) is not int or not 1 <= stages <= STAGES:
        raise BundleError(f"{path}: feature_stages is {short_repr(stages)}, not 1 to {STAGES}")
    tensors = load_tensors(weights)
    try:
        backbone = make_backbone(
            str(record["architecture"]),
            Preprocessing.from_json(record["preprocessing"]),
            licence=_line(record, "licence"),
            origin=_line(record, "origin"),
            weights=tensors,
            feature_stages=stages,
        )
    except SeerError as error:
        raise BundleError(f"{path}: {error}") from error
    if record["width"] != backbone.width:
        raise BundleError(
            f"{path}: the width of {backbone.architecture} is {backbone.width}, not "
            f"{short_repr(record['width'])}"
        )
    return backbone


def _line(record: Mapping[str, Any], key: str) -> str:
    value = record[key]
    if not isinstance(value, str) or not value.isprintable():
        raise BundleError(f"{key} must be a line of text, not {short_repr(value)}")
    return value
