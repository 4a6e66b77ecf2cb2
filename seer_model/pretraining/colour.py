"""Random changes of colour: one affine map a photo, drawn for a whole batch."""

import math
from dataclasses import dataclass

import torch

from seer_model.pretraining.draws import BatchDraws

__all__ = ["ColourMaps", "draw_colour_maps"]

_LUMA = torch.tensor([0.299, 0.587, 0.114])
# NTSC's luma and two colour differences: a change of hue is a rotation of the latter.
_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_RGB = torch.linalg.inv(_YIQ)
_CONTRAST = 1


@dataclass(frozen=True)
class ColourMaps:
    """A pixel x of photo n, whose mean colour is m, becomes `pixel[n] @ x + mean[n] @ m`.

    Attributes:
        pixel: float32, (N, 3, 3).
        mean: float32, (N, 3, 3).
    """

    pixel: torch.Tensor
    mean: torch.Tensor


def draw_colour_maps(
    draws: BatchDraws,
    *,
    strength: float,
    jitter_probability: float,
    grey_probability: float,
) -> ColourMaps:
    """Draw colour jitter and greyscale, with the strengths of SimCLR that SwAV took over.

    Chen et al. 2020 (https://arxiv.org/abs/2002.05709), appendix A; SwAV (Caron et al. 2020,
    https://arxiv.org/abs/2006.09882), appendix A.1. Brightness, contrast and saturation change by
    a factor within 0.8 * `strength` of 1 and hue by up to 0.2 * `strength` of a turn, in an order
    of each photo's own; then some photos become grey.

    Hue is turned in YIQ, as DALI and the TV sets do, not in HSV. So every step is linear in the
    pixel and the photo's mean colour, the steps of a photo fold into one map, and only its end
    result needs to be clipped, where torchvision clips after each step.

    Args:
        draws: Of the photos.
        strength: s in SimCLR.
        jitter_probability: Share of the photos whose colours change.
        grey_probability: Share of the photos that become grey.

    Returns:
        Maps, on the CPU.
    """

    def uniform(low: float, high: float) -> torch.Tensor:
        return draws.uniform() * (high - low) + low

    spread = 0.8 * strength
    brightness, contrast, saturation = (uniform(max(0.0, 1 - spread), 1 + spread) for _ in range(3))
    turn = uniform(-0.2 * strength, 0.2 * strength) * (2 * math.pi)
    order = draws.uniform(4).T.argsort(dim=1)
    jittered = draws.uniform() < jitter_probability
    grey = draws.uniform() < grey_probability

    photos = draws.photos
    eye = torch.eye(3)
    to_grey = _LUMA.expand(3, 3)
    steps = torch.stack(
        [
            brightness[:, None, None] * eye,
            contrast[:, None, None] * eye,
            to_grey + saturation[:, None, None] * (eye - to_grey),
            _hue_rotation(turn),
        ]
    )
    pixel = eye.repeat(photos, 1, 1)
    mean = torch.zeros(photos, 3, 3)
    every = torch.arange(photos)
    for step in order.unbind(1):
        # Contrast is about the photo's mean luma as it is by then.
        share = torch.where(step == _CONTRAST, 1 - contrast, 0.0)[:, None, None]
        middle = share * (to_grey @ (pixel + mean))
        matrix = steps[step, every]
        pixel, mean = matrix @ pixel, matrix @ mean + middle
    pixel = torch.where(jittered[:, None, None], pixel, eye)
    mean = mean * jittered[:, None, None]
    finish = torch.where(grey[:, None, None], to_grey, eye)
    return ColourMaps(finish @ pixel, finish @ mean)


def _hue_rotation(angle: torch.Tensor) -> torch.Tensor:
    rotation = torch.zeros(len(angle), 3, 3)
    rotation[:, 0, 0] = 1
    rotation[:, 1, 1] = rotation[:, 2, 2] = angle.cos()
    rotation[:, 1, 2] = -angle.sin()
    rotation[:, 2, 1] = angle.sin()
    turned: torch.Tensor = _RGB @ rotation @ _YIQ
    return turned
