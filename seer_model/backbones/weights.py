"""Weights: checked against their architecture, digested and stored."""

from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import torch
from safetensors.torch import save

from schemas.errors import BundleError
from seer_model.backbones.backbone import Backbone
from seer_model.backbones.preprocessing import Preprocessing
from seer_model.backbones.trunk import blueprint, check_photo_size, make_trunk, width_of
from seer_model.files import digest_json, short_repr

__all__ = ["make_backbone", "random_backbone", "save_weights"]


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
    return Backbone(
        architecture,
        feature_stages,
        width_of(trunk),
        preprocessing,
        licence,
        origin,
        state,
        digest_json({name: _digest_tensor(tensor) for name, tensor in state.items()}),
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
    return sha256(header + flat.numpy().tobytes()).hexdigest()


def save_weights(backbone: Backbone, path: Path, *, half: bool) -> Backbone:
    """Write a backbone's weights to a safetensors file, see `save_backbone`.

    Returns:
        The backbone with the weights as they were stored.
    """
    stored = {
        # Copies: a network may have a tensor under two names, which the format refuses.
        name: (tensor.half() if half and tensor.ndim > 1 else tensor).clone(
            memory_format=torch.contiguous_format
        )
        for name, tensor in backbone.weights.items()
    }
    path.unlink(missing_ok=True)  # Who has mapped the older file keeps it.
    path.write_bytes(save(stored))  # The library itself makes files that nobody else can read.
    if not half:
        return backbone
    rounded = make_backbone(
        backbone.architecture,
        backbone.preprocessing,
        licence=backbone.licence,
        origin=backbone.origin,
        weights=stored,
        feature_stages=backbone.feature_stages,
    )
    if rounded.weights_digest == backbone.weights_digest:
        return backbone
    if backbone.quantized:  # Its network stays what it is.
        return replace(rounded, network=backbone.network, quantized=backbone.quantized)
    return rounded
