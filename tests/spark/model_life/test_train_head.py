"""jobs.train_head: training, fine-tuning, a damaged store, refusals."""

import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image
from pyspark.sql import SparkSession

from jobs import train_head
from schemas.errors import SettingsError
from seer_model.backbones.backbone import load_backbone, save_backbone
from seer_model.backbones.preprocessing import Preprocessing
from seer_model.backbones.runtimes.quantization import quantize
from seer_model.backbones.weights import make_backbone
from seer_model.categorizer.bundle import load_bundle
from seer_model.tracking import registry, runs
from tests.support.decisions import decision, write_decisions
from tests.support.trunks import some_trunk

pytestmark = pytest.mark.spark
TAXONOMY = (
    "category_id,category_path\nwarm,Warm\nwarm/red,Warm > Red\nwarm/yellow,Warm > Yellow\n"
    "cold,Cold\ncold/blue,Cold > Blue\ncold/green,Cold > Green\n"
)
COLOURS = ("warm/red", "warm/yellow", "cold/blue", "cold/green")
LISTINGS = 40


@pytest.fixture(scope="module")
def photo_of_noise() -> Callable[[int], bytes]:
    """Draws photos that are as different as can be."""

    def draw(seed: int) -> bytes:
        rng = np.random.default_rng(seed)
        file = io.BytesIO()
        noise = rng.integers(0, 255, (8, 8, 3), np.uint8)
        Image.fromarray(noise).resize((64, 64), Image.Resampling.NEAREST).save(file, "PNG")
        return file.getvalue()

    return draw


@pytest.mark.parametrize("flag", ["--balance", "--fold-by"])
def test_a_slice_that_no_listing_has_is_refused(
    flag: str,
    spark: SparkSession,
    labelled: Path,
    tmp_path: Path,
    database: str,
    capsys: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tree = tmp_path / "tree.csv"
    tree.write_text(TAXONOMY, encoding="utf-8")
    argv = ["--manifest", str(labelled), "--taxonomy", str(tree), "--tracking-uri", database]
    argv += ["--backbone", "timm:regnety_002", flag, "shop"]
    assert train_head.main(argv) == 3
    error = capsys.readouterr().err
    assert f"{flag} shop: no labelled listing has this slice" in error
    assert "they have the slices tone" in error
    # Balancing needs a split val to stop by, and there is none.
    assert ("a seventh of train is held out instead" in caplog.text) == (flag == "--balance")


def test_train_head_registers_what_the_job_can_load(
    spark: SparkSession, labelled: Path, tmp_path: Path, database: str
) -> None:
    tree, report, store = (tmp_path / name for name in ("tree.csv", "report.json", "store"))
    tree.write_text(TAXONOMY, encoding="utf-8")
    argv = ["--manifest", str(labelled), "--taxonomy", str(tree), "--tracking-uri", database]
    argv += ["--backbone", "timm:regnety_002", "--registered-name", "trained"]
    argv += ["--embeddings", str(store), "--report", str(report)]
    decided = decision("train-warm/red-0", "bad_photo")
    argv += ["--labels", str(write_decisions(tmp_path / "labels", decided))]
    assert train_head.main(argv) == 0
    figures = json.loads(report.read_text(encoding="utf-8"))
    assert figures["version"] == "1"
    # Without a split, all listings are learned from and calibrated on, but for the one withdrawn.
    assert figures["train_photos"] == 12 * len(COLOURS) - 1
    assert figures["labels_withdrawn"] == 1
    assert figures["val_photos"] == 0
    assert figures["calibrated_on"] == "cross-fitting of train, folds by looks"
    runs.connect(database)
    resolved = registry.resolve_bundle("models:/trained/1")
    assert resolved.bundle.digest == figures["bundle_digest"]
    assert resolved.bundle.tree.classes == tuple(sorted(COLOURS))
    assert registry.resolve_backbone("models:/trained/1").digest == resolved.bundle.backbone.digest

    # Its slices came along.
    [found] = resolved.bundle.training["worst_groups"]
    assert (found["slice"], found["groups"], found["listings"]) == ("tone", 2, 23)
    assert figures["balanced"] is None

    # Photos of a damaged store are embedded again.
    hurt = max(store.rglob("run=*/*.parquet"), key=lambda file: file.stat().st_size)
    hurt.write_bytes(hurt.read_bytes()[:-100])
    output = tmp_path / "bundle"
    assert train_head.main([*argv, "--output", str(output)]) == 0
    figures = json.loads(report.read_text(encoding="utf-8"))
    assert figures["store_files_damaged"] == 1
    assert figures["photos_embedded"] > 0
    again = load_bundle(output)
    assert (again.head.weight == resolved.bundle.head.weight).all()
    assert again.training["fingerprint"] == resolved.bundle.training["fingerprint"]
    with pytest.raises(SettingsError):
        registry.resolve_bundle("models:/trained/2")


def quantized_backbone(folder: Path) -> Path:
    whole = make_backbone(
        "regnety_002", Preprocessing(64), licence="mit", origin="here", weights=some_trunk()
    )
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (64, 64, 3), np.uint8) for _ in range(8)]
    (folder / "network").mkdir()
    save_backbone(quantize(whole, noise, folder / "network"), folder / "start")
    return folder / "start"


def test_fine_tuning_makes_a_backbone_of_its_own_whatever_spark_may_collect(
    small_results: None, labelled: Path, tmp_path: Path, database: str
) -> None:
    tree, report = tmp_path / "tree.csv", tmp_path / "report.json"
    tree.write_text(TAXONOMY, encoding="utf-8")
    argv = ["--manifest", str(labelled), "--taxonomy", str(tree), "--tracking-uri", database]
    start = quantized_backbone(tmp_path)
    argv += ["--backbone", str(start), "--output", str(tmp_path / "bundle")]
    argv += ["--unseen-share", "0"]
    tuning = ["--finetune", "--finetune-epochs", "2", "--finetune-size", "32"]
    assert train_head.main([*argv, *tuning, "--report", str(report)]) == 0
    figures = json.loads(report.read_text(encoding="utf-8"))
    tuned = load_bundle(tmp_path / "bundle").backbone
    assert tuned.weights_digest != load_backbone(start).weights_digest
    # What began in eight bits is quantized again, with photos that it was trained on.
    assert figures["quantized"] is True
    assert tuned.quantized not in {None, load_backbone(start).quantized}
    # Those that calibrate were not trained on.
    assert f"fine-tuned on {figures['train_photos']} labelled photos" in tuned.origin
    assert figures["photos_embedded"] == figures["train_photos"] + figures["val_photos"]
    client = MlflowClient(database)
    curve = client.get_metric_history(figures["run_id"], "finetune_loss")
    assert [point.step for point in curve] == [1, 2]
    logged = {file.path for file in client.list_artifacts(figures["run_id"])}
    assert {"reliability.png", "precision_by_coverage.png"} <= logged


def test_an_unknown_label_stops_the_training(
    spark: SparkSession, labelled: Path, tmp_path: Path, database: str, capsys: Any
) -> None:
    tree = tmp_path / "tree.csv"
    tree.write_text(TAXONOMY.replace("cold/green", "cold/teal"), encoding="utf-8")
    argv = ["--manifest", str(labelled), "--taxonomy", str(tree), "--tracking-uri", database]
    assert train_head.main([*argv, "--backbone", "timm:regnety_002"]) == 3
    assert "cold/green" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("leak", ["listings in two splits", "photos in two splits"])
def test_no_precision_is_promised_through_labels_of_chance(
    spark: SparkSession,
    write_manifest: Callable[..., Path],
    photo_of_noise: Callable[[int], bytes],
    tmp_path: Path,
    database: str,
    caplog: pytest.LogCaptureFixture,
    leak: str,
) -> None:
    """What calibrates must not have been trained on, whichever way the data let it in."""
    rng = random.Random(0)
    rows = []
    for number in range(2 * LISTINGS):
        splits = ("train", "val") if number % 2 else ("val", "train")
        photo = {"image_bytes": photo_of_noise(number), "category_id": rng.choice(COLOURS[:2])}
        listing = {"listing_id": str(number), "image_index": 0, "split": splits[0], **photo}
        rows.append(listing)
        if number < LISTINGS:
            twin = {} if leak == "listings in two splits" else {"listing_id": f"twin of {number}"}
            rows.append({**listing, **twin, "split": splits[1]})
    tree, report = tmp_path / "tree.csv", tmp_path / "report.json"
    tree.write_text(TAXONOMY, encoding="utf-8")
    argv = ["--manifest", str(write_manifest(tmp_path / "manifest", rows))]
    argv += ["--taxonomy", str(tree), "--tracking-uri", database, "--output", str(tmp_path / "b")]
    argv += ["--backbone", "timm:regnety_002", "--target-precision", "0.8", "--unseen-share", "0"]
    assert train_head.main([*argv, "--report", str(report)]) == 0
    figures = json.loads(report.read_text(encoding="utf-8"))
    assert figures["val"]["coverage"] == 0
    assert figures["labelled_listings"] == {"train": LISTINGS // 2, "val": LISTINGS // 2}
    # And why nothing is assigned is said.
    assert figures["categories_without_label"] == ["cold", "cold/blue", "cold/green"]
    assert figures["labels_missing"] > 0
    assert f"the model can assign nothing: {figures['assigns_nothing']}" in caplog.text
    assert "3 of 6 categories have no labelled listing in train" in caplog.text
