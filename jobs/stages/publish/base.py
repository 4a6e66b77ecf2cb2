"""What a job does with its output: hold the partition of a day, stage rows, publish them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager

from pyspark.sql import DataFrame, SparkSession

from jobs.command.folders import Folder

__all__ = ["Output", "Partition"]


class Partition(ABC):
    """The partition of a day, which a run is about to replace."""

    @abstractmethod
    def stage(self, rows: DataFrame, scratch: Folder) -> DataFrame:
        """Write the rows where no reader sees them; returns them as they were written.

        Args:
            rows: The rows, without `ds`.
            scratch: This run's scratch folder.
        """

    @abstractmethod
    def publish(self, properties: Mapping[str, str]) -> str:
        """Replace the published rows by the staged ones at once.

        Args:
            properties: For the output's history, where it keeps one.

        Returns:
            What was published, for the report.

        Raises:
            PartitionBusy: Another run published at the same time; its rows are whole.
            DataContractError: Other rows were published than were staged.
        """


class Output(ABC):
    """Where a job publishes, partitioned by day (`ds`)."""

    @abstractmethod
    def hold(self, ds: str, run_id: str) -> AbstractContextManager[Partition]:
        """Prepare to replace a partition.

        Raises:
            PartitionBusy: Another run holds it.
            DataContractError: The output has another shape.
            SettingsError: It cannot be written.
        """

    @abstractmethod
    def read(self, spark: SparkSession, ds: str) -> DataFrame:
        """Read what is published, without `ds`, as of now whatever is published meanwhile.

        Raises:
            DataContractError: Nothing is published, or it cannot be read.
        """

    @abstractmethod
    def day_before(self, spark: SparkSession, ds: str) -> str | None:
        """The last day before this one that is published, or None."""

    @abstractmethod
    def describe(self, ds: str) -> str:
        """Name a partition in messages."""
