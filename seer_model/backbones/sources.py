"""Backbones that are not in a registry: timm's, published SEER checkpoints, the zoo.

| address                | weights                                                          |
|------------------------|------------------------------------------------------------------|
| `timm:NAME`            | seeded random weights for that architecture                      |
| `timm:NAME.TAG`        | timm's pretrained weights, downloaded, as `regnety_320.seer`     |
| `timm:NAME[.TAG]@FILE` | weights of that architecture, or a copy of timm's, in a file     |
| `lite:0`               | EfficientNet-Lite, see `seer_model.backbones.lite`               |
| `vissl:FILE`           | a published SEER checkpoint, see `seer_model.backbones.vissl`    |
| `zoo:NAME`             | shipped in the package, see `seer_model.backbones.zoo`           |

The licence of weights without a tag is given at the end: `timm:NAME@FILE?licence=apache-2.0`.
"""

from importlib import import_module
from pathlib import Path
from typing import cast

from seer_model.backbones.backbone import Backbone

__all__ = ["backbone_from_source"]

# Modules are imported when they are needed: most of them need timm, which takes seconds.
_LOADERS = {
    "timm": ("timm_weights", "timm_backbone"),
    "lite": ("lite", "load_lite"),
    "vissl": ("vissl", "load_vissl"),
    "zoo": ("zoo", "load_zoo"),
}


def backbone_from_source(uri: str) -> Backbone | None:
    """Get the backbone of a `timm:`, `lite:`, `vissl:` or `zoo:` address; None for any other.

    Raises:
        SettingsError: The address names nothing, a download failed, or a licence is missing.
        BundleError: The file is damaged, unsafe, or does not fit the architecture.
    """
    scheme, colon, rest = uri.partition(":")
    if not colon or scheme not in _LOADERS:
        return None
    module, name = _LOADERS[scheme]
    load = getattr(import_module(f"seer_model.backbones.{module}"), name)
    return cast(Backbone, load(Path(rest) if scheme == "vissl" else rest))
