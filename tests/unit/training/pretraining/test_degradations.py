"""Degradations of crops, against their definitions."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from seer_model.training.pretraining import degradations
from seer_model.training.pretraining.degradations import degrade
from seer_model.training.pretraining.draws import BatchDraws

STEPS = ("_TURNED", "_UNFOCUSED", "_DARK", "_COMPRESSED")


def draws(photos: int, *, batch: int | None = None, first: int = 0) -> BatchDraws:
    return BatchDraws(torch.Generator().manual_seed(0), batch or photos, first, photos)


def smooth(photos: int, size: int = 40) -> torch.Tensor:
    """Photos of soft shapes, float32 from 0 to 255, (photos, 3, size, size)."""
    small = torch.rand(photos, 3, 5, 5, generator=torch.Generator().manual_seed(1)) * 255
    return torch.nn.functional.interpolate(small, size=(size, size), mode="bicubic").clamp(0, 255)


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """One step, on every crop."""
    for step in STEPS:
        monkeypatch.setattr(degradations, step, float(step == request.param))
    return str(request.param)


@pytest.mark.parametrize("only", ["_TURNED"], indirect=True)
def test_turned_crops_are_turned_by_quarters(only: str) -> None:
    crops = smooth(30)
    turned = degrade(crops.clone(), draws(30), 1.0)
    quarters = []
    for before, after in zip(crops, turned, strict=True):
        matches = [torch.equal(after, torch.rot90(before, k, (1, 2))) for k in range(4)]
        assert sum(matches) == 1
        quarters.append(matches.index(True))
    assert set(quarters) == {1, 2, 3}


@pytest.mark.parametrize("only", ["_COMPRESSED"], indirect=True)
def test_compression_is_that_of_jpeg(only: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow's at the same quality, but for the rounding between its steps."""
    monkeypatch.setattr(degradations, "_QUALITY", (20.0, 20.0))
    crops = smooth(4, 44).round()  # No whole number of blocks.
    ours = degrade(crops.clone(), draws(4), 1.0)
    for before, after in zip(crops, ours, strict=True):
        pixels = before.permute(1, 2, 0).to(torch.uint8).numpy()
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=20, subsampling=0)
        expected = np.asarray(Image.open(file), np.float32)
        inner = (slice(0, 40), slice(0, 40))  # Pillow pads an edge in its own way.
        # A coefficient halfway between two steps may be rounded to the other.
        difference = np.median(np.abs(after.permute(1, 2, 0).numpy() - expected)[inner])
        assert difference < 0.6 < np.median(np.abs(pixels - expected)[inner])


@pytest.mark.parametrize("only", ["_DARK"], indirect=True)
def test_dark_crops_have_less_light_and_noise_of_their_own(only: str) -> None:
    grey = torch.full((40, 3, 32, 32), 200.0)
    dark = degrade(grey, draws(40), 1.0)
    light = dark.mean(dim=(1, 2, 3)) / 200
    assert light.min() < 0.2
    assert 0.6 < light.max() < 0.82
    deviations = dark.std(dim=(1, 2, 3))
    assert deviations.min() < 2 < 6 < deviations.max() < 11
    assert len({tuple(one.flatten()[:8].tolist()) for one in dark}) == 40


@pytest.mark.parametrize("only", ["_UNFOCUSED"], indirect=True)
def test_blurred_crops_keep_their_mean_and_lose_detail(only: str) -> None:
    noise = torch.rand(20, 3, 64, 64, generator=torch.Generator().manual_seed(2)) * 255
    blurred = degrade(noise.clone(), draws(20), 1.0)
    assert torch.allclose(blurred.mean(dim=(1, 2, 3)), noise.mean(dim=(1, 2, 3)), atol=2)
    left = blurred.std(dim=(1, 2, 3)) / noise.std(dim=(1, 2, 3))
    assert left.min() < 0.3 < left.max() < 1


def test_a_share_of_the_crops_is_degraded() -> None:
    crops = smooth(200, 16)
    for share in (0.0, 0.5, 1.0):
        changed = (degrade(crops.clone(), draws(200), share) != crops).any(dim=(1, 2, 3))
        # No step is drawn for 0.6 * 0.6 * 0.6 * 0.7 = 15 % of the degraded ones.
        assert float(changed.float().mean()) == pytest.approx(0.85 * share, abs=0.08)


def test_two_processes_degrade_what_one_does() -> None:
    crops = smooth(16)
    whole = degrade(crops.clone(), draws(16), 0.8)
    halves = [
        degrade(crops[first : first + 8].clone(), draws(8, batch=16, first=first), 0.8)
        for first in (0, 8)
    ]
    assert torch.allclose(torch.cat(halves), whole, atol=1e-3)
