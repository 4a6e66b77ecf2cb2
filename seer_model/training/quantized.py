"""Does a quantized backbone serve as well as the one that it was made from?"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import binom

from seer_model.training.ridge import ridge_heads

__all__ = ["QuantizedQuality", "compare_features"]

Features = npt.NDArray[np.float16]
Labels = npt.NDArray[np.int64]

_STRENGTH = 0.3
_DOUBT = 0.1


class QuantizedQuality(NamedTuple):
    """What a head learns from features before and after, on photos that it did not learn from.

    Attributes:
        checked: Number of those photos.
        top1_before: Share of them that a head on the features before puts into their class.
        top1: The same of a head on the quantized features.
        loss_at_least: What is lost of `top1` at the least, with a confidence of 90 %.
        same_answer: Share of photos that both heads put into the same class.
    """

    checked: int
    top1_before: float
    top1: float
    loss_at_least: float
    same_answer: float


def compare_features(
    before: tuple[Features, Features],
    after: tuple[Features, Features],
    labels: Labels,
    truth: Labels,
) -> QuantizedQuality:
    """Fit a head on both kinds of features, and ask both of other photos.

    Args:
        before: Features of the photos to learn from, and of those to ask of, (photos, width).
        after: The same photos' quantized features.
        labels: Classes of the photos to learn from, from 0 on, each at least once.
        truth: Classes of the photos to ask of.
    """
    classes = int(labels.max()) + 1
    answers = []
    for learned, asked in (before, after):
        (head,) = ridge_heads(learned, labels, classes=classes, strengths=[_STRENGTH])
        answers.append(head.logits(asked.astype(np.float32)).argmax(axis=1))
    right_before, right = (found == truth for found in answers)
    lost, won = int((right_before & ~right).sum()), int((right & ~right_before).sum())
    return QuantizedQuality(
        len(truth),
        float(right_before.mean()),
        float(right.mean()),
        _least_loss(lost, won, len(truth)),
        float((answers[0] == answers[1]).mean()),
    )


def _least_loss(lost: int, won: int, photos: int) -> float:
    """Lower bound of the loss in a paired comparison, exact given how many answers changed."""
    changed = lost + won
    if not changed:
        return 0.0
    # The least share of losses among the changes that makes so many not improbable.
    shares = np.linspace(0, 1, 1001)
    possible = binom.sf(lost - 1, changed, shares) >= _DOUBT
    return float((2 * shares[possible][0] - 1) * changed / photos)
