"""The interface of all runtimes."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from seer_model.backbones.preprocessing import Preprocessing
from seer_model.photos.pixels import Pixels

__all__ = ["CPU_BATCH", "Features", "Runtime"]

CPU_BATCH = 8
"""Photos a batch on a CPU: the activations of more do not fit into a core's cache."""

Features = npt.NDArray[np.float32]


class Runtime(Protocol):
    """Executes a backbone on batches of one fixed size.

    Attributes:
        name: Library and precision, for reports.
        batch_size: Photos a batch.
        width: Length of a feature vector.
        preprocessing: The backbone's.
    """

    name: str
    batch_size: int
    width: int
    preprocessing: Preprocessing

    def start(self, pixels: Pixels) -> Callable[[], Features]:
        """Start computing a batch's features, asynchronously if the runtime can.

        Args:
            pixels: uint8, (batch_size, image_size, image_size, 3), from `prepare_photo`; must not
                change before the result is taken.

        Returns:
            A function that waits for the features and returns them, (batch_size, width).
        """
        ...
