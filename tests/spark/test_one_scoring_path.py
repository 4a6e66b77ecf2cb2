import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pyarrow as pa
import pytest

from seer_model import registry
from seer_model.bundle import Bundle
from seer_model.categorizer import Categorizer
from seer_model.embedder import PhotoEmbedder
from seer_model.photo_source import PhotoSource
from seer_model.scoring import SCORES

pytestmark = [pytest.mark.spark, pytest.mark.slow]


def as_table(scores: pd.DataFrame | pa.RecordBatch | pa.Table) -> pa.Table:
    """By listing, in the types of the contract: bits differ only where values do."""
    if isinstance(scores, pd.DataFrame):
        scores = pa.Table.from_pandas(scores, SCORES, preserve_index=False)
    return pa.table(scores).select(SCORES.names).cast(SCORES).sort_by("listing_id")


def test_job_mlflow_model_and_categorizer_score_alike(
    categorize: Callable[..., dict[str, Any]],
    read_categories: Callable[[Path], pa.Table],
    write_manifest: Callable[..., Path],
    draw_photo: Callable[..., bytes],
    broken_photos: dict[str, bytes],
    bundle: Bundle,
    bundle_folder: Path,
    tracking_uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # 60 listings of 2 or 3 photos, some of them broken, and one of broken photos only.
    good = [draw_photo(colour, seed) for colour in bundle.tree.classes for seed in range(20)]
    photos = [
        {"listing_id": f"listing {i % 60}", "image_index": i // 60, "image_bytes": data}
        for i, data in enumerate([*good, *broken_photos.values()] * 2)
    ] + [
        {"listing_id": "broken", "image_index": i, "image_bytes": data}
        for i, data in enumerate(broken_photos.values())
    ]

    manifest = write_manifest(tmp_path / "manifest", photos)
    categorize(manifest, tmp_path / "categories")
    by_job = as_table(read_categories(tmp_path / "categories"))

    registry.connect(tracking_uri)
    with registry.tracked_run("test", {}):
        version = registry.register_bundle(bundle_folder, "one-path")
    monkeypatch.setattr("sys.path", [*sys.path])
    model = mlflow.pyfunc.load_model(f"models:/one-path/{version}")
    by_model = as_table(model.predict(pd.DataFrame(photos)))

    categorizer = Categorizer(bundle, PhotoEmbedder.open(bundle.backbone))
    by_categorizer = as_table(
        categorizer.categorize(
            [photo["listing_id"] for photo in photos],
            [photo["image_index"] for photo in photos],
            [PhotoSource(None, photo["image_bytes"]) for photo in photos],
        )
    )

    assert by_job.num_rows == 61
    assert set(by_job["decision"].to_pylist()) == {"assigned", "needs_review", "rejected"}
    assert by_model.to_pylist() == by_categorizer.to_pylist()
    assert by_job.to_pylist() == by_categorizer.to_pylist()
    assert by_job.equals(by_categorizer)
    assert by_model.equals(by_categorizer)
