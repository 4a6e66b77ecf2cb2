"""Batch normalisation's statistics, taken anew for the photos that a trained trunk will see."""

from collections.abc import Iterable

import torch
from torch import nn

from seer_model.backbone import Backbone, make_backbone
from seer_model.preprocessing import normalise

__all__ = ["settle_statistics"]


def settle_statistics(
    backbone: Backbone, batches: Iterable[torch.Tensor], *, device: torch.device | str = "cpu"
) -> Backbone:
    """The same backbone with batch normalisation's means and variances of these photos.

    While a trunk trains, its running statistics follow crops: small, blurred, recoloured, those of
    two sizes in turn, under weights that move. What it then embeds are whole photos at another
    size, whose activations are of another scale (Touvron et al. 2019,
    https://arxiv.org/abs/1906.06423). So they are averaged over such photos with the weights at
    rest (Wu and Johnson 2021, https://arxiv.org/abs/2105.07576, section 3).

    Args:
        backbone: Trained.
        batches: Whole photos as `prepare_photo` makes them for this backbone: uint8, (N, size,
            size, 3), N above 1; some thousand photos together are enough.
        device: Where to compute.

    Raises:
        ValueError: There are no photos.
    """
    trunk = backbone.build().to(device).to(memory_format=torch.channels_last)
    for module in trunk.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.reset_running_stats()
            module.momentum = None  # The mean over all batches.
            module.train()
    batch = None
    with torch.inference_mode():
        for batch in batches:
            trunk(normalise(batch.to(device), backbone.preprocessing))
    if batch is None:
        raise ValueError("no photos to take statistics of")
    return make_backbone(
        backbone.architecture,
        backbone.preprocessing,
        feature_stages=backbone.feature_stages,
        licence=backbone.licence,
        origin=backbone.origin,
        weights={
            name: tensor.to("cpu", memory_format=torch.contiguous_format)
            for name, tensor in trunk.state_dict().items()
        },
    )
