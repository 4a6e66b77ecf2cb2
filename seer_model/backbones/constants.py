"""Constants that settings need, in a module that imports no torch."""

__all__ = ["DEFAULT_BACKBONE", "STAGES"]

DEFAULT_BACKBONE = "zoo:retail-400mf-distilled"
"""The jobs' default backbone."""

STAGES = 4
"""Stages of every RegNetY (Radosavovic et al. 2020, https://arxiv.org/abs/2003.13678)."""
