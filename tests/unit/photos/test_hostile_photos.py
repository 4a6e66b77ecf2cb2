"""Bad and unusual photos neither crash, print, exhaust memory or time, nor affect other photos."""

import json
import subprocess
import sys
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from seer_model.photos.byte_budget import ByteBudget
from seer_model.photos.decode import decode_photo
from seer_model.photos.limits import PhotoLimits, PhotoRejected
from seer_model.photos.loader import PhotoLoader
from seer_model.photos.pixels import load_photo
from seer_model.photos.source import PhotoSource
from tests.support.bad_photos import BAD_PHOTOS
from tests.support.encoded_photos import FULL, LIMITS, difference, encode, scene
from tests.support.odd_photos import ODD_PHOTOS
from tests.support.paths import ROOT
from tests.support.photo_parts import MEBI, card

EXPECTED = dict.fromkeys(ODD_PHOTOS) | {kind: reason for kind, (_, reason) in BAD_PHOTOS.items()}

# What Python takes on top for so many reads: objects, and pages that are freed late.
SLACK_BYTES = 12 * MEBI
MAX_SECONDS = 5.0


@pytest.mark.parametrize("kind", BAD_PHOTOS)
def test_bad_photo_is_rejected_or_decoded_as_expected(kind: str) -> None:
    build, expected = BAD_PHOTOS[kind]
    if expected is None:
        image = decode_photo(build(), FULL, LIMITS)
        assert image.size == (10, 10) or difference(image, card()) < 12
        return
    with pytest.raises(PhotoRejected) as caught:
        decode_photo(build(), FULL, LIMITS)
    assert caught.value.reason is expected


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every kind as a file of that name."""
    folder = tmp_path_factory.mktemp("kinds")
    for kind in EXPECTED:
        build = ODD_PHOTOS[kind].build if kind in ODD_PHOTOS else BAD_PHOTOS[kind][0]
        (folder / kind).write_bytes(build())
    return folder


def test_no_kind_crashes_prints_takes_long_or_exceeds_its_memory(folder: Path) -> None:
    """One test, as all kinds are measured by one process."""
    command = [sys.executable, "-W", "error", "-m", "tests.support.measure_decoding"]
    done = subprocess.run(
        [*command, f"square={folder}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    # Anything else that is printed would not be JSON.
    measured = [json.loads(line) for line in done.stdout.splitlines()]
    outcomes = {found["name"]: found["outcome"] for found in measured}
    assert outcomes == {kind: (reason or "pixels") for kind, reason in EXPECTED.items()}
    assert {f["name"]: f["seconds"] for f in measured if f["seconds"] > MAX_SECONDS} == {}
    # A photo rejected by its header reserves no memory, and is copied four times at most.
    excess = {f["name"]: f["peak_growth"] - (f["reserved"] or 4 * f["size"]) for f in measured}
    assert {kind: count for kind, count in excess.items() if count > SLACK_BYTES} == {}


def test_good_photos_between_all_kinds_keep_their_pixels(folder: Path) -> None:
    good = [encode(scene(120 + seed, 100), "JPEG") for seed in range(3)]
    alone = [load_photo(PhotoSource(None, data), 64, PhotoLimits()) for data in good]
    sources = []
    for position, kind in enumerate(EXPECTED):
        sources.append(PhotoSource(str(folder / kind), None))
        sources.append(PhotoSource(None, good[position % 3]))
    limits = PhotoLimits()
    memory = ByteBudget(limits.max_decode_memory)
    decode = partial(load_photo, size=64, limits=limits, memory=memory)
    with closing(PhotoLoader(decode_threads=2, limits=limits)) as loader:
        found = list(loader.load(sources, decode, ahead=16))
    bad, between = found[::2], found[1::2]
    reasons = {
        kind: None if isinstance(outcome, np.ndarray) else outcome
        for kind, outcome in zip(EXPECTED, bad, strict=True)
    }
    assert reasons == EXPECTED
    for position, pixels in enumerate(between):
        assert isinstance(pixels, np.ndarray)
        assert np.array_equal(pixels, alone[position % 3])
