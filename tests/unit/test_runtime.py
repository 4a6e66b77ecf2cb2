"""The runtimes of a CPU agree with each other, and OpenVINO keeps to itself."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from seer_model.backbone import Backbone, random_backbone
from seer_model.embedder import PhotoEmbedder
from seer_model.openvino_runtime import OpenVinoRuntime
from seer_model.photo_source import PhotoSource
from seer_model.runtime import Features, Pixels, Runtime, open_runtime
from seer_model.torch_runtime import TorchRuntime

BATCH = 4
ROOT = Path(__file__).parents[2]
PHOTOS = ROOT.parent / "shared" / "data" / "grocery"


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return random_backbone("regnety_004", 96)


@pytest.fixture(scope="module")
def pixels() -> Pixels:
    """Noise at several scales, as photos have it."""
    rng = np.random.default_rng(0)
    photos = np.zeros((BATCH, 96, 96, 3))
    for cells in (3, 12, 96):
        noise = rng.integers(0, 86, (BATCH, cells, cells, 3))
        photos += noise.repeat(96 // cells, 1).repeat(96 // cells, 2)
    return photos.astype(np.uint8)


@pytest.fixture(scope="module")
def expected(backbone: Backbone, pixels: Pixels) -> Features:
    return TorchRuntime(backbone, batch_size=BATCH).start(pixels)()


@pytest.mark.parametrize(("precision", "least"), [(None, 0.9999), ("f32", 0.999999)])
def test_openvino_computes_what_torch_does(
    backbone: Backbone, pixels: Pixels, expected: Features, precision: str | None, least: float
) -> None:
    runtime = OpenVinoRuntime(backbone, batch_size=BATCH, precision=precision)
    features = runtime.start(pixels)()
    assert features.dtype == np.float32
    assert features.shape == expected.shape
    norms = np.linalg.norm(features, axis=1) * np.linalg.norm(expected, axis=1)
    assert ((features * expected).sum(axis=1) / norms).min() >= least
    assert len({row.tobytes() for row in features}) == BATCH


@pytest.mark.photos
@pytest.mark.skipif(not PHOTOS.is_dir(), reason=f"no real photos at {PHOTOS}")
def test_runtimes_agree_on_real_photos() -> None:
    backbone = random_backbone("regnety_004")
    sources = [PhotoSource(str(path), None) for path in sorted(PHOTOS.rglob("*.jpg"))[::85]]
    assert len(sources) > 50
    here, exact = (
        np.stack([photo.vector for photo in PhotoEmbedder(runtime).embed(sources)]).astype(float)
        for runtime in (
            OpenVinoRuntime(backbone, batch_size=8),
            OpenVinoRuntime(backbone, batch_size=8, precision="f32"),
        )
    )
    norms = np.linalg.norm(here, axis=1) * np.linalg.norm(exact, axis=1)
    assert ((here * exact).sum(axis=1) / norms).min() >= 0.9999


def test_batches_under_way_together_do_not_mix(backbone: Backbone, pixels: Pixels) -> None:
    runtime = OpenVinoRuntime(backbone, batch_size=BATCH)
    alone = [runtime.start(batch.copy())() for batch in (pixels, 255 - pixels, pixels[::-1])]
    waiting = [runtime.start(batch.copy()) for batch in (pixels, 255 - pixels, pixels[::-1])]
    for wait, features in zip(reversed(waiting), reversed(alone), strict=True):
        assert np.array_equal(wait(), features)
    assert np.array_equal(alone[2], alone[0][::-1])


def test_a_cpu_gets_openvino_and_says_so(backbone: Backbone) -> None:
    runtime: Runtime = open_runtime(backbone)
    assert runtime.name in ("openvino bf16", "openvino f32")
    assert (runtime.batch_size, runtime.preprocessing) == (8, backbone.preprocessing)
    assert open_runtime(backbone, batch_size=3).batch_size == 3


def test_openvino_does_not_report_its_use(tmp_path: Path) -> None:
    code = "import seer_model.openvino_runtime, sys; print(sys.modules['openvino_telemetry'])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "None"
    assert not list(tmp_path.iterdir())
