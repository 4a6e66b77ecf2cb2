"""Seeded random mutations of valid files."""

import os
import random
import struct
import zlib
from collections.abc import Sequence

from tests.support.photo_parts import PNG_SIGNATURE

SOAKING = bool(os.environ.get("SEER_SOAK"))
"""Whether this is a soak run (`make soak`): minutes instead of seconds a test."""

_EXTREMES = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]


def examples(quick: int, soak: int) -> int:
    """The number of examples a fuzz test tries."""
    return soak if SOAKING else quick


def mutate(data: bytes, others: Sequence[bytes], seed: int) -> bytes:
    """Flip bits, overwrite bytes and numbers, delete, repeat or splice in parts of other files."""
    rng = random.Random(seed)
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        at, length = rng.randrange(len(changed) + 1), rng.choice((1, 2, 4, 16, 100, 1000))
        match rng.randrange(7):
            case 0 if changed:
                changed[at % len(changed)] ^= 1 << rng.randrange(8)
            case 1:
                changed[at : at + length] = rng.randbytes(min(length, 16))
            case 2:
                kind = rng.choice((">H", "<H", ">I", "<I"))
                number = rng.choice(_EXTREMES) & (0xFFFF if kind[1] == "H" else 0xFFFFFFFF)
                changed[at : at + struct.calcsize(kind)] = struct.pack(kind, number)
            case 3:
                del changed[at : at + length]
            case 4:
                changed[at:at] = changed[at : at + length] * rng.choice((1, 1, 50))
            case 5:
                other = rng.choice(others)
                start = rng.randrange(len(other))
                changed[at : at + length * rng.randrange(2)] = other[start : start + length]
            case _:
                del changed[at:]
    if rng.random() < 0.7:
        return _with_valid_checksums(bytes(changed))
    return bytes(changed)


def _with_valid_checksums(data: bytes) -> bytes:
    """Fix the checksums of a PNG, so that a mutated chunk is parsed instead of refused."""
    if not data.startswith(PNG_SIGNATURE):
        return data
    parts, at = [data[:8]], 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4])
        if end + 4 > len(data):
            break
        parts += [data[at:end], zlib.crc32(data[at + 4 : end]).to_bytes(4)]
        at = end + 4
    return b"".join([*parts, data[at:]])
