"""Input of the benchmarked jobs: photos, manifests of any size, two models."""

import hashlib
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.noisy_photos import draw_photo
from schemas.embeddings import EMBEDDINGS
from schemas.manifest import MANIFEST
from schemas.taxonomy import Category, Taxonomy
from seer_model.backbones.backbone import Backbone
from seer_model.categorizer.bundle import Bundle, save_bundle
from seer_model.categorizer.hierarchy import ClassTree
from seer_model.categorizer.thresholds import Calibration
from seer_model.linear_head import LinearHead

__all__ = ["DS", "Workload"]

DS = "2026-01-01"
_BRANCHES = 16
_FILES = 4
"""Number of files of a pre-filled store, and of its manifest."""


class Workload:
    """Photos, manifests, stores and models in a folder.

    A set larger than the number of distinct photos repeats them as hard links, with names, listings
    and keys of their own, so that a job cannot tell.

    Args:
        folder: An empty folder.
        backbone: Backbone of both models.
        distinct: Number of distinct photos to draw.
    """

    def __init__(self, folder: Path, backbone: Backbone, distinct: int) -> None:
        self._folder = folder
        self._backbone = backbone
        self.preprocessing = backbone.preprocessing
        self.photos = [folder / f"{number:03}.jpg" for number in range(distinct)]
        with ThreadPoolExecutor() as pool:
            for path, photo in zip(self.photos, pool.map(draw_photo, range(distinct)), strict=True):
                path.write_bytes(photo)

    def photo_folder(self, count: int) -> Path:
        """Make a folder of `count` photos."""
        folder = self._folder / f"photos-{count}"
        if not folder.is_dir():
            folder.mkdir()
            for number in range(count):
                os.link(self.photos[number % len(self.photos)], folder / f"{number:06}.jpg")
        return folder

    def manifest(self, count: int) -> Path:
        """Make a manifest of `count` photos, each a listing of its own."""
        manifest = self._folder / f"manifest-{count}"
        if not manifest.is_dir():
            photos = sorted(map(str, self.photo_folder(count).iterdir()))
            _write_manifest(manifest, photos, files=1, updated_at=datetime(2026, 1, 1, tzinfo=UTC))
        return manifest

    def addressed(self, count: int, address: Callable[[int], str], name: str) -> Path:
        """Make a manifest of `count` photos, each a listing of its own, at any addresses."""
        manifest = self._folder / name
        uris = [address(number) for number in range(count)]
        _write_manifest(manifest, uris, files=1, updated_at=datetime(2026, 1, 1, tzinfo=UTC))
        return manifest

    def known(self, count: int) -> tuple[Path, Path]:
        """Make a manifest of `count` photos, and an embedding store with an embedding for each.

        The embeddings are random and the photos do not exist: a job that reads one rejects it.
        """
        manifest, store = (self._folder / f"{name}-{count}" for name in ("known", "store"))
        if not store.is_dir():
            photos = [f"/{n:07}.jpg" for n in range(count)]
            keys = [hashlib.sha256(photo.encode()).hexdigest() for photo in photos]
            _write_manifest(manifest, photos, _FILES, image_key=keys)
            rng = np.random.default_rng(0)
            vectors = np.abs(rng.normal(size=(count, self._backbone.width))).astype("<f2")
            digest = self._backbone.digest
            columns = [
                pa.array(keys),
                pa.array([digest] * count),
                pa.array([vector.tobytes() for vector in vectors]),
            ]
            drawn = dict(zip(EMBEDDINGS.names, columns, strict=False))
            nothing = {
                field.name: pa.nulls(count, field.type)
                for field in EMBEDDINGS
                if field.name not in drawn
            }
            # A store has its rows in any order.
            rows = pa.table(drawn | nothing, schema=EMBEDDINGS).take(rng.permutation(count))
            _write_files(rows, store / f"backbone={digest}" / "run=drawn", _FILES)
        return manifest, store

    @cached_property
    def model(self) -> Path:
        """The bundle that jobs score with."""
        return self._bundle("model", seed=0)

    @cached_property
    def other_model(self) -> Path:
        """A bundle with the same backbone and another head."""
        return self._bundle("other-model", seed=1)

    def _bundle(self, name: str, seed: int) -> Path:
        """Save a random head of 256 classes in two levels; it costs what a trained one does."""
        tops = [Category(f"{top}", (f"Top {top}",), None) for top in range(_BRANCHES)]
        leaves = [
            Category(f"{top.category_id}/{leaf}", (top.name, f"Leaf {leaf}"), top.category_id)
            for top in tops
            for leaf in range(_BRANCHES)
        ]
        tree = ClassTree(Taxonomy([*tops, *leaves], "1"), [leaf.category_id for leaf in leaves])
        rng = np.random.default_rng(seed)
        weight = rng.normal(0, 1, (len(leaves), self._backbone.width)).astype(np.float32)
        head = LinearHead(weight, np.zeros(len(leaves), np.float32))
        bundle = Bundle(self._backbone, head, tree, Calibration(1.0, (0.5, 0.5), 0.8))
        save_bundle(bundle, self._folder / name)
        return self._folder / name


def _write_manifest(
    manifest: Path,
    uris: Sequence[str],
    files: int,
    *,
    image_key: Sequence[str | None] = (),
    updated_at: datetime | None = None,
) -> None:
    """Write one partition; a photo with a key or a time is one that a store can keep."""
    rows = [
        {
            "listing_id": f"listing-{uri}",
            "image_index": 0,
            "image_uri": uri,
            "image_key": key,
            "updated_at": updated_at,
        }
        for uri, key in zip(uris, image_key or [None] * len(uris), strict=True)
    ]
    _write_files(pa.Table.from_pylist(rows, schema=MANIFEST), manifest / f"ds={DS}", files)


def _write_files(rows: pa.Table, folder: Path, files: int) -> None:
    folder.mkdir(parents=True)
    size = math.ceil(len(rows) / files)
    for number in range(files):
        part = rows.slice(number * size, size)
        pq.write_table(part, folder / f"part-{number}.parquet", write_page_checksum=True)
