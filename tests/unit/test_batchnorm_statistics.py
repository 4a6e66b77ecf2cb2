"""Batch normalisation's statistics after a training."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from seer_model.backbone import Backbone, random_backbone
from seer_model.batchnorm_statistics import settle_statistics
from seer_model.preprocessing import normalise

STEM = "stem.bn"


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return random_backbone("regnety_002", image_size=32)


@pytest.fixture(scope="module")
def photos() -> torch.Tensor:
    # Dark and flat, so unlike the statistics that a fresh trunk starts with.
    return torch.from_numpy(np.random.default_rng(0).integers(0, 40, (12, 32, 32, 3), np.uint8))


def activations(backbone: Backbone, photos: torch.Tensor) -> torch.Tensor:
    kernel = backbone.weights["stem.conv.weight"]
    return functional.conv2d(normalise(photos, backbone.preprocessing), kernel, stride=2, padding=1)


def test_statistics_are_those_of_the_photos(backbone: Backbone, photos: torch.Tensor) -> None:
    parts = photos.split(4)
    settled = settle_statistics(backbone, iter(parts)).weights
    reached = [activations(backbone, part) for part in parts]
    mean = torch.stack([x.mean((0, 2, 3)) for x in reached]).mean(0)
    variance = torch.stack([x.var((0, 2, 3)) for x in reached]).mean(0)
    torch.testing.assert_close(settled[f"{STEM}.running_mean"], mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(settled[f"{STEM}.running_var"], variance, rtol=1e-4, atol=1e-5)


def test_nothing_but_the_statistics_changes(backbone: Backbone, photos: torch.Tensor) -> None:
    before = {name: tensor.clone() for name, tensor in backbone.weights.items()}
    settled = settle_statistics(backbone, [photos])
    for name, tensor in settled.weights.items():
        statistic = name.rpartition(".")[2] in ("running_mean", "running_var")
        tracked = name.endswith("num_batches_tracked")
        assert torch.equal(tensor, before[name]) != (statistic or tracked), name
        assert torch.equal(backbone.weights[name], before[name])
    assert settled.digest != backbone.digest
    assert (settled.licence, settled.origin) == (backbone.licence, backbone.origin)


def test_earlier_statistics_do_not_matter(backbone: Backbone, photos: torch.Tensor) -> None:
    once = settle_statistics(backbone, [photos])
    assert settle_statistics(once, [photos]).digest == once.digest


def test_no_photos(backbone: Backbone) -> None:
    with pytest.raises(ValueError, match="no photos"):
        settle_statistics(backbone, [])
