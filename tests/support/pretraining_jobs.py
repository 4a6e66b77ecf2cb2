"""Manifests to pretrain on, and what a run of the pretraining job leaves in its output."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from demo.samples.products import KINDS
from schemas.manifest import MANIFEST

Pretrain = Callable[..., int]


def write_manifest(folder: Path, photos: list[bytes], *, labels: bool = True) -> Path:
    rows = [
        {
            "listing_id": f"listing-{n // 2}",
            "image_index": n % 2,
            "image_bytes": photo,
            "category_id": KINDS[n // 2 % 3].category_path[-1] if labels else None,
            "split": ("val" if n % 8 > 5 else "train") if labels else None,
        }
        for n, photo in enumerate(photos)
    ]
    partition = folder / "ds=2026-11-25"
    partition.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, MANIFEST), partition / "part-0.parquet")
    return folder


def encode(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG")
    return buffer.getvalue()


def report(output: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(output.with_suffix(".json").read_text(encoding="utf-8"))
    return found


def epochs(output: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((output / "epochs.json").read_text(encoding="utf-8"))[
        "epochs"
    ]
    return found
