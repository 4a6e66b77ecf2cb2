"""The pretraining job: what it leaves, resuming, refusals; one run is two processes."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from mlflow import MlflowClient
from PIL import Image

from seer_model.backbones.backbone import load_backbone, save_backbone
from seer_model.backbones.embedder import PhotoEmbedder
from seer_model.photos.source import PhotoSource
from seer_model.tracking import registry, runs
from tests.support.pretraining_jobs import Pretrain, epochs, report

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def alone(pretrain: Pretrain, work: Path) -> Path:
    """The output of a run in one process."""
    assert pretrain("alone") == 0
    return work / "alone"


def test_backbone_is_in_the_folder_and_in_the_registry(alone: Path) -> None:
    figures = report(alone)
    by_folder = load_backbone(alone / "backbone")
    assert figures["backbone"] == "models:/listing-backbone/1"
    registry.move_alias("listing-backbone", "candidate", "1")
    for uri in (
        "models:/listing-backbone/1",
        "models:/listing-backbone@candidate",
        str(alone / "backbone"),
    ):
        assert (
            registry.resolve_backbone(uri).digest
            == by_folder.digest
            == (figures["backbone_digest"])
        )
    assert (by_folder.licence, by_folder.commercial) == ("proprietary", True)
    assert "2 epochs of 24 photos" in by_folder.origin
    tags = registry.version_tags("listing-backbone", "1")
    assert tags["licence"] == "proprietary"
    assert tags["backbone_digest"] == by_folder.digest


def test_the_logged_model_embeds_as_the_embedder_does(alone: Path, photos: list[bytes]) -> None:
    model = mlflow.pyfunc.load_model("models:/listing-backbone/1")
    rows = model.predict(pd.DataFrame({"image_bytes": [*photos[:3], b"no photo"]}))
    sources = [PhotoSource(None, photo) for photo in photos[:3]]
    embedded = list(PhotoEmbedder.open(load_backbone(alone / "backbone")).embed(sources))
    assert np.array_equal(
        np.stack(rows["vector"][:3].tolist()), np.stack([e.vector for e in embedded])
    )
    assert rows["reject_reason"].tolist() == [None, None, None, "not_an_image"]


def test_every_epoch_is_on_record(alone: Path) -> None:
    recorded = epochs(alone)
    assert [(e["epoch"], e["step"]) for e in recorded] == [(1, 3), (2, 6)]
    names = {
        "loss",
        "learning_rate",
        "photos_per_second",
        "photos_unreadable",
        "prototypes_used",
        "assignment_entropy",
        "assignment_information",
        "feature_spread",
        "knn_accuracy",
    }
    assert all(names <= epoch.keys() for epoch in recorded)
    run = report(alone)["run_id"]
    for name in names:
        history = MlflowClient().get_metric_history(run, name)
        assert [(m.step, m.value) for m in history] == [
            (e["epoch"], pytest.approx(e[name])) for e in recorded
        ]
    tracked = MlflowClient().get_run(run)
    assert tracked.info.status == "FINISHED"
    assert {"seconds", "processes"} <= tracked.data.metrics.keys()
    (used,) = tracked.inputs.dataset_inputs
    assert used.dataset.name == str(alone.parent / "manifest")
    assert json.loads(used.dataset.profile) == {"num_rows": 24}


def test_card_and_contact_sheet(alone: Path) -> None:
    figures = report(alone)
    card = (alone / "card.md").read_text(encoding="utf-8")
    for part in (figures["backbone_digest"], "proprietary", "| epochs | 2 |", "knn_accuracy"):
        assert part in card
    assert "python -m jobs.pretrain_backbone" in card
    assert "mlflow.db" not in card
    with Image.open(alone / "neighbours.png") as sheet:
        assert min(sheet.size) > 200
        assert len(np.unique(np.asarray(sheet.convert("L")))) > 100
    logged = {file.path for file in MlflowClient().list_artifacts(figures["run_id"])}
    assert {"card.md", "neighbours.png", "report.json"} <= logged


def test_resuming_what_is_done_changes_nothing(alone: Path, pretrain: Pretrain) -> None:
    before, recorded = report(alone), epochs(alone)
    assert pretrain("alone", "--resume") == 0
    after = report(alone)
    assert epochs(alone) == recorded
    assert (after["backbone_digest"], after["version"]) == (before["backbone_digest"], "1")
    assert len(MlflowClient().search_model_versions("name = 'listing-backbone'")) == 1


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not(
    alone: Path, pretrain: Pretrain, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged = runs.log_figures

    def stop(figures: dict[str, float], step: int | None = None, **options: Any) -> None:
        logged(figures, step=step, **options)
        if step == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(runs, "log_figures", stop)
    assert pretrain("stopped", "--checkpoint-steps", "2") == 130
    monkeypatch.undo()
    assert not (work / "stopped" / "backbone").exists()
    # The last checkpoint is lost too, so that the second epoch is trained again.
    last = work / "stopped" / "checkpoints" / "step-00000006" / "tensors.safetensors"
    last.write_bytes(last.read_bytes()[:-4])
    assert pretrain("stopped", "--resume") == 0
    digests = [report(work / name)["backbone_digest"] for name in ("stopped", "alone")]
    assert digests[0] == digests[1]
    assert [e["epoch"] for e in epochs(work / "stopped")] == [1, 2]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "holds checkpoints of an earlier run"),
        (("--resume", "--seed", "3"), "was made with another recipe"),
        (("--resume", "--splits", "train"), "was made with another recipe, manifest"),
        (("--projection", "x"), "--projection"),
        (("--probe-splits", "train"), "--probe-splits: give two splits"),
        (("--device", "gpu"), "--device gpu"),
        (("--architecture", "resnet18"), "resnet18: not a RegNetY"),
        (("--warmup-epochs", "3"), "warm-up"),
        (("--optimiser", "sgd"), "optimiser"),
    ],
)
def test_refusals_are_one_line_and_exit_code_2(
    alone: Path,
    pretrain: Pretrain,
    capsys: pytest.CaptureFixture[str],
    flags: tuple[str, ...],
    message: str,
) -> None:
    assert pretrain("alone", *flags) == 2
    error = capsys.readouterr().err
    assert message in error.splitlines()[-1]
    assert "Traceback" not in error


def test_a_training_goes_on_from_other_weights(
    alone: Path, pretrain: Pretrain, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = load_backbone(alone / "backbone")
    assert pretrain("further", "--start-from", "models:/listing-backbone/1", "--quantize") == 0
    further = load_backbone(work / "further" / "backbone")
    assert f", from {first.digest[:12]} ({first.origin})" in further.origin
    assert further.digest != first.digest
    assert further.origin in (work / "further" / "card.md").read_text(encoding="utf-8")
    made = report(work / "further")["quantized"]
    quantized = registry.resolve_backbone(made["backbone"])
    assert quantized.digest == made["backbone_digest"] != further.digest
    assert quantized.weights_digest == further.weights_digest
    assert load_backbone(work / "further" / "quantized" / "backbone").digest == quantized.digest

    # The weights that were the start stay what they are, whatever becomes of their address.
    assert load_backbone(work / "further" / "start").digest == first.digest
    save_backbone(replace(first, licence="cc-by-nc-4.0"), work / "not for sale")
    assert pretrain("refused", "--start-from", str(work / "not for sale")) == 2
    assert "give --licence cc-by-nc-4.0" in capsys.readouterr().err.splitlines()[-1]


def test_a_teacher_leaves_its_name_and_licence(
    alone: Path, pretrain: Pretrain, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = load_backbone(alone / "backbone")
    flags = ("--teacher", str(alone / "backbone"), "--teacher-size", "64", "--degraded", "0.5")
    assert pretrain("taught", *flags, without=("prototypes", "projection")) == 0
    taught = load_backbone(work / "taught" / "backbone")
    assert f"taught by {teacher.digest[:12]} ({teacher.origin})" in taught.origin
    card = (work / "taught" / "card.md").read_text(encoding="utf-8")
    assert f"- Teacher: {teacher.architecture}, {teacher.origin}; licence proprietary" in card
    assert all(epoch.keys().isdisjoint({"prototypes_used"}) for epoch in epochs(work / "taught"))

    save_backbone(replace(teacher, licence="cc-by-nc-4.0"), work / "a teacher for study")
    flags = ("--teacher", str(work / "a teacher for study"))
    assert pretrain("refused", *flags, without=("prototypes", "projection")) == 2
    assert "give --licence cc-by-nc-4.0" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.spark
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # TorchDistributor's own.
def test_two_processes_learn_what_one_does(
    alone: Path, pretrain: Pretrain, work: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert pretrain("together", num_processes=2) == 0
    one, two = epochs(alone), epochs(work / "together")
    assert [e["loss"] for e in two] == pytest.approx([e["loss"] for e in one], rel=1e-4)
    assert [e["step"] for e in two] == [3, 6]
    assert "epoch 2 of 2: loss" in capfd.readouterr().err
    history = MlflowClient().get_metric_history(report(work / "together")["run_id"], "loss")
    assert [m.value for m in history] == pytest.approx([e["loss"] for e in two])
    together = registry.resolve_backbone(report(work / "together")["backbone"])
    weights = load_backbone(alone / "backbone").weights
    for name, tensor in together.weights.items():
        assert torch.allclose(tensor.float(), weights[name].float(), rtol=0.02, atol=0.02), name

    # What a process refuses, the job does: in one line, with its exit code.
    assert pretrain("together", "--resume", num_processes=2, seed=3) == 2
    error = capfd.readouterr().err
    assert "was made with another recipe" in error.splitlines()[-1]
    assert "Traceback" not in error
