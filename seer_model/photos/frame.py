"""Cut the frame off a photo: a border of one colour, such as sellers put around a photo."""

import numpy as np
import numpy.typing as npt

__all__ = ["without_frame"]

Pixels = npt.NDArray[np.uint8]

# A frame's colour varies by so many levels, by compression above all.
_TOLERANCE = 24
# A row or column belongs to the photo if more than this share of it is of other colours.
_LEAST_BUSY = 0.02
# A white wall is no frame: this share of the length, at least, is the photo.
_LEAST_KEPT = 0.4


def without_frame(pixels: Pixels) -> Pixels:
    """What is inside a photo's frame; the very same array if there is none.

    Goods on a white background are cut to the goods; they are, wherever the photo comes back.

    Args:
        pixels: uint8, (rows, columns, 3).
    """
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    colour = np.median(edge, axis=0).astype(np.int16)
    is_photo = (np.abs(pixels - colour) > _TOLERANCE).any(axis=2)
    rows = np.flatnonzero(is_photo.mean(axis=1) > _LEAST_BUSY)
    columns = np.flatnonzero(is_photo.mean(axis=0) > _LEAST_BUSY)
    if not len(rows) or not len(columns):
        return pixels
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    kept = min((bottom - top) / pixels.shape[0], (right - left) / pixels.shape[1])
    if kept < _LEAST_KEPT or (bottom - top, right - left) == pixels.shape[:2]:
        return pixels
    return pixels[top:bottom, left:right]
