"""Rows that come to the driver through files."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.stages.spool import Spool

PHOTOS = 100
WIDTH = 3


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files as Spark writes them: some have rows, one has none."""
    folder = tmp_path / "spool"
    folder.mkdir()
    table = pa.table(
        {
            "listing_id": [f"listing {i}" for i in range(PHOTOS)],
            "vector": [np.full(WIDTH, i, "<f2").tobytes() for i in range(PHOTOS)],
            "image_key": pa.nulls(PHOTOS, pa.string()),
            "image_bytes": [None if i % 2 else f"photo {i}".encode() for i in range(PHOTOS)],
            "image_uri": [f"/photo/{i}" if i % 2 else None for i in range(PHOTOS)],
        }
    )
    cuts = (0, 37, 37, PHOTOS)
    for number, (first, last) in enumerate(pairwise(cuts)):
        pq.write_table(table.slice(first, last - first), folder / f"part-0000{number}.parquet")
    (folder / "_SUCCESS").touch()
    return folder


def test_columns_of_all_rows(folder: Path) -> None:
    table = Spool(folder).read("listing_id", "vector")
    assert table.column_names == ["listing_id", "vector"]
    assert table.column("listing_id").to_pylist() == [f"listing {i}" for i in range(PHOTOS)]


def test_vectors_go_where_they_belong(folder: Path) -> None:
    places = np.random.default_rng(0).permutation(PHOTOS)
    vectors = Spool(folder).read_vectors(places, WIDTH)
    assert (vectors.dtype, vectors.shape) == (np.float16, (PHOTOS, WIDTH))
    assert (vectors[places, 0] == np.arange(PHOTOS)).all()


def test_photos_in_the_order_asked_for(folder: Path) -> None:
    rows = np.array([99, 0, 36, 37, 38, 0])
    photos = Spool(folder).map_photos(rows)
    assert not folder.exists()
    assert len(photos) == len(rows)
    assert [photos[i].uri for i in range(6)] == ["/photo/99", None, None, "/photo/37", None, None]
    assert [photos[i].data for i in (1, 2, 4, 5)] == [
        b"photo 0",
        b"photo 36",
        b"photo 38",
        b"photo 0",
    ]
    assert photos[0].key is None
