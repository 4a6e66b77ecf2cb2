"""A backbone: a trunk, the preprocessing it expects and the licence of its weights.

A backbone is stored as a folder:

    backbone.json
    weights.safetensors
    network.xml, network.bin    the trunk as OpenVINO runs it, unless it could not be converted

Reading one imports no torch: its weights are read when they are first asked for, and whoever runs
its network does not ask.
"""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field

from schemas.errors import BundleError, SeerError
from seer_model.backbones.constants import STAGES
from seer_model.backbones.preprocessing import Preprocessing, PreprocessingRecord
from seer_model.files import (
    Record,
    digest_file,
    digest_json,
    parse_record,
    read_json,
    short_repr,
    write_json,
)
from seer_model.photos.pixels import DECODING

if TYPE_CHECKING:
    import torch

__all__ = [
    "COMMERCIAL_LICENCES",
    "NETWORK_FILES",
    "Backbone",
    "load_backbone",
    "save_backbone",
]

COMMERCIAL_LICENCES = frozenset(
    {"apache-2.0", "mit", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "proprietary"}
)
"""Licences of weights that allow promotion without acknowledgement: lower-case SPDX, and
`proprietary` for weights trained from scratch on one's own photos."""

NETWORK_FILES = ("network.xml", "network.bin")
"""A network in OpenVINO's format."""

_MOST_WIDTH = 1 << 20
_RECORD, _WEIGHTS = "backbone.json", "weights.safetensors"


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
        weights_digest: SHA-256 (hex) of the weights, however they are stored.
        network: Folder with `NETWORK_FILES`; None if they are still to be made, or cannot be.
        quantized: SHA-256 (hex) of the network, if it computes in eight bits: its features are its
            own, and no longer those of the weights. None for any other.
    """

    architecture: str
    feature_stages: int
    width: int
    preprocessing: Preprocessing
    licence: str
    origin: str
    weights: "Mapping[str, torch.Tensor]"
    weights_digest: str
    network: Path | None = None
    quantized: str | None = None

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of architecture, stages, decoding, preprocessing and weights.

        Of a quantized backbone also of the network. It identifies the features, and so is the key
        of an embedding store.
        """
        identity = {
            "architecture": self.architecture,
            "feature_stages": self.feature_stages,
            "decoding": DECODING,
            "preprocessing": asdict(self.preprocessing),
            "weights": self.weights_digest,
        }
        return digest_json(identity | ({"network": self.quantized} if self.quantized else {}))

    @property
    def commercial(self) -> bool:
        """Whether the licence is known to allow commercial use."""
        return self.licence in COMMERCIAL_LICENCES

    def build(self) -> "torch.nn.Module":
        """Make the trunk, in evaluation mode: (N, 3, H, W) float32 in, (N, width) out."""
        from seer_model.backbones.trunk import make_trunk  # noqa: PLC0415 - torch

        weights = dict(self.weights)  # Checked before a trunk of any size is made.
        module = make_trunk(self.architecture, self.feature_stages)
        module.load_state_dict(weights, strict=True)
        return module.eval()


class _StoredWeights(Mapping[str, "torch.Tensor"]):
    """Weights in a file, read and checked when they are first asked for."""

    def __init__(self, path: Path, record: "_BackboneRecord") -> None:
        self.path = path
        self._record = record

    @cached_property
    def _tensors(self) -> "Mapping[str, torch.Tensor]":
        found = _read_weights(self.path, self._record)
        if found.weights_digest != self._record.weights_digest:
            raise BundleError(f"{self.path}: weights_digest in {_RECORD} is not theirs")
        return found.weights

    def __getitem__(self, name: str) -> "torch.Tensor":
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def save_backbone(backbone: Backbone, folder: Path, *, half: bool = False) -> None:
    """Write a backbone's folder, with its network.

    Args:
        backbone: The backbone.
        folder: Made if it does not exist.
        half: Store matrices and kernels in float16; the rounded backbone has another digest.
            Vectors stay float32: they are small, and statistics of batch normalisation may exceed
            float16's range.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / _WEIGHTS
    stored = backbone.weights
    if isinstance(stored, _StoredWeights) and not half:
        _copy(stored.path, weights)
    else:
        from seer_model.backbones.weights import save_weights  # noqa: PLC0415 - torch

        backbone = save_weights(backbone, weights, half=half)
    network = _save_network(backbone, folder, half=half)
    write_json(
        {
            "architecture": backbone.architecture,
            "feature_stages": backbone.feature_stages,
            "width": backbone.width,
            "preprocessing": asdict(backbone.preprocessing),
            "licence": backbone.licence,
            "origin": backbone.origin,
            "weights_sha256": digest_file(weights),
            "weights_digest": backbone.weights_digest,
            "network_sha256": network,
            "quantized": backbone.quantized is not None,
        },
        folder / _RECORD,
    )


def _save_network(backbone: Backbone, folder: Path, *, half: bool) -> dict[str, str] | None:
    """Copy or make the network's files; returns their digests, None if there can be none."""
    files = [folder / name for name in NETWORK_FILES]
    if backbone.network is not None:
        for file in files:
            _copy(backbone.network / file.name, file)
    else:
        for file in files:
            file.unlink(missing_ok=True)
        if not _convert(backbone, folder, half=half):
            return None
    return {name: digest_file(folder / name) for name in NETWORK_FILES}


def _convert(backbone: Backbone, folder: Path, *, half: bool) -> bool:
    if not find_spec("openvino"):
        return False
    from seer_model.backbones.runtimes.conversion import convert  # noqa: PLC0415 - torch

    return convert(backbone, folder, half=half)


def _copy(source: Path, target: Path) -> None:
    if not (target.exists() and source.samefile(target)):
        target.unlink(missing_ok=True)  # Who has mapped the older file keeps it.
        shutil.copyfile(source, target)


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be one line of printable text")
    return text


Line = Annotated[str, AfterValidator(_printable)]


class _BackboneRecord(Record):
    """Content of `backbone.json`, in the order `save_backbone` writes it.

    The last three are missing from those of older versions.
    """

    architecture: str
    feature_stages: Annotated[int, Field(ge=1, le=STAGES)]
    width: Annotated[int, Field(ge=1, le=_MOST_WIDTH)]
    preprocessing: PreprocessingRecord
    licence: Line
    origin: Line
    weights_sha256: str
    weights_digest: str | None = None
    network_sha256: dict[str, str] | None = None
    quantized: bool = False


def load_backbone(folder: Path) -> Backbone:
    """Read a backbone's folder, and check its files against its record.

    Raises:
        BundleError: A file is missing, damaged, of another format, or contradicts the other. What
            is wrong with the weights themselves is found when they are first asked for.
    """
    path, weights = folder / _RECORD, folder / _WEIGHTS
    record = parse_record(read_json(path), _BackboneRecord, path)
    if digest_file(weights) != record.weights_sha256:
        raise BundleError(f"{weights}: its digest is not the one in {_RECORD}")
    network = _check_network(folder, record)
    quantized = None
    if record.quantized:
        if record.network_sha256 is None:
            raise BundleError(f"{path}: quantized, but without a network")
        quantized = digest_json(record.network_sha256)
    if record.weights_digest is None:
        return _read_weights(weights, record)
    return Backbone(
        record.architecture,
        record.feature_stages,
        record.width,
        Preprocessing(**record.preprocessing.model_dump()),
        record.licence,
        record.origin,
        _StoredWeights(weights, record),
        record.weights_digest,
        network,
        quantized,
    )


def _check_network(folder: Path, record: _BackboneRecord) -> Path | None:
    found = record.network_sha256
    if found is None:
        return None
    if set(found) != set(NETWORK_FILES):
        raise BundleError(f"{folder / _RECORD}: network_sha256 must name {NETWORK_FILES}")
    for name in NETWORK_FILES:
        if digest_file(folder / name) != found[name]:
            raise BundleError(f"{folder / name}: its digest is not the one in {_RECORD}")
    return folder


def _read_weights(path: Path, record: _BackboneRecord) -> Backbone:
    """Read and check the weights that a record describes."""
    from seer_model.backbones.torch_files import load_tensors  # noqa: PLC0415 - torch
    from seer_model.backbones.weights import make_backbone  # noqa: PLC0415 - torch

    tensors = load_tensors(path)
    described = path.with_name(_RECORD)
    try:
        found = make_backbone(
            record.architecture,
            Preprocessing(**record.preprocessing.model_dump()),
            licence=record.licence,
            origin=record.origin,
            weights=tensors,
            feature_stages=record.feature_stages,
        )
    except SeerError as error:
        raise BundleError(f"{described}: {error}") from error
    if record.width != found.width:
        raise BundleError(
            f"{described}: width is {short_repr(record.width)}, but {found.architecture} has "
            f"{found.width}"
        )
    return found
