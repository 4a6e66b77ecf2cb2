"""What a training gets from Spark: photos to train on and to calibrate by, with their slices."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812

from jobs.command.folders import Folder
from jobs.stages.decisions import CHOSEN
from jobs.stages.spool import Spool
from schemas.errors import DataContractError
from seer_model.training.labelled import LabelledPhotos, slice_names

__all__ = ["check_slice", "order_by_split", "read_slices", "train_and_val"]


def read_slices(photos: DataFrame, work: Folder) -> pa.Table:
    """Read the slices of the listings that have any, which are those of the first photo.

    Returns:
        `listing_id`, and `slices`, a map of strings.
    """
    first = photos.groupBy("listing_id").agg(F.min_by("slices", "image_index").alias("slices"))
    return Spool.write(first.where("slices is not null"), work).read("listing_id", "slices")


def check_slice(table: pa.Table, flag: str, name: str | None) -> None:
    """Refuse a slice, the value of a flag, that no listing of `read_slices` has.

    Raises:
        DataContractError: No listing has it.
    """
    slices = table.column("slices").combine_chunks()
    if name is not None and name not in pc.unique(slices.keys).to_pylist():
        raise DataContractError(
            f"{flag} {name}: no labelled listing has this slice; they have {slice_names(slices)}"
        )


def train_and_val(
    spool: Spool, slices: pa.Table, width: int
) -> tuple[LabelledPhotos, LabelledPhotos]:
    """Read photos to train on, and photos to stop and calibrate by, if there are any in `val`.

    Args:
        spool: `listing_id`, `category_id`, `split`, `vector`, and `vector_key`, a hash of it.
        slices: From `read_slices`.
        width: Of the vectors.

    Raises:
        DataContractError: There is no photo to train on.
    """
    table = spool.read("listing_id", "category_id", "split", "vector_key")
    order, val = order_by_split(table, "listing_id", "vector_key")
    train = len(order) - val
    if not train:
        raise DataContractError("no labelled photo to train on can be read")
    listing_ids = table.column("listing_id").take(order).to_pylist()
    categories = table.column("category_id").take(order).combine_chunks().dictionary_encode()
    names = categories.dictionary.to_pylist()
    labels = [names[i] for i in categories.indices.to_numpy()]
    vectors = spool.read_vectors(np.argsort(order), width)
    row = pc.index_in(pa.array(listing_ids, pa.string()), slices.column("listing_id"))
    of_photo = slices.column("slices").combine_chunks().take(row)
    chosen = pc.equal(table.column("split").take(order), CHOSEN).to_numpy()
    photos = LabelledPhotos(listing_ids, labels, vectors, of_photo, chosen)
    return photos.part(slice(train)), photos.part(slice(train, None))


def order_by_split(table: pa.Table, *keys: str) -> tuple[npt.NDArray[np.int64], int]:
    """Order the rows to train on, then those of `val`, each by the keys.

    Spark writes rows in any order, and the training must not depend on it.

    Returns:
        The positions of the rows in this order, int64, and how many of them are of `val`.
    """
    val = pc.equal(table.column("split"), "val")
    table = table.select(keys).append_column("val", val)
    order = pc.sort_indices(table, [(name, "ascending") for name in ("val", *keys)])
    return order.to_numpy().astype(np.int64), pc.sum(val).as_py() or 0
