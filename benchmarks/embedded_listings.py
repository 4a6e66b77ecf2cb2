"""Embedded photos of a data set's listings, by split."""

import csv
import os
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pyarrow as pa

from schemas.taxonomy import Taxonomy
from schemas.taxonomy_readers import read_taxonomy
from seer_model.backbones.backbone import Backbone
from seer_model.backbones.embedder import PhotoEmbedder
from seer_model.photos.source import PhotoSource
from seer_model.training.labelled import LabelledPhotos

__all__ = ["SENDER", "embed_listings", "of_categories"]

SENDER = "sender_id"


def embed_listings(folder: Path, backbone: Backbone) -> tuple[Taxonomy, dict[str, LabelledPhotos]]:
    """Embed the photos of `listings.csv`, as the jobs do.

    Args:
        folder: Has `listings.csv` and `taxonomy.csv`.
        backbone: What embeds the photos.

    Returns:
        The taxonomy, and the usable photos of every split, grouped by listing, with the sender as
        a slice.
    """
    with (folder / "listings.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    embedder = PhotoEmbedder.open(backbone, threads=os.cpu_count() or 1)
    sources = (PhotoSource((folder / row["path"]).absolute().as_uri(), None) for row in rows)
    vectors = [photo.vector for photo in embedder.embed(sources)]
    usable = [i for i, vector in enumerate(vectors) if vector is not None]
    photos = LabelledPhotos(
        [rows[i]["listing_id"] for i in usable],
        [rows[i]["category_id"] for i in usable],
        np.array([vectors[i] for i in usable], np.float16).reshape(-1, backbone.width),
        pa.array([_sender(rows[i]) for i in usable], pa.map_(pa.string(), pa.string())),
    )
    splits = np.array([rows[i]["split"] for i in usable])
    by_split = {
        str(split): photos.some(np.flatnonzero(splits == split)).by_listing()
        for split in np.unique(splits)
    }
    return read_taxonomy(folder / "taxonomy.csv"), by_split


def of_categories(photos: LabelledPhotos, categories: Collection[str]) -> LabelledPhotos:
    """The photos with these labels."""
    return photos.some(np.flatnonzero([label in categories for label in photos.labels]))


def _sender(row: dict[str, str]) -> list[tuple[str, str]]:
    """The slice of the sender, where the data set knows it."""
    return [(SENDER, row[SENDER])] if row[SENDER] else []
