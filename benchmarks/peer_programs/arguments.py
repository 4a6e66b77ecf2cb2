"""What every program of the comparison takes."""

import argparse
from pathlib import Path

__all__ = ["parse_arguments"]


def parse_arguments() -> argparse.Namespace:
    """Read the command line: `photos`, `backbone`, `output` (paths), `openvino` (a switch)."""
    parser = argparse.ArgumentParser()
    for name in ("photos", "backbone", "output"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--openvino", action="store_true")
    return parser.parse_args()
