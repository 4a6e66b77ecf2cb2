"""Backbones that come from elsewhere: timm's, published SEER checkpoints, the package's own zoo.

| address           | weights                                                          |
|-------------------|------------------------------------------------------------------|
| `timm:NAME`       | that architecture with seeded random weights                     |
| `timm:NAME.TAG`   | timm's pretrained ones, downloaded, such as `regnety_320.seer`   |
| `vissl:FILE`      | a SEER checkpoint as it was published, see `seer_model.vissl`    |
| `zoo:NAME`        | shipped in the package, see `seer_model.zoo`                     |
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch

from schemas.errors import SettingsError
from seer_model.backbone import Backbone, make_backbone, random_backbone
from seer_model.preprocessing import Preprocessing
from seer_model.trunk import Trunk
from seer_model.vissl import load_vissl
from seer_model.zoo import load_zoo

__all__ = ["backbone_from_source", "timm_backbone"]


def backbone_from_source(uri: str) -> Backbone | None:
    """The backbone of an address that begins with `timm:`, `vissl:` or `zoo:`; None for any other.

    Raises:
        SettingsError: Nothing is there, or it cannot be downloaded.
        BundleError: What is there is damaged, unsafe or not a SEER checkpoint.
    """
    sources: dict[str, Callable[[str], Backbone]] = {
        "timm": timm_backbone,
        "vissl": lambda rest: load_vissl(Path(rest)),
        "zoo": load_zoo,
    }
    scheme, colon, rest = uri.partition(":")
    return sources[scheme](rest) if colon and scheme in sources else None


def timm_backbone(name: str, *, weights_file: Path | None = None) -> Backbone:
    """A RegNetY of timm with its published weights and what timm records of them.

    Args:
        name: `ARCHITECTURE.TAG`; without a tag the weights are random.
        weights_file: Read the weights from this file instead of downloading them.

    Returns:
        The backbone: input size, mean, standard deviation and licence are those of the weights.

    Raises:
        SettingsError: timm knows no such weights, or they cannot be downloaded.
    """
    architecture, dot, _ = name.partition(".")
    if not dot:
        return random_backbone(name)
    with torch.device("meta"):
        Trunk(architecture)
    known = [n for n in timm.list_pretrained("regnety_*") if n.startswith(f"{architecture}.")]
    if name not in known:
        raise SettingsError(f"timm:{name}: unknown weights; known: {', '.join(known) or 'none'}")
    overlay = None if weights_file is None else {"file": str(weights_file)}
    module: Any
    try:
        # With the classifier the weights were published with, timm insists on every tensor.
        module = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay)
    except Exception as error:  # The download's own, of several libraries.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise SettingsError(
            f"timm:{name}: its weights cannot be had ({reason}); timm:{architecture} gives the "
            "architecture with random weights"
        ) from error
    module.reset_classifier(0)
    published = module.pretrained_cfg
    return make_backbone(
        architecture,
        Preprocessing(
            image_size=int(published["input_size"][1]),
            mean=tuple(published["mean"]),
            std=tuple(published["std"]),
        ),
        licence=str(published.get("license") or "unknown").lower(),
        origin=f"timm {name} ({published.get('origin_url') or published.get('hf_hub_id')})",
        weights=module.state_dict(),
    )
