"""Backbones shipped in the package.

zoo/NAME/backbone.json           see `seer_model.backbones.backbone`
zoo/NAME/weights.safetensors     matrices and kernels in float16
zoo/NAME/network.xml, .bin       the same for OpenVINO
zoo/NAME/card.md                 data, recipe and figures
"""

import tempfile
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from schemas.errors import SettingsError
from seer_model.backbones.backbone import NETWORK_FILES, Backbone, load_backbone
from seer_model.processes import scratch_folder

__all__ = ["load_zoo", "names"]

_ZOO: Traversable = resources.files(__name__)
_FILES = ("backbone.json", "weights.safetensors", *NETWORK_FILES)


def names() -> list[str]:
    """The zoo's backbones, sorted."""
    return sorted(folder.name for folder in _ZOO.iterdir() if (folder / _FILES[0]).is_file())


def load_zoo(name: str) -> Backbone:
    """Read a backbone of the zoo.

    Raises:
        SettingsError: The zoo has no backbone of that name.
        BundleError: It is damaged.
    """
    known = names()
    if name not in known:
        raise SettingsError(f"zoo:{name}: unknown; known: {', '.join(known) or 'none'}")
    folder = _ZOO / name
    if isinstance(folder, Path):
        return load_backbone(folder)
    # The package is in the zip of spark-submit --py-files.
    unpacked = Path(tempfile.mkdtemp(dir=scratch_folder()))
    for file in _FILES:
        (unpacked / file).write_bytes((folder / file).read_bytes())
    return load_backbone(unpacked)
