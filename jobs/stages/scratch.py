"""Scratch space of a run, which its executors share: removed when the run ends.

    FOLDER/_scratch-RUN/…

If a run is killed, the next one with the same folder removes what it left, as soon as it is certain
that the run has ended: its process is gone from this machine, or nothing was written for days.
"""

import errno
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from py4j.protocol import Py4JError
from pyspark.sql import SparkSession
from pyspark.sql.utils import is_remote

from jobs.command.folders import Folder, LocalFolder, open_folder
from schemas.errors import SettingsError
from seer_model.processes import has_ended, is_running, process_mark, scratch_folder

__all__ = ["has_been_left", "is_in_use", "leave", "mark_as_mine", "scratch_base", "scratch_space"]

_PREFIX = "_scratch-"
_MARK = "_process"
_LEFT = "left"
_LEFT_SECONDS = 7 * 24 * 3600.0
"""Longer than any run takes."""


def scratch_base(spark: SparkSession, scratch: str | None, *beside: object) -> Folder:
    """The folder that scratch folders are made in, which outlives the run.

    Args:
        spark: The session.
        scratch: `--scratch`.
        beside: Without it, the first of these locations that is a folder. If none is, a local
            session has a temporary folder, which goes with the process.

    Raises:
        SettingsError: The session is of a cluster, and there is no folder that it shares.
    """
    place = scratch or next((each for each in beside if isinstance(each, Path)), None)
    if place is not None:
        return open_folder(spark, place)
    # A server of Spark Connect says where it runs itself, not where this process does.
    if is_remote() or not (spark.conf.get("spark.master", "") or "").startswith("local"):
        raise SettingsError(
            "--scratch is required: on a cluster a run with tables alone needs a folder that "
            "all machines reach, such as s3a://bucket/scratch"
        )
    return LocalFolder(scratch_folder())


@contextmanager
def scratch_space(base: Folder) -> Iterator[Folder]:
    """Make a scratch folder that is removed when the block ends; remove those of killed runs."""
    for left in base.children():
        if left.name.startswith(_PREFIX) and has_been_left(left):
            left.remove()
    folder = base / f"{_PREFIX}{uuid.uuid4().hex}"
    try:
        mark_as_mine(folder)
        yield folder
    finally:
        folder.remove()


def mark_as_mine(folder: Folder) -> None:
    """Create a folder, and mark it as this process's."""
    try:
        folder.write_text(_MARK, process_mark() or "")
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise SettingsError(f"{folder.uri}: {error.strerror}") from error


def leave(folder: Folder) -> None:
    """Let a later run have what is in a folder of this process."""
    with suppress(OSError, Py4JError):
        folder.write_text(_MARK, _LEFT)


def has_been_left(folder: Folder) -> bool:
    """Whether it is certain that the run which marked a folder has ended."""
    mark, newest = folder.read_text(_MARK), folder.newest()
    return mark == _LEFT or has_ended(mark) or 0 < newest < time.time() - _LEFT_SECONDS


def is_in_use(folder: Folder) -> bool:
    """Whether it is certain that the process which marked a folder still runs."""
    return is_running(folder.read_text(_MARK))
