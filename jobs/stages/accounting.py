"""Check before publishing that every listing has one row, and that every photo was counted."""

from collections.abc import Sequence

from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812

from jobs.stages.aggregates import aggregate
from schemas.errors import DataContractError

__all__ = ["check_accounting"]


def check_accounting(
    photos: DataFrame,
    staged: DataFrame,
    outcomes: tuple[str, Sequence[str]],
    used: str,
    rejected: str,
) -> dict[str, int]:
    """Check the staged rows against the photos that were read.

    Args:
        photos: What `jobs.stages.manifest.read_photos` returns.
        staged: One row a listing.
        outcomes: The column of what became of a listing, and its values.
        used: The column that counts a listing's photos that were used.
        rejected: The column that counts those that were not.

    Returns:
        `listings`, each outcome by its value, `photos`, `used` and `rejected` by their columns'
        names, and `rows_without_listing`.

    Raises:
        DataContractError: Something was lost or added; nothing was published.
    """
    column, values = outcomes
    read = aggregate(
        photos,
        F.countDistinct("listing_id").alias("listings"),
        F.count("listing_id").alias("photos"),
        F.count_if(F.col("listing_id").isNull()).alias("rows_without_listing"),
    )
    if not read.listings:
        raise DataContractError(
            f"the manifest has no row with a listing_id ({read.rows_without_listing} have none): "
            "nothing was published"
        )
    written = aggregate(
        staged,
        F.count("*").alias("rows"),
        F.countDistinct("listing_id").alias("listings"),
        *[F.count_if(F.col(column) == value).alias(value) for value in values],
        F.coalesce(F.sum(used), F.lit(0)).alias(used),
        F.coalesce(F.sum(rejected), F.lit(0)).alias(rejected),
    )
    decided = sum(written[value] for value in values)
    if not read.listings == written.listings == written.rows == decided:
        raise DataContractError(
            f"{read.listings} listings read, but {written.rows} rows written for "
            f"{written.listings} listings, {decided} with their {column}: nothing was published"
        )
    if read.photos != written[used] + written[rejected]:
        raise DataContractError(
            f"{read.photos} photos read, but {written[used]} used and {written[rejected]} "
            "rejected: nothing was published"
        )
    return {
        "listings": read.listings,
        **{value: written[value] for value in values},
        "photos": read.photos,
        used: written[used],
        rejected: written[rejected],
        "rows_without_listing": read.rows_without_listing,
    }
