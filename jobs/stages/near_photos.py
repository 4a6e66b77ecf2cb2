"""Find photos that are near each other, on Spark: candidates by embedding, then by pixels."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812

from jobs.stages.small_photos import load_squares
from seer_model.photos.limits import PhotoLimits
from seer_model.photos.resemblance import SIDE, Searchable, as_grey, resemblance
from seer_model.reviews.neighbours import Neighbourhoods, nearest

__all__ = ["candidate_pairs", "grey_squares", "resembling_pairs"]

_PAIR = "first string, second string, cosine float"


def candidate_pairs(
    photos: DataFrame, neighbourhoods: Neighbourhoods, neighbours: int, least_cosine: float
) -> DataFrame:
    """Pairs of photos whose embeddings are near, one of which is new.

    Args:
        photos: photo_key, once each, vector (little-endian float16) and is_new.
        neighbourhoods: Where to look.
        neighbours: How many of each new photo.
        least_cosine: Of whitened embeddings; pairs below are left out.

    Returns:
        first, second and cosine, each pair once, first being the smaller key.
    """
    placed = photos.mapInArrow(
        _place(neighbourhoods), "cell int, photo_key string, is_new boolean, direction binary"
    )
    pairs = placed.groupBy("cell").applyInArrow(_search(neighbours, least_cosine), _PAIR)
    return pairs.groupBy("first", "second").agg(F.max("cosine").alias("cosine"))


def _place(
    neighbourhoods: Neighbourhoods,
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Put each photo into its cells."""

    def place(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            if not batch.num_rows:
                continue
            directions = neighbourhoods.directions(_as_matrix(batch["vector"], "<f2"))
            cells = neighbourhoods.cells(directions)
            rows = np.repeat(np.arange(batch.num_rows), cells.shape[1])[cells.ravel() >= 0]
            directions = directions.astype("<f4")
            yield pa.record_batch(
                {
                    "cell": pa.array(cells[cells >= 0], pa.int32()),
                    "photo_key": batch["photo_key"].take(pa.array(rows)),
                    "is_new": batch["is_new"].take(pa.array(rows)),
                    "direction": pa.array([directions[row].tobytes() for row in rows]),
                }
            )

    return place


def _search(neighbours: int, least_cosine: float) -> Callable[[pa.Table], pa.Table]:
    """Search a cell for the neighbours of its new photos."""

    def search(cell: pa.Table) -> pa.Table:
        cell = cell.sort_by("photo_key")
        directions = _as_matrix(cell["direction"].combine_chunks(), "<f4")
        new = np.flatnonzero(cell["is_new"].to_numpy(zero_copy_only=False))
        keys = np.array(cell["photo_key"].to_pylist(), object)
        count = min(neighbours + 1, len(keys))
        found, cosines = nearest(directions, directions[new], count)
        one, other = np.repeat(keys[new], count), keys[found.ravel()]
        near = (found.ravel() >= 0) & (cosines.ravel() >= least_cosine) & (one != other)
        one, other = one[near], other[near]
        return pa.table(
            {
                "first": pa.array(np.minimum(one, other), pa.string()),
                "second": pa.array(np.maximum(one, other), pa.string()),
                "cosine": pa.array(cosines.ravel()[near], pa.float32()),
            }
        )

    return search


def _as_matrix(vectors: pa.Array, kind: str) -> npt.NDArray[np.float32]:
    flat = np.frombuffer(b"".join(vectors.to_pylist()), kind)
    return flat.reshape(len(vectors), -1).astype(np.float32)


def grey_squares(photos: DataFrame, limits: PhotoLimits) -> DataFrame:
    """Read photos as small grey squares: `photo_key` and `grey`; without those not readable.

    Args:
        photos: photo_key, once each, image_uri, image_bytes.
        limits: Limits on photos.
    """
    columns = ("photo_key", "image_uri", "image_bytes")
    return photos.select(*columns).mapInArrow(
        partial(_read_grey, limits), "photo_key string, grey binary"
    )


def _read_grey(limits: PhotoLimits, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for row, pixels in load_squares(batches, SIDE, limits):
        grey = {"photo_key": [row["photo_key"]], "grey": [as_grey(pixels).tobytes()]}
        yield pa.record_batch(grey)


def resembling_pairs(pairs: DataFrame, squares: DataFrame, least: float) -> DataFrame:
    """The pairs whose pixels resemble each other: first, second, score.

    Args:
        pairs: From `candidate_pairs`.
        squares: From `grey_squares`.
        least: The least resemblance, up to 1.
    """
    first, second = (
        squares.select(F.col("photo_key").alias(name), F.col("grey").alias(f"{name}_grey"))
        for name in ("first", "second")
    )
    # The pairs of a photo follow each other, so that it is prepared once.
    with_pixels = pairs.join(first, "first").join(second, "second")
    sorted_pairs = with_pixels.repartition("first").sortWithinPartitions("first")
    return sorted_pairs.mapInArrow(
        partial(_compare, least), "first string, second string, score float"
    )


def _compare(least: float, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    known: tuple[str, Searchable] | None = None
    for batch in batches:
        found: dict[str, list[object]] = {"first": [], "second": [], "score": []}
        for row in batch.to_pylist():
            if known is None or known[0] != row["first"]:
                known = (row["first"], _searchable(row["first_grey"]))
            score = resemblance(known[1], _searchable(row["second_grey"]))
            if score >= least:
                for name, value in (*row.items(), ("score", min(score, 1.0))):
                    if name in found:
                        found[name].append(value)
        kinds = (pa.string(), pa.string(), pa.float32())
        columns = zip(found.values(), kinds, strict=True)
        yield pa.record_batch([pa.array(*column) for column in columns], names=list(found))


def _searchable(grey: bytes) -> Searchable:
    return Searchable(np.frombuffer(grey, np.uint8).reshape(SIDE, SIDE))
