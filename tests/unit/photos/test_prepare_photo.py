"""Photos resized and cropped to a square of pixels."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from schemas.rejects import RejectReason
from seer_model.photos.limits import PhotoLimits, PhotoRejected
from seer_model.photos.pixels import prepare_photo
from tests.support.paths import DATA

LIMITS = PhotoLimits()


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


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 5000), (5000, 1), (3, 7), (224, 224), (223, 225), (640, 480), (20, 3000)]
)
@pytest.mark.parametrize("encoder", [png, jpeg])
def test_prepared_photo_is_a_square_of_pixels(
    size: tuple[int, int], encoder: Callable[[Image.Image], bytes]
) -> None:
    pixels = prepare_photo(encoder(ramp(*size)), 224, LIMITS)
    assert pixels.shape == (224, 224, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable


def test_prepared_photo_of_the_right_size_is_unchanged() -> None:
    image = ramp(224, 224)
    assert np.array_equal(prepare_photo(png(image), 224, LIMITS), np.asarray(image))


def test_prepared_photo_is_the_centre() -> None:
    image = Image.new("RGB", (300, 100), "red")
    image.paste("lime", (100, 0, 200, 100))
    for photo in (image, image.transpose(Image.Transpose.ROTATE_90)):
        pixels = prepare_photo(png(photo), 50, LIMITS)
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
    pixels = prepare_photo(png(image), 224, LIMITS)
    assert np.abs(pixels - expected).mean() < 1


def test_prepared_photo_is_antialiased() -> None:
    checks = np.indices((1000, 1000)).sum(axis=0) % 2 * 255
    pixels = prepare_photo(png(Image.fromarray(checks.astype(np.uint8))), 224, LIMITS)
    assert np.abs(pixels.astype(int) - 127).max() <= 16


def test_prepared_jpeg_is_close_to_a_full_decode() -> None:
    image = ramp(1280, 960)
    reduced = prepare_photo(jpeg(image, quality=90), 224, LIMITS).astype(int)
    assert np.abs(reduced - prepare_photo(png(image), 224, LIMITS)).mean() < 1.5


def test_prepared_photo_passes_rejections_on() -> None:
    with pytest.raises(PhotoRejected) as caught:
        prepare_photo(b"<html>", 224, LIMITS)
    assert caught.value.reason is RejectReason.NOT_AN_IMAGE


@pytest.mark.photos
@pytest.mark.skipif(not DATA.is_dir(), reason=f"no photos at {DATA}")
@pytest.mark.parametrize("folder", ["grocery", "clothing"])
def test_real_photos_are_prepared(folder: str) -> None:
    paths = sorted((DATA / folder).rglob("*.jpg"))
    for path in paths[:: len(paths) // 10][:10]:
        pixels = prepare_photo(path.read_bytes(), 224, LIMITS)
        assert pixels.shape == (224, 224, 3)
        assert pixels.std() > 5
