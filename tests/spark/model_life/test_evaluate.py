"""jobs.evaluate_challenger: both models on the same listings, the record, the page."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest
from pyspark.sql import SparkSession

from jobs import evaluate_challenger
from seer_model.categorizer.bundle import Bundle, save_bundle
from seer_model.linear_head import LinearHead
from seer_model.tracking import registry, runs
from seer_model.tracking.promotion import load_evaluation
from tests.support.decisions import decision, write_decisions

pytestmark = pytest.mark.spark


def test_both_are_measured_on_the_same_listings(
    spark: SparkSession,
    labelled: Path,
    bundle: Bundle,
    database: str,
    tmp_path: Path,
    capsys: Any,
) -> None:
    report, page = tmp_path / "report.json", tmp_path / "new" / "page.html"
    argv = ["--manifest", str(labelled), "--tracking-uri", database, "--splits", "test"]
    argv += ["--challenger", "models:/colours/2", "--champion", "models:/colours/1"]
    argv += ["--report", str(report), "--page", str(page)]
    confirmed = decision("test-warm/red-0", category_id="warm/red")
    argv += ["--labels", str(write_decisions(tmp_path / "labels", confirmed))]
    assert evaluate_challenger.main(argv) == 0
    figures = json.loads(report.read_text(encoding="utf-8"))
    assert figures["labels_confirmed"] == 1
    assert figures["challenger"]["listings"] == figures["champion"]["listings"] == 16
    assert figures["challenger"]["top1"] > figures["champion"]["top1"] == 0.25
    assert "difference (95 % interval)" in capsys.readouterr().out

    runs.connect(database)
    record = load_evaluation(registry.version_tags("colours", "2"))
    assert record is not None
    assert record["run_id"] == figures["run_id"]
    assert record["challenger"]["bundle_digest"] == bundle.digest
    assert record["champion"]["model"] == "colours/1"
    assert record["data"]["manifest"] == str(labelled)
    assert {g["group"]: g["listings"] for g in record["slices"]} == {"tone=warm": 8, "tone=cold": 8}
    assert {g["group"] for g in record["categories"]} == set(bundle.tree.classes)
    assert registry.version_tags("colours", "1").get("evaluation_run") is None
    logged = mlflow.artifacts.download_artifacts(
        run_id=figures["run_id"], artifact_path="evaluation.html"
    )
    assert Path(logged).read_text(encoding="utf-8") == page.read_text(encoding="utf-8")
    assert '<img alt="test-' in page.read_text(encoding="utf-8")
    metrics = mlflow.get_run(figures["run_id"]).data.metrics
    assert metrics["champion_top1"] == 0.25
    # Its slices have eight listings each, too few to be judged.
    assert (figures["worst_group_top1"], figures["groups_searched"]) == ({}, 0)


def test_a_challenger_alone(
    spark: SparkSession, labelled: Path, bundle_folder: Path, database: str, tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    argv = ["--manifest", str(labelled), "--challenger", str(bundle_folder)]
    argv += ["--splits", "test", "--splits", "train", "--tracking-uri", database]
    assert evaluate_challenger.main([*argv, "--report", str(report)]) == 0
    figures = json.loads(report.read_text(encoding="utf-8"))
    assert (figures["champion_model"], figures["top1_difference"]) == (None, None)
    # Listings without a split are in train.
    assert figures["challenger"]["listings"] == 64
    assert figures["labelled_listings"] == {"test": 16, "train": 48}


def test_another_taxonomy_is_compared_by_category(
    spark: SparkSession, labelled: Path, bundle: Bundle, database: str, tmp_path: Path
) -> None:
    keep = [i for i, c in enumerate(bundle.tree.classes) if c != "cold/green"]
    taxonomy = bundle.tree.taxonomy
    smaller = type(taxonomy)([c for c in taxonomy if c.category_id != "cold/green"], "2027")
    tree = type(bundle.tree)(smaller, [bundle.tree.classes[i] for i in keep])
    head = LinearHead(bundle.head.weight[keep], bundle.head.bias[keep])
    smaller_bundle = replace(bundle, tree=tree, head=head, familiarity=None)
    save_bundle(smaller_bundle, tmp_path / "smaller")
    save_bundle(bundle, tmp_path / "whole")
    report = tmp_path / "report.json"
    argv = ["--manifest", str(labelled), "--tracking-uri", database, "--report", str(report)]
    argv += ["--challenger", str(tmp_path / "smaller"), "--champion", str(tmp_path / "whole")]
    assert evaluate_challenger.main(argv) == 0
    runs.connect(database)
    run = json.loads(report.read_text(encoding="utf-8"))["run_id"]
    record = load_evaluation({"evaluation_run": run})
    assert record is not None
    assert record["missing_categories"] == ["cold/green"]
    assert record["challenger"]["figures"]["known"] == 0.75


def test_many_listings_whatever_spark_may_collect(
    small_results: None,
    write_manifest: Callable[..., Path],
    bundle_folder: Path,
    database: str,
    tmp_path: Path,
) -> None:
    row = {"image_index": 0, "category_id": "warm/red", "split": "test"}
    rows = [row | {"listing_id": f"{i} {'x' * 500}"} for i in range(200)]
    manifest, report = write_manifest(tmp_path / "manifest", rows), tmp_path / "report.json"
    argv = ["--manifest", str(manifest), "--challenger", str(bundle_folder)]
    argv += ["--tracking-uri", database, "--report", str(report)]
    assert evaluate_challenger.main(argv) == 0
    figures = json.loads(report.read_text(encoding="utf-8"))["challenger"]
    assert (figures["listings"], figures["photographed"]) == (200, 0)


def test_nothing_to_evaluate_on(
    spark: SparkSession, labelled: Path, bundle_folder: Path, database: str, capsys: Any
) -> None:
    argv = ["--manifest", str(labelled), "--challenger", str(bundle_folder)]
    assert evaluate_challenger.main([*argv, "--splits", "none", "--tracking-uri", database]) == 3
    assert "no labelled listing in the splits none" in capsys.readouterr().err


def test_a_model_is_not_compared_with_itself(
    bundle_folder: Path, labelled: Path, database: str, capsys: Any
) -> None:
    argv = ["--manifest", str(labelled), "--tracking-uri", database]
    argv += ["--challenger", str(bundle_folder), "--champion", str(bundle_folder)]
    assert evaluate_challenger.main(argv) == 2
    assert "the same model" in capsys.readouterr().err
