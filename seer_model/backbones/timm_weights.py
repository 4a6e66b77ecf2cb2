"""timm's networks, with its weights, random ones, or those of a file."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch

from schemas.errors import SettingsError
from seer_model.backbones.backbone import Backbone
from seer_model.backbones.torch_files import State, check_tensors, load_tensors, read_torch_file
from seer_model.backbones.trunk import blueprint, published_preprocessing
from seer_model.backbones.weights import make_backbone, random_backbone

__all__ = ["timm_backbone"]

_ADDRESS = re.compile(
    r"(?P<name>(?P<architecture>[^.@?]*)(?P<tag>\.[^@?]*)?)"
    r"(@(?P<file>.+?))?(\?licence=(?P<licence>[\w.+-]+))?",
    re.DOTALL,
)


def timm_backbone(address: str) -> Backbone:
    """Get one of timm's networks, with the preprocessing and licence of its published weights.

    Photos are decoded as for any backbone: the largest centred square, resized to the input size,
    so a `crop_pct` of 1.

    Args:
        address: `ARCHITECTURE[.TAG][@FILE][?licence=SPDX]`; without tag and file the weights are
            random. A file is safetensors, or what `torch.save` wrote of a state dict, by timm's
            names, with or without the classifier.

    Raises:
        SettingsError: timm knows no such weights, the download failed, or nothing tells the
            licence.
        BundleError: The file is damaged, unsafe, or does not fit the architecture.
    """
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise SettingsError(f"timm:{address}: expected timm:NAME[.TAG][@FILE][?licence=SPDX]")
    name, architecture, tag, file, licence = found.group(
        "name", "architecture", "tag", "file", "licence"
    )
    blueprint(architecture)  # Refuses an unknown name.
    if tag is not None:
        known = timm.list_pretrained(f"{architecture}.*")
        if name not in known:
            raise SettingsError(
                f"timm:{name}: unknown weights; known: {', '.join(known) or 'none'}"
            )
    elif file is None:
        if licence is not None:
            raise SettingsError(f"timm:{address}: random weights have no licence to give")
        return random_backbone(
            architecture, image_size=published_preprocessing(architecture).image_size
        )
    published: Any = timm.get_pretrained_cfg(name)
    licence = _licence(address, published.license if tag else None, licence)
    weights = _download(name) if file is None else _read(Path(file))
    return make_backbone(
        architecture,
        published_preprocessing(name),
        licence=licence,
        origin=f"timm {name}" if file is None else f"timm {name}, from {Path(file).name!r}",
        weights=_without_classifier(weights, published.classifier or ()),
    )


def _licence(address: str, published: str | None, given: str | None) -> str:
    """The licence of the published weights, or where timm tells none, the one that was given."""
    if published in (None, "", "unknown"):
        if given is None:
            raise SettingsError(
                f"timm:{address}: nothing tells the licence of these weights; add it, as in "
                f"timm:{address}?licence=apache-2.0"
            )
        return given.lower()
    if given not in (None, published):
        raise SettingsError(f"timm:{address}: these weights are published as {published}")
    return str(published).lower()


def _download(name: str) -> State:
    try:
        # With its classifier, since timm then insists on every tensor.
        module: torch.nn.Module = timm.create_model(name, pretrained=True)
    except Exception as error:  # Several libraries download, each with its own errors.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise SettingsError(
            f"timm:{name}: cannot download its weights ({reason}); timm:{name}@FILE takes a copy, "
            f"timm:{name.partition('.')[0]} random weights"
        ) from error
    return dict(module.state_dict())


def _read(path: Path) -> State:
    if path.suffix == ".safetensors":
        return load_tensors(path)
    return check_tensors(read_torch_file(path), "the file", path)


def _without_classifier(weights: State, names: str | Sequence[str]) -> State:
    """Leave out the layers that classify; there may be two."""
    layers = [names] if isinstance(names, str) else names
    prefixes = tuple(f"{layer}." for layer in layers)
    # Copies: tensors may be mapped from a file, or transposed.
    return {
        name: tensor.clone(memory_format=torch.contiguous_format)
        for name, tensor in weights.items()
        if not name.startswith(prefixes)
    }
