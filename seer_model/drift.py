"""How far one day's counts are from another's, beyond what chance explains.

Where nothing changes two days differ all the same, by chance, and the more so the fewer listings
and the more categories there are. What chance explains on 99 days of 100 is therefore taken off
every measure here, so that a small day is not mistaken for a change: what is left is 0 unless the
days differ, and tends to the measure itself as counts grow.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import jensenshannon
from scipy.special import rel_entr
from scipy.stats import chi2, kstwobign

__all__ = ["Drift", "measure_drift", "psi_terms"]

Counts = npt.NDArray[np.int64]
Shares = npt.NDArray[np.float64]

_LEAST_EXPECTED = 5
_SMOOTHING = 0.5
_CONFIDENCE = 0.99


@dataclass(frozen=True)
class Drift:
    """How far two distributions are apart; 0 is not at all, or no further than by chance.

    Attributes:
        psi: Population stability index; by custom a change to look into from 0.2 on.
        js_distance: Jensen-Shannon distance, base 2, from 0 to 1.
        ks: Largest difference of the cumulative shares, from 0 to 1; None without an order.
        psi_with_chance: The index before chance was taken off, to compare with other tools.
    """

    psi: float
    js_distance: float
    ks: float | None
    psi_with_chance: float


def measure_drift(before: Counts, after: Counts, *, ordered: bool = False) -> Drift | None:
    """Compare how often each of the same classes occurred on two days.

    The population stability index is the symmetric Kullback-Leibler divergence, the sum of
    `(p - q) ln(p / q)` (J in Kullback & Leibler 1951). Half a listing is added to every class
    (Jeffreys' prior), so that one seen on one day only counts, but is not infinite. Classes of
    which less than five listings are to be expected on either day (Cochran 1954) are taken together
    first. While nothing changes, the index is about (1/n + 1/m) times chi-squared with one degree
    of freedom less than there are classes (Yurdakul & Naranjo 2020), n and m being the days'
    listings; the 99 % quantile of that is taken off.

    The distance is the root of the Jensen-Shannon divergence (Endres & Schindelin 2003), which for
    small differences is an eighth of the index, as is the chance in it. The third measure is the
    statistic of Kolmogorov and Smirnov, over classes a lower bound of that over values; its
    asymptotic 99 % quantile, 1.63 times the root of (1/n + 1/m), is taken off.

    Args:
        before: int64, (classes,), not negative.
        after: The same classes on the other day.
        ordered: Whether the classes have an order, and so cumulative shares.

    Returns:
        None where one of the days has no listing.
    """
    if not before.sum() or not after.sum():
        return None
    spread = 1 / before.sum() + 1 / after.sum()
    pooled_before, pooled_after = _pool(before, after)
    degrees = len(pooled_before) - 1
    chance = float(chi2.ppf(_CONFIDENCE, degrees) * spread) if degrees else 0.0
    psi = float(psi_terms(pooled_before, pooled_after).sum())
    divergence = float(jensenshannon(pooled_before, pooled_after)) ** 2
    ks = None
    if ordered:
        gap = np.abs(np.cumsum(before) / before.sum() - np.cumsum(after) / after.sum()).max()
        ks = max(0.0, float(gap - kstwobign.ppf(_CONFIDENCE) * np.sqrt(spread)))
    return Drift(
        psi=max(0.0, psi - chance),
        js_distance=float(np.sqrt(max(0.0, divergence - chance / 8) / np.log(2))),
        ks=ks,
        psi_with_chance=psi,
    )


def psi_terms(before: Counts, after: Counts) -> Shares:
    """What each class adds to the population stability index, smoothed but with chance in it.

    Returns:
        float64, (classes,), not negative.
    """
    p, q = _smoothed(before), _smoothed(after)
    terms: Shares = rel_entr(p, q) + rel_entr(q, p)
    return terms


def _smoothed(counts: Counts) -> Shares:
    smoothed: Shares = (counts + _SMOOTHING) / (counts + _SMOOTHING).sum()
    return smoothed


def _pool(before: Counts, after: Counts) -> tuple[Counts, Counts]:
    """Take classes together that are too rare to compare, and leave out those never seen."""
    both = before + after
    smaller = min(before.sum(), after.sum()) / both.sum()
    rare = both * smaller < _LEAST_EXPECTED
    pooled: list[Any] = [np.append(c[~rare], c[rare].sum()) for c in (before, after)]
    if not both[rare].any():
        pooled = [counts[:-1] for counts in pooled]
    return pooled[0], pooled[1]
