"""Pretraining that collapses, and pretraining on photos all black or without labels."""

from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from PIL import Image

from seer_model.tracking import runs
from tests.support.pretraining_jobs import Pretrain, encode, epochs, write_manifest

pytestmark = pytest.mark.slow


def test_a_collapse_ends_with_its_explanation_and_stays_one(
    pretrain: Pretrain,
    work: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("seer_model.training.pretraining.monitor._MIN_SPREAD", 10.0)
    for flags in ((), ("--resume",)):
        assert pretrain("collapsed", *flags, warmup_epochs=0) == 1
        error = capsys.readouterr().err
        assert "error: epoch 0: Features collapsed: their spread is 0." in error.splitlines()[-1]
        assert "Traceback" not in error
    assert not (work / "collapsed" / "backbone").exists()
    assert [e["epoch"] for e in epochs(work / "collapsed")] == [1]
    run = MlflowClient().search_runs(
        [mlflow.get_experiment_by_name(runs.EXPERIMENT).experiment_id], max_results=1
    )[0]
    assert (run.info.status, run.data.tags["job"]) == ("FAILED", "pretrain_backbone")


def test_photos_that_are_all_black_end_in_one_line(
    pretrain: Pretrain, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    black = encode(Image.new("RGB", (96, 96)))
    blank = write_manifest(work / "blank", [black] * 24, labels=False)
    assert pretrain("black", manifest=blank, warmup_epochs=0) == 1
    error = capsys.readouterr().err
    assert "diverged" in error.splitlines()[-1] or "collapsed" in error.splitlines()[-1]
    assert "Traceback" not in error
    assert not (work / "black" / "backbone").exists()


def test_photos_without_labels_get_a_contact_sheet_and_no_probe(
    pretrain: Pretrain, work: Path, photos: list[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    plain = write_manifest(work / "plain", photos, labels=False)
    assert pretrain("plain-output", manifest=plain, epochs=1, warmup_epochs=1) == 0
    assert "knn_accuracy" not in epochs(work / "plain-output")[0]
    with Image.open(work / "plain-output" / "neighbours.png") as sheet:
        assert min(sheet.size) > 200
    options = {"manifest": plain, "probe_splits": "train,val"}
    assert pretrain("nothing", **options) == 3
    assert "nothing to probe with" in capsys.readouterr().err.splitlines()[-1]
