"""Backbones that are not in a registry: timm's, published SEER checkpoints and the zoo.

| address         | weights                                                          |
|-----------------|------------------------------------------------------------------|
| `timm:NAME`     | seeded random weights for that architecture                      |
| `timm:NAME.TAG` | timm's pretrained weights, downloaded, such as `regnety_320.seer` |
| `vissl:FILE`    | a published SEER checkpoint, see `seer_model.backbones.vissl`    |
| `zoo:NAME`      | shipped in the package, see `seer_model.backbones.zoo`           |
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm

from schemas.errors import SettingsError
from seer_model.backbones.backbone import Backbone, make_backbone, random_backbone
from seer_model.backbones.preprocessing import Preprocessing
from seer_model.backbones.trunk import blueprint
from seer_model.backbones.vissl import load_vissl
from seer_model.backbones.zoo import load_zoo

__all__ = ["backbone_from_source", "timm_backbone"]


def backbone_from_source(uri: str) -> Backbone | None:
    """Get the backbone of a `timm:`, `vissl:` or `zoo:` address; None for any other address.

    Raises:
        SettingsError: The address names nothing, or a download failed.
        BundleError: The file is damaged, unsafe or not a SEER checkpoint.
    """
    sources: dict[str, Callable[[str], Backbone]] = {
        "timm": timm_backbone,
        "vissl": lambda rest: load_vissl(Path(rest)),
        "zoo": load_zoo,
    }
    scheme, colon, rest = uri.partition(":")
    return sources[scheme](rest) if colon and scheme in sources else None


def timm_backbone(name: str) -> Backbone:
    """Get a RegNetY from timm, with the preprocessing and licence of its published weights.

    Args:
        name: `ARCHITECTURE.TAG`; without a tag the weights are random.

    Raises:
        SettingsError: timm knows no such weights, or the download failed.
    """
    architecture, dot, _ = name.partition(".")
    if not dot:
        return random_backbone(name)
    blueprint(architecture)  # Refuses an unknown name.
    known = [n for n in timm.list_pretrained("regnety_*") if n.startswith(f"{architecture}.")]
    if name not in known:
        raise SettingsError(f"timm:{name}: unknown weights; known: {', '.join(known) or 'none'}")
    module: Any
    try:
        # With its classifier, since timm then insists on every tensor.
        module = timm.create_model(name, pretrained=True)
    except Exception as error:  # Several libraries download, each with its own errors.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise SettingsError(
            f"timm:{name}: cannot download its weights ({reason}); timm:{architecture} gives the "
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
