"""Known photos, which must not come back: found by their hashes, edited or not.

The list has several hashes of each: of the whole, of crops of it, and of the mirror images of all.
A photo to be screened is compared as a whole and without its frame.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import faiss
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.columns import column_problems
from schemas.errors import SettingsError
from schemas.known_photos import KNOWN_PHOTOS
from schemas.screening import Action
from seer_model.photos.perceptual_hash import HASH_BYTES, PhotoHashes, perceptual_hash
from seer_model.photos.square import Pixels

__all__ = [
    "CERTAIN_BITS",
    "LIKELY_BITS",
    "KnownMatch",
    "KnownPhotos",
    "mirrored_hash",
    "read_known_photos",
    "variant_hashes",
]

CERTAIN_BITS = 31
"""So many bits of 256 may differ for the action of the list: PDQ's recommendation."""
LIKELY_BITS = 64
"""So many may differ for a person to look at it."""

_LEAST_QUALITY = 50  # PDQ's recommendation.
_CROPS = (0.0, 0.03, 0.06, 0.09, 0.12)
# Longer lists are searched in the cells nearest to a hash; made in some seconds.
_MOST_SEARCHED_WHOLE = 400_000
_CELLS, _CELLS_SEARCHED = 1024, 128
_TRAINED_ON_A_CELL = 40


class KnownMatch(NamedTuple):
    """A known photo that a photo is, or may be.

    Attributes:
        known_id: Which one.
        rule: Its rule.
        action: What the list says; `review` where the photo is only likely to be it.
        bits: How many bits of 256 differ.
    """

    known_id: str
    rule: str
    action: Action
    bits: int


class KnownPhotos:
    """A list of known photos, ready to be searched.

    Args:
        table: `schemas.known_photos.KNOWN_PHOTOS`, with at least one row.
    """

    def __init__(self, table: pa.Table) -> None:
        self._columns = table.select(["known_id", "rule", "action"]).combine_chunks()
        self._index = _index(_as_matrix(table["hash"]))

    def __len__(self) -> int:
        """Number of hashes."""
        return len(self._columns)

    def find(self, photos: Sequence[PhotoHashes | None]) -> list[list[KnownMatch]]:
        """Find out which known photos each photo is: the best match of every rule.

        Args:
            photos: Hashes of photos; None matches nothing, nor does a photo of low quality.
        """
        owners, queries = [], []
        for number, hashes in enumerate(photos):
            if hashes is not None and hashes.quality >= _LEAST_QUALITY:
                for each in filter(None, (hashes.whole, hashes.unframed)):
                    owners.append(number)
                    queries.append(each)
        found: list[dict[str, tuple[int, int]]] = [{} for _ in photos]
        for number, place, bits in self._search(owners, queries):
            rule = self._columns["rule"][place].as_py()
            found[number][rule] = min(found[number].get(rule, (bits, place)), (bits, place))
        return [[self._match(*best) for best in sorted(each.values())] for each in found]

    def _search(self, owners: list[int], queries: list[bytes]) -> Iterator[tuple[int, int, int]]:
        """Whose hash is within reach of which row, and how many bits differ."""
        if not queries:
            return
        asked = np.frombuffer(b"".join(queries), np.uint8).reshape(-1, HASH_BYTES)
        # Distances below the radius are found, in no order.
        bounds, bits, places = self._index.range_search(asked, LIKELY_BITS + 1)
        for query, owner in enumerate(owners):
            for hit in range(bounds[query], bounds[query + 1]):
                yield owner, int(places[hit]), int(bits[hit])

    def _match(self, bits: int, place: int) -> KnownMatch:
        known_id, rule, action = (column[place].as_py() for column in self._columns.columns)
        likely = bits > CERTAIN_BITS
        return KnownMatch(known_id, rule, Action.REVIEW if likely else Action(action), bits)


def _as_matrix(hashes: pa.ChunkedArray) -> npt.NDArray[np.uint8]:
    """uint8, (hashes, 32), of binaries of 32 bytes."""
    fixed = hashes.cast(pa.binary(HASH_BYTES)).combine_chunks()
    flat = np.frombuffer(fixed.buffers()[1], np.uint8)
    return flat.reshape(-1, HASH_BYTES)[fixed.offset : fixed.offset + len(fixed)]


def _index(hashes: npt.NDArray[np.uint8]) -> "faiss.IndexBinary":
    """Index hashes, uint8, (hashes, 32), for one thread."""
    faiss.omp_set_num_threads(1)
    flat = faiss.IndexBinaryFlat(8 * HASH_BYTES)
    if len(hashes) <= _MOST_SEARCHED_WHOLE:
        flat.add(hashes)
        return flat
    index = faiss.IndexBinaryIVF(flat, 8 * HASH_BYTES, _CELLS)
    index.cp.niter = 6
    index.cp.max_points_per_centroid = _TRAINED_ON_A_CELL
    index.train(hashes[:: max(1, len(hashes) // (_CELLS * _TRAINED_ON_A_CELL))])
    index.add(hashes)
    index.nprobe = _CELLS_SEARCHED
    return index


def variant_hashes(pixels: Pixels) -> Iterator[tuple[str, bytes]]:
    """The hashes that the list has of a photo, by variant; none if it has too little in it.

    Args:
        pixels: uint8, (rows, columns, 3).
    """
    if perceptual_hash(pixels)[1] < _LEAST_QUALITY:
        return
    rows, columns = pixels.shape[:2]
    for crop in _CROPS:
        top, left = round(rows * crop), round(columns * crop)
        inside = pixels[top : rows - top, left : columns - left]
        name = f"cropped by {crop:.0%}" if crop else "whole"
        yield name, perceptual_hash(inside)[0]
        yield f"{name}, mirrored", perceptual_hash(inside[:, ::-1])[0]


def mirrored_hash(whole: bytes) -> bytes:
    """About the hash of the mirror image of a photo of which there is no more than its hash.

    A mirror image has the odd waves of its columns reversed, and the median is near zero.
    """
    bits = np.unpackbits(np.frombuffer(whole, np.uint8)).reshape(16, 16)
    # Written from the last bit to the first: the last column comes first, and is of an even wave.
    bits[:, 1::2] ^= 1
    return np.packbits(bits).tobytes()


def read_known_photos(path: Path) -> pa.Table:
    """Read a list of known photos.

    Raises:
        SettingsError: There is no such file, it is no list, or it has wrong or no rows.
    """
    if not path.is_file():
        raise SettingsError(f"--known-photos {path}: No such file")
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        reason = str(error).partition("\n")[0]
        raise SettingsError(f"--known-photos {path}: not readable as Parquet: {reason}") from error
    problems = column_problems(table.schema, KNOWN_PHOTOS, KNOWN_PHOTOS.names)
    if problems:
        raise SettingsError(
            f"--known-photos {path}: {'; '.join(problems)}; make it with jobs.list_known_photos"
        )
    table = table.select(KNOWN_PHOTOS.names).cast(KNOWN_PHOTOS)
    if not len(table):
        raise SettingsError(f"--known-photos {path}: has no photo")
    lengths, actions = pc.binary_length(table["hash"]), table["action"]
    wrong = pc.or_(
        pc.not_equal(lengths, HASH_BYTES),
        pc.invert(pc.is_in(actions, pa.array([Action.REVIEW, Action.BLOCK]))),
    )
    for row in table.filter(wrong).slice(0, 1).to_pylist():
        raise SettingsError(
            f"--known-photos {path}: {row['known_id']}: a hash has {HASH_BYTES} bytes, and an "
            "action is review or block"
        )
    return table
