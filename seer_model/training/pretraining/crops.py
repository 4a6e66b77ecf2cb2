"""Multi-crop augmentation: several random views of every photo, made on the photos' device.

In order: draw boxes, resample, degrade, change colours, blur. Each step works on a whole batch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from seer_model.backbones.preprocessing import Preprocessing
from seer_model.training.pretraining.degradations import blur, degrade
from seer_model.training.pretraining.draws import BatchDraws, send

__all__ = ["CropSpec", "MultiCrop"]

_JITTER_PROBABILITY = 0.8
_FLIP_PROBABILITY = 0.5
_MAX_LOG_ASPECT = math.log(4 / 3)
_SIGMA = (0.1 / 224, 2.0 / 224)  # Of the blur, as shares of a crop's side.
_LUMA = torch.tensor([0.299, 0.587, 0.114])
# NTSC's luma and two colour differences; a change of hue rotates the differences.
_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_RGB = torch.linalg.inv(_YIQ)
_CONTRAST = 1  # The position of contrast among the four steps of the colour jitter.


@dataclass(frozen=True)
class CropSpec:
    """One kind of crop.

    Attributes:
        size: Side of the square crop, in pixels.
        count: Crops of this kind per photo.
        scale: Smallest and largest share of the photo's area that a crop covers, within (0, 1].

    Raises:
        ValueError: A number is out of range.
    """

    size: int
    count: int
    scale: tuple[float, float]

    def __post_init__(self) -> None:
        low, high = self.scale
        if self.size < 1 or self.count < 0 or not 0 < low <= high <= 1:
            raise ValueError(
                "a crop needs a size of 1 or more, a count of 0 or more and a scale "
                f"0 < low <= high <= 1, not {self}"
            )


class MultiCrop:
    """SwAV's augmentation of a batch of decoded photos.

    Caron et al. 2020 (https://arxiv.org/abs/2006.09882), section 3.2 and appendix A.1; SEER (Goyal
    et al. 2021, https://arxiv.org/abs/2103.01988), section 4.1. Each crop of a photo is a box of
    random area and aspect (3:4 to 4:3), resampled with antialiasing and mirrored half the time;
    then come colour jitter, greyscale, Gaussian blur with a sigma proportional to the crop's size,
    and the backbone's normalisation.

    Random numbers are drawn on the CPU. So no step waits for the device, and a generator's state
    gives the same boxes and colours on every device.

    Args:
        specs: Kinds of crops, the large ones first.
        preprocessing: Its mean and standard deviation normalise the crops.
        colour_strength: Strength of the colour jitter, from 0 to 1 (SwAV's).
        grey_probability: Share of crops that become grey.
        blur_probability: Share of crops that are blurred.
        degraded: Share of crops that are degraded as sellers' photos are, see `degrade`.
    """

    def __init__(
        self,
        specs: Sequence[CropSpec],
        *,
        preprocessing: Preprocessing,
        colour_strength: float = 1.0,
        grey_probability: float = 0.2,
        blur_probability: float = 0.5,
        degraded: float = 0.0,
    ) -> None:
        self.specs = tuple(specs)
        self.preprocessing = preprocessing
        self.colour_strength = colour_strength
        self.grey_probability = grey_probability
        self.blur_probability = blur_probability
        self.degraded = degraded

    @torch.no_grad()
    def __call__(
        self,
        photos: torch.Tensor,
        generator: torch.Generator,
        *,
        batch: int | None = None,
        first: int = 0,
    ) -> list[torch.Tensor]:
        """Make the crops of a batch, or of one process's slice of it.

        Args:
            photos: uint8 RGB, (N, H, W, 3), on any device.
            generator: On the CPU; every process advances it by the same amount.
            batch: Photos in the global batch; None if `photos` is all of it.
            first: Position of these photos in the global batch.

        Returns:
            One tensor per crop, in the order of `specs`: float32, normalised, (N, 3, size, size),
            channels-last in memory, on the photos' device.

        Raises:
            ValueError: The photos have another shape or dtype.
        """
        draws = BatchDraws(generator, batch or len(photos), first, len(photos))
        return [crop for crop, _ in self._views(photos, draws, draws, 0)]

    @torch.no_grad()
    def pairs(
        self,
        photos: torch.Tensor,
        boxes: torch.Generator,
        generator: torch.Generator,
        *,
        clean_size: int,
        batch: int | None = None,
        first: int = 0,
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Make the crops, and beside each the same box of the photo as it is.

        Args:
            photos: As above.
            boxes: As `generator`, for the boxes and whether they are mirrored.
            generator: As above, for everything else.
            clean_size: Side of a clean crop, in pixels; 0 for empty ones.
            batch: As above.
            first: As above.

        Returns:
            For each crop the crop, as above, and the clean one, upright and mirrored like it:
            uint8, (N, clean_size, clean_size, 3).

        Raises:
            ValueError: The photos have another shape or dtype.
        """
        of_boxes, draws = (
            BatchDraws(source, batch or len(photos), first, len(photos))
            for source in (boxes, generator)
        )
        return self._views(photos, of_boxes, draws, clean_size)

    def _views(
        self, photos: torch.Tensor, boxes: BatchDraws, draws: BatchDraws, clean_size: int
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        if photos.dtype != torch.uint8 or photos.ndim != 4 or photos.shape[3] != 3:
            raise ValueError(
                "photos must be uint8 of shape (N, H, W, 3), "
                f"not {photos.dtype} {tuple(photos.shape)}"
            )
        photos = photos.contiguous()
        with torch.autocast(photos.device.type, enabled=False):
            return [
                self._view(photos, spec, boxes, draws, clean_size)
                for spec in self.specs
                for _ in range(spec.count)
            ]

    def _view(
        self,
        photos: torch.Tensor,
        spec: CropSpec,
        boxes: BatchDraws,
        draws: BatchDraws,
        clean_size: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        _, height, width, _ = photos.shape
        rows, columns = _draw_boxes(height, width, spec.scale, boxes)
        mirrored = boxes.uniform() < _FLIP_PROBABILITY
        clean = photos.new_empty((len(photos), 0, 0, 3))
        if clean_size:
            resampled = _resample(photos, rows, columns, mirrored, clean_size)
            clean = resampled.round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
        crops = _resample(photos, rows, columns, mirrored, spec.size)
        crops = self._recolour(degrade(crops, draws, self.degraded), draws)
        low, high = (bound * spec.size for bound in _SIGMA)
        sigma = draws.uniform() * (high - low) + low
        blur(crops, sigma, draws.uniform() < self.blur_probability)
        return crops.contiguous(memory_format=torch.channels_last), clean.contiguous()

    def _recolour(self, crops: torch.Tensor, draws: BatchDraws) -> torch.Tensor:
        """Change colours and normalise, with one matrix per photo: float32, (N, 3, size, size)."""
        maps = _draw_colour_maps(draws, self.colour_strength, self.grey_probability)
        pixels = crops.flatten(2)
        mean = torch.tensor(self.preprocessing.mean)[:, None]
        std = torch.tensor(self.preprocessing.std)[:, None]
        black, white, by_pixel, by_mean = send(
            crops.device,
            -mean / std,
            (1 - mean) / std,
            maps.pixel / (255 * std),
            maps.mean / (255 * std),
        )
        offset = black + by_mean @ pixels.mean(dim=2, keepdim=True)
        recoloured = torch.baddbmm(offset, by_pixel, pixels)
        return torch.clamp(recoloured, black, white, out=recoloured).view(crops.shape)


class _Stretches(NamedTuple):
    """One stretch of a photo's side per photo, in pixels; float32, (N,)."""

    start: torch.Tensor
    length: torch.Tensor


def _draw_boxes(
    height: int, width: int, scale: tuple[float, float], draws: BatchDraws
) -> tuple[_Stretches, _Stretches]:
    """Draw boxes of uniform area and log-uniform aspect, anywhere within the photo.

    Where an area does not fit with every aspect, the aspect is drawn from those that fit. Unlike
    torchvision's ten trials, this needs no retry and does not make large boxes rarer.
    """
    share, aspect, down, right = draws.uniform(4)
    area = height * width * (scale[0] + share * (scale[1] - scale[0]))
    tallest, widest = (area / height**2).log(), (width**2 / area).log()
    low = torch.clamp(torch.full_like(area, -_MAX_LOG_ASPECT), tallest, widest)
    high = torch.clamp(torch.full_like(area, _MAX_LOG_ASPECT), tallest, widest)
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
    mirrored: torch.Tensor,
    size: int,
) -> torch.Tensor:
    """Resample boxes of photos: float32 from 0 to 255, (N, 3, size, size).

    A box is upright, so resizing is separable: `rows @ photo @ columns.T`. A whole batch takes two
    batched matrix products, on a CPU as on a GPU, with exact antialiasing. A sampling grid would
    cost as much and need a pyramid of averaged photos to come close.

    Only the lines that a box reaches are read. They are gathered whole, which copies long runs of
    memory; gathering the columns too takes longer than multiplying by zeros.
    """
    count, height, width, _ = photos.shape
    tops, reached = _windows(rows, size, height)
    first_line, top, tall, left, wide, flip, upright = send(
        photos.device,
        tops + height * torch.arange(count),
        rows.start - tops,
        rows.length,
        columns.start,
        columns.length,
        mirrored,
        torch.zeros_like(mirrored),
    )
    lines = first_line[:, None] + torch.arange(reached, device=photos.device)
    windows = photos.view(count * height, width * 3).index_select(0, lines.view(-1))
    vertical = _resize_matrices(top, tall, upright, size, reached)
    horizontal = _resize_matrices(left, wide, flip, size, width)
    squeezed = torch.bmm(vertical, windows.view(count, reached, width * 3).float())
    planes = squeezed.view(count, size, width, 3).permute(0, 3, 1, 2)
    crops = torch.bmm(planes.reshape(count, 3 * size, width), horizontal.mT)
    return crops.view(count, 3, size, size)


def _windows(stretches: _Stretches, size: int, pixels: int) -> tuple[torch.Tensor, int]:
    """First pixels, int64 (N,), and common length of the windows that the filters reach."""
    reach = (stretches.length / size).clamp(min=1.0)
    first = (stretches.start - reach).floor()
    last = (stretches.start + stretches.length + reach).ceil()
    length = min(pixels, int((last - first).max()))
    return first.clamp(0, pixels - length).long(), length


def _resize_matrices(
    start: torch.Tensor, length: torch.Tensor, flip: torch.Tensor, size: int, pixels: int
) -> torch.Tensor:
    """Matrices that resample a stretch of each line of pixels to `size` pixels.

    The filter is a triangle, stretched by the reduction and at least one pixel wide to either side:
    Pillow's bilinear with antialiasing, `F.interpolate(antialias=True)`. At the ends of the stretch
    it reaches beyond them, as far as the photo goes.

    Args:
        start: Start of the stretch, in pixels from the line's edge; float32, (N,).
        length: Length of the stretch in pixels, above 0; float32, (N,).
        flip: Whether to reverse the stretch; bool, (N,).
        size: Pixels in the result.
        pixels: Pixels in the line.

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


@dataclass(frozen=True)
class _ColourMaps:
    """Affine maps: pixel x of photo n, of mean colour m, becomes `pixel[n] @ x + mean[n] @ m`.

    Attributes:
        pixel: float32, (N, 3, 3).
        mean: float32, (N, 3, 3).
    """

    pixel: torch.Tensor
    mean: torch.Tensor


def _draw_colour_maps(draws: BatchDraws, strength: float, grey_probability: float) -> _ColourMaps:
    """Draw colour jitter and greyscale, with SimCLR's strengths, which SwAV uses too.

    Chen et al. 2020 (https://arxiv.org/abs/2002.05709), appendix A; SwAV (Caron et al. 2020,
    https://arxiv.org/abs/2006.09882), appendix A.1. Brightness, contrast and saturation change by
    a factor within 0.8 * `strength` of 1, and hue by up to 0.2 * `strength` of a turn, in random
    order; then some photos become grey.

    Hue is rotated in YIQ, as DALI does, not in HSV. So every step is linear in the pixel and the
    photo's mean colour, and a photo's steps fold into one map whose result is clipped once, where
    torchvision clips after each step.

    Returns:
        Maps, on the CPU.
    """

    def uniform(low: float, high: float) -> torch.Tensor:
        return draws.uniform() * (high - low) + low

    spread = 0.8 * strength
    brightness, contrast, saturation = (uniform(max(0.0, 1 - spread), 1 + spread) for _ in range(3))
    turn = uniform(-0.2 * strength, 0.2 * strength) * (2 * math.pi)
    order = draws.uniform(4).T.argsort(dim=1)
    jittered = draws.uniform() < _JITTER_PROBABILITY
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
        # Contrast pivots on the photo's mean luma after the steps before it.
        share = torch.where(step == _CONTRAST, 1 - contrast, 0.0)[:, None, None]
        middle = share * (to_grey @ (pixel + mean))
        matrix = steps[step, every]
        pixel, mean = matrix @ pixel, matrix @ mean + middle
    pixel = torch.where(jittered[:, None, None], pixel, eye)
    mean = mean * jittered[:, None, None]
    finish = torch.where(grey[:, None, None], to_grey, eye)
    return _ColourMaps(finish @ pixel, finish @ mean)


def _hue_rotation(angle: torch.Tensor) -> torch.Tensor:
    rotation = torch.zeros(len(angle), 3, 3)
    rotation[:, 0, 0] = 1
    rotation[:, 1, 1] = rotation[:, 2, 2] = angle.cos()
    rotation[:, 1, 2] = -angle.sin()
    rotation[:, 2, 1] = angle.sin()
    turned: torch.Tensor = _RGB @ rotation @ _YIQ
    return turned
