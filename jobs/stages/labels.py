"""Choose the labelled photos to train or evaluate on, so that none is on two sides.

A label and a split belong to a listing, and the same photo belongs to one split.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F  # noqa: N812

from jobs.command.progress import show_progress
from jobs.stages.aggregates import aggregate
from jobs.stages.decisions import CHOSEN, TRAIN, join_decisions
from schemas.errors import DataContractError
from schemas.taxonomy import Category, Taxonomy

__all__ = ["LabelledListings", "choose_labelled", "label_by_attribute", "taxonomy_of_values"]

log = logging.getLogger(__name__)

# One listing in so many is held out.
_HELD_OUT = 7


@dataclass(frozen=True)
class LabelledListings:
    """Photos of labelled listings.

    Attributes:
        photos: The columns of `read_photos`; `category_id` and `split` are the listing's, and
            neither is null.
        figures: For the report: `labelled_listings` (those that are left, by split),
            `listings_without_label`, and what was left out: `listings_with_two_labels`,
            `listings_with_two_splits`, `photos_in_two_splits`; and, where there are
            decisions, what `join_decisions` counts.
    """

    photos: DataFrame
    figures: dict[str, Any]

    def in_splits(self, *splits: str) -> DataFrame:
        """The photos of these splits.

        Raises:
            DataContractError: There is none.
        """
        if not any(self.figures["labelled_listings"].get(split) for split in splits):
            found = ", ".join(f"{name}: {value}" for name, value in self.figures.items())
            raise DataContractError(
                f"the manifest has no labelled listing in the splits {', '.join(splits)} ({found})"
            )
        return self.photos.where(F.col("split").isin(*splits))


def choose_labelled(
    photos: DataFrame, decisions: DataFrame | None = None, *, hold_out: bool = False
) -> LabelledListings:
    """Choose the labelled listings of a manifest; says what was left out, and why.

    - What people decided of a listing takes the place of the manifest's label.
    - A listing has the label and the split that any of its rows states, and `train` without one.
      A listing with two labels or two splits is left out.
    - A photo that is in listings of different splits is left out of them. Photos are the same if
      their `photo_key` is.

    Args:
        photos: What `jobs.stages.manifest.read_photos` returns.
        decisions: What people decided, from `jobs.stages.decisions.decided_now`.
        hold_out: Whether to move a seventh of `train` to `val`, by a hash of the listings' ids, if
            no labelled listing is in `val`.
    """
    photos = photos.where(F.col("listing_id").isNotNull())
    by_people: Mapping[str, int] = {}
    if decisions is not None:
        photos, by_people = join_decisions(photos, decisions)
    with show_progress(photos.sparkSession, "reading labels"):
        listings = _listings(photos)
        found = _count(listings)
        if found.uneven:
            photos = _settle(photos, listings)
        photos = photos.where(F.col("category_id").isNotNull())
        photos = photos.withColumn("split", F.coalesce("split", F.lit(TRAIN)))
        if hold_out and not found.in_val:
            log.info("no labelled listing is in val: a seventh of train is held out instead")
            held_out = (F.col("split") == TRAIN) & _is_held_out()
            photos = photos.withColumn("split", F.when(held_out, "val").otherwise(F.col("split")))
        photos, shared = _without_shared(photos)
        left = photos.groupBy("split").agg(F.countDistinct("listing_id").alias("listings"))
        by_split = {row["split"]: row["listings"] for row in left.orderBy("split").collect()}
    figures = {
        "labelled_listings": by_split,
        "listings_without_label": found.without_label,
        "listings_with_two_labels": found.two_labels,
        "listings_with_two_splits": found.two_splits,
        "photos_in_two_splits": shared,
        **by_people,
    }
    return LabelledListings(photos, figures)


def label_by_attribute(photos: DataFrame, name: str | None) -> DataFrame:
    """Let an attribute's value take the place of the category; without a name, change nothing."""
    if name is None:
        return photos
    return photos.withColumn("category_id", F.nullif(F.col("attributes")[name], F.lit("")))


def taxonomy_of_values(labelled: DataFrame) -> Taxonomy:
    """The values of an attribute, as a tree of one level."""
    values = sorted(row[0] for row in labelled.select("category_id").distinct().collect())
    return Taxonomy(Category(value, (value,), None) for value in values)


def _listings(photos: DataFrame) -> DataFrame:
    """One row a listing: its label and split, or the first and the last of several."""
    labels, splits, rows = F.count("category_id"), F.count("split"), F.count("*")
    two_labels = F.coalesce(F.min("category_id") != F.max("category_id"), F.lit(False))
    two_splits = F.coalesce(F.min("split") != F.max("split"), F.lit(False))
    some_lack_it = ((labels > 0) & (labels < rows)) | ((splits > 0) & (splits < rows))
    return photos.groupBy("listing_id").agg(
        F.min("category_id").alias("label"),
        F.max("category_id").alias("last_label"),
        F.min("split").alias("its_split"),
        F.max("split").alias("last_split"),
        two_labels.alias("two_labels"),
        two_splits.alias("two_splits"),
        (two_labels | two_splits | some_lack_it).alias("uneven"),
    )


def _count(listings: DataFrame) -> Row:
    """Count the listings that cannot be used, and warn of them with an example."""
    in_val = F.col("label").isNotNull() & (F.col("its_split") == "val")
    found = aggregate(
        listings,
        F.count_if("uneven").alias("uneven"),
        F.count_if(F.col("label").isNull()).alias("without_label"),
        F.count_if(in_val & ~F.col("two_labels") & ~F.col("two_splits")).alias("in_val"),
        F.count_if("two_labels").alias("two_labels"),
        F.count_if("two_splits").alias("two_splits"),
        _example("two_labels", "label", "last_label"),
        _example("two_splits", "its_split", "last_split"),
    )
    for what in ("labels", "splits"):
        if count := found[f"two_{what}"]:
            listing, one, another = found[f"example_of_two_{what}"]
            log.warning(
                "%d listings have two %s and are left out, such as %r (%s and %s)",
                *(count, what, listing, one, another),
            )
    return found


def _example(where: str, *values: str) -> Column:
    return F.min(F.when(F.col(where), F.struct("listing_id", *values))).alias(f"example_of_{where}")


def _settle(photos: DataFrame, listings: DataFrame) -> DataFrame:
    """Give rows their listing's label and split, and drop listings with two of one."""
    uneven = listings.where("uneven").drop("last_label", "last_split").persist()
    settled = photos.join(uneven, "listing_id", "left")
    is_torn = F.coalesce(F.col("two_labels") | F.col("two_splits"), F.lit(False))
    return settled.where(~is_torn).select(
        *(name for name in photos.columns if name not in ("category_id", "split")),
        F.coalesce("category_id", "label").alias("category_id"),
        F.coalesce("split", "its_split").alias("split"),
    )


def _without_shared(photos: DataFrame) -> tuple[DataFrame, int]:
    """Drop the photos that are in several splits; returns their number, too."""
    # Listings to learn from are on one side, however they came to be chosen.
    side = F.when(F.col("split") == CHOSEN, TRAIN).otherwise(F.col("split"))
    readable = photos.where(F.col("problem").isNull()).withColumn("split", side)
    shared = (
        readable.groupBy("photo_key")
        .agg(
            (F.min("split") != F.max("split")).alias("shared"),
            F.min(F.struct("split", "listing_id")).alias("one"),
            F.max(F.struct("split", "listing_id")).alias("another"),
        )
        .where("shared")
        .persist()
    )
    example = F.min(F.struct("one", "another")).alias("example")
    found = aggregate(shared, F.count("*").alias("photos"), example)
    if not found.photos:
        return photos, 0
    one, another = found.example
    log.warning(
        "%d photos are in listings of different splits and are left out, such as one of %r (%s) "
        "and %r (%s)",
        *(found.photos, one.listing_id, one.split, another.listing_id, another.split),
    )
    return photos.join(shared.select("photo_key"), "photo_key", "left_anti"), found.photos


def _is_held_out() -> Column:
    first_byte = F.conv(F.substring(F.sha2("listing_id", 256), 1, 2), 16, 10).cast("int")
    return first_byte % _HELD_OUT == 0
