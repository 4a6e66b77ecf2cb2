"""Multi-crop: several random views of every photo, made for a whole batch on its own device."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from seer_model.preprocessing import Preprocessing
from seer_model.pretraining.colour import draw_colour_maps
from seer_model.pretraining.draws import BatchDraws
from seer_model.pretraining.resampling import blur_matrices, resize_matrices

__all__ = ["LARGE_CROPS", "SMALL_CROPS", "CropSpec", "MultiCrop"]

_ASPECT = math.log(4 / 3)
_SIGMA = (0.1 / 224, 2.0 / 224)


@dataclass(frozen=True)
class CropSpec:
    """Crops of one size.

    Attributes:
        size: Side of the square result, in pixels.
        count: How many of them are made of each photo.
        scale: Least and greatest share of the photo's area that a crop covers, within (0, 1].

    Raises:
        ValueError: A number is out of range.
    """

    size: int
    count: int
    scale: tuple[float, float]

    def __post_init__(self) -> None:
        low, high = self.scale
        if self.size < 1 or self.count < 0 or not 0 < low <= high <= 1:
            raise ValueError(f"not a possible kind of crop: {self}")


LARGE_CROPS = CropSpec(size=224, count=2, scale=(0.14, 1.0))
"""SwAV's large crops, whose assignments all the others predict."""

SMALL_CROPS = CropSpec(size=96, count=4, scale=(0.05, 0.14))
"""SEER's small crops."""


class _Stretches(NamedTuple):
    """For each photo a stretch along one side, in pixels; float32, (N,)."""

    start: torch.Tensor
    length: torch.Tensor


class MultiCrop:
    """SwAV's augmentation of a batch of decoded photos.

    Caron et al. 2020 (https://arxiv.org/abs/2006.09882), section 3.2 and appendix A.1; SEER (Goyal
    et al. 2021, https://arxiv.org/abs/2103.01988), section 4.1. Of each photo, and for each crop
    anew: a box of random area and aspect (3:4 to 4:3) resampled with antialiasing, mirrored half
    the time; colour jitter; greyscale; Gaussian blur, its sigma proportional to the crop's size;
    then the backbone's normalisation.

    The random numbers come from the CPU, so that no step waits for the device and a generator's
    state gives the same boxes and colours on every device.

    Args:
        specs: Kinds of crops, the large ones first.
        preprocessing: Its mean and standard deviation normalise the crops.
        colour_strength: Strength of the colour jitter; SwAV's is 1.
        jitter_probability: Share of crops whose colours are jittered.
        grey_probability: Share of crops without colour.
        blur_probability: Share of crops that are blurred.
        flip_probability: Share of crops that are mirrored.
    """

    def __init__(
        self,
        specs: Sequence[CropSpec] = (LARGE_CROPS, SMALL_CROPS),
        *,
        preprocessing: Preprocessing = Preprocessing(),  # noqa: B008 - frozen
        colour_strength: float = 1.0,
        jitter_probability: float = 0.8,
        grey_probability: float = 0.2,
        blur_probability: float = 0.5,
        flip_probability: float = 0.5,
    ) -> None:
        self.specs = tuple(specs)
        self.preprocessing = preprocessing
        self.colour_strength = colour_strength
        self.jitter_probability = jitter_probability
        self.grey_probability = grey_probability
        self.blur_probability = blur_probability
        self.flip_probability = flip_probability

    @torch.no_grad()
    def __call__(
        self,
        photos: torch.Tensor,
        generator: torch.Generator,
        *,
        batch: int | None = None,
        first: int = 0,
    ) -> list[torch.Tensor]:
        """Make the crops of a batch, or of a process's part of one.

        Args:
            photos: uint8, (N, H, W, 3), red, green, blue, on any device.
            generator: On the CPU; it is advanced, by as much in every process.
            batch: Photos of the global batch; None: these are all.
            first: Where these photos begin in it.

        Returns:
            One tensor a crop, in the order of `specs`: float32, normalised, (N, 3, size, size),
            channels-last in memory, on the photos' device.

        Raises:
            ValueError: The photos are of another shape or type.
        """
        if photos.dtype != torch.uint8 or photos.ndim != 4 or photos.shape[3] != 3:
            raise ValueError(
                "photos must be uint8 of shape (N, H, W, 3), "
                f"not {photos.dtype} {tuple(photos.shape)}"
            )
        photos = photos.contiguous()
        draws = BatchDraws(generator, batch or len(photos), first, len(photos))
        with torch.autocast(photos.device.type, enabled=False):
            return [
                self._crop(photos, spec, draws) for spec in self.specs for _ in range(spec.count)
            ]

    def _crop(self, photos: torch.Tensor, spec: CropSpec, draws: BatchDraws) -> torch.Tensor:
        _, height, width, _ = photos.shape
        rows, columns = _draw_boxes(height, width, spec.scale, draws)
        flip = draws.uniform() < self.flip_probability
        crops = _resample(photos, rows, columns, flip, spec.size)
        crops = self._recolour(crops, draws)
        self._blur(crops, draws)
        return crops.contiguous(memory_format=torch.channels_last)

    def _recolour(self, crops: torch.Tensor, draws: BatchDraws) -> torch.Tensor:
        """Change colours and normalise: one matrix a photo; float32, (N, 3, size, size)."""
        maps = draw_colour_maps(
            draws,
            strength=self.colour_strength,
            jitter_probability=self.jitter_probability,
            grey_probability=self.grey_probability,
        )
        pixels = crops.flatten(2)
        mean = torch.tensor(self.preprocessing.mean)[:, None]
        std = torch.tensor(self.preprocessing.std)[:, None]
        black, white, by_pixel, by_mean = _send(
            crops.device,
            -mean / std,
            (1 - mean) / std,
            maps.pixel / (255 * std),
            maps.mean / (255 * std),
        )
        offset = black + by_mean @ pixels.mean(dim=2, keepdim=True)
        recoloured = torch.baddbmm(offset, by_pixel, pixels)
        return torch.clamp(recoloured, black, white, out=recoloured).view(crops.shape)

    def _blur(self, crops: torch.Tensor, draws: BatchDraws) -> None:
        """Blur some of the crops in place."""
        size = crops.shape[2]
        low, high = (bound * size for bound in _SIGMA)
        sigma = draws.uniform() * (high - low) + low
        chosen = (draws.uniform() < self.blur_probability).nonzero()[:, 0]
        sigma, chosen = _send(crops.device, sigma[chosen], chosen)
        weights = blur_matrices(sigma, size)
        blurred = crops[chosen].view(-1, 3 * size, size) @ weights.mT
        crops[chosen] = weights[:, None] @ blurred.view(-1, 3, size, size)


def _draw_boxes(
    height: int,
    width: int,
    scale: tuple[float, float],
    draws: BatchDraws,
) -> tuple[_Stretches, _Stretches]:
    """Boxes of uniform area and log-uniform aspect, anywhere within the photo.

    Where not every aspect fits an area, those that fit share it out: no box is drawn twice, and the
    large ones are not the rarer for it, as they are with torchvision's ten trials.
    """
    share, aspect, down, right = draws.uniform(4)
    area = height * width * (scale[0] + share * (scale[1] - scale[0]))
    tallest, widest = (area / height**2).log(), (width**2 / area).log()
    low = torch.clamp(torch.full_like(area, -_ASPECT), tallest, widest)
    high = torch.clamp(torch.full_like(area, _ASPECT), tallest, widest)
    ratio = torch.exp(low + aspect * (high - low))
    heights = (area / ratio).sqrt_().clamp_(max=height)
    widths = (area * ratio).sqrt_().clamp_(max=width)
    return (
        _Stretches(down * (height - heights), heights),
        _Stretches(right * (width - widths), widths),
    )


def _resample(
    photos: torch.Tensor,
    rows: _Stretches,
    columns: _Stretches,
    flip: torch.Tensor,
    size: int,
) -> torch.Tensor:
    """Boxes of photos, mirrored where `flip` says so: float32 of 0 to 255, (N, 3, size, size).

    Only the lines that a box reaches are read. They are gathered whole, which copies long runs of
    memory; to gather the columns too takes longer than to multiply by zeros.
    """
    count, height, width, _ = photos.shape
    tops, reached = _windows(rows, size, height)
    first_line, top, tall, left, wide, mirrored, upright = _send(
        photos.device,
        tops + height * torch.arange(count),
        rows.start - tops,
        rows.length,
        columns.start,
        columns.length,
        flip,
        torch.zeros_like(flip),
    )
    lines = first_line[:, None] + torch.arange(reached, device=photos.device)
    windows = photos.view(count * height, width * 3).index_select(0, lines.view(-1))
    vertical = resize_matrices(top, tall, upright, size, reached)
    horizontal = resize_matrices(left, wide, mirrored, size, width)
    squeezed = torch.bmm(vertical, windows.view(count, reached, width * 3).float())
    planes = squeezed.view(count, size, width, 3).permute(0, 3, 1, 2)
    crops = torch.bmm(planes.reshape(count, 3 * size, width), horizontal.mT)
    return crops.view(count, 3, size, size)


def _windows(stretches: _Stretches, size: int, pixels: int) -> tuple[torch.Tensor, int]:
    """First pixels, int64 (N,), and common length of windows that hold all the filters reach."""
    reach = (stretches.length / size).clamp(min=1.0)
    first = (stretches.start - reach).floor()
    last = (stretches.start + stretches.length + reach).ceil()
    length = min(pixels, int((last - first).max()))
    return first.clamp(0, pixels - length).long(), length


def _send(device: torch.device, *tensors: torch.Tensor) -> list[torch.Tensor]:
    """Tensors on a device; the host does not wait for the work that is queued there."""
    return [tensor.to(device, non_blocking=True) for tensor in tensors]
