"""Labelled listings, and a registry with versions to evaluate and promote."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient
from pyspark.sql import SparkSession

from seer_model.categorizer.bundle import Bundle, save_bundle
from seer_model.evaluation import record
from seer_model.linear_head import LinearHead
from seer_model.tracking import registration, runs
from tests.support.tracking_database import new_database

COLOURS = ("warm/red", "warm/yellow", "cold/blue", "cold/green")


@pytest.fixture(scope="package")
def labelled(
    tmp_path_factory: pytest.TempPathFactory,
    write_manifest: Callable[..., Path],
    draw_photo: Callable[..., bytes],
) -> Path:
    """A manifest of labelled listings: in train, in no split (used for training too), in test."""
    rows = [
        {
            "listing_id": f"{split}-{colour}-{i}",
            "image_index": 0,
            "image_bytes": draw_photo(colour, seed=hash_of(split) + i),
            "category_id": colour,
            "split": split,
            "slices": [("tone", colour.partition("/")[0])],
        }
        for split, count in ((None, 6), ("train", 6), ("test", 4))
        for colour in COLOURS
        for i in range(count)
    ]
    rows.append({"listing_id": "unlabelled", "image_index": 0, "image_bytes": b"", "split": "test"})
    return write_manifest(tmp_path_factory.mktemp("labelled"), rows)


def hash_of(split: str | None) -> int:
    return {None: 100, "train": 200, "test": 300}[split]


@pytest.fixture(scope="package")
def blind_folder(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drawn bundle with a head of zeros, which is right by chance only."""
    folder = tmp_path_factory.mktemp("blind") / "bundle"
    head = LinearHead(bundle.head.weight * 0, bundle.head.bias * 0)
    save_bundle(replace(bundle, head=head), folder)
    return folder


@pytest.fixture(scope="package")
def registry_file(
    blind_folder: Path, bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A database in which `colours` has versions 1, the blind bundle, and 2 and 3, the drawn one.

    Tests get copies of it; all of them share the files of these versions.
    """
    folder = tmp_path_factory.mktemp("registry")
    runs.connect(new_database(folder))
    with runs.tracked_run("train_head", {}):
        assert registration.register_bundle(blind_folder, "colours") == "1"
        assert registration.register_bundle(bundle_folder, "colours") == "2"
    client = MlflowClient()
    drawn = client.get_model_version("colours", "2")
    third = client.create_model_version(
        "colours", drawn.source, drawn.run_id, drawn.tags, model_id=drawn.model_id
    )
    assert str(third.version) == "3"
    return folder / "mlflow.db"


@pytest.fixture
def database(registry_file: Path, tmp_path: Path) -> str:
    shutil.copyfile(registry_file, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture(autouse=True)
def _short_speed_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "_SECONDS_OF_SPEED", 0.05)


@pytest.fixture
def small_results(spark: SparkSession) -> Iterator[None]:
    """Spark refuses to collect more than 30 KB, as it does by default with more than 1 GB.

    The photos of `labelled` have 98 KB, their embeddings 48.
    """
    assert spark._jvm is not None
    settings = spark.sparkContext._jsc.sc().conf()
    settings.set("spark.driver.maxResultSize", "30k")
    yield
    settings.remove("spark.driver.maxResultSize")
