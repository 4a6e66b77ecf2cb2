"""Resampling and blurring of photos as products with small matrices, each photo with its own.

A crop of a photo is an upright box, so resizing it is separable: `rows @ photo @ columns.T`. A
whole batch is then two batched matrix products, on a CPU as on a GPU, with exact antialiasing. A
sampling grid would need a pyramid of averaged photos to come near that, and costs as much.
"""

import torch

__all__ = ["blur_matrices", "resize_matrices"]


def resize_matrices(
    start: torch.Tensor, length: torch.Tensor, flip: torch.Tensor, size: int, pixels: int
) -> torch.Tensor:
    """Matrices that resample a stretch of each line of pixels to `size` pixels.

    The filter is a triangle as wide as the reduction, and never narrower than a pixel to either
    side: Pillow's bilinear with antialiasing and `F.interpolate(antialias=True)`. At the ends of
    the stretch it reaches over to what lies beyond, as far as there are pixels.

    Args:
        start: Where the stretch begins, in pixels from the line's edge; float32, (N,).
        length: Its length in pixels, above 0; float32, (N,).
        flip: Whether to reverse its direction; bool, (N,).
        size: Pixels of the result.
        pixels: Pixels of the line.

    Returns:
        Weights, float32, (N, size, pixels); every row sums to 1.
    """
    index = torch.arange(size, device=start.device)
    position = torch.where(flip[:, None], size - 1 - index, index) + 0.5
    scale = (length / size)[:, None]
    centres = start[:, None] + position * scale
    nearness = (1 / scale.clamp(min=1.0))[:, :, None]
    middles = torch.arange(pixels, device=start.device) + 0.5
    distances = (middles - centres[:, :, None]).abs_().mul_(-nearness)
    weights = distances.add_(1.0).clamp_(min=0.0)
    return weights.div_(weights.sum(dim=2, keepdim=True))


def blur_matrices(sigma: torch.Tensor, size: int) -> torch.Tensor:
    """Matrices that blur lines of `size` pixels with a Gaussian.

    What would fall off an edge is shared out over the rest, so that a plain photo stays plain.

    Args:
        sigma: Standard deviation in pixels, above 0; float32, (N,).
        size: Pixels of a line.

    Returns:
        Weights, float32, (N, size, size); every row sums to 1.
    """
    index = torch.arange(size, device=sigma.device, dtype=torch.float32)
    squares = (index[:, None] - index).square_()
    exponents = squares * (-0.5 / sigma.square())[:, None, None]
    # e^-30 is as good as nothing, but a CPU takes ten times as long over subnormal numbers.
    weights = exponents.clamp_(min=-30.0).exp_()
    return weights.div_(weights.sum(dim=2, keepdim=True))
