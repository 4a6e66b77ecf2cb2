"""The job that quantizes a backbone: what it writes, checks and refuses."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jobs import quantize_backbone
from schemas.manifest import MANIFEST
from seer_model.backbones.backbone import load_backbone, save_backbone
from seer_model.backbones.preprocessing import Preprocessing
from seer_model.backbones.weights import make_backbone
from seer_model.photos.limits import PhotoLimits
from seer_model.photos.source import PhotoSource
from seer_model.tracking import registry
from seer_model.training import quantizing
from seer_model.training.quantized import QuantizedQuality
from seer_model.training.quantizing import LabelledSources, quantize_or_keep
from tests.support.photo_manifests import write
from tests.support.tracking_database import new_database
from tests.support.trunks import some_trunk

pytestmark = pytest.mark.slow

Run = Callable[..., dict[str, Any]]
COLOURS = {"red": (200, 40, 40), "green": (40, 160, 70), "blue": (40, 60, 200)}


def photo(number: int) -> bytes:
    """A photo whose colour says its label, and whose grain says its number."""
    grain = np.random.default_rng(number).integers(-40, 41, (48, 48, 3))
    pixels = np.clip(list(COLOURS.values())[number % 3] + grain, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backbone, a manifest with labels, and one without."""
    folder = tmp_path_factory.mktemp("quantized")
    preprocessing, weights = Preprocessing(64), some_trunk()
    backbone = make_backbone(
        "regnety_002", preprocessing, licence="mit", origin="here", weights=weights
    )
    save_backbone(backbone, folder / "backbone")
    rows: list[dict[str, Any]] = [
        {
            "listing_id": str(n),
            "image_index": 0,
            "image_bytes": photo(n) if n else b"no photo",
            "category_id": list(COLOURS)[n % 3],
            "split": "train" if n < 40 else "val",
        }
        for n in range(70)
    ]
    write(rows, folder / "manifest" / "ds=2026-12-01" / "part.parquet", schema=MANIFEST)
    for row in rows:
        row["category_id"] = None
    write(rows, folder / "unlabelled" / "ds=2026-12-01" / "part.parquet", schema=MANIFEST)
    new_database(folder)
    return folder


@pytest.fixture
def run(folder: Path, tmp_path: Path) -> Run:
    """Runs the job and gives its report; `code` is the exit code expected."""

    def quantize(*flags: str, manifest: str = "manifest", code: int = 0) -> dict[str, Any]:
        report = tmp_path / "report.json"
        argv = ["--manifest", str(folder / manifest), "--backbone", str(folder / "backbone")]
        argv += ["--tracking-uri", f"sqlite:///{folder}/mlflow.db", "--report", str(report)]
        argv += ["--output", str(tmp_path / "output"), *flags]
        assert quantize_backbone.main(argv) == code
        return json.loads(report.read_text(encoding="utf-8")) if code == 0 else {}

    return quantize


def test_a_quantized_backbone_is_written_and_registered(
    run: Run, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = run("--registered-name", "small")
    assert (figures["photos_shown"], figures["checked"]) == (39, 30)
    assert figures["top1"] == figures["top1_before"] == 1
    assert figures["least_cosine"] > 0.98
    assert figures["photos_per_second"] > 0 < figures["photos_per_second_before"]
    written = load_backbone(tmp_path / "output" / "backbone")
    assert written.quantized
    assert written.digest == figures["backbone_digest"]
    assert written.digest != load_backbone(folder / "backbone").digest
    registered = registry.resolve_backbone("models:/small/1")
    assert registered.digest == written.digest

    run("--backbone", str(tmp_path / "output" / "backbone"), code=2)
    assert "is quantized already" in capsys.readouterr().err


def test_without_labels_the_features_are_compared(run: Run) -> None:
    figures = run(manifest="unlabelled")
    assert figures["least_cosine"] > 0.98
    assert "top1" not in figures


def test_a_loss_is_refused_and_nothing_is_written(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    worse = QuantizedQuality(30, 0.9, 0.8, 0.05, 0.7)
    monkeypatch.setattr(quantizing, "compare_features", lambda *_: worse)
    run(code=4)
    assert "loses at least 0.050 of right answers" in capsys.readouterr().err
    assert not (tmp_path / "output").exists()
    run("--most-loss", "0.1")
    assert load_backbone(tmp_path / "output" / "backbone").quantized


def test_a_fine_tuned_backbone_that_loses_stays_in_floating_point(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    backbone = load_backbone(folder / "backbone")
    sources = [PhotoSource(None, photo(number)) for number in range(1, 31)]
    photos = LabelledSources(sources, [f"{number % 3}" for number in range(1, 31)])
    made = quantize_or_keep(backbone, sources, photos, photos, PhotoLimits())
    assert made.backbone.quantized
    assert made.figures["checked"] == 30
    worse = QuantizedQuality(30, 0.9, 0.8, 0.05, 0.7)
    monkeypatch.setattr(quantizing, "compare_features", lambda *_: worse)
    kept = quantize_or_keep(backbone, sources, photos, photos, PhotoLimits())
    assert (kept.backbone, kept.figures) == (backbone, {})
    assert "stays in floating point: the quantized network loses at least 0.050" in caplog.text


def test_too_few_photos_are_refused(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run("--splits", "test", code=3)
    assert "0 photos can be used" in capsys.readouterr().err


def test_without_nncf(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(quantizing, "find_spec", lambda _: None)
    run(code=2)
    assert "pip install 'seer-categories[quantize]'" in capsys.readouterr().err
