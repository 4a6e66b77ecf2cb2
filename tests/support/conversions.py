"""Convert each backbone for OpenVINO once, for all the processes of the tests."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from seer_model.backbones.backbone import Backbone
from seer_model.backbones.runtimes import openvino as runtime

openvino = runtime.openvino  # Which that module has kept from sending usage statistics.

_CONVERT = runtime._convert


def convert_once(folder: Path) -> None:
    """Share converted networks in a folder.

    In float32, features of a network that was written and read differ from those of one converted
    afresh in their last bits (AVX-512); among themselves they are equal to the bit.
    """
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


@contextmanager
def converted_afresh() -> Iterator[None]:
    """Convert as the product does, for comparison with a process that shares nothing."""
    shared = runtime._convert
    runtime._convert = _CONVERT
    try:
        yield
    finally:
        runtime._convert = shared
