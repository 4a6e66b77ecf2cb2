"""What torch computes on a GPU, and what of that holds on a CPU too.

Needs neither Spark nor OpenVINO nor a conftest.py, so that it runs on a machine made for GPUs:
`python -m pytest --noconftest tests/unit/backbones/test_cuda.py`.
"""

import weakref
from concurrent.futures import ProcessPoolExecutor
from io import BytesIO
from multiprocessing import get_context

import numpy as np
import pytest
import torch
from PIL import Image

from seer_model.backbones.backbone import Backbone
from seer_model.backbones.embedder import PhotoEmbedder
from seer_model.backbones.runtimes.base import Features
from seer_model.backbones.runtimes.cuda_pipeline import CudaPipeline
from seer_model.backbones.runtimes.pytorch import PixelTrunk, TorchRuntime
from seer_model.backbones.weights import random_backbone
from seer_model.photos.limits import PhotoLimits
from seer_model.photos.pixels import Pixels, prepare_photo
from seer_model.photos.source import PhotoSource

GPU = "cuda:0"
BATCH, SIZE = 8, 64
MANY = 12
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
DEVICES = ["cpu", pytest.param(GPU, marks=on_gpu)]


def draw_batch(seed: int) -> Pixels:
    """Noise at several scales, like photos."""
    rng = np.random.default_rng(seed)
    photos = np.zeros((BATCH, SIZE, SIZE, 3))
    for cells in (4, 16, 64):
        noise = rng.integers(0, 86, (BATCH, cells, cells, 3))
        photos += noise.repeat(SIZE // cells, 1).repeat(SIZE // cells, 2)
    return photos.astype(np.uint8)


def compute(device: str, seed: int = 0) -> Features:
    """Compute one batch; also run by other processes."""
    torch.set_num_threads(1)
    return open_runtime(device).start(draw_batch(seed))()


def open_runtime(device: str) -> TorchRuntime:
    return TorchRuntime(random_backbone("regnety_002", SIZE), batch_size=BATCH, device=device)


def least_cosine(one: Features, other: Features) -> float:
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return float(((one * other).sum(axis=1) / norms).min())


@pytest.fixture(scope="module", autouse=True)
def _one_torch_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return random_backbone("regnety_002", SIZE)


@pytest.fixture(scope="module", params=DEVICES)
def runtime(request: pytest.FixtureRequest) -> TorchRuntime:
    return open_runtime(request.param)


def test_batches_in_flight_do_not_mix(runtime: TorchRuntime) -> None:
    """More than there are slots, of which each is used several times, taken in any order."""
    batches = [draw_batch(seed) for seed in range(MANY)]
    alone = [runtime.start(batch)() for batch in batches]
    assert len({features.tobytes() for features in alone}) == MANY
    waiting = [runtime.start(batch) for batch in batches]
    for number in np.random.default_rng(0).permutation(MANY):
        assert np.array_equal(waiting[number](), alone[number])


def test_features_stay_when_later_batches_are_computed(runtime: TorchRuntime) -> None:
    features = runtime.start(draw_batch(0))()
    before = features.copy()
    for seed in range(1, MANY):
        runtime.start(draw_batch(seed))()
    assert np.array_equal(features, before)


def test_a_batch_may_change_once_its_features_are_there(runtime: TorchRuntime) -> None:
    pixels = draw_batch(0)
    features = runtime.start(pixels)()
    expected = features.copy()
    pixels[:] = 0
    runtime.start(pixels)()
    assert np.array_equal(features, expected)


def test_a_photo_has_the_same_features_at_any_place(runtime: TorchRuntime) -> None:
    pixels = draw_batch(0)
    features = runtime.start(pixels)()
    assert (features.dtype, features.shape) == (np.float32, (BATCH, runtime.width))
    assert len({row.tobytes() for row in features}) == BATCH
    assert np.array_equal(runtime.start(pixels[::-1].copy())(), features[::-1])
    other = draw_batch(1)
    other[3] = pixels[3]
    assert np.array_equal(runtime.start(other)()[3], features[3])


def test_batches_of_another_kind_are_refused(runtime: TorchRuntime) -> None:
    with pytest.raises(ValueError, match="uint8 of shape"):
        runtime.start(draw_batch(0).astype(np.float32))  # type: ignore[arg-type]


def test_the_last_batch_may_be_partial(runtime: TorchRuntime) -> None:
    photos = [encode(photo) for seed in range(3) for photo in draw_batch(seed)][: 2 * BATCH + 3]
    embedder = PhotoEmbedder(runtime, decode_threads=2)
    sources = [PhotoSource(None, photo) for photo in photos]
    vectors = [photo.vector for photo in embedder.embed(sources)]
    assert len(vectors) == len(photos)
    first = np.stack([prepare_photo(photo, SIZE, PhotoLimits()) for photo in photos[:BATCH]])
    expected = runtime.start(first)().astype(np.float16)
    assert np.array_equal(vectors[:BATCH], expected)
    # The photos of the last batch come out the same in a full one.
    again = [photo.vector for photo in embedder.embed(sources[-BATCH:])]
    assert np.array_equal(vectors[-BATCH:], again)


def encode(photo: Pixels) -> bytes:
    buffer = BytesIO()
    Image.fromarray(photo).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
def test_processes_share_a_device(device: str) -> None:
    expected = compute(device)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as processes:
        for features in processes.map(compute, [device] * 4):
            assert np.array_equal(features, expected)


@on_gpu
def test_a_gpu_replays_what_eager_torch_computes(backbone: Backbone) -> None:
    runtime = TorchRuntime(backbone, batch_size=BATCH, device=GPU)
    pipeline = runtime._pipeline
    assert pipeline is not None
    assert pipeline.replays
    trunk = PixelTrunk(backbone, torch.device(GPU), torch.bfloat16)
    for seed in range(3):
        pixels = draw_batch(seed)
        with torch.inference_mode():
            eager = trunk(torch.from_numpy(pixels).to(GPU)).cpu().numpy()
        assert least_cosine(runtime.start(pixels)(), eager) > 0.9999


@on_gpu
def test_a_gpu_is_near_a_cpu(backbone: Backbone) -> None:
    runtime = TorchRuntime(backbone, batch_size=BATCH, device=GPU)
    assert runtime.name == "torch bf16"
    expected = TorchRuntime(backbone, batch_size=BATCH).start(draw_batch(0))()
    assert least_cosine(runtime.start(draw_batch(0))(), expected) > 0.99


@pytest.mark.parametrize("device", DEVICES)
def test_a_dropped_runtime_frees_its_weights_and_completes_what_was_started(device: str) -> None:
    runtime = open_runtime(device)
    expected = runtime.start(draw_batch(0))()
    trunk = weakref.ref(runtime._trunk)
    waiting = [runtime.start(draw_batch(0)) for _ in range(5)]
    del runtime
    assert trunk() is None
    assert all(np.array_equal(wait(), expected) for wait in waiting)


@on_gpu
def test_what_cannot_be_recorded_is_computed_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """This trunk looks at a value on the host, for which a recording cannot wait.

    Last, as a failed recording is the one thing that might leave torch in another state.
    """

    def trunk(pixels: torch.Tensor) -> torch.Tensor:
        sums = pixels.sum(dim=(1, 2, 3), dtype=torch.float32)[:, None]
        return sums + float(sums.max().item())

    pipeline = CudaPipeline(trunk, (BATCH, SIZE, SIZE, 3), torch.device(GPU))
    assert not pipeline.replays
    assert "no CUDA graph" in caplog.text
    batches = [draw_batch(seed) for seed in range(5)]
    waiting = [pipeline.start(batch) for batch in batches]
    for batch, wait in zip(batches, waiting, strict=True):
        sums = batch.sum(axis=(1, 2, 3), dtype=np.float64)[:, None]
        np.testing.assert_allclose(wait(), sums + sums.max(), rtol=1e-6)
