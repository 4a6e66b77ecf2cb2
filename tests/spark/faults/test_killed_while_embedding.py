"""A run is killed while it embeds: the next one has what its finished tasks have embedded."""

import signal
from pathlib import Path

import pytest

from tests.spark.faults.conftest import Published
from tests.support.manifest_rows import BY_RUN, Categorize, ReadCategories, Rows
from tests.support.processes import fork_script

pytestmark = [pytest.mark.spark, pytest.mark.slow]

PHOTOS_A_TASK = 4
TASKS_DONE = 2
DIES = f"""
import os, signal, sys, threading, time
from pathlib import Path
from jobs import categorize_listings as job
from jobs.stages import embedding

embedding._PHOTOS_PER_TASK = {PHOTOS_A_TASK}
pending = Path(sys.argv[-1]) / "_pending"

def wait():
    while len(list(pending.glob("backbone=*/run=*/*.parquet"))) < {TASKS_DONE}:
        time.sleep(0.002)
    os.kill(os.getpid(), signal.SIGKILL)

threading.Thread(target=wait, daemon=True).start()
sys.exit(job.main(sys.argv[1:]))
"""


def test_no_more_is_embedded_again_than_the_tasks_at_work(
    flags: list[str],
    manifest: Path,
    published: Published,
    rows: Rows,
    categorize: Categorize,
    read_categories: ReadCategories,
    tmp_path: Path,
) -> None:
    store = tmp_path / "new store"
    killed = fork_script(tmp_path, DIES, *flags, "--embeddings", store)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not list(store.glob("backbone=*"))

    after = categorize(manifest, published.output, "--embeddings", str(store))
    kept = after["embeddings_recovered"]
    assert kept >= TASKS_DONE * PHOTOS_A_TASK
    assert kept + after["photos_embedded"] == len(rows)
    table = read_categories(published.output).drop_columns(BY_RUN)
    assert table.equals(published.table)
    assert not [*store.glob("_pending/*/*"), *store.glob("_scratch-*")]
    again = categorize(manifest, published.output, "--embeddings", str(store))
    assert (again["embeddings_recovered"], again["photos_embedded"]) == (0, 0)
