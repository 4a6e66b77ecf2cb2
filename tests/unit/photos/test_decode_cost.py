"""Decoding takes no more memory than is reserved for it, and reserves within the limits."""

import json
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from struct import pack
from typing import Any

import pytest
from PIL import ExifTags, Image

from schemas.rejects import RejectReason
from seer_model.photos.byte_budget import ByteBudget
from seer_model.photos.decode import decode_photo, decode_reserved
from seer_model.photos.decode_cost import webp_size
from seer_model.photos.limits import PhotoLimits, PhotoRejected
from seer_model.photos.pixels import prepare_photo
from tests.support.encoded_photos import FORMATS, FULL, LIMITS, SAMPLES, encode, scene
from tests.support.heic import HEICS
from tests.support.measure_decoding import RecordingBudget
from tests.support.paths import ROOT

MEBI = 1 << 20


def reserved_memory(data: bytes, short_side: int = 224) -> int:
    memory = RecordingBudget()
    with decode_reserved(data, short_side, LIMITS, memory):
        (requested,) = memory.requests
    return requested


# Reservation


@pytest.mark.parametrize("form", FORMATS)
def test_reserved_memory_is_released_after_success_and_failure(form: str) -> None:
    memory = RecordingBudget()
    with decode_reserved(SAMPLES[form], FULL, LIMITS, memory):
        assert not memory.try_acquire(2 << 40), "nothing is reserved"
    prepare_photo(SAMPLES[form], 224, LIMITS, memory)
    with pytest.raises(PhotoRejected):
        prepare_photo(SAMPLES[form][: len(SAMPLES[form]) // 2], 224, LIMITS, memory)
    assert len(memory.requests) >= 2
    assert memory.try_acquire(2 << 40), "something is still reserved"


def test_decoding_waits_for_memory() -> None:
    memory = ByteBudget(1)
    memory.acquire(1)
    began = threading.Event()

    def prepare() -> tuple[int, ...]:
        began.set()
        return prepare_photo(SAMPLES["PNG"], 8, LIMITS, memory).shape

    with ThreadPoolExecutor(1) as pool:
        shape = pool.submit(prepare)
        assert began.wait(30)
        with pytest.raises(TimeoutError):
            shape.result(0.1)
        memory.release(1)
        assert shape.result(30) == (8, 8, 3)


@pytest.mark.parametrize("form", FORMATS)
def test_limit_of_memory_is_inclusive(form: str) -> None:
    data = encode(scene(), form)
    need = reserved_memory(data, FULL)
    decode_photo(data, FULL, PhotoLimits(max_decode_memory=need))
    with pytest.raises(PhotoRejected) as caught:
        decode_photo(data, FULL, PhotoLimits(max_decode_memory=need - 1))
    assert caught.value.reason is RejectReason.TOO_LARGE


# Estimates


def test_baseline_jpeg_needs_memory_for_its_reduced_scale_only() -> None:
    data = encode(Image.new("RGB", (4000, 3000)), "JPEG")
    assert reserved_memory(data) < 8 * MEBI
    assert reserved_memory(data, FULL) > 90 * MEBI


@pytest.mark.parametrize(
    ("mode", "subsampling", "samples"),
    [("RGB", "4:4:4", 3), ("RGB", "4:2:2", 2), ("RGB", "4:2:0", 1.5), ("L", "4:4:4", 1)],
)
def test_progressive_jpeg_needs_memory_for_its_coefficients(
    mode: str, subsampling: str, samples: float
) -> None:
    image = Image.new(mode, (2000, 1500))
    baseline = encode(image, "JPEG", subsampling=subsampling)
    progressive = encode(image, "JPEG", subsampling=subsampling, progressive=True)
    more = reserved_memory(progressive) - reserved_memory(baseline)
    assert more == pytest.approx(2 * samples * 2000 * 1500, rel=0.04)


@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"exif": b"Exif"}])
def test_size_of_a_webp_is_read_from_its_header(options: dict[str, object]) -> None:
    for size in ((1, 1), (301, 2), (16383, 1), (1, 16383)):
        assert webp_size(encode(Image.new("RGB", size), "WEBP", **options)) == size
        assert webp_size(encode(Image.new("RGBA", size), "WEBP", **options)) == size


@pytest.mark.parametrize("form", FORMATS)
def test_only_a_webp_has_the_size_of_one(form: str) -> None:
    assert (webp_size(SAMPLES[form]) is None) is (form != "WEBP")


# Measurements, of flat colours: memory depends on the size, not on the content.

SIZE = (3000, 2200)


def photo(mode: str, size: tuple[int, int] = SIZE) -> Image.Image:
    colour = {"RGB": (200, 40, 30), "RGBA": (200, 40, 30, 128), "CMYK": (9, 80, 200, 20)}
    return Image.new(mode, size, colour.get(mode, 100))


def jpeg_in_three_scans() -> bytes:
    """A baseline JPEG with a scan for each component, all of them the same."""
    grey = encode(photo("L"), "JPEG")
    frame, scan = grey.index(b"\xff\xc0"), grey.index(b"\xff\xda")
    components = b"".join(bytes([number, 0x11, 0]) for number in (1, 2, 3))
    header = grey[frame + 4 : frame + 9] + b"\3" + components
    after = frame + 2 + int.from_bytes(grey[frame + 2 : frame + 4])
    parts = [grey[:frame], b"\xff\xc0\0\x11", header, grey[after:scan]]
    for number in (1, 2, 3):
        parts += [b"\xff\xda\0\x08\1", bytes([number, 0, 0, 63, 0]), grey[scan + 10 : -2]]
    return b"".join(parts) + b"\xff\xd9"


def one_tile_tiff(size: tuple[int, int], tile: tuple[int, int], bits: int, samples: int) -> bytes:
    """A TIFF compressed in one tile, possibly larger than the image; a fourth sample is alpha."""
    pixels = zlib.compress(b"\7" * (tile[0] * tile[1] * samples * bits // 8), 1)
    values = 8 + 2 + 12 * 12 + 4  # Offset of the values longer than four bytes.
    tags = [(256, 4, size[0]), (257, 4, size[1]), (258, 3, (bits,) * samples), (259, 3, 8)]
    tags += [(262, 3, 2), (277, 3, samples), (322, 4, tile[0]), (323, 4, tile[1])]
    tags += [(324, 4, values + 16), (325, 4, len(pixels)), (338, 3, 2), (339, 3, (1,) * samples)]
    tags = [tag for tag in tags if tag[0] != 338 or samples == 4]
    directory, far = pack("<H", len(tags)), b""
    for number, kind, value in tags:
        if isinstance(value, tuple):
            directory += pack("<HHII", number, kind, len(value), values + len(far))
            far += pack(f"<{len(value)}H", *value)
        else:
            directory += pack("<HHII", number, kind, 1, value)
    head = b"II*\0" + pack("<I", 8) + directory
    return head.ljust(values, b"\0") + far.ljust(16, b"\0") + pixels


def sideways() -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    return exif


ONE_STRIP = {278: SIZE[1]}
FAST_AVIF = {"speed": 10, "subsampling": "4:4:4"}
FAST_PNG = {"compress_level": 1}

KINDS: dict[str, Callable[[], bytes]] = {
    "baseline.jpg": lambda: encode(photo("RGB"), "JPEG", exif=sideways()),
    "progressive-420.jpg": lambda: encode(photo("RGB"), "JPEG", progressive=True),
    "progressive-444.jpg": lambda: encode(photo("RGB"), "JPEG", progressive=True, subsampling=0),
    "progressive-cmyk.jpg": lambda: encode(photo("CMYK"), "JPEG", progressive=True),
    "three-scans.jpg": jpeg_in_three_scans,
    "rgb.png": lambda: encode(photo("RGB"), "PNG", exif=sideways(), **FAST_PNG),
    "rgba.png": lambda: encode(photo("RGBA"), "PNG", exif=sideways(), **FAST_PNG),
    "key.png": lambda: encode(photo("RGB"), "PNG", transparency=(1, 2, 3), **FAST_PNG),
    "grey.png": lambda: encode(photo("L"), "PNG", exif=sideways(), **FAST_PNG),
    "grey-key.png": lambda: encode(photo("L"), "PNG", transparency=3, **FAST_PNG),
    "16-bit.png": lambda: encode(photo("I;16"), "PNG", **FAST_PNG),
    "palette.gif": lambda: encode(photo("P"), "GIF", transparency=0),
    "rgb.bmp": lambda: encode(photo("RGB"), "BMP"),
    "strips.tiff": lambda: encode(photo("RGB"), "TIFF", compression="tiff_lzw"),
    "jpeg.tiff": lambda: encode(photo("RGB"), "TIFF", compression="jpeg", tiffinfo=ONE_STRIP),
    "float.tiff": lambda: encode(
        photo("F"), "TIFF", compression="tiff_adobe_deflate", tiffinfo=ONE_STRIP
    ),
    "16-bit.tiff": lambda: one_tile_tiff(SIZE, SIZE, 16, 4),
    "tile.tiff": lambda: one_tile_tiff((500, 500), SIZE, 8, 3),
    "lossy.webp": lambda: encode(photo("RGB"), "WEBP", method=0, exif=sideways()),
    "lossless.webp": lambda: encode(photo("RGBA"), "WEBP", method=0, lossless=True, quality=0),
    "rgb.avif": lambda: encode(photo("RGB"), "AVIF", **FAST_AVIF),
    "rgb.heic": lambda: HEICS["3000x2200.heic"],
    "rgba.avif": lambda: encode(photo("RGBA"), "AVIF", **FAST_AVIF),
}


def huge_jpegs() -> list[bytes]:
    """48 megapixels each."""
    image = photo("RGB", (8000, 6000))
    return [encode(image, "JPEG", progressive=progressive) for progressive in (False, True)]


def other_formats() -> list[bytes]:
    """12 megapixels each, which takes up to 240 MB."""
    image = photo("RGBA", (4000, 3000))
    webp = encode(image, "WEBP", method=0)
    return [encode(image, "PNG", **FAST_PNG), webp, encode(image.convert("P"), "GIF")]


MIXES = {"huge_jpegs": huge_jpegs, "other_formats": other_formats}


def test_peak_memory_is_within_the_reservation_and_near_it(tmp_path: Path) -> None:
    """One test, as everything is measured by one process."""
    square, full = tmp_path / "square", tmp_path / "full"
    square.mkdir()
    full.mkdir()
    for kind, build in KINDS.items():
        (square / kind).write_bytes(build())
        if kind.endswith("jpg"):
            (full / kind).symlink_to(square / kind)
    arguments = [f"square={square}", f"full={full}"]
    for mix, build_all in MIXES.items():
        (tmp_path / mix).mkdir()
        for number, data in enumerate(build_all()):
            (tmp_path / mix / str(number)).write_bytes(data)
        arguments.append(f"threads={tmp_path / mix}")
    measured = measure(arguments)
    mixes, alone = measured[-len(MIXES) :], measured[: -len(MIXES)]
    assert {found["outcome"] for found in measured} == {"pixels"}
    jpegs = sorted(path.name for path in full.iterdir())
    assert [found["name"] for found in alone] == [*sorted(KINDS), *jpegs]
    assert [found["name"] for found in mixes] == list(MIXES)
    assert [found for found in alone if found["peak_growth"] > found["reserved"]] == []
    # For few kinds would half of the reservation do.
    wasteful = [f for f in alone if f["peak_growth"] <= 0.4 * f["reserved"] - 8 * MEBI]
    assert wasteful == []
    # Without a budget of 300 MB, eight threads would take more than 1 GB.
    assert [found for found in mixes if found["peak_growth"] > 400_000_000] == []


def measure(arguments: list[str]) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "tests.support.measure_decoding", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]
