"""A model's life: trained, registered, evaluated, promoted, refused, rolled back."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from jobs import evaluate_challenger, promote_challenger, train_head
from seer_model import registry
from seer_model.backbone import random_backbone
from seer_model.bundle import Bundle, load_bundle, save_bundle
from seer_model.head import LinearHead

pytestmark = pytest.mark.spark
TAXONOMY = (
    "category_id,category_path\nwarm,Warm\nwarm/red,Warm > Red\nwarm/yellow,Warm > Yellow\n"
    "cold,Cold\ncold/blue,Cold > Blue\ncold/green,Cold > Green\n"
)
COLOURS = ("warm/red", "warm/yellow", "cold/blue", "cold/green")


@pytest.fixture(scope="module")
def labelled(
    tmp_path_factory: pytest.TempPathFactory,
    write_manifest: Callable[..., Path],
    draw_photo: Callable[..., bytes],
) -> Path:
    """A manifest of labelled listings in train, in no split (train as well), and in test."""
    rows = [
        {
            "listing_id": f"{split}-{colour}-{i}",
            "image_index": 0,
            "image_bytes": draw_photo(colour, seed=hash_of(split) + i),
            "category_id": colour,
            "split": split,
        }
        for split, count in ((None, 6), ("train", 6), ("test", 4))
        for colour in COLOURS
        for i in range(count)
    ]
    rows.append({"listing_id": "unlabelled", "image_index": 0, "image_bytes": b"", "split": "test"})
    return write_manifest(tmp_path_factory.mktemp("labelled"), rows)


def hash_of(split: str | None) -> int:
    return {None: 100, "train": 200, "test": 300}[split]


@pytest.fixture
def database(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture
def register(database: str, bundle_folder: Path) -> Callable[[str], str]:
    """Registers the drawn bundle under a name, as train_head would."""

    def run(name: str, folder: Path = bundle_folder) -> str:
        registry.connect(database)
        with registry.tracked_run("train_head", {}):
            return registry.register_bundle(folder, name)

    return run


def promote(database: str, *flags: str) -> int:
    return promote_challenger.main(["--model-name", "colours", "--tracking-uri", database, *flags])


def champion(database: str) -> str | None:
    registry.connect(database)
    return registry.aliased_version("colours", "champion")


def test_train_head_registers_what_the_job_can_load(
    spark: SparkSession, labelled: Path, tmp_path: Path, database: str
) -> None:
    tree, report = tmp_path / "tree.csv", tmp_path / "report.json"
    tree.write_text(TAXONOMY, encoding="utf-8")
    argv = ["--manifest", str(labelled), "--taxonomy", str(tree), "--tracking-uri", database]
    argv += ["--backbone", "timm:regnety_002", "--registered-name", "colours"]
    assert train_head.main([*argv, "--report", str(report)]) == 0
    figures = json.loads(report.read_text(encoding="utf-8"))
    assert figures["version"] == "1"
    # Listings without a split are learned from, and some of all are held out for calibration.
    assert figures["train_photos"] + figures["val_photos"] == 12 * len(COLOURS)
    assert figures["val_photos"] > 0
    registry.connect(database)
    resolved = registry.resolve_bundle("models:/colours/1")
    assert resolved.bundle.digest == figures["bundle_digest"]
    assert resolved.bundle.tree.classes == tuple(sorted(COLOURS))
    assert registry.resolve_backbone("models:/colours/1").digest == resolved.bundle.backbone.digest

    output = tmp_path / "bundle"
    assert train_head.main([*argv, "--output", str(output)]) == 0
    again = load_bundle(output)
    assert (again.head.weight == resolved.bundle.head.weight).all()
    assert again.training["fingerprint"] == resolved.bundle.training["fingerprint"]
    with pytest.raises(registry.SettingsError):
        registry.resolve_bundle("models:/colours/2")


def test_fine_tuning_makes_a_backbone_of_its_own(
    spark: SparkSession, labelled: Path, tmp_path: Path, database: str
) -> None:
    tree, report = tmp_path / "tree.csv", tmp_path / "report.json"
    tree.write_text(TAXONOMY, encoding="utf-8")
    argv = ["--manifest", str(labelled), "--taxonomy", str(tree), "--tracking-uri", database]
    argv += ["--backbone", "timm:regnety_002", "--output", str(tmp_path / "bundle")]
    tuning = ["--finetune", "--finetune-epochs", "2", "--finetune-size", "32"]
    assert train_head.main([*argv, *tuning, "--report", str(report)]) == 0
    figures = json.loads(report.read_text(encoding="utf-8"))
    tuned = load_bundle(tmp_path / "bundle").backbone
    assert tuned.digest != random_backbone("regnety_002").digest
    # Those that calibrate were not trained on.
    assert f"fine-tuned on {figures['train_photos']} labelled photos" in tuned.origin
    assert figures["photos_embedded"] == figures["train_photos"] + figures["val_photos"]


def test_an_unknown_label_stops_the_training(
    spark: SparkSession, labelled: Path, tmp_path: Path, database: str, capsys: Any
) -> None:
    tree = tmp_path / "tree.csv"
    tree.write_text(TAXONOMY.replace("cold/green", "cold/teal"), encoding="utf-8")
    argv = ["--manifest", str(labelled), "--taxonomy", str(tree), "--tracking-uri", database]
    assert train_head.main([*argv, "--backbone", "timm:regnety_002"]) == 3
    assert "cold/green" in capsys.readouterr().err.splitlines()[-1]


def test_the_better_challenger_wins_and_rollback_brings_the_old_one_back(
    spark: SparkSession,
    labelled: Path,
    bundle: Bundle,
    register: Callable[..., str],
    database: str,
    tmp_path: Path,
    capsys: Any,
) -> None:
    blind = replace(bundle, head=LinearHead(bundle.head.weight * 0, bundle.head.bias * 0))
    save_bundle(blind, tmp_path / "blind")
    assert register("colours", tmp_path / "blind") == "1"
    assert register("colours") == "2"
    assert promote(database, "--version", "1") == 0
    assert champion(database) == "1"

    assert promote(database, "--version", "2") == 4
    assert "not evaluated against the champion" in capsys.readouterr().err
    evaluate = ["--manifest", str(labelled), "--tracking-uri", database, "--splits", "test"]
    report = tmp_path / "evaluation.json"
    pair = ["--challenger", "models:/colours/2", "--champion", "models:/colours@champion"]
    assert evaluate_challenger.main([*evaluate, *pair, "--report", str(report)]) == 0
    figures = json.loads(report.read_text(encoding="utf-8"))
    assert figures["challenger"]["listings"] == figures["champion"]["listings"] == 16
    assert figures["challenger"]["top1"] > figures["champion"]["top1"] == 0.25
    assert promote(database, "--version", "2") == 0
    assert champion(database) == "2"

    reverse = ["--challenger", "models:/colours/1", "--champion", "models:/colours@champion"]
    assert evaluate_challenger.main([*evaluate, *reverse]) == 0
    assert promote(database, "--version", "1") == 4
    assert "below the champion's" in capsys.readouterr().err
    assert champion(database) == "2"

    assert promote(database, "--rollback") == 0
    assert champion(database) == "1"
    registry.connect(database)
    record = json.loads(registry.version_tags("colours", "1")["promotion"])
    assert (record["instead_of"], record["reason"]) == ("2", "rollback")


def test_a_licence_that_may_forbid_commerce_must_be_acknowledged(
    bundle: Bundle, register: Callable[..., str], database: str, tmp_path: Path, capsys: Any
) -> None:
    backbone = replace(bundle.backbone, licence="seer-license")
    save_bundle(replace(bundle, backbone=backbone), tmp_path / "restricted")
    register("colours", tmp_path / "restricted")
    assert promote(database, "--version", "1") == 4
    assert "'seer-license'" in capsys.readouterr().err
    assert champion(database) is None
    assert promote(database, "--version", "1", "--acknowledge-licence") == 0
    assert champion(database) == "1"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "either --version N or --rollback"),
        (["--version", "1", "--rollback"], "either --version N or --rollback"),
        (["--version", "9"], "models:/colours"),
        (["--rollback"], "models:/colours"),
    ],
)
def test_what_cannot_be_promoted(
    database: str, capsys: Any, flags: list[str], message: str
) -> None:
    assert promote(database, *flags) == 2
    assert message in capsys.readouterr().err


def test_nothing_to_evaluate_on(
    spark: SparkSession, labelled: Path, bundle_folder: Path, database: str, capsys: Any
) -> None:
    argv = ["--manifest", str(labelled), "--challenger", str(bundle_folder)]
    assert evaluate_challenger.main([*argv, "--splits", "none", "--tracking-uri", database]) == 3
    assert "no labelled listing in the splits none" in capsys.readouterr().err
