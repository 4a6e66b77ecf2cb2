"""Degradations of crops, as of sellers' photos: turned, out of focus, dark, noisy, compressed.

Each step changes the crops that are drawn for it, all of them at once.
"""

import math
from functools import lru_cache

import torch
from torch.nn import functional

from seer_model.training.pretraining.draws import BatchDraws, send

__all__ = ["blur", "degrade"]

# Shares of the degraded crops that a step changes.
_TURNED = 0.4
_UNFOCUSED = 0.4
_DARK = 0.4
_COMPRESSED = 0.3

_SIGMA = (1 / 400, 1 / 50)  # Of the blur, as shares of a crop's side.
_LIGHT = (0.12, 0.8)  # What is left of the light.
_NOISE = 10.0  # Largest standard deviation of the sensor's noise, of 255.
_QUALITY = (8.0, 50.0)  # Of JPEG.
_BLOCK = 8

_YCC = torch.tensor([[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]])
_RGB = torch.linalg.inv(_YCC)
# Quantization tables of luminance and chrominance: ITU-T T.81, annex K.
_LUMA_TABLE = torch.tensor(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
_CHROMA_TABLE = torch.tensor(
    [
        [17, 18, 24, 47, 99, 99, 99, 99],
        [18, 21, 26, 66, 99, 99, 99, 99],
        [24, 26, 56, 99, 99, 99, 99, 99],
        [47, 66, 99, 99, 99, 99, 99, 99],
        [99, 99, 99, 99, 99, 99, 99, 99],
        [99, 99, 99, 99, 99, 99, 99, 99],
        [99, 99, 99, 99, 99, 99, 99, 99],
        [99, 99, 99, 99, 99, 99, 99, 99],
    ]
)
_TABLES = torch.stack([_LUMA_TABLE, _CHROMA_TABLE, _CHROMA_TABLE])


def degrade(crops: torch.Tensor, draws: BatchDraws, share: float) -> torch.Tensor:
    """Degrade a share of the crops, each by one or several of the steps, or by none of them.

    A degraded crop is turned by a quarter or more (4 in 10), blurred as when out of focus (4 in
    10), darkened to 12 to 80 % of its light, with the noise of a sensor (4 in 10), and compressed
    as a JPEG of quality 8 to 50 (3 in 10).

    Args:
        crops: RGB from 0 to 255, float32, (N, 3, size, size); changed in place.
        draws: Random numbers; the same number is drawn whatever the share, unless it is 0.
        share: Of the crops that are degraded, from 0 to 1.

    Returns:
        The crops.
    """
    if share == 0:
        return crops
    degraded = draws.uniform() < share
    _turn(crops, degraded, draws)
    low, high = (bound * crops.shape[2] for bound in _SIGMA)
    blur(crops, low + draws.uniform() * (high - low), degraded & (draws.uniform() < _UNFOCUSED))
    _darken(crops, degraded, draws)
    _compress(crops, degraded, draws)
    return crops


def blur(crops: torch.Tensor, sigma: torch.Tensor, chosen: torch.Tensor) -> None:
    """Blur some of the crops with a Gaussian, in place.

    Args:
        crops: float32, (N, 3, size, size).
        sigma: Standard deviations in pixels, above 0, on the CPU; float32, (N,).
        chosen: The crops to blur, on the CPU; bool, (N,).
    """
    rows = chosen.nonzero()[:, 0]
    size = crops.shape[2]
    deviation, rows = send(crops.device, sigma[rows], rows)
    weights = _blur_matrices(deviation, size)
    blurred = crops[rows].view(-1, 3 * size, size) @ weights.mT
    crops[rows] = weights[:, None] @ blurred.view(-1, 3, size, size)


def _turn(crops: torch.Tensor, degraded: torch.Tensor, draws: BatchDraws) -> None:
    quarters = (draws.uniform() * 3).long() + 1
    turned = degraded & (draws.uniform() < _TURNED)
    for quarter in (1, 2, 3):
        (rows,) = send(crops.device, (turned & (quarters == quarter)).nonzero()[:, 0])
        crops[rows] = torch.rot90(crops[rows], quarter, (2, 3))


def _darken(crops: torch.Tensor, degraded: torch.Tensor, draws: BatchDraws) -> None:
    """Take light away, and add a sensor's noise: each crop sees a window of one field of noise."""
    size = crops.shape[2]
    low, high = map(math.log, _LIGHT)
    light = torch.exp(low + draws.uniform() * (high - low))
    deviation = draws.uniform() * _NOISE
    windows = (draws.uniform(2) * size).long()
    rows = (degraded & (draws.uniform() < _DARK)).nonzero()[:, 0]
    field = draws.normal(3, 2 * size, 2 * size)
    chosen, light, deviation, field = send(crops.device, rows, light[rows], deviation[rows], field)
    if not len(rows):
        return
    noise = torch.stack(
        [
            field[:, top : top + size, left : left + size]
            for top, left in windows[:, rows].T.tolist()
        ]
    )
    noise *= deviation[:, None, None, None]
    crops[chosen] = (crops[chosen] * light[:, None, None, None] + noise).clamp_(0, 255)


def _compress(crops: torch.Tensor, degraded: torch.Tensor, draws: BatchDraws) -> None:
    """Round the cosine transforms of blocks of 8 x 8 pixels, as JPEG does without subsampling."""
    low, high = _QUALITY
    quality = low + draws.uniform() * (high - low)
    chosen = (degraded & (draws.uniform() < _COMPRESSED)).nonzero()[:, 0]
    size = crops.shape[2]
    tables = _TABLES * (50 / quality[chosen])[:, None, None, None]
    steps = (tables + 0.5).floor().clamp(1, 255)
    rows, steps, colours, back, transform = send(
        crops.device, chosen, steps, _YCC, _RGB, _block_transform(size)
    )
    padding = (0, -size % _BLOCK, 0, -size % _BLOCK)
    pixels = functional.pad(crops[rows], padding, mode="replicate")
    planes = torch.einsum("cd,ndhw->nchw", colours, pixels - 128)
    frequencies = transform @ planes @ transform.mT
    blocks = len(transform) // _BLOCK
    steps = steps.repeat(1, 1, blocks, blocks)
    restored = transform.mT @ ((frequencies / steps).round() * steps) @ transform
    result = torch.einsum("cd,ndhw->nchw", back, restored) + 128
    crops[rows] = result[:, :, :size, :size].clamp(0, 255)


@lru_cache(maxsize=8)
def _block_transform(size: int) -> torch.Tensor:
    """The orthonormal cosine transform of each block of a line, of `size` pixels or a few more."""
    index = torch.arange(_BLOCK, dtype=torch.float32)
    cosines = torch.cos(math.pi / _BLOCK * index[:, None] * (index + 0.5))
    cosines *= math.sqrt(2 / _BLOCK)
    cosines[0] /= math.sqrt(2)
    return torch.kron(torch.eye(math.ceil(size / _BLOCK)), cosines)


def _blur_matrices(sigma: torch.Tensor, size: int) -> torch.Tensor:
    """Matrices that blur lines of `size` pixels with a Gaussian.

    Weights beyond an edge are shared out over the others, so that a plain photo stays plain.

    Args:
        sigma: Standard deviation in pixels, above 0; float32, (N,).
        size: Pixels in a line.

    Returns:
        Weights, float32, (N, size, size); every row sums to 1.
    """
    index = torch.arange(size, device=sigma.device, dtype=torch.float32)
    squares = (index[:, None] - index).square_()
    exponents = squares * (-0.5 / sigma.square())[:, None, None]
    # e^-30 is negligible, and keeps weights from being subnormal, which CPUs compute 10x slower.
    weights = exponents.clamp_(min=-30.0).exp_()
    return weights.div_(weights.sum(dim=2, keepdim=True))
