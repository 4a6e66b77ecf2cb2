"""The ad hoc function gives what the model gives, for bytes and for paths, in Python and in SQL."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from jobs.udf import categorize_udf
from schemas.errors import SettingsError
from seer_model.bundle import Bundle
from seer_model.categorizer import Categorizer
from seer_model.embedder import PhotoEmbedder
from seer_model.photo_source import PhotoSource

pytestmark = pytest.mark.spark


def test_bytes_paths_and_sql_agree_with_the_model(
    spark: SparkSession,
    bundle: Bundle,
    bundle_folder: Path,
    tracking_uri: str,
    draw_photo: Callable[..., bytes],
    tmp_path: Path,
) -> None:
    photos = {name: draw_photo(name) for name in ("warm/red", "cold/blue")} | {"broken": b"?"}
    rows = []
    for index, (name, data) in enumerate(photos.items()):
        path = tmp_path / f"{index}.jpg"
        path.write_bytes(data)
        rows.append((name, data, str(path)))
    rows.append(("nothing", None, None))
    frame = spark.createDataFrame(rows, "name string, photo binary, path string")
    categorize = categorize_udf(str(bundle_folder), tracking_uri)

    by_bytes = {
        r["name"]: r["c"] for r in frame.select("name", categorize("photo").alias("c")).collect()
    }
    by_path = {
        r["name"]: r["c"] for r in frame.select("name", categorize("path").alias("c")).collect()
    }
    frame.createOrReplaceTempView("listings")
    spark.udf.register("categorize", categorize)
    in_sql = spark.sql("SELECT name, categorize(photo) AS c FROM listings").collect()

    categorizer = Categorizer(bundle, PhotoEmbedder.open(bundle.backbone))
    expected = categorizer.categorize(
        list(photos), [0] * len(photos), [PhotoSource(None, data) for data in photos.values()]
    ).to_pylist()
    for row in expected:
        name = row["listing_id"]
        found = by_bytes[name].asDict(recursive=True)
        assert found == {column: row[column] for column in found}
    assert by_path == by_bytes
    assert {row["name"]: row["c"] for row in in_sql} == by_bytes
    assert by_bytes["broken"]["reject_reason"] == "not_an_image"
    assert by_bytes["nothing"]["reject_reason"] == "no_photo"


def test_no_such_model(spark: SparkSession, tracking_uri: str) -> None:
    with pytest.raises(SettingsError, match="models:/nobody"):
        categorize_udf("models:/nobody@champion", tracking_uri)
