"""Train a linear head on embeddings: seconds for new labels or a new taxonomy."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from seer_model.linear_head import LinearHead
from seer_model.training.watch import Watch, unwatched

__all__ = ["HeadTraining", "train_head"]

Labels = npt.NDArray[np.int64]

_TEMPERATURES = torch.logspace(-0.7, 1.0, 18)
# How fast the shares of groups change; the paper's.
_GROUP_STEP = 0.01
# Only so many rows are ever held in more than the two bytes a value that they come in.
_ROWS_AT_ONCE = 16_384


@dataclass(frozen=True)
class HeadTraining:
    """A trained head, its losses by epoch, and the epoch that it is from."""

    head: LinearHead
    train_loss: Sequence[float]
    val_loss: Sequence[float]
    best_epoch: int


def train_head(
    features: npt.NDArray[np.float16],
    labels: Labels,
    val_features: npt.NDArray[np.float16],
    val_labels: Labels,
    *,
    classes: int,
    groups: Labels | None = None,
    seed: int = 0,
    max_epochs: int = 500,
    patience: int = 20,
    watch: Watch = unwatched,
) -> HeadTraining:
    """Multinomial logistic regression with class-balanced weights and early stopping on `val`.

    Features are standardised with the training photos' mean and standard deviation, which are
    folded into the head afterwards. Every class has the same weight: a photo weighs
    photos / (classes * photos of its class), as with scikit-learn's `class_weight="balanced"`.

    With `groups`, the loss is group DRO's (Sagawa et al. 2020, https://arxiv.org/abs/1911.08731,
    algorithm 1): the groups' losses are averaged with shares that grow for the groups whose loss is
    large.

    Early stopping uses the loss on `val` at the best temperature. The logits are calibrated later
    anyway, and a head becomes overconfident long before it stops improving.

    Photos are converted and standardised batch by batch, so there may be as many as fit into memory
    as float16.

    Args:
        features: float16, (photos, width).
        labels: int64, (photos,), from 0 to `classes` - 1, every class at least once.
        val_features: float16, (val photos, width), at least one photo.
        val_labels: int64, (val photos,).
        classes: Number of classes.
        groups: int64, (photos,), from 0, every group at least once: groups that should fare alike.
        seed: Seed of the order of photos.
        max_epochs: Upper bound on passes over the photos.
        patience: Passes without a better loss on `val` after which training stops.
        watch: Shows the passes.
    """
    mean, deviation = _moments(features)

    def standardise(raw: npt.NDArray[np.float16]) -> torch.Tensor:
        return torch.from_numpy(((raw - mean) / deviation).astype(np.float32))

    y, val_y = torch.from_numpy(labels), torch.from_numpy(val_labels)
    counts = np.bincount(labels, minlength=classes)
    weights = torch.from_numpy((len(labels) / (classes * counts)).astype(np.float32))
    group = torch.from_numpy(np.zeros_like(labels) if groups is None else groups)
    group_count = int(group.max()) + 1
    shares = torch.full((group_count,), 1 / group_count)
    linear = torch.nn.Linear(features.shape[1], classes)
    torch.nn.init.zeros_(linear.weight)
    torch.nn.init.zeros_(linear.bias)
    optimiser = torch.optim.AdamW(linear.parameters(), lr=1e-3, weight_decay=0.1)
    generator = torch.Generator().manual_seed(seed)
    train_losses: list[float] = []
    val_losses: list[float] = []
    best = (linear.weight.detach().clone(), linear.bias.detach().clone())
    best_epoch = 0
    label = f"training the head on {len(features)} photos of {classes} classes"
    for epoch in watch(range(max_epochs), label, "epochs at most", max_epochs):
        order = torch.randperm(len(features), generator=generator)
        total = 0.0
        for batch in torch.split(order, 256):
            logits = linear(standardise(features[batch.numpy()]))
            losses = functional.cross_entropy(logits, y[batch], reduction="none")
            by_group = _group_losses(losses, weights[y[batch]], group[batch], group_count)
            shares = shares * torch.exp(_GROUP_STEP * by_group.detach())
            shares /= shares.sum()
            loss = (shares * by_group).sum()
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            total += loss.item() * len(batch)
        train_losses.append(total / len(features))
        with torch.inference_mode():
            parts = (linear(standardise(part)) for part in _parts(val_features))
            val_losses.append(_calibrated_loss(parts, val_y))
        if val_losses[-1] <= min(val_losses):
            best = (linear.weight.detach().clone(), linear.bias.detach().clone())
            best_epoch = epoch
        elif epoch - best_epoch >= patience:
            break
    weight = best[0].numpy() / deviation
    bias = best[1].numpy() - weight @ mean
    head = LinearHead(weight.astype(np.float32), bias.astype(np.float32))
    return HeadTraining(head, train_losses, val_losses, best_epoch)


def _group_losses(
    losses: torch.Tensor, weights: torch.Tensor, groups: torch.Tensor, count: int
) -> torch.Tensor:
    """Weighted mean of the photos' losses by group; 0 of a group without a photo."""
    zeros = torch.zeros(count)
    totals = zeros.index_add(0, groups, weights)
    return zeros.index_add(0, groups, losses * weights) / totals.clamp(min=1e-12)


def _parts(features: npt.NDArray[np.float16]) -> Iterator[npt.NDArray[np.float16]]:
    for first in range(0, len(features), _ROWS_AT_ONCE):
        yield features[first : first + _ROWS_AT_ONCE]


def _moments(
    features: npt.NDArray[np.float16],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean and standard deviation of each feature; 1 instead of the deviation of a constant one."""
    mean = features.mean(axis=0, dtype=np.float64)
    squares = np.zeros_like(mean)
    for part in _parts(features):
        squares += ((part - mean) ** 2).sum(axis=0)
    deviation = np.sqrt(squares / len(features))
    deviation[deviation < 1e-6] = 1.0
    return mean, deviation


def _calibrated_loss(parts: Iterable[torch.Tensor], labels: torch.Tensor) -> float:
    """The loss at the best temperature, of logits that come in parts."""
    losses = torch.zeros(len(_TEMPERATURES), dtype=torch.float64)
    first = 0
    for logits in parts:
        targets = labels[first : first + len(logits)]
        first += len(logits)
        for i, t in enumerate(_TEMPERATURES):
            losses[i] += functional.cross_entropy(logits / t, targets, reduction="sum")
    return float(losses.min()) / len(labels)
