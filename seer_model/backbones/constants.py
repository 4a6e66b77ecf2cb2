"""Constants that settings need, in a module that imports no torch."""

import platform
from importlib.util import find_spec

from seer_model.gpu_driver import has_gpu_driver

__all__ = ["DEFAULT_BACKBONE", "FLOAT_BACKBONE", "MOST_LOSS", "PHOTOS_SHOWN", "STAGES", "X86"]

X86 = ("x86_64", "AMD64")
"""`platform.machine()` of the processors on which eight bits were measured to be faster."""

FLOAT_BACKBONE = "zoo:retail-400mf-distilled"
"""The shipped backbone in floating point, which runs anywhere."""

DEFAULT_BACKBONE = (
    "zoo:retail-400mf-distilled-int8"
    if platform.machine() in X86 and find_spec("openvino") and not has_gpu_driver()
    else FLOAT_BACKBONE
)
"""The jobs' default backbone: in eight bits where OpenVINO computes it, on a CPU."""

STAGES = 4
"""Stages of every RegNetY (Radosavovic et al. 2020, https://arxiv.org/abs/2003.13678)."""

PHOTOS_SHOWN = 300
"""Photos that show a network which is quantized the range of its values."""

MOST_LOSS = 0.003
"""Share of right answers that quantizing may lose."""
