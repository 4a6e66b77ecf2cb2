"""Quantize a network: convolutions compute in eight bits, which many CPUs do much faster.

Post-training quantization of NNCF (https://github.com/openvinotoolkit/nncf, Apache-2.0): some
photos show which range every activation takes.
"""

import logging
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from schemas.errors import SettingsError
from seer_model.backbones.backbone import NETWORK_FILES, Backbone
from seer_model.backbones.runtimes.base import CPU_BATCH
from seer_model.backbones.runtimes.conversion import convert, name_by_place
from seer_model.backbones.runtimes.openvino import openvino
from seer_model.files import digest_file, digest_json
from seer_model.photos.pixels import Pixels
from seer_model.processes import scratch_folder

import nncf  # isort: skip - after OpenVINO, whose telemetry it shares

__all__ = ["quantize"]

# Grouped convolutions and what is done value by value gain nothing from eight bits, and lose the
# time to convert to and fro.
_LEFT_ALONE = ("GroupConvolution", "ReduceMean", "Multiply", "Add")


def quantize(backbone: Backbone, photos: Iterable[Pixels], folder: Path) -> Backbone:
    """Quantize a backbone's network.

    The same photos give the same network, to the bit.

    Args:
        backbone: The backbone.
        photos: Like those that it will see, each uint8, (image_size, image_size, 3); some 300.
        folder: Gets `NETWORK_FILES`, and so belongs to the result.

    Returns:
        The backbone with the quantized network, and so with another digest.

    Raises:
        SettingsError: There are fewer photos than a batch, or OpenVINO cannot run the trunk.
    """
    pixels = list(photos)
    firsts = range(0, len(pixels) - CPU_BATCH + 1, CPU_BATCH)
    batches = [np.stack(pixels[first : first + CPU_BATCH]) for first in firsts]
    if not batches:
        raise SettingsError(f"quantizing takes {CPU_BATCH} photos at least")
    logging.getLogger("nncf").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(dir=scratch_folder()) as scratch:
        # A network is mapped from its files, which may not be written over.
        before = backbone.network or Path(scratch)
        if backbone.network is None and not convert(backbone, before):
            raise SettingsError(
                f"{backbone.architecture} cannot be quantized: OpenVINO cannot run it"
            )
        network = openvino.Core().read_model(before / NETWORK_FILES[0])
        network.reshape(batches[0].shape)
        small = nncf.quantize(
            network,
            nncf.Dataset(batches),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(batches),
            ignored_scope=nncf.IgnoredScope(types=list(_LEFT_ALONE), validate=False),
        )
        name_by_place(small, f"{backbone.architecture}, 8 bits")
        openvino.save_model(small, folder / NETWORK_FILES[0], compress_to_fp16=True)
    digests = {name: digest_file(folder / name) for name in NETWORK_FILES}
    return replace(backbone, network=folder, quantized=digest_json(digests))
