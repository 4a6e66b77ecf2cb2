"""The embedding store spares the main job reading photos, and changes nothing it publishes."""

from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from jobs.stages.manifest import read_photos
from schemas.embeddings import EMBEDDINGS
from schemas.rejects import RejectReason
from seer_model.categorizer.bundle import Bundle
from tests.support.embedding_rows import check_embeddings
from tests.support.manifest_rows import (
    BY_RUN,
    Categorize,
    DrawPhoto,
    ReadCategories,
    Rows,
    WriteManifest,
    row,
)

pytestmark = pytest.mark.spark

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


def keyed(listing: str, photo: bytes, index: int = 0, **columns: object) -> dict[str, Any]:
    key = sha256(photo).hexdigest()
    return row(listing, index, image_bytes=photo, image_key=key, **columns)


def add_reject(store: Path, digest: str, key: str, reason: str) -> None:
    folder = store / f"backbone={digest}" / "run=old"
    folder.mkdir()
    rows = [{"image_key": key, "backbone_digest": digest, "reject_reason": reason}]
    pq.write_table(pa.Table.from_pylist(rows, schema=EMBEDDINGS), folder / "part-0.parquet")


@pytest.mark.slow
def test_store_spares_reading_and_changes_nothing(
    spark: SparkSession,
    categorize: Categorize,
    read_categories: ReadCategories,
    write_manifest: WriteManifest,
    draw_photo: DrawPhoto,
    broken_photos: dict[str, bytes],
    bundle: Bundle,
    tmp_path: Path,
) -> None:
    manifest, output, store = (tmp_path / f"{name} [1]" for name in ("photos", "of", "store"))
    red, blue, new = (draw_photo(name, 1) for name in ("warm/red", "cold/blue", "cold/green"))
    late, dated = tmp_path / "late.jpg", tmp_path / "dated.jpg"
    dated.write_bytes(broken_photos["truncated"])

    def run(rows: Rows, *flags: str) -> tuple[int, pa.Table]:
        report = categorize(write_manifest(manifest, rows), output, *flags)
        return report["photos_embedded"], read_categories(output).drop_columns(BY_RUN)

    def run_with_store(rows: Rows) -> tuple[int, pa.Table]:
        return run(rows, "--embeddings", str(store))

    lasting = [
        keyed("red", red),
        keyed("red again", red),
        keyed("two", red),
        keyed("two", blue, 1),
        row("without a key", image_bytes=blue),
        *(keyed(reason, data) for reason, data in broken_photos.items()),
        keyed("both", red, image_uri=str(late)),
        row("neither", image_key=sha256(red).hexdigest()),
        # Limits and versions change, and so does what is at an address: these are read again.
        keyed("too large", broken_photos["too_large"]),
        keyed("not an image", broken_photos["not_an_image"]),
        row("dated", image_uri=str(dated), updated_at=NOON),
        row("other bytes", image_bytes=blue, image_key=sha256(new).hexdigest()),
    ]
    readable, retried = len(lasting) - 2, 6
    embedded, plain = run(lasting)
    assert embedded == readable
    # Spark clears `_temporary` in a folder it writes to, with what other runs have there.
    pending = store / f"backbone={bundle.backbone.digest}" / "_temporary" / "0"
    pending.mkdir(parents=True)
    assert run_with_store(lasting) == (readable, plain)
    # Earlier versions stored what was wrong with the bytes of that day.
    photos = read_photos(spark, str(manifest)).where("listing_id = 'dated'")
    (poisoned,) = [photo.photo_key for photo in photos.collect()]
    add_reject(store, bundle.backbone.digest, poisoned, "truncated")
    assert run_with_store(lasting) == (retried, plain)

    # A photo that changed, one that is not there yet, and one that may change unseen.
    unseen = tmp_path / "unseen.jpg"
    unseen.write_bytes(blue)
    changed = [
        keyed("red", draw_photo("warm/red", 2)),
        *lasting[1:],
        row("late", image_uri=str(late), image_key=sha256(new).hexdigest().upper()),
        row("unseen", image_uri=str(unseen)),
    ]
    embedded, without_late = run_with_store(changed)
    assert embedded == retried + 3
    assert reasons_of(without_late)["late"] == "not_found"
    late.write_bytes(blue)
    dated.write_bytes(new)
    embedded, with_other = run_with_store(changed)
    assert embedded == retried + 2
    assert reasons_of(with_other)["late"] == reasons_of(with_other)["other bytes"] == "key_mismatch"

    late.write_bytes(new)
    embedded, with_late = run_with_store(changed)
    assert embedded == retried - 1 + 2
    assert run(changed) == (len(changed) - 2, with_late)
    found = {r["listing_id"]: r for r in with_late.to_pylist()}
    assert found["late"]["images_used"] == 1
    assert found["late"]["score"] == found["dated"]["score"] != found["red"]["score"]
    assert [found[name]["reject_reason"] for name in ("both", "neither")] == [
        "ambiguous_source",
        "no_photo",
    ]

    assert pending.is_dir()
    table = pq.read_table(store)
    check_embeddings(table, bundle.backbone.width)
    assert set(table["backbone_digest"].to_pylist()) == {bundle.backbone.digest}
    embedded_keys = {r["image_key"] for r in table.to_pylist() if r["vector"]}
    assert embedded_keys == {
        *(sha256(photo).hexdigest() for photo in (red, blue, new, draw_photo("warm/red", 2))),
        poisoned,
    }
    rejected = {r["image_key"]: r["reject_reason"] for r in table.to_pylist() if not r["vector"]}
    assert rejected == {
        poisoned: "truncated",
        **{
            sha256(data).hexdigest(): reason
            for reason, data in broken_photos.items()
            if RejectReason(reason).permanent
        },
    }


def reasons_of(categories: pa.Table) -> dict[str, str]:
    return {r["listing_id"]: r["reject_reason"] for r in categories.to_pylist()}
