"""The lowest score from which on a promise of precision holds, with a guarantee.

Learn-then-test (Angelopoulos et al. 2021, https://arxiv.org/abs/2110.01052): every threshold is a
null hypothesis, "the precision of what scores at least this is below the target", and a threshold
is used only if its hypothesis is rejected. Hypotheses are tested in an order that does not look at
what is right (fixed-sequence testing), so that the error is spent once, however many are tested.

1. *Where to start*: the scores, taken as probabilities, say how likely each rejection is, if
   besides a fifth of the mistakes that the target allows come as surprises, such as wrong labels.
   The walk starts at the highest threshold whose chance is nearly the best. Without surprises that
   would be among the few surest listings, where a single wrong label ends the walk.
2. *Where to go*: down, to each threshold at which one more mistake is allowed.
3. *Where to stop*: before the first hypothesis that is not rejected.

Scores that are no probabilities, such as overconfident ones, cost coverage and not the guarantee:
it needs only that the listings are drawn independently from those that are promised for.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import rel_entr
from scipy.stats import binom

__all__ = ["Cut", "chance", "safe_threshold", "surest_cut"]

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

_NEARLY_THE_BEST = 0.99
# Of the mistakes that the target allows.
_SURPRISES = 0.2
# Closer than 1 % to each other where there are many listings.
_MOST_THRESHOLDS = 2_000


def safe_threshold(
    scores: Floats,
    right: npt.NDArray[np.bool_],
    weights: Floats | None,
    target: float,
    error: float,
) -> float | None:
    """Choose the lowest threshold that is shown to be safe.

    With probability 1 - `error` over the draw of the listings, the precision of all that scores at
    least the threshold meets the target, or there is no threshold. Without weights the test is
    exact (binomial). With weights it is a weaker bound, so rows of equal weight show more.

    Args:
        scores: float64, (rows,), between 0 and 1.
        right: bool, (rows,), whether the row would be right if it were assigned.
        weights: float64, (rows,), above 0: how many listings the row stands for, up to a common
            factor, so that the rows are a mixture with the declared shares. None if all are equal.
        target: The precision, between 0 and 1.
        error: Probability that the precision is below the target, between 0 and 1.

    Returns:
        One of the scores, or None if no threshold is shown to be safe.
    """
    if not len(scores):
        return None
    walk = _plan(scores, weights, target, error)
    masses = np.ones(len(scores)) if weights is None else weights / weights.max()
    hits = np.cumsum((masses * right)[walk.order])[walk.sizes - 1]
    rejected = hits >= walk.least - 1e-9
    count = len(rejected) if rejected.all() else int(np.argmin(rejected))
    return float(scores[walk.order[walk.sizes[count - 1] - 1]]) if count else None


def chance(scores: Floats, weights: Floats | None, target: float, error: float) -> float:
    """Return the probability of finding a threshold, if the scores are probabilities.

    It does not look at what is right, so it may decide whether to test at all.
    """
    return _plan(scores, weights, target, error).chance if len(scores) else 0.0


class Cut(NamedTuple):
    """A threshold's listings.

    Attributes:
        times: How many times as many rows are about enough to show that it is safe, if further ones
            are like them; infinite if no number would do.
        wrong_share: Share of the admitted rows that are wrong.
        taken: Rows admitted.
        right: Those of them that are right.
    """

    times: float
    wrong_share: float
    taken: int
    right: int


def surest_cut(scores: Floats, right: npt.NDArray[np.bool_], target: float, error: float) -> Cut:
    """Find the threshold that is nearest to being shown to be safe; arguments as `safe_threshold`.

    Of n rows, a share p of which is right, the p-value is at most exp(-n KL(p, target)) (Chernoff),
    and exactly that if all are right.
    """
    order = np.argsort(-scores, kind="stable")
    ends = _ends(scores[order])
    taken, hits = ends, np.cumsum(right[order])[ends - 1]
    if not len(ends):
        return Cut(math.inf, 1.0, 0, 0)
    divergence = _divergence(hits / taken, target)
    with np.errstate(divide="ignore"):
        times = np.where(hits / taken > target, -math.log(error) / (divergence * taken), math.inf)
    return min(
        Cut(float(t), 1 - float(r / n), int(n), int(r))
        for t, n, r in zip(times, taken, hits, strict=True)
    )


class _Walk(NamedTuple):
    """Thresholds in the order to test them.

    Attributes:
        order: int64, (rows,), the highest score first.
        sizes: int64, how many of the highest scores each threshold admits.
        least: float64, how many of those must be right, by weight, to reject its hypothesis.
        chance: That the first is rejected, if the scores are probabilities.
    """

    order: Counts
    sizes: Counts
    least: Floats
    chance: float


def _plan(scores: Floats, weights: Floats | None, target: float, error: float) -> _Walk:
    """Plan the walk by scores and weights alone; arguments as `safe_threshold`."""
    order = np.argsort(-scores, kind="stable")
    ends = _ends(scores[order])
    wanted = np.minimum(np.geomspace(1, len(order), _MOST_THRESHOLDS).round(), len(order))
    sizes = np.unique(ends[np.searchsorted(ends, wanted)])
    if weights is None:
        mass = sizes.astype(np.float64)
        expected = np.cumsum(scores[order])[sizes - 1] / mass
        least = binom.isf(error, mass, target) + 1
    else:
        masses = weights[order] / weights.max()
        mass = np.cumsum(masses)[sizes - 1]
        expected = np.cumsum(masses * scores[order])[sizes - 1] / mass
        least = _least_by_weight(mass, target, error)
    expected = np.minimum(expected, 1)
    with_surprises = expected * (1 - _SURPRISES * (1 - target))
    chances, safer = (
        binom.sf(np.ceil(least) - 1, np.floor(mass + 1e-9), p) for p in (expected, with_surprises)
    )
    if chances.max() == 0:
        return _Walk(order, sizes[:0], least[:0], 0.0)
    start = int(np.argmax(safer >= _NEARLY_THE_BEST * safer.max()))
    one_more = np.diff(np.floor(mass - least), prepend=-1) > 0
    one_more[[start, -1]] = True
    chosen = np.flatnonzero(one_more)
    chosen = chosen[chosen >= start]
    return _Walk(order, sizes[chosen], least[chosen], float(chances[start]))


def _least_by_weight(mass: Floats, target: float, error: float) -> Floats:
    """How much of a mass of rows must be right, where rows have weights w of at most 1.

    If the weighted precision is at most t, then E exp(l w (right - t)) is at most
    1 + w (E exp(l (right - t)) - 1) for l > 0, as exp is convex. So, by Chernoff's bound, the sum
    of w (right - t) is at least x with probability at most exp(mass m(l) - l x), where
    m(l) = t exp(l (1 - t)) + (1 - t) exp(-l t) - 1. The least x at which that is `error`, for the
    best l:
    """
    rate = np.geomspace(0.01, 30, 200)[:, None]
    moment = target * np.exp(rate * (1 - target)) + (1 - target) * np.exp(-rate * target) - 1
    least: Floats = ((mass * moment - math.log(error)) / rate).min(axis=0) + mass * target
    return least


def _ends(ranked: Floats) -> Counts:
    """How many rows each threshold admits: a tie as a whole, so it stands at the last of a tie."""
    if not len(ranked):
        return np.empty(0, np.int64)
    return np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True)) + 1


def _divergence(shares: Floats, target: float) -> Floats:
    """Kullback-Leibler divergence of one share of rights from another."""
    divergence: Floats = rel_entr(shares, target) + rel_entr(1 - shares, 1 - target)
    return divergence
