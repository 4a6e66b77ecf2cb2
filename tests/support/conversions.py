"""Convert each backbone for OpenVINO once, for all the processes of the tests."""

import tempfile
from pathlib import Path

from seer_model.backbones.backbone import Backbone
from seer_model.backbones.runtimes import openvino as runtime

openvino = runtime.openvino  # Which that module has kept from sending usage statistics.


def convert_once(folder: Path) -> None:
    """Share converted networks in a folder; one gives the same features to the bit."""
    convert = runtime._convert

    def read_or_convert(backbone: Backbone, batch_size: int) -> openvino.Model:
        kept = folder / f"{backbone.digest}-{batch_size}"
        if not kept.exists():
            fresh = Path(tempfile.mkdtemp(dir=folder))
            openvino.serialize(convert(backbone, batch_size), fresh / "network.xml")
            try:
                fresh.rename(kept)
            except OSError:  # Another process was faster.
                assert kept.exists()
        return openvino.Core().read_model(kept / "network.xml")

    runtime._convert = read_or_convert
