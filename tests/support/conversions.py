"""Convert each backbone for OpenVINO once, for all the processes of the tests."""

import shutil
import tempfile
from pathlib import Path

from seer_model.backbones.backbone import NETWORK_FILES, Backbone
from seer_model.backbones.runtimes import conversion


def convert_once(folder: Path) -> None:
    """Share converted networks in a folder."""
    convert_afresh = conversion.convert

    def copy_or_convert(backbone: Backbone, target: Path, *, half: bool = False) -> bool:
        kept = folder / f"{backbone.digest}-{half}"
        if not kept.exists():
            fresh = Path(tempfile.mkdtemp(dir=folder))
            if not convert_afresh(backbone, fresh, half=half):
                return False
            try:
                fresh.rename(kept)
            except OSError:  # Another process was faster.
                assert kept.exists()
        for name in NETWORK_FILES:
            shutil.copyfile(kept / name, target / name)
        return True

    conversion.convert = copy_or_convert
