"""Building a manifest, training, evaluating and upkeep: from and to tables on an S3 server."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from jobs import build_manifest, evaluate_challenger, maintain_embeddings, train_head
from scripts.object_store import ObjectStore
from tests.spark.tables.conftest import Lake
from tests.support.manifest_rows import DS, DrawPhoto
from tests.support.marketplace import COLOURS, TAXONOMY

pytestmark = [pytest.mark.spark, pytest.mark.lake]

SPLITS = {"train": 8, "val": 4, "test": 4}


@pytest.fixture
def photos(draw_photo: DrawPhoto, tmp_path: Path) -> Path:
    """A folder of photos, with the table of their listings."""
    folder = tmp_path / "photos"
    folder.mkdir()
    lines = ["listing_id,path,category_id,split"]
    for place, (split, count) in enumerate(SPLITS.items()):
        for colour in COLOURS:
            for i in range(count):
                name = f"{split}-{colour.replace('/', '-')}-{i}.jpg"
                (folder / name).write_bytes(draw_photo(colour, 100 * place + i))
                lines.append(f"{name},{name},{colour},{split}")
    (folder / "listings.csv").write_text("\n".join(lines), encoding="utf-8")
    (folder / "tree.csv").write_text(TAXONOMY, encoding="utf-8")
    return folder


@pytest.mark.slow
def test_a_model_is_trained_and_evaluated_from_tables(
    s3_lake: Lake, store: ObjectStore, photos: Path, tracking_uri: str, tmp_path: Path
) -> None:
    report = tmp_path / "report.json"

    def run(job: Callable[[Sequence[str]], int], **flags: object) -> dict[str, Any]:
        flags |= {"report": report, "tracking-uri": tracking_uri}
        assert (
            job([part for name, value in flags.items() for part in (f"--{name}", str(value))]) == 0
        )
        return json.loads(report.read_text(encoding="utf-8"))

    tables = {name: s3_lake.flag(name) for name in ("manifest", "embeddings")}
    tables["scratch"] = store.scratch
    built = run(
        build_manifest.main,
        images=photos,
        listings=photos / "listings.csv",
        ds=DS,
        output=tables["manifest"],
        scratch=store.scratch,
    )
    assert built["published"].startswith(f"{tables['manifest']} version ")
    assert built["photos"] == s3_lake.sql("SELECT count(*) FROM {manifest}")[0][0]

    common = {"backbone": "timm:regnety_002", "taxonomy": photos / "tree.csv"}
    trained = run(train_head.main, **tables, **common, output=tmp_path / "one")
    assert trained["photos_embedded"] == len(COLOURS) * (SPLITS["train"] + SPLITS["val"])
    again = run(train_head.main, **tables, **common, output=tmp_path / "two", seed=1)
    assert again["photos_embedded"] == 0

    models = {"challenger": tmp_path / "two", "champion": tmp_path / "one"}
    evaluated = run(evaluate_challenger.main, **tables, **models)
    assert evaluated["labelled_listings"]["test"] == len(COLOURS) * SPLITS["test"]
    stored = s3_lake.sql("SELECT count(*) FROM {embeddings}")
    assert stored == [(len(COLOURS) * sum(SPLITS.values()),)]

    kept = run(maintain_embeddings.main, embeddings=tables["embeddings"])
    assert (kept["files_orphaned"], kept["files_expired"]) == (0, 0)
    assert s3_lake.sql("SELECT count(*) FROM {embeddings}") == stored
