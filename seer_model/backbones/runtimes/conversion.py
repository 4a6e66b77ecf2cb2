"""Convert a trunk to OpenVINO's format, once: whoever runs the network needs no torch."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from seer_model.backbones.backbone import NETWORK_FILES, Backbone
from seer_model.backbones.preprocessing import Preprocessing
from seer_model.backbones.runtimes.base import CPU_BATCH
from seer_model.backbones.runtimes.openvino import openvino
from seer_model.backbones.trunk import normalise

from openvino.frontend import FrontEndManager  # isort: skip
from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder  # isort: skip

__all__ = ["convert", "name_by_place"]

log = logging.getLogger(__name__)


def convert(backbone: Backbone, folder: Path, *, half: bool = False) -> bool:
    """Write a backbone's network into a folder: pixels in, as `Runtime.start` takes them.

    Args:
        backbone: The backbone.
        folder: Gets `NETWORK_FILES`.
        half: Store the constants in float16.

    Returns:
        Whether OpenVINO has all operations of the trunk; where not, the log says what is missing.
    """
    size = backbone.preprocessing.image_size
    shape = (CPU_BATCH, size, size, 3)
    module = _PhotoTrunk(backbone.build(), backbone.preprocessing).eval()
    photos = torch.zeros(shape, dtype=torch.uint8)
    try:
        with torch.no_grad(), _quiet():
            batch = {0: torch.export.Dim.AUTO}  # Of any size, if the trunk allows it.
            program = torch.export.export(module, (photos,), dynamic_shapes=(batch,))
            decoder = TorchFXPythonDecoder.from_exported_program(program)
        frontend = FrontEndManager().load_by_framework("pytorch")
        network = frontend.convert(frontend.load(decoder))
        network.reshape(shape)
    except Exception as error:  # Of torch's exporter, its decompositions and OpenVINO's frontend.
        reason = str(error).strip().rpartition("\n")[2] or repr(error)
        log.info("OpenVINO cannot run %s (%s); PyTorch does", backbone.architecture, reason)
        return False
    name_by_place(network, backbone.architecture)
    openvino.save_model(network, folder / NETWORK_FILES[0], compress_to_fp16=half)
    return True


def name_by_place(network: openvino.Model, name: str) -> None:
    """Name a network and its operations, so that the same network is the same file.

    OpenVINO counts on in all that it makes in a process.
    """
    network.set_friendly_name(name)
    for number, operation in enumerate(network.get_ordered_ops()):
        operation.set_friendly_name(f"{operation.get_type_name()}_{number}")


class _PhotoTrunk(nn.Module):
    """A trunk that takes pixels: normalisation is part of the network."""

    def __init__(self, trunk: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self._trunk = trunk
        self._preprocessing = preprocessing

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self._trunk(normalise(pixels, self._preprocessing))
        return features


@contextmanager
def _quiet() -> Iterator[None]:
    """Drop the decoder's warning about operations missing in this torch; no trunk uses them."""

    def is_other(record: logging.LogRecord) -> bool:
        return "not found in decomp table" not in record.getMessage()

    root = logging.getLogger()
    root.addFilter(is_other)
    try:
        yield
    finally:
        root.removeFilter(is_other)
