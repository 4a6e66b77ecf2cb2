"""How logits become a decision: by a temperature, and a threshold for every level.

Apart from `calibration`, which fits them: scoring needs neither an optimiser nor distributions, and
they take longer to import than all else that a worker needs.
"""

from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, FailFast, Field
from pydantic.dataclasses import dataclass
from scipy.special import softmax

from seer_model.files import STRICT

__all__ = ["Calibration", "class_probabilities"]

Floats = npt.NDArray[np.float32]
Probabilities = npt.NDArray[np.float64]


@dataclass(frozen=True, config=STRICT | ConfigDict(extra="ignore"))
class Calibration:
    """How logits become a decision.

    Attributes:
        temperature: Divisor of the logits before the softmax.
        thresholds: One a level, from the top down: the lowest score at which a category of that
            level is assigned, or None if no score was safe enough.
        target_precision: Share of assigned listings that should be right.

    Raises:
        pydantic.ValidationError: A value is of the wrong type, not finite or out of range.
    """

    temperature: Annotated[float, Field(gt=0)]
    thresholds: Annotated[tuple[float | None, ...], FailFast()]
    target_precision: float

    @property
    def assigns_nothing(self) -> bool:
        """Whether no level has a threshold."""
        return all(threshold is None for threshold in self.thresholds)


def class_probabilities(logits: Floats, temperature: float) -> Probabilities:
    """softmax(logits / temperature) of each row, float64, of shape (rows, classes)."""
    scaled = logits.astype(np.float64) / temperature
    probabilities: Probabilities = softmax(scaled, axis=1)
    return probabilities
