"""Labelled listings: one label, one split, and no photo on two sides."""

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from jobs.stages.labels import LabelledListings, choose_labelled
from jobs.stages.manifest import read_photos
from schemas.errors import DataContractError
from tests.support.manifest_rows import Rows, WriteManifest, row

pytestmark = pytest.mark.spark

Choose = Callable[..., LabelledListings]


@pytest.fixture
def choose(spark: SparkSession, write_manifest: WriteManifest, tmp_path: Path) -> Choose:
    def call(rows: Rows, **options: bool) -> LabelledListings:
        manifest = write_manifest(tmp_path / "manifest", rows)
        return choose_labelled(read_photos(spark, str(manifest)), **options)

    return call


def labelled(
    listing: str, label: str | None, split: str | None, index: int = 0, **columns: Any
) -> dict[str, Any]:
    """A row with a photo of its own, unless it has another."""
    photo = columns or {"image_bytes": f"{listing} {index}".encode()}
    return row(listing, index, category_id=label, split=split, **photo)


def chosen(found: LabelledListings) -> list[tuple[Any, ...]]:
    columns = ("listing_id", "image_index", "category_id", "split")
    return sorted(tuple(each) for each in found.photos.select(*columns).collect())


def test_a_listing_has_the_label_and_the_split_that_any_of_its_rows_states(choose: Choose) -> None:
    found = choose(
        [
            labelled("a", "boots", "val"),
            labelled("a", None, None, 1),
            labelled("b", None, "test"),
            labelled("b", "caps", None, 1),
            labelled("c", "caps", None),
            labelled("unlabelled", None, "train"),
        ]
    )
    assert chosen(found) == [
        ("a", 0, "boots", "val"),
        ("a", 1, "boots", "val"),
        ("b", 0, "caps", "test"),
        ("b", 1, "caps", "test"),
        ("c", 0, "caps", "train"),
    ]
    assert found.figures == {
        "labelled_listings": {"test": 1, "train": 1, "val": 1},
        "listings_without_label": 1,
        "listings_with_two_labels": 0,
        "listings_with_two_splits": 0,
        "photos_in_two_splits": 0,
    }


def test_a_listing_with_two_labels_or_two_splits_is_left_out(
    choose: Choose, caplog: pytest.LogCaptureFixture
) -> None:
    found = choose(
        [
            labelled("a", "boots", "train"),
            labelled("a", "caps", "train", 1),
            labelled("b", "caps", "train"),
            labelled("b", "caps", "val", 1),
            labelled("c", "caps", "train"),
            labelled("c", None, "test", 1),
            labelled("d", "caps", "train"),
        ]
    )
    assert chosen(found) == [("d", 0, "caps", "train")]
    assert found.figures["listings_with_two_labels"] == 1
    assert found.figures["listings_with_two_splits"] == 2
    assert (
        "1 listings have two labels and are left out, such as 'a' (boots and caps)" in caplog.text
    )
    assert "2 listings have two splits and are left out, such as 'b' (train and val)" in caplog.text


def test_a_photo_in_listings_of_two_splits_is_left_out_of_both(
    choose: Choose, caplog: pytest.LogCaptureFixture
) -> None:
    photo = b"one photo"
    key = hashlib.sha256(photo).hexdigest()
    address = {
        "image_uri": "https://a.example/1.jpg",
        "updated_at": datetime(2026, 1, 1, tzinfo=UTC),
    }
    found = choose(
        [
            labelled("a", "boots", "train", image_bytes=photo),
            labelled("a", "boots", "train", 1),
            labelled("b", "caps", "val", image_uri="/b.jpg", image_key=key.upper()),
            labelled("c", "caps", None, **address),
            labelled("d", "caps", "test", **address),
            labelled("d", "caps", "test", 1),
            labelled("e", "boots", "train", image_bytes=b"of one seller"),
            labelled("f", "caps", "train", image_bytes=b"of one seller"),
        ]
    )
    assert [(listing, index) for listing, index, _, _ in chosen(found)] == [
        *(("a", 1), ("d", 1), ("e", 0), ("f", 0)),
    ]
    assert found.figures["photos_in_two_splits"] == 2
    assert found.figures["labelled_listings"] == {"test": 1, "train": 3}
    assert "2 photos are in listings of different splits and are left out" in caplog.text


def test_rows_without_a_photo_are_not_the_same_photo(choose: Choose) -> None:
    nothing = {"image_uri": None}
    rows = [labelled("a", "boots", "train", **nothing), labelled("b", "caps", "val", **nothing)]
    assert len(chosen(choose(rows))) == 2


def test_listings_are_held_out_of_train_if_none_is_in_val_and_no_photo_is_on_both_sides(
    choose: Choose,
) -> None:
    listings = [f"listing {i}" for i in range(40)]
    rows = [labelled(listing, "boots", None) for listing in listings]
    rows += [labelled(listing, "boots", None, 1, image_bytes=b"shared") for listing in listings]
    rows.append(labelled("t", "boots", "test"))
    held_out = {x for x in listings if hashlib.sha256(x.encode()).digest()[0] % 7 == 0}
    found = choose(rows, hold_out=True)
    assert {listing for listing, _, _, split in chosen(found) if split == "val"} == held_out
    assert {index for _, index, _, _ in chosen(found)} == {0}
    assert found.figures["photos_in_two_splits"] == 1

    rows.append(labelled("v", "boots", "val"))
    found = choose(rows, hold_out=True)
    assert [listing for listing, _, _, split in chosen(found) if split == "val"] == ["v"]
    assert found.figures["labelled_listings"] == {"test": 1, "train": 40, "val": 1}


def test_splits_without_a_labelled_listing_are_refused_with_what_there_is(choose: Choose) -> None:
    found = choose([labelled("a", "boots", "validation"), labelled("b", None, "val")])
    assert found.in_splits("validation").count() == 1
    with pytest.raises(DataContractError, match=r"in the splits train, val .*'validation': 1"):
        found.in_splits("train", "val")
