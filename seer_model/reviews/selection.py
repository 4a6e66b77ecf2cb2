"""Choose the listings whose labels teach a model most."""

import numpy as np
import numpy.typing as npt
from sklearn.preprocessing import StandardScaler, normalize

__all__ = ["margins", "most_instructive"]

Floats = npt.NDArray[np.float32]
_Margins = npt.NDArray[np.float64]


def margins(probabilities: npt.NDArray[np.float64]) -> _Margins:
    """How much likelier the best class is than the next: 0 is a draw, 1 is certainty.

    Args:
        probabilities: float64, (listings, classes), at least two classes.

    Returns:
        float64, (listings,).
    """
    best_two = np.partition(probabilities, -2, axis=1)[:, -2:]
    return np.asarray(best_two[:, 1] - best_two[:, 0], np.float64)


def most_instructive(features: Floats, margin: _Margins, budget: int) -> npt.NDArray[np.int64]:
    """Choose listings that the model is unsure of and that differ from each other.

    The first is the listing with the smallest margin; every next one has the largest product of
    1 - margin and the squared distance to the nearest listing chosen so far: a core set by
    farthest-first traversal (Sener and Savarese 2018), weighted by uncertainty (Scheffer et al.
    2001). Distances are those of directions from the listings' mean, in standardised coordinates.
    Ties go to the earlier listing, so the choice depends on its arguments alone. Time is that of
    `budget` products of a vector with the features.

    Args:
        features: float32, (listings, width).
        margin: float64, (listings,), from `margins`.
        budget: How many to choose; all listings if there are fewer.

    Returns:
        int64, (chosen,), their positions, the first choice first.
    """
    count = min(budget, len(features))
    if not count:
        return np.empty(0, np.int64)
    directions = normalize(StandardScaler().fit_transform(features.astype(np.float64)))
    uncertainty = 1 - margin
    chosen = np.empty(count, np.int64)
    distance = np.ones(len(features))
    for i in range(count):
        worth = uncertainty * distance
        worth[chosen[:i]] = -1
        chosen[i] = worth.argmax()
        to_it = 2 - 2 * (directions @ directions[chosen[i]])
        # Among equal listings rounding may go below 0.
        distance = np.minimum(distance if i else np.inf, to_it.clip(min=0))
    return chosen
