import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from schemas.errors import BundleError
from schemas.rejects import RejectReason
from seer_model.photos import PhotoLimits, PhotoRejected
from seer_model.preprocessing import Preprocessing, normalise, prepare_photo

DATA = Path(__file__).parents[3] / "shared/data"
LIMITS = PhotoLimits()
DEFAULT = Preprocessing()


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def jpeg(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def ramp(width: int, height: int) -> Image.Image:
    """Red rises from left to right, green from top to bottom."""
    y, x = np.mgrid[0:height, 0:width]
    red, green = 255 * x // max(width - 1, 1), 255 * y // max(height - 1, 1)
    return Image.fromarray(np.stack([red, green, 0 * red], axis=2).astype(np.uint8))


# Records


def test_preprocessing_round_trips_through_json() -> None:
    for preprocessing in (DEFAULT, Preprocessing(384, (0.5, 0.5, 0.5), (0.5, 0.5, 1.0))):
        text = json.dumps(preprocessing.to_json())
        assert Preprocessing.from_json(json.loads(text)) == preprocessing


def test_preprocessing_from_whole_numbers_holds_floats() -> None:
    record = {"image_size": 96, "mean": [0, 0, 0], "std": [1, 1, 1]}
    assert Preprocessing.from_json(record).std == (1.0, 1.0, 1.0)
    assert type(Preprocessing.from_json(record).std[0]) is float


@pytest.mark.parametrize("key", ["image_size", "mean", "std"])
def test_preprocessing_names_the_keys_it_needs(key: str) -> None:
    record = DEFAULT.to_json()
    del record[key]
    with pytest.raises(BundleError, match="image_size, mean and std"):
        Preprocessing.from_json(record)


def test_preprocessing_refuses_an_unknown_key() -> None:
    with pytest.raises(BundleError, match="crop_fraction"):
        Preprocessing.from_json({**DEFAULT.to_json(), "crop_fraction": 0.875})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[("image_size", value) for value in (0, -224, 224.0, "224", True, None, 100_000, [224])],
        *[("mean", value) for value in (0.5, "abc", None, [0.5, 0.5], [0.5] * 4, [0.5, 0.5, "x"])],
        *[("mean", [0.5, 0.5, value]) for value in (-0.1, 123.675, float("nan"), True, None)],
        *[("std", [0.2, 0.2, value]) for value in (0, 58.395, float("inf"), float("nan"))],
    ],
    ids=str,
)
def test_preprocessing_refuses_absurd_values(key: str, value: object) -> None:
    with pytest.raises(BundleError, match=key):
        Preprocessing.from_json({**DEFAULT.to_json(), key: value})


# Photos


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 5000), (5000, 1), (3, 7), (224, 224), (223, 225), (640, 480), (20, 3000)]
)
@pytest.mark.parametrize("encoder", [png, jpeg])
def test_prepared_photo_is_a_square_of_pixels(
    size: tuple[int, int], encoder: Callable[[Image.Image], bytes]
) -> None:
    pixels = prepare_photo(encoder(ramp(*size)), DEFAULT, LIMITS)
    assert pixels.shape == (224, 224, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable


def test_prepared_photo_of_the_right_size_is_unchanged() -> None:
    image = ramp(224, 224)
    assert np.array_equal(prepare_photo(png(image), DEFAULT, LIMITS), np.asarray(image))


def test_prepared_photo_is_the_centre() -> None:
    image = Image.new("RGB", (300, 100), "red")
    image.paste("lime", (100, 0, 200, 100))
    for photo in (image, image.transpose(Image.Transpose.ROTATE_90)):
        pixels = prepare_photo(png(photo), Preprocessing(image_size=50), LIMITS)
        assert (pixels[1:-1, 1:-1] == [0, 255, 0]).all()  # The filter reaches past the edge.


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (2000, 1500)])
def test_prepared_photo_equals_resize_then_centre_crop(size: tuple[int, int]) -> None:
    image = ramp(*size)
    scale = 224 / min(size)
    resized = image.resize(
        (round(size[0] * scale), round(size[1] * scale)), Image.Resampling.BILINEAR
    )
    left, top = (resized.width - 224) // 2, (resized.height - 224) // 2
    expected = np.asarray(resized.crop((left, top, left + 224, top + 224)), float)
    pixels = prepare_photo(png(image), DEFAULT, LIMITS)
    assert np.abs(pixels - expected).mean() < 1


def test_prepared_photo_is_antialiased() -> None:
    checks = np.indices((1000, 1000)).sum(axis=0) % 2 * 255
    pixels = prepare_photo(png(Image.fromarray(checks.astype(np.uint8))), DEFAULT, LIMITS)
    assert np.abs(pixels.astype(int) - 127).max() <= 16


def test_prepared_jpeg_is_close_to_a_full_decode() -> None:
    image = ramp(1280, 960)
    reduced = prepare_photo(jpeg(image, quality=90), DEFAULT, LIMITS).astype(int)
    assert np.abs(reduced - prepare_photo(png(image), DEFAULT, LIMITS)).mean() < 1.5


def test_prepared_photo_passes_rejections_on() -> None:
    with pytest.raises(PhotoRejected) as caught:
        prepare_photo(b"<html>", DEFAULT, LIMITS)
    assert caught.value.reason is RejectReason.NOT_AN_IMAGE


@pytest.mark.photos
@pytest.mark.skipif(not DATA.is_dir(), reason=f"no photos at {DATA}")
@pytest.mark.parametrize("folder", ["grocery", "clothing"])
def test_real_photos_are_prepared(folder: str) -> None:
    paths = sorted((DATA / folder).rglob("*.jpg"))
    for path in paths[:: len(paths) // 10][:10]:
        pixels = prepare_photo(path.read_bytes(), DEFAULT, LIMITS)
        assert pixels.shape == (224, 224, 3)
        assert pixels.std() > 5


# Normalisation


def test_normalised_batch_is_channels_last_float() -> None:
    batch = torch.randint(0, 256, (5, 6, 7, 3), dtype=torch.uint8)
    before = batch.clone()
    output = normalise(batch, DEFAULT)
    assert output.shape == (5, 3, 6, 7)
    assert output.dtype == torch.float32
    assert output.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(batch, before)


def test_normalised_values_are_in_units_of_the_deviation() -> None:
    batch = torch.randint(0, 256, (2, 4, 4, 3), dtype=torch.uint8)
    mean, std = torch.tensor(DEFAULT.mean), torch.tensor(DEFAULT.std)
    expected = ((batch / 255 - mean) / std).permute(0, 3, 1, 2)
    torch.testing.assert_close(normalise(batch, DEFAULT), expected, rtol=1e-5, atol=1e-6)


def test_normalise_takes_an_empty_batch() -> None:
    batch = torch.empty((0, 224, 224, 3), dtype=torch.uint8)
    assert normalise(batch, DEFAULT).shape == (0, 3, 224, 224)


@pytest.mark.parametrize(
    "batch",
    [
        torch.zeros((1, 4, 4, 3)),
        torch.zeros((1, 3, 4, 4), dtype=torch.uint8),
        torch.zeros((4, 4, 3), dtype=torch.uint8),
    ],
    ids=["float", "channels first", "one photo"],
)
def test_normalise_refuses_other_batches(batch: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="uint8 of shape"):
        normalise(batch, DEFAULT)
