"""The groups that `train_head --balance` trains for to fare alike: those that a slice makes."""

import logging
from collections import Counter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import DataContractError
from seer_model.evaluation.groups import SMALL_SLICE
from seer_model.training.labelled import slice_names

__all__ = ["Groups", "group_photos"]

log = logging.getLogger(__name__)


class Groups(NamedTuple):
    """The group of each photo, int64, (photos,), from 0; and the number of photos of each group."""

    numbers: npt.NDArray[np.int64]
    photos: dict[str, int]


def group_photos(slices: pa.Array | None, name: str) -> Groups:
    """Group photos by the value of a slice.

    Groups of fewer than `SMALL_SLICE` photos are one, and photos without the slice another.

    Args:
        slices: The slices of each photo, maps of strings or null; None if no photo has any.
        name: Of the slice.

    Raises:
        DataContractError: It makes no two groups.
    """
    values = [] if slices is None else pc.map_lookup(slices, pa.scalar(name), "first").to_pylist()
    counts = Counter(values)
    small, without = f"(fewer than {SMALL_SLICE})", "(without)"
    group_of = {v: v if n >= SMALL_SLICE else small for v, n in counts.items()} | {None: without}
    photos = Counter(group_of[value] for value in values)
    if len(photos) < 2:
        raise DataContractError(
            f"--balance {name}: the labelled photos of train make no two groups by this slice; "
            f"they have {slice_names(slices)}"
        )
    log.info(
        "balancing %d photos by %s: %d are in groups of fewer than %d, which are one group, and %d "
        "without %s are another",
        *(len(values), name, photos[small], SMALL_SLICE, photos[without], name),
    )
    number = {group: i for i, group in enumerate(sorted(photos))}
    numbers = np.array([number[group_of[value]] for value in values], np.int64)
    return Groups(numbers, {group: photos[group] for group in number})
