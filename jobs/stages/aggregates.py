"""Aggregates over a whole frame."""

from pyspark.sql import Column, DataFrame, Row

__all__ = ["aggregate"]


def aggregate(frame: DataFrame, *columns: Column) -> Row:
    """The one row of aggregates over all rows of a frame."""
    row = frame.agg(*columns).first()
    assert row is not None  # noqa: S101 - without groups there is always one row
    return row
