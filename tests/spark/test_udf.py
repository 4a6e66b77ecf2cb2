"""The ad hoc function gives what the model gives, for bytes and for paths, in Python and in SQL."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from jobs.udf import categorize_udf
from schemas.errors import SettingsError
from seer_model.backbones.embedder import PhotoEmbedder
from seer_model.categorizer.bundle import Bundle
from seer_model.categorizer.categorizer import Categorizer
from seer_model.photos.limits import PhotoAccess, PhotoLimits
from seer_model.photos.source import PhotoSource
from tests.support.photo_server import photo_server

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

    listings = {
        "two": [photos["warm/red"], photos["cold/blue"]],
        "some bad": [photos["broken"], photos["cold/blue"], None, None],
        "bad": [None, photos["broken"]],
        "empty": [],
        "one": [photos["warm/red"]],
    }
    arrays = spark.createDataFrame(
        [(name, data) for name, data in [*listings.items(), ("none", None)]],
        "name string, photos array<binary>",
    )
    found = {
        r["name"]: r["c"] for r in arrays.select("name", categorize("photos").alias("c")).collect()
    }
    flat = [(name, photo) for name, data in listings.items() for photo in data]
    for row in categorizer.categorize(
        [name for name, _ in flat],
        list(range(len(flat))),
        [PhotoSource(None, photo) for _, photo in flat],
    ).to_pylist():
        answer = found[row["listing_id"]].asDict(recursive=True)
        assert answer == {column: row[column] for column in answer}
    assert found["one"] == by_bytes["warm/red"]
    assert found["empty"] == found["none"] == by_bytes["nothing"]


def test_a_filter_on_the_result_reads_each_photo_once(
    spark: SparkSession,
    bundle_folder: Path,
    tracking_uri: str,
    draw_photo: Callable[..., bytes],
) -> None:
    photos = {f"{seed}.jpg": draw_photo("warm/red", seed) for seed in range(4)}
    limits = PhotoLimits(access=PhotoAccess(private_hosts=True))
    spark.udf.register("categorize", categorize_udf(str(bundle_folder), tracking_uri, limits))
    with photo_server(photos, {}) as (address, asked):
        frame = spark.createDataFrame([(f"{address}/{name}",) for name in photos], "uri string")
        frame.createOrReplaceTempView("photos")
        rows = spark.sql(
            "SELECT c.decision, c.category_path, c.score FROM "
            "(SELECT categorize(uri) AS c FROM photos) WHERE c.decision != 'rejected'"
        ).collect()
    assert len(rows) == len(photos)
    assert asked == dict.fromkeys(photos, 1)


def test_two_columns_are_refused_at_the_call(
    spark: SparkSession, bundle_folder: Path, tracking_uri: str
) -> None:
    with pytest.raises(TypeError, match="not 2 columns"):
        categorize_udf(str(bundle_folder), tracking_uri)("photo", "path")


def test_no_such_model(spark: SparkSession, tracking_uri: str) -> None:
    with pytest.raises(SettingsError, match="models:/nobody"):
        categorize_udf("models:/nobody@champion", tracking_uri)
