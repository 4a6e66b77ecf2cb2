"""No photo, however made, takes more than its share, says anything, or harms those beside it."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas.rejects import RejectReason
from seer_model.backbone import Backbone
from seer_model.embedder import PhotoEmbedder
from seer_model.photo_source import PhotoSource
from seer_model.photos import PhotoRejected, decode_photo
from tests.unit.encoded_photos import FULL, LIMITS, difference
from tests.unit.hostile.bad_photos import BAD_PHOTOS
from tests.unit.hostile.odd_photos import ODD_PHOTOS
from tests.unit.hostile.photo_parts import MEBI, card

ROOT = Path(__file__).parents[3]
EXPECTED = dict.fromkeys(ODD_PHOTOS) | {kind: reason for kind, (_, reason) in BAD_PHOTOS.items()}

# What Python makes of so many reads, beside what is held: objects, and pages freed too late.
SLACK_BYTES = 12 * MEBI
MOST_SECONDS = 5.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All kinds as files, by their names."""
    folder = tmp_path_factory.mktemp("kinds")
    for kind in EXPECTED:
        build = ODD_PHOTOS[kind].build if kind in ODD_PHOTOS else BAD_PHOTOS[kind][0]
        (folder / kind).write_bytes(build())
    return folder


def test_there_are_as_many_kinds_as_promised() -> None:
    assert len(EXPECTED) == len(ODD_PHOTOS) + len(BAD_PHOTOS) >= 60


@pytest.mark.parametrize("kind", BAD_PHOTOS)
def test_bad_photo_ends_as_it_should(kind: str, folder: Path) -> None:
    data, expected = (folder / kind).read_bytes(), BAD_PHOTOS[kind][1]
    if expected is None:
        image = decode_photo(data, FULL, LIMITS)
        assert image.size == (10, 10) or difference(image, card()) < 12
        return
    with pytest.raises(PhotoRejected) as caught:
        decode_photo(data, FULL, LIMITS)
    assert caught.value.reason is expected


@pytest.fixture(scope="module")
def measured(folder: Path) -> list[dict[str, Any]]:
    """What each kind took, in a process of its own in which every warning is an error."""
    command = [
        sys.executable,
        "-W",
        "error",
        "-m",
        "tests.unit.hostile.measure_photos",
        str(folder),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_no_kind_crashes_or_prints(measured: list[dict[str, Any]]) -> None:
    """What is printed beside the results would not be JSON."""
    outcomes = {found["name"]: found["outcome"] for found in measured}
    assert outcomes == {kind: (reason or "pixels") for kind, reason in EXPECTED.items()}


def test_no_kind_takes_long(measured: list[dict[str, Any]]) -> None:
    assert {f["name"]: f["seconds"] for f in measured if f["seconds"] > MOST_SECONDS} == {}


def test_no_kind_takes_more_memory_than_is_held(measured: list[dict[str, Any]]) -> None:
    """One that is refused by its header holds none, and has been copied at the most four times."""
    excess = {f["name"]: f["grown"] - (f["held"] or 4 * f["size"]) for f in measured}
    assert {kind: count for kind, count in excess.items() if count > SLACK_BYTES} == {}


def test_good_photos_among_all_kinds_keep_their_vectors(
    backbone: Backbone, folder: Path, photo_bytes: Callable[..., bytes]
) -> None:
    embedder = PhotoEmbedder.open(backbone, threads=2, batch_size=4)
    good = [photo_bytes(seed) for seed in range(3)]
    alone = [vector for vector, _ in embedder.embed([PhotoSource(None, data) for data in good])]
    sources = []
    for position, kind in enumerate(EXPECTED):
        sources.append(PhotoSource(str(folder / kind), None))
        sources.append(PhotoSource(None, good[position % 3]))
    found = list(embedder.embed(sources))
    reasons = {kind: reason for kind, (_, reason) in zip(EXPECTED, found[::2], strict=True)}
    assert reasons == EXPECTED
    for position, (vector, _) in enumerate(found[1::2]):
        assert vector is not None
        assert np.array_equal(vector, alone[position % 3])
    assert all(r is None or isinstance(r, RejectReason) for r in reasons.values())
