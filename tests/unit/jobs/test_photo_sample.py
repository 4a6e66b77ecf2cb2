"""What is drawn from a manifest to look at a backbone with, and the picture that is made of it."""

import hashlib
import io
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from jobs.pages.contact_sheet import Tile
from jobs.pretraining.neighbour_sheet import draw_neighbours
from jobs.pretraining.photo_sample import EmbeddedSample, PhotoSample, embed_sample, sample_photos
from schemas.errors import DataContractError
from schemas.manifest import MANIFEST
from seer_model.backbones.embedder import PhotoEmbedder
from seer_model.backbones.weights import random_backbone
from seer_model.photos.limits import PhotoLimits
from seer_model.photos.source import PhotoSource

torch.set_num_threads(1)


def photo(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 40), (number % 256, 90, 40)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """300 photos in two files; every third is of `val`, every fifth has no label."""
    rows: list[Any] = [
        {
            "listing_id": str(n),
            "image_index": 0,
            "image_bytes": photo(n) if n % 2 else None,
            "image_uri": None if n % 2 else f"{n}.png",
            "category_id": None if n % 5 == 0 else "abc"[n % 3],
            "split": "train" if n % 3 else "val",
        }
        for n in range(300)
    ]
    for part in range(2):
        folder = tmp_path / "manifest" / f"ds=2026-11-2{part}"
        folder.mkdir(parents=True)
        table = pa.Table.from_pylist(rows[part::2], MANIFEST)
        pq.write_table(table, folder / "part-0.parquet", row_group_size=40)
    return tmp_path / "manifest"


def test_photos_apart_from_those_of_another_sample() -> None:
    """Neither the same listing nor the same photo, by its key, bytes or address."""
    key = hashlib.sha256(photo(1)).hexdigest()
    known = PhotoSample(
        ["a", "b", "c"],
        ["x"] * 3,
        [PhotoSource(None, photo(1)), PhotoSource("2.png", None), PhotoSource("3.png", None)],
    )
    queries = PhotoSample(
        ["a", "d", "e", "f"],
        ["x"] * 4,
        [
            PhotoSource("4.png", None),
            PhotoSource("5.png", None, key.upper()),
            PhotoSource("2.png", None),
            PhotoSource("6.png", None),
        ],
    )
    assert queries.apart_from(known).listing_ids == ["f"]


def drawn(manifest: Path, limit: int, **options: Any) -> list[int]:
    options = {"splits": None, "labelled": False, "seed": 0} | options
    sample = sample_photos(str(manifest), options.pop("splits"), limit, **options)
    for listing, source in zip(sample.listing_ids, sample.sources, strict=True):
        number = int(listing)
        expected = (None, photo(number)) if number % 2 else (f"{number}.png", None)
        assert source == PhotoSource(*expected)
    return sorted(map(int, sample.listing_ids))


def test_a_limit_that_is_not_reached_gives_all_that_qualify(manifest: Path) -> None:
    assert drawn(manifest, 1000) == list(range(300))
    assert drawn(manifest, 1000, splits=["val"]) == list(range(0, 300, 3))
    assert drawn(manifest, 1000, labelled=True) == [n for n in range(300) if n % 5]
    assert drawn(manifest, 1000, splits=["nosuch"]) == []


def test_a_draw_is_of_the_seed_and_takes_all_alike(manifest: Path) -> None:
    assert drawn(manifest, 30, seed=1) == drawn(manifest, 30, seed=1)
    counts = Counter(n for seed in range(60) for n in drawn(manifest, 30, seed=seed))
    assert sum(counts.values()) == 60 * 30
    assert len(counts) > 290
    assert max(counts.values()) < 20


def test_optional_columns_may_be_missing(tmp_path: Path) -> None:
    table = pa.table({"listing_id": ["a"], "image_index": [0], "image_uri": ["a.png"]})
    pq.write_table(table, tmp_path / "part-0.parquet")
    sample = sample_photos(str(tmp_path), None, 5, labelled=False, seed=0)
    assert sample == PhotoSample(["a"], [None], [PhotoSource("a.png", None)])
    assert len(sample_photos(str(tmp_path), ["train"], 5, labelled=True, seed=0)) == 0


def test_what_is_no_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataContractError, match="nowhere"):
        sample_photos(str(tmp_path / "nowhere"), None, 5, labelled=False, seed=0)
    (tmp_path / "part-0.parquet").write_bytes(b"no Parquet")
    with pytest.raises(DataContractError, match="not readable as Parquet"):
        sample_photos(str(tmp_path), None, 5, labelled=False, seed=0)


def test_photos_that_cannot_be_used_are_left_out() -> None:
    sources = [PhotoSource(None, data) for data in (photo(0), b"no photo", photo(200))]
    embedder = PhotoEmbedder.open(random_backbone("regnety_002", 32))
    embedded = embed_sample(embedder, PhotoSample(["a", "b", "c"], [None, "x", "y"], sources))
    assert embedded.photos.listing_ids == ["a", "c"]
    assert embedded.photos.labels == [None, "y"]
    assert embedded.vectors.shape == (2, 368)
    nothing = embed_sample(embedder, PhotoSample(["b"], ["x"], sources[1:2]))
    assert (len(nothing.photos), nothing.vectors.shape) == (0, (0, 368))


def test_a_row_is_a_query_and_its_neighbours_of_other_listings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tiles: list[Tile] = []
    monkeypatch.setattr(
        "jobs.pretraining.neighbour_sheet.draw_contact_sheet",
        lambda shown, columns=6: tiles.extend(shown),
    )
    angles = np.array([0, 1, 2, 3, 40, 41, 42, 90]) * np.pi / 180
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float16)
    listings = ["q", "q", "b", "c", "d", "e", "f", "g"]
    labels = ["x/mug", "x/mug", "x/mug", "x/pan", None, "x/mug", "x/mug", "x/mug"]
    sources = [PhotoSource(None, photo(n)) for n in range(8)]
    photos = EmbeddedSample(PhotoSample(listings, labels, sources), vectors)
    draw_neighbours(photos, photos, PhotoLimits())
    assert len(tiles) == 7 * 6  # Listing q has two photos and is one query.
    assert [tile.title for tile in tiles[:6]] == ["mug", "mug", "pan", "", "mug", "mug"]
    assert [tile.caption.split()[-1] for tile in tiles[:6]] == ["q", "b", "c", "d", "e", "f"]
    query, same, other, unknown = (tile.colour for tile in tiles[:4])
    assert len({query, same, other, unknown}) == 4
    assert tiles[4].colour == same
    assert tiles[0].photo == photo(0)


def test_nothing_to_draw_is_an_empty_sheet() -> None:
    nothing = EmbeddedSample(PhotoSample([], [], []), np.empty((0, 8), np.float16))
    one = EmbeddedSample(
        PhotoSample(["a"], [None], [PhotoSource("nowhere.png", None)]), np.ones((1, 8), np.float16)
    )
    for known, queries in ((nothing, nothing), (nothing, one), (one, one)):
        assert min(draw_neighbours(known, queries, PhotoLimits()).size) > 0
