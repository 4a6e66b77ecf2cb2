"""The two networks that speed is measured with: of the same weights, exact and in eight bits."""

from pathlib import Path

from benchmarks.noisy_photos import draw_photo
from seer_model.backbones.backbone import Backbone, load_backbone, save_backbone
from seer_model.backbones.preprocessing import Preprocessing
from seer_model.backbones.runtimes.quantization import quantize
from seer_model.backbones.weights import make_backbone
from seer_model.photos.limits import PhotoLimits
from seer_model.photos.pixels import prepare_photo
from tests.support.trunks import some_trunk

__all__ = ["drawn_networks"]

_SHOWN = 32


def drawn_networks(architecture: str, folder: Path) -> tuple[Backbone, Backbone]:
    """Draw weights and quantize them; speed does not depend on their values.

    But none may be zero throughout, as timm's last layer of every block is at first: quantizing
    would fold the block away.

    Args:
        architecture: timm's name.
        folder: Gets `exact/`, the backbone in floating point, and `quantized/`.
    """
    exact = make_backbone(
        architecture,
        Preprocessing(),
        licence="proprietary",
        origin="drawn",
        weights=some_trunk(architecture),
    )
    save_backbone(exact, folder / "exact")
    exact = load_backbone(folder / "exact")
    limits, size = PhotoLimits(), exact.preprocessing.image_size
    photos = [prepare_photo(draw_photo(seed), size, limits) for seed in range(_SHOWN)]
    (folder / "quantized").mkdir()
    return exact, quantize(exact, photos, folder / "quantized")
