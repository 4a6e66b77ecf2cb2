"""Backbones that are shipped in the package.

zoo/NAME/backbone.json           as `seer_model.backbone` has it, with the licence
zoo/NAME/weights.safetensors     matrices and kernels in float16
zoo/NAME/card.md                 what it was trained on, how, and how good it is
"""

import tempfile
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from schemas.errors import SettingsError
from seer_model.backbone import Backbone, load_backbone

__all__ = ["DEFAULT", "load_zoo", "names"]

DEFAULT = "zoo:retail-400mf"
"""What the jobs take where no backbone is named."""

_FILES = ("backbone.json", "weights.safetensors")


def names(root: Traversable | None = None) -> list[str]:
    """The backbones in the zoo, sorted; `root` stands in for the package's own."""
    root = root or resources.files(__name__)
    return sorted(folder.name for folder in root.iterdir() if (folder / _FILES[0]).is_file())


def load_zoo(name: str, root: Traversable | None = None) -> Backbone:
    """Read a backbone of the zoo; `root` stands in for the package's own.

    Raises:
        SettingsError: There is none of that name.
        BundleError: It is damaged.
    """
    root = root or resources.files(__name__)
    known = names(root)
    if name not in known:
        raise SettingsError(f"zoo:{name}: unknown; known: {', '.join(known) or 'none'}")
    folder = root / name
    if isinstance(folder, Path):
        return load_backbone(folder)
    # In the zip of spark-submit --py-files.
    with tempfile.TemporaryDirectory(prefix="seer-") as unpacked:
        for file in _FILES:
            (Path(unpacked) / file).write_bytes((folder / file).read_bytes())
        return load_backbone(Path(unpacked))
