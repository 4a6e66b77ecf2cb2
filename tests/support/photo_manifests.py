"""Photos of one colour each, which is their number; manifests of them; and streams of those."""

import io
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from schemas.manifest import MANIFEST
from seer_model.photos.pixels import prepare_photo
from seer_model.training.pretraining.photo_stream import PhotoStream

SIZE = 4


def photo(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (5, 6), (number % 256, number // 256, 77)).save(buffer, "PNG")
    return buffer.getvalue()


def numbers(batch: torch.Tensor) -> list[int]:
    """Which photos a batch is of."""
    assert (batch.dtype, batch.shape[1:]) == (torch.uint8, (SIZE, SIZE, 3))
    assert (batch == batch[:, :1, :1]).all()
    assert (batch[..., 2] == 77).all()
    return [int(pixel[0]) + 256 * int(pixel[1]) for pixel in batch[:, 0, 0]]


def row(number: int, data: bytes | None = None, uri: str | None = None, **more: Any) -> Any:
    return {
        "listing_id": f"listing {number}",
        "image_index": 0,
        "image_uri": uri,
        "image_bytes": data,
        **more,
    }


def write(
    rows: Sequence[Any], file: Path, row_group: int = 7, schema: pa.Schema = MANIFEST
) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows), schema), file, row_group_size=row_group)
    return file


def write_photos(
    folder: Path, count: int, *, bad: Sequence[int] = (), files: int = 3, row_group: int = 7
) -> Path:
    """A manifest of encoded photos, of which some are none."""
    rows = [row(n, b"no photo" if n in bad else photo(n)) for n in range(count)]
    share = -(-count // files)
    for part in range(files):
        some = rows[part * share : (part + 1) * share]
        write(some, folder / f"ds=2026-01-0{part + 1}" / "part-0.parquet", row_group)
    return folder


def open_stream(manifest: Path, **changes: Any) -> PhotoStream:
    options: dict[str, Any] = {
        "photo_size": SIZE,
        "batch_size": 4,
        "seed": 3,
        "decode_threads": 2,
        "shuffle_buffer": 16,
    }
    return PhotoStream(manifest, **options | changes)


def epoch_of(stream: PhotoStream, epoch: int = 0, start_step: int = 0) -> list[list[int]]:
    return [numbers(batch) for batch in stream.batches(epoch, start_step)]


def count_calls(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The photos that are decoded from now on."""
    decoded: list[bytes] = []

    def prepare(data: bytes, *rest: Any) -> Any:
        decoded.append(data)
        return prepare_photo(data, *rest)

    monkeypatch.setattr("seer_model.photos.pixels.prepare_photo", prepare)
    return decoded


def decoding_threads() -> list[str]:
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith(("stream-decode", "references", "footers"))]
