"""Multi-crop: boxes, resampling, colours and blur, against their definitions."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn import functional

from seer_model.backbones.preprocessing import Preprocessing
from seer_model.training.pretraining import crops as crops_module
from seer_model.training.pretraining.crops import (
    CropSpec,
    MultiCrop,
    _draw_colour_maps,
    _resize_matrices,
)
from seer_model.training.pretraining.degradations import _blur_matrices
from seer_model.training.pretraining.draws import BatchDraws

PLAIN = Preprocessing(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without mirroring and jitter, unless a test turns them on."""
    torch.set_num_threads(1)
    monkeypatch.setattr(crops_module, "_FLIP_PROBABILITY", 0.0)
    monkeypatch.setattr(crops_module, "_JITTER_PROBABILITY", 0.0)


@pytest.fixture
def turn_on(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, float], None]:
    return lambda name, share: monkeypatch.setattr(crops_module, f"_{name}_PROBABILITY", share)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(count: int, height: int = 40, width: int = 40) -> torch.Tensor:
    return torch.randint(0, 256, (count, height, width, 3), generator=seeded(9)).to(torch.uint8)


def only(size: int, low: float = 1.0, high: float = 1.0, **settings: float) -> MultiCrop:
    """One crop, no augmentation but what `settings` turn on."""
    settings = {"grey_probability": 0.0, "blur_probability": 0.0} | settings
    return MultiCrop((CropSpec(size, 1, (low, high)),), preprocessing=PLAIN, **settings)


def random_crops(count: int) -> MultiCrop:
    return MultiCrop((CropSpec(16, count, (0.14, 1.0)),), preprocessing=PLAIN)


def test_crops_are_normalised_channels_last_and_in_order() -> None:
    specs = (CropSpec(24, 2, (0.14, 1.0)), CropSpec(12, 3, (0.05, 0.14)))
    crops = MultiCrop(specs, preprocessing=Preprocessing())(noise(5, 40, 52), seeded())
    assert [tuple(crop.shape) for crop in crops] == [(5, 3, 24, 24)] * 2 + [(5, 3, 12, 12)] * 3
    std, mean = (
        torch.tensor(one)[:, None, None] for one in (Preprocessing().std, Preprocessing().mean)
    )
    for crop in crops:
        assert crop.dtype == torch.float32
        assert crop.is_contiguous(memory_format=torch.channels_last)
        pixels = crop * std + mean
        assert pixels.min() >= -1e-5
        assert pixels.max() <= 1 + 1e-5
    assert not torch.equal(crops[0], crops[1])


def test_a_generators_state_decides_everything() -> None:
    augment, photos = random_crops(2), noise(6)
    torch.manual_seed(1)
    first = augment(photos, seeded(5))
    torch.manual_seed(2)
    again = augment(photos, seeded(5))
    other = augment(photos, seeded(6))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


def test_autocast_does_not_coarsen_the_crops() -> None:
    augment, photos = random_crops(1), noise(4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = augment(photos, seeded())[0]
    assert torch.equal(inside, augment(photos, seeded())[0])


@pytest.mark.parametrize("size", [8, 17, 40, 64])
def test_the_whole_photo_is_resized_as_pytorch_does_it(size: int) -> None:
    photos = noise(3)
    planes = photos.permute(0, 3, 1, 2).float() / 255
    expected = functional.interpolate(
        planes, size=(size, size), mode="bilinear", antialias=True, align_corners=False
    )
    torch.testing.assert_close(only(size)(photos, seeded())[0], expected, atol=1e-5, rtol=0)


def test_a_flipped_photo_is_the_mirrored_one(turn_on: Callable[[str, float], None]) -> None:
    photos = noise(3)
    straight = only(20)(photos, seeded())[0]
    turn_on("FLIP", 1.0)
    torch.testing.assert_close(only(20)(photos, seeded())[0].flip(3), straight)


def test_half_the_crops_are_mirrored(turn_on: Callable[[str, float], None]) -> None:
    turn_on("FLIP", 0.5)
    ramp = torch.arange(0, 160, 10, dtype=torch.uint8)[None, None, :, None].expand(400, 16, 16, 3)
    crops = only(8)(ramp, seeded())[0]
    share = (crops[:, 0, 0, 0] > crops[:, 0, 0, -1]).float().mean()
    assert 0.4 < share < 0.6


def test_a_fine_checkerboard_shrinks_to_grey() -> None:
    board = (torch.arange(120)[:, None] + torch.arange(120)) % 2 * 255
    photos = board.to(torch.uint8)[None, :, :, None].expand(8, 120, 120, 3)
    crops = only(16, 0.5, 1.0)(photos, seeded())[0]
    assert (crops - 0.5).abs().max() < 0.03


def test_boxes_have_the_area_and_aspect_they_should() -> None:
    # Red is the column's number and green the row's: their ranges show the box.
    side, size = 200, 100
    line = torch.arange(side, dtype=torch.uint8)
    photo = torch.zeros(side, side, 3, dtype=torch.uint8)
    photo[:, :, 0], photo[:, :, 1] = line, line[:, None]
    crops = only(size, 0.2, 0.5)(photo.expand(300, -1, -1, -1), seeded())[0] * 255
    # The outermost samples may be blunted by the photo's edge: measure between inner ones.
    width = (crops[:, 0, 50, 89] - crops[:, 0, 50, 10]) * size / 79
    height = (crops[:, 1, 89, 50] - crops[:, 1, 10, 50]) * size / 79
    area, aspect = width * height / side**2, (width / height).log()
    assert area.min() > 0.199
    assert area.max() < 0.501
    assert area.mean() == pytest.approx(0.35, abs=0.02)
    assert aspect.abs().max() < math.log(4 / 3) + 1e-3
    assert aspect.mean() == pytest.approx(0, abs=0.03)
    assert aspect.std() == pytest.approx(2 * math.log(4 / 3) / math.sqrt(12), rel=0.1)
    left = crops[:, 0, 50, 50] - width / 2
    assert left.min() > -1.5
    assert (left + width).max() < side + 1.5
    assert left.std() > 20


def test_a_long_photo_yields_boxes_within_it() -> None:
    crops = only(16, 0.9, 1.0)(noise(20, 20, 90), seeded())[0]
    assert torch.isfinite(crops).all()


def test_a_fifth_of_the_crops_is_grey() -> None:
    crops = only(6, grey_probability=0.2)(noise(500, 12, 12), seeded())[0]
    spread = (crops.amax(dim=1) - crops.amin(dim=1)).amax(dim=(1, 2))
    assert 0.14 < (spread < 1e-5).float().mean() < 0.26
    weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    luma = (only(6)(noise(500, 12, 12), seeded())[0] * weights).sum(dim=1)
    grey = spread < 1e-5
    torch.testing.assert_close(crops[grey, 0], luma[grey], atol=1e-4, rtol=0)


def test_four_fifths_of_the_crops_change_colour(turn_on: Callable[[str, float], None]) -> None:
    photos = noise(500, 12, 12)
    plain = only(6)(photos, seeded())[0]
    turn_on("JITTER", 0.8)
    changed = only(6)(photos, seeded())[0] - plain
    share = (changed.abs().amax(dim=(1, 2, 3)) > 1e-3).float().mean()
    assert 0.74 < share < 0.86


def test_colour_strength_zero_changes_nothing(turn_on: Callable[[str, float], None]) -> None:
    photos = noise(4)
    expected = only(10)(photos, seeded())[0]
    turn_on("JITTER", 1.0)
    unchanged = only(10, colour_strength=0.0)(photos, seeded())[0]
    torch.testing.assert_close(unchanged, expected, atol=1e-5, rtol=0)


def test_colour_maps_keep_grey_grey_and_stay_within_their_factors(
    turn_on: Callable[[str, float], None],
) -> None:
    turn_on("JITTER", 1.0)
    maps = _draw_colour_maps(BatchDraws(seeded(), 400, 0, 400), 1.0, 0.0)
    # On a plain grey photo contrast, saturation and hue do nothing: what is left is brightness.
    grey = torch.full((3, 1), 0.5)
    result = ((maps.pixel + maps.mean) @ grey)[:, :, 0]
    assert (result.amax(dim=1) - result.amin(dim=1)).max() < 1e-3
    assert result.min() >= 0.1 - 1e-3
    assert result.max() <= 0.9 + 1e-3
    assert result.mean() == pytest.approx(0.5, abs=0.03)


def test_blur_takes_some_crops_and_keeps_their_mean_brightness() -> None:
    photos = noise(200, 48, 48)
    sharp = only(48)(photos, seeded())[0]
    blurred = only(48, blur_probability=0.5)(photos, seeded())[0]
    touched = (blurred - sharp).abs().amax(dim=(1, 2, 3)) > 0
    assert 0.25 < touched.float().mean() < 0.6  # A sigma of a few hundredths touches nothing.
    assert (blurred.std(dim=(1, 2, 3)) <= sharp.std(dim=(1, 2, 3)) + 1e-6).all()
    means = blurred.mean(dim=(1, 2, 3)), sharp.mean(dim=(1, 2, 3))
    torch.testing.assert_close(*means, atol=2e-3, rtol=0)


def test_blur_matrices_are_gaussian() -> None:
    matrix = _blur_matrices(torch.tensor([1.5, 0.01]), 31).double().numpy()
    expected = np.exp(-((np.arange(31) - 15) ** 2) / (2 * 1.5**2))
    np.testing.assert_allclose(matrix[0, 15], expected / expected.sum(), atol=1e-6)
    np.testing.assert_allclose(matrix[1], np.eye(31), atol=1e-9)


def test_resize_matrices_rows_sum_to_one_beyond_the_edges_too() -> None:
    matrix = _resize_matrices(
        torch.tensor([0.0, 3.7]), torch.tensor([20.0, 1.3]), torch.tensor([False, True]), 9, 20
    )
    torch.testing.assert_close(matrix.sum(dim=2), torch.ones(2, 9))
    assert (matrix >= 0).all()


@pytest.mark.parametrize(
    "photos",
    [torch.zeros(2, 8, 8, 3), torch.zeros(8, 8, 3, dtype=torch.uint8)],
    ids=["float", "single"],
)
def test_anything_but_a_batch_of_photos_is_refused(photos: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"uint8 of shape \(N, H, W, 3\)"):
        random_crops(1)(photos, seeded())


@pytest.mark.parametrize(
    "numbers", [(0, 1, (0.1, 1.0)), (8, -1, (0.1, 1.0)), (8, 1, (0.0, 1.0)), (8, 1, (0.5, 0.4))]
)
def test_impossible_crops_are_refused(numbers: tuple[int, int, tuple[float, float]]) -> None:
    with pytest.raises(ValueError, match="a crop needs a size"):
        CropSpec(*numbers)
