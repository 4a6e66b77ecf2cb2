"""A decoder with a fault, in every Python process that has this folder on its path.

A photo of 61 by 67 pixels ends the process that decodes it, one of 67 by 61 has it killed.
"""

import os
import signal
from typing import Any

from PIL import ImageFile

_load = ImageFile.ImageFile.load


def _load_or_end(image: ImageFile.ImageFile) -> Any:
    if image.size == (61, 67):
        os.abort()
    if image.size == (67, 61):
        os.kill(os.getpid(), signal.SIGKILL)
    return _load(image)


ImageFile.ImageFile.load = _load_or_end  # type: ignore[method-assign]
