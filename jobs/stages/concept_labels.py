"""What photos show of a screener's concepts: labels of a manifest and of a moderation team's CSV.

The CSV has a line a label: `listing_id`, `concept`, `value` (true or false, yes or no, 1 or 0), and
`image_index`; without it, or where it is empty, the label is the whole listing's: all of its photos
show the concept, or none does. What it says of a photo wins over what it says of the listing, and
that over the manifest's column `concepts`.
"""

import logging
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812

from jobs.command.progress import show_progress
from jobs.stages.aggregates import aggregate
from jobs.stages.csv_table import read_csv
from jobs.stages.decisions import CHOSEN
from jobs.stages.labels import choose_labelled
from jobs.stages.spool import Spool
from schemas.errors import DataContractError
from seer_model.training.concepts import LabelledConcepts

__all__ = ["ConceptLabels", "join_labels", "label_photos"]

log = logging.getLogger(__name__)

_VALUES = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_COLUMNS = ("listing_id", "image_index", "concept", "value")
_OF_MANIFEST, _OF_LISTING, _OF_PHOTO = 1, 2, 3


class ConceptLabels(NamedTuple):
    """Labelled photos.

    Attributes:
        photos: The columns of `read_photos`, of photos with a label; `split` is not null.
        labels: `listing_id`, `image_index`, `concept`, `value`, each concept of a photo once.
        figures: For the report: `labelled_listings` by split, `listings_with_two_splits`,
            `photos_in_two_splits`, `labels_at_odds` (of a photo that has and lacks a concept; left
            out), and `labels_without_photo`, of the CSV.
    """

    photos: DataFrame
    labels: DataFrame
    figures: dict[str, Any]

    def in_splits(self, *splits: str) -> DataFrame:
        """The photos of these splits.

        Raises:
            DataContractError: There is none.
        """
        if not any(self.figures["labelled_listings"].get(split) for split in splits):
            raise DataContractError(
                f"no listing in the splits {', '.join(splits)} has a label of a concept: give "
                f"--labels, or a manifest with the column concepts ({self.figures})"
            )
        return self.photos.where(F.col("split").isin(*splits))


def label_photos(photos: DataFrame, labels: Path | None) -> ConceptLabels:
    """Find the photos with labels, and what they say.

    Args:
        photos: What `jobs.stages.manifest.read_photos` returns.
        labels: The CSV, if there is one.

    Raises:
        SettingsError: The CSV cannot be opened.
        DataContractError: It is not a CSV in UTF-8, a column is missing, or a value is neither true
            nor false; names the line.
    """
    spark = photos.sparkSession
    listed = photos.where(F.col("listing_id").isNotNull())
    own = listed.where(F.col("concepts").isNotNull()).select(
        "listing_id",
        "image_index",
        F.lit(_OF_MANIFEST).alias("priority"),
        F.explode("concepts").alias("concept", "value"),
    )
    without_photo = 0
    if labels is not None:
        given = spark.createDataFrame(_read(labels))
        on_photo = given.where(F.col("image_index").isNotNull())
        on_listing = given.where(F.col("image_index").isNull()).drop("image_index")
        rows = listed.select("listing_id", "image_index").distinct()
        own = own.unionByName(
            rows.join(on_photo, ["listing_id", "image_index"]).withColumn(
                "priority", F.lit(_OF_PHOTO)
            )
        ).unionByName(
            rows.join(on_listing, "listing_id").withColumn("priority", F.lit(_OF_LISTING))
        )
        without_photo = (
            on_photo.join(rows, ["listing_id", "image_index"], "left_anti").count()
            + on_listing.join(rows, "listing_id", "left_anti").count()
        )
        if without_photo:
            log.warning(
                "--labels %s: %d labels are of photos that the manifest lacks",
                *(labels, without_photo),
            )
    with show_progress(spark, "reading labels"):
        settled, at_odds = _settle(own)
    labelled = listed.join(
        settled.select("listing_id", "image_index").distinct(),
        ["listing_id", "image_index"],
        "left_semi",
    )
    # Splits are settled as those of categories are; here every photo left has a label.
    chosen = choose_labelled(labelled.withColumn("category_id", F.lit("labelled")))
    figures = {
        name: chosen.figures[name]
        for name in ("labelled_listings", "listings_with_two_splits", "photos_in_two_splits")
    }
    figures |= {"labels_at_odds": at_odds, "labels_without_photo": without_photo}
    return ConceptLabels(chosen.photos, settled, figures)


def _settle(labels: DataFrame) -> tuple[DataFrame, int]:
    """One label for each photo and concept, and how many are at odds with themselves."""
    photo = ["listing_id", "image_index", "concept"]
    wins = (
        labels.where(F.col("value").isNotNull())
        .groupBy(*photo, "priority")
        .agg(F.min("value").alias("value"), F.max("value").alias("other"))
        .groupBy(*photo)
        .agg(F.max_by(F.struct("value", "other"), "priority").alias("wins"))
        .select(*photo, "wins.value", "wins.other")
        .persist()
    )
    at_odds = aggregate(wins, F.count_if(F.col("value") != F.col("other")).alias("labels")).labels
    if at_odds:
        log.warning("%d labels say that a photo has and lacks a concept; left out", at_odds)
    return wins.where(F.col("value") == F.col("other")).drop("other"), at_odds


def _read(path: Path) -> pa.Table:
    _, lines = read_csv(path, ("listing_id", "concept", "value"), _COLUMNS)
    rows = []
    for line, cells in lines:
        value = _VALUES.get(cells["value"].strip().casefold())
        index = cells.get("image_index", "").strip()
        concept = cells["concept"].strip()
        if value is None:
            raise DataContractError(
                f"{path}, line {line}: value {cells['value'][:20]!r} is neither true nor false"
            )
        if not concept or not cells["listing_id"]:
            raise DataContractError(f"{path}, line {line}: listing_id or concept is empty")
        if index and not (index.isdecimal() and len(index) < 10):
            raise DataContractError(
                f"{path}, line {line}: image_index {index[:20]!r} is not a number"
            )
        rows.append((cells["listing_id"], int(index) if index else None, concept, value))
    if not rows:
        raise DataContractError(f"{path}: has no label")
    kinds = (pa.string(), pa.int32(), pa.string(), pa.bool_())
    columns = zip(*rows, strict=True)
    return pa.table(
        {
            name: pa.array(column, kind)
            for name, column, kind in zip(_COLUMNS, columns, kinds, strict=True)
        }
    )


def join_labels(embedded: Spool, labels: Spool, width: int) -> LabelledConcepts:
    """Join vectors and labels, in an order that does not depend on Spark's.

    Args:
        embedded: `listing_id`, `image_index`, `split`, `vector`, and `vector_key`, a hash of it.
        labels: The labels of `label_photos`.
        width: Of the vectors.
    """
    photos = embedded.read("listing_id", "image_index", "split", "vector_key").to_pandas()
    photos["row"] = np.arange(len(photos))
    photos = photos.sort_values(["listing_id", "image_index", "vector_key"]).reset_index(drop=True)
    places = np.empty(len(photos), np.int64)
    places[photos["row"].to_numpy()] = np.arange(len(photos))
    said = labels.read("listing_id", "image_index", "concept", "value").to_pandas()
    names = sorted(said["concept"].unique())
    of_photo = photos[["listing_id", "image_index"]].reset_index(names="place")
    joined = said.merge(of_photo, on=["listing_id", "image_index"])
    shows = np.full((len(photos), len(names)), -1, np.int8)
    columns = np.searchsorted(names, joined["concept"])
    shows[joined["place"].to_numpy(), columns] = joined["value"].to_numpy(np.int8)
    return LabelledConcepts(
        photos["listing_id"].tolist(),
        embedded.read_vectors(places, width),
        names,
        shows,
        (photos["split"] == "val").to_numpy(),
        (photos["split"] == CHOSEN).to_numpy(),
    )
