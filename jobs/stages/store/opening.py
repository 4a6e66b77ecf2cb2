"""Open and hold the embedding store that `--embeddings` names."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jobs.command.folders import Folder
from jobs.command.locations import Table
from jobs.stages.store.base import EmbeddingStore, NoStore
from jobs.stages.store.folder import FolderStore, hold_folder
from jobs.stages.store.table import TableStore

__all__ = ["hold_store", "open_store"]


@contextmanager
def open_store(
    location: Path | Table | None, digest: str, scratch: Folder
) -> Iterator[EmbeddingStore]:
    """One backbone's part of a store, used until the block ends.

    Args:
        location: `--embeddings`; None to keep nothing.
        digest: The backbone's digest.
        scratch: A folder that outlives the run.
    """
    store: EmbeddingStore
    if isinstance(location, Table):
        store = TableStore(location, digest, scratch)
    else:
        store = NoStore(digest) if location is None else FolderStore(location, digest)
    try:
        yield store
    finally:
        store.close()


@contextmanager
def hold_store(location: Path | Table | None) -> Iterator[None]:
    """Keep upkeep away from a store until the block ends; a table needs no such lock.

    Raises:
        PartitionBusy: Upkeep holds the store.
        SettingsError: It cannot be written or locked.
    """
    if isinstance(location, Path):
        with hold_folder(location, exclusive=False):
            yield
    else:
        yield
