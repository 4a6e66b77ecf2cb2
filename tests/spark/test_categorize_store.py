"""The embedding store spares the main job reading photos, and changes nothing it publishes."""

from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.embeddings import check_embeddings
from schemas.rejects import RejectReason
from seer_model.bundle import Bundle
from tests.spark.manifest_rows import (
    BY_RUN,
    Categorize,
    DrawPhoto,
    ReadCategories,
    Rows,
    WriteManifest,
    row,
)

pytestmark = pytest.mark.spark


def keyed(listing: str, photo: bytes, index: int = 0, **columns: object) -> dict[str, Any]:
    key = sha256(photo).hexdigest()
    return row(listing, index, image_bytes=photo, image_key=key, **columns)


@pytest.mark.slow
def test_store_spares_reading_and_changes_nothing(
    categorize: Categorize,
    read_categories: ReadCategories,
    write_manifest: WriteManifest,
    draw_photo: DrawPhoto,
    broken_photos: dict[str, bytes],
    bundle: Bundle,
    tmp_path: Path,
) -> None:
    manifest, output, store = (tmp_path / name for name in ("manifest", "categories", "store"))
    red, blue = draw_photo("warm/red", 1), draw_photo("cold/blue", 1)
    late = tmp_path / "late.jpg"

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
    ]
    readable = len(lasting) - 2
    embedded, plain = run(lasting)
    assert embedded == readable
    # Spark clears `_temporary` in a folder it writes to, with what other runs have there.
    pending = store / f"backbone={bundle.backbone.digest}" / "_temporary" / "0"
    pending.mkdir(parents=True)
    assert run_with_store(lasting) == (readable, plain)
    assert run_with_store(lasting) == (0, plain)

    # A photo that changed, one that is not there yet, and one that may change unseen.
    unseen = tmp_path / "unseen.jpg"
    unseen.write_bytes(blue)
    changed = [
        keyed("red", draw_photo("warm/red", 2)),
        *lasting[1:],
        row("late", image_uri=str(late), image_key="late"),
        row("unseen", image_uri=str(unseen)),
    ]
    embedded, without_late = run_with_store(changed)
    assert embedded == 3
    rejected = {r["listing_id"]: r["reject_reason"] for r in without_late.to_pylist()}
    assert rejected["late"] == "not_found"

    late.write_bytes(red)
    embedded, with_late = run_with_store(changed)
    assert embedded == 2
    assert run(changed) == (len(changed) - 2, with_late)
    found = {r["listing_id"]: r for r in with_late.to_pylist()}
    assert found["late"]["images_used"] == 1
    assert found["late"]["score"] == found["red again"]["score"] != found["red"]["score"]
    assert [found[name]["reject_reason"] for name in ("both", "neither")] == [
        "ambiguous_source",
        "no_photo",
    ]

    assert pending.is_dir()
    table = pq.read_table(store)
    check_embeddings(table, bundle.backbone.width, "store")
    assert set(table["backbone_digest"].to_pylist()) == {bundle.backbone.digest}
    reasons = {r["image_key"]: r["reject_reason"] for r in table.to_pylist()}
    assert reasons.pop("late") is None
    photos = [red, blue, draw_photo("warm/red", 2)]
    assert reasons == {
        **{sha256(photo).hexdigest(): None for photo in photos},
        **{sha256(data).hexdigest(): reason for reason, data in broken_photos.items()},
    }
    assert {name for name in reasons.values() if name} <= {r for r in RejectReason if r.permanent}
