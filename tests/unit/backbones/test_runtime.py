"""The CPU runtimes agree, and OpenVINO sends no usage statistics."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from schemas.errors import BundleError
from seer_model.backbones.backbone import Backbone, save_backbone
from seer_model.backbones.embedder import PhotoEmbedder
from seer_model.backbones.runtimes.base import Features, Runtime
from seer_model.backbones.runtimes.choose import open_runtime
from seer_model.backbones.runtimes.conversion import convert
from seer_model.backbones.runtimes.openvino import OpenVinoRuntime
from seer_model.backbones.runtimes.pytorch import TorchRuntime
from seer_model.backbones.weights import random_backbone
from seer_model.photos.pixels import Pixels, resize_square
from seer_model.photos.source import PhotoSource
from tests.support.paths import ROOT

BATCH = 4
PHOTOS = ROOT.parent / "shared" / "data" / "grocery"


@pytest.fixture(scope="module")
def pixels() -> Pixels:
    """Noise at several scales, like photos."""
    rng = np.random.default_rng(0)
    photos = np.zeros((BATCH, 64, 64, 3))
    for cells in (4, 16, 64):
        noise = rng.integers(0, 86, (BATCH, cells, cells, 3))
        photos += noise.repeat(64 // cells, 1).repeat(64 // cells, 2)
    return photos.astype(np.uint8)


@pytest.fixture(scope="module")
def expected(backbone: Backbone, pixels: Pixels) -> Features:
    return TorchRuntime(backbone, batch_size=BATCH).start(pixels)()


@pytest.fixture(scope="module")
def network(backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("network")
    assert convert(backbone, folder)
    return folder


@pytest.fixture(scope="module")
def openvino(backbone: Backbone, network: Path) -> OpenVinoRuntime:
    return OpenVinoRuntime(backbone, network, batch_size=BATCH)


@pytest.fixture(scope="module")
def openvino_f32(backbone: Backbone, network: Path) -> OpenVinoRuntime:
    return OpenVinoRuntime(backbone, network, batch_size=BATCH, precision="f32")


@pytest.mark.parametrize(("name", "least"), [("openvino", 0.9999), ("openvino_f32", 0.999999)])
def test_openvino_computes_the_same_as_torch(
    pixels: Pixels, expected: Features, request: pytest.FixtureRequest, name: str, least: float
) -> None:
    features = request.getfixturevalue(name).start(pixels)()
    assert features.dtype == np.float32
    assert features.shape == expected.shape
    norms = np.linalg.norm(features, axis=1) * np.linalg.norm(expected, axis=1)
    assert ((features * expected).sum(axis=1) / norms).min() >= least
    assert len({row.tobytes() for row in features}) == BATCH


@pytest.mark.parametrize(
    ("architecture", "size"),
    [
        ("test_resnet", 64),
        ("test_efficientnet", 64),
        ("tf_mobilenetv3_small_minimal_100", 64),
        ("test_convnext", 64),
        ("test_vit3", 160),
    ],
)
def test_openvino_computes_any_trunk(
    pixels: Pixels, architecture: str, size: int, tmp_path: Path
) -> None:
    trunk = random_backbone(architecture, size)
    photos = np.stack([resize_square(photo, size) for photo in pixels])
    expected = TorchRuntime(trunk, batch_size=BATCH).start(photos)()
    assert convert(trunk, tmp_path)
    runtime = OpenVinoRuntime(trunk, tmp_path, batch_size=BATCH, precision="f32")
    features = runtime.start(photos)()
    assert features.shape == (BATCH, trunk.width)
    norms = np.linalg.norm(features, axis=1) * np.linalg.norm(expected, axis=1)
    assert ((features * expected).sum(axis=1) / norms).min() >= 0.999999
    assert len({row.tobytes() for row in features}) == BATCH
    assert np.array_equal(runtime.start(photos[::-1].copy())(), features[::-1])


def test_torch_runs_what_openvino_cannot(pixels: Pixels, caplog: pytest.LogCaptureFixture) -> None:
    """This transformer fits its positions to the photo, with an operation that OpenVINO lacks."""
    caplog.set_level("INFO")
    runtime = open_runtime(random_backbone("test_vit", 160), batch_size=BATCH)
    assert runtime.name == "torch f32"
    assert "OpenVINO cannot run test_vit (-- No conversion rule" in caplog.text
    photos = np.stack([resize_square(photo, 160) for photo in pixels])
    features = runtime.start(photos)()
    assert np.array_equal(runtime.start(photos[::-1].copy())(), features[::-1])


@pytest.mark.photos
@pytest.mark.skipif(not PHOTOS.is_dir(), reason=f"no real photos at {PHOTOS}")
def test_runtimes_agree_on_real_photos(tmp_path: Path) -> None:
    backbone = random_backbone("regnety_004")
    assert convert(backbone, tmp_path)
    sources = [PhotoSource(str(path), None) for path in sorted(PHOTOS.rglob("*.jpg"))[::170]]
    assert len(sources) > 25
    native, exact = (
        np.stack([photo.vector for photo in PhotoEmbedder(runtime).embed(sources)]).astype(float)
        for runtime in (
            OpenVinoRuntime(backbone, tmp_path),
            OpenVinoRuntime(backbone, tmp_path, precision="f32"),
        )
    )
    norms = np.linalg.norm(native, axis=1) * np.linalg.norm(exact, axis=1)
    assert ((native * exact).sum(axis=1) / norms).min() >= 0.9999


def test_batches_in_flight_do_not_mix(openvino: OpenVinoRuntime, pixels: Pixels) -> None:
    alone = [openvino.start(batch.copy())() for batch in (pixels, 255 - pixels, pixels[::-1])]
    waiting = [openvino.start(batch.copy()) for batch in (pixels, 255 - pixels, pixels[::-1])]
    for wait, features in zip(reversed(waiting), reversed(alone), strict=True):
        assert np.array_equal(wait(), features)
    assert np.array_equal(alone[2], alone[0][::-1])


def test_a_cpu_gets_openvino(backbone: Backbone) -> None:
    runtime: Runtime = open_runtime(backbone)
    assert runtime.name in ("openvino bf16", "openvino f32")
    assert (runtime.batch_size, runtime.preprocessing) == (8, backbone.preprocessing)


def test_a_network_of_another_backbone_is_refused(network: Path) -> None:
    for other in (random_backbone("regnety_004", 64), random_backbone("regnety_002", 96)):
        with pytest.raises(BundleError, match="and is not the backbone's"):
            OpenVinoRuntime(other, network)


@pytest.mark.parametrize("content", ["", "<net", "<net></net>", '<net name="x" version="99"/>'])
def test_what_is_no_network_is_refused(backbone: Backbone, tmp_path: Path, content: str) -> None:
    (tmp_path / "network.xml").write_text(content, encoding="utf-8")
    (tmp_path / "network.bin").touch()
    with pytest.raises(BundleError, match="OpenVINO cannot read it") as caught:
        OpenVinoRuntime(backbone, tmp_path)
    assert "\n" not in str(caught.value)


def test_whoever_runs_a_stored_backbone_imports_no_torch(
    backbone: Backbone, tmp_path: Path
) -> None:
    save_backbone(backbone, tmp_path)
    code = f"""
import subprocess
import sys
from pathlib import Path
from seer_model.backbones.backbone import load_backbone
from seer_model.backbones.embedder import PhotoEmbedder
from seer_model.backbones.runtimes.choose import cuda_available
PhotoEmbedder.open(load_backbone(Path({str(tmp_path)!r})))
import jobs.categorize_listings, jobs.describe_listings, jobs.screen_listings
if not cuda_available():
    assert not {{"torch", "timm"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_openvino_sends_no_usage_statistics() -> None:
    """Its telemetry package was blocked before the import, or it would be there."""
    assert sys.modules["openvino_telemetry"] is None
