"""The Spark job, the MLflow model, the served model and the evaluation score bit-identically."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from mlflow import MlflowClient
from pyspark.sql import SparkSession

from jobs import evaluate_challenger
from seer_model.backbones.embedder import PhotoEmbedder
from seer_model.categorizer.bundle import Bundle
from seer_model.categorizer.categorizer import Categorizer
from seer_model.categorizer.scoring import SCORES
from seer_model.evaluation.metrics import measure_quality
from seer_model.evaluation.outcomes import compare_with_labels
from seer_model.photos.source import PhotoSource
from seer_model.tracking import registration, runs
from tests.support.serving import Row, served

pytestmark = [pytest.mark.spark, pytest.mark.slow]

LISTINGS = 60


@pytest.fixture(scope="module")
def photos(
    bundle: Bundle, draw_photo: Callable[..., bytes], broken_photos: dict[str, bytes]
) -> list[Row]:
    """Labelled listings of 2 or 3 photos, some broken, and one of broken photos only."""
    classes = bundle.tree.classes
    good = [draw_photo(colour, seed) for colour in classes for seed in range(20)]
    broken = list(broken_photos.values())
    rows = [(f"listing {i % LISTINGS}", i, data) for i, data in enumerate([*good, *broken] * 2)]
    rows += [("broken", i * LISTINGS, data) for i, data in enumerate(broken)]
    return [
        {
            "listing_id": listing,
            "image_index": i // LISTINGS,
            "image_bytes": data,
            "category_id": classes[i % LISTINGS % len(classes)],
            "split": "test",
        }
        for listing, i, data in rows
    ]


@pytest.fixture(scope="module")
def manifest(
    photos: list[Row],
    write_manifest: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    return write_manifest(tmp_path_factory.mktemp("one-path") / "manifest", photos)


@pytest.fixture(scope="module")
def by_job(
    categorize: Callable[..., dict[str, Any]],
    read_categories: Callable[[Path], pa.Table],
    manifest: Path,
) -> pa.Table:
    categorize(manifest, manifest.parent / "categories")
    return as_table(read_categories(manifest.parent / "categories"))


@pytest.fixture(scope="module")
def model_uri(bundle_folder: Path, tracking_uri: str) -> str:
    runs.connect(tracking_uri)
    with runs.tracked_run("test", {}):
        return f"models:/one-path/{registration.register_bundle(bundle_folder, 'one-path')}"


def as_table(scores: pa.RecordBatch | pa.Table) -> pa.Table:
    """Sorted by listing, in the contract's types, so that equal values are equal bits."""
    return pa.table(scores).select(SCORES.names).cast(SCORES).sort_by("listing_id")


def categorize_here(bundle: Bundle, photos: list[Row]) -> pa.Table:
    return as_table(
        Categorizer(bundle, PhotoEmbedder.open(bundle.backbone)).categorize(
            [photo["listing_id"] for photo in photos],
            [photo["image_index"] for photo in photos],
            [PhotoSource(None, photo["image_bytes"]) for photo in photos],
        )
    )


def of_model(rows: list[dict[str, Any]]) -> pa.Table:
    """Scores of the MLflow model, whose maps have JSON's keys, strings."""
    for row in rows:
        rejects = row["image_rejects"]
        row["image_rejects"] = rejects and [(int(index), why) for index, why in rejects.items()]
        # Every score is a float32 written in full, so the cast below rounds nothing.
        for number in (row["score"] or 0, *(c["score"] for c in row["candidates"])):
            assert float(np.float32(number)) == number
    return as_table(pa.Table.from_pylist(rows, SCORES))


def test_the_job_reaches_every_decision(by_job: pa.Table) -> None:
    assert by_job.num_rows == LISTINGS + 1
    assert set(by_job["decision"].to_pylist()) == {"assigned", "needs_review", "rejected"}
    assert len(set(by_job["score"].to_pylist())) > LISTINGS // 2


def test_categorizer(by_job: pa.Table, bundle: Bundle, photos: list[Row]) -> None:
    scores = categorize_here(bundle, photos)
    assert scores.to_pylist() == by_job.to_pylist()
    assert scores.equals(by_job)


def test_mlflow_model(
    by_job: pa.Table, model_uri: str, photos: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.path", [*sys.path])
    scores = mlflow.pyfunc.load_model(model_uri).predict(pd.DataFrame(photos))
    by_model = of_model(scores.to_dict("records"))
    assert by_model.to_pylist() == by_job.to_pylist()
    assert by_model.equals(by_job)


def test_served_model(
    bundle: Bundle, model_uri: str, tracking_uri: str, photos: list[Row], tmp_path: Path
) -> None:
    """By bytes, and by address, which its setting allows; test_model_serving has the default.

    The server shares no converted network, so neither does the categorizer it is compared with.
    """
    data = photos[0]["image_bytes"]
    (tmp_path / "photo.jpg").write_bytes(data)
    by_bytes = [{"listing_id": "a", "image_index": 0, "image_bytes": data}]
    by_address = [
        {"listing_id": "a", "image_index": 0, "image_uri": str(tmp_path / "photo.jpg")},
        {"listing_id": "b", "image_index": 0, "image_uri": str(tmp_path / "none.jpg")},
    ]
    with served(model_uri, tracking_uri, tmp_path, {"read_image_uris": True}) as server:
        by_server = of_model(server.score(photos))
        expected = server.score(by_bytes)
        found, gone = server.score(by_address)
    assert [found] == expected
    assert found["images_used"] == 1
    assert gone["reject_reason"] == "not_found"
    expected_scores = categorize_here(bundle, photos)
    assert by_server.to_pylist() == expected_scores.to_pylist()
    assert by_server.equals(expected_scores)


def test_evaluation(
    spark: SparkSession,
    by_job: pa.Table,
    photos: list[Row],
    manifest: Path,
    bundle: Bundle,
    bundle_folder: Path,
    tracking_uri: str,
    tmp_path: Path,
) -> None:
    report = tmp_path / "report.json"
    argv = ["--manifest", str(manifest), "--challenger", str(bundle_folder)]
    argv += ["--tracking-uri", tracking_uri, "--report", str(report)]
    assert evaluate_challenger.main(argv) == 0
    run = json.loads(report.read_text(encoding="utf-8"))["run_id"]
    measured = MlflowClient().get_run(run).data.metrics
    labels = {photo["listing_id"]: photo["category_id"] for photo in photos}
    # The calibration error among them depends on every score.
    expected = measure_quality(
        compare_with_labels(
            bundle.tree, [labels[name] for name in by_job["listing_id"].to_pylist()], by_job
        )
    ).figures()
    assert 0 < expected["top1"] < 1
    assert expected["calibration_error"] > 0
    assert {name: measured[f"challenger_{name}"] for name in expected} == expected
