"""The driver is killed at every step of publishing, alone or with all its child processes."""

import os
import signal
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.spark.faults.conftest import Published
from tests.support.manifest_rows import DS, Categorize
from tests.support.processes import fork_script
from tests.support.watching import Watch

pytestmark = [pytest.mark.spark, pytest.mark.slow]

DIES = """
import os, signal, sys, threading, time
from contextlib import suppress
from pathlib import Path
import psutil
from jobs import categorize_listings as job

def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

def die_with_all():
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    die()

def replace_and_die(path, target, replace=Path.replace):
    replace(path, target)
    die()

def when(written, end):
    # Spark's tasks write below _temporary: embeddings in a scratch folder, then the rows.
    output = Path(sys.argv[sys.argv.index("--output") + 1])
    pattern = written + "/_temporary/0/_temporary/*/*.parquet"
    def wait():
        while not list(output.glob(pattern)):
            time.sleep(0.002)
        end()
    threading.Thread(target=wait, daemon=True).start()

{patch}
sys.exit(job.main(sys.argv[1:]))
"""

STEPS = {
    "partition held": "job.ship_model = die",
    "embedding": "when('_scratch-*/run=*', die)",
    "embedding, with all": "when('_scratch-*/run=*', die_with_all)",
    "embedded": "job.score_photos = die",
    "staging": "when('_runs/*/*', die)",
    "staging, with all": "when('_runs/*/*', die_with_all)",
    "staged": "job._check_counts = die",
    "link made": "Path.replace = die",
    "link replaced": "Path.replace = replace_and_die",
}


@pytest.mark.parametrize("step", STEPS)
def test_readers_see_one_run_whole_and_the_next_run_cleans_up(
    step: str,
    flags: list[str],
    manifest: Path,
    published: Published,
    listings: list[str],
    categorize: Categorize,
    tracking_uri: str,
    tmp_path: Path,
) -> None:
    runs, link = published.output / "_runs" / f"ds={DS}", published.output / f"ds={DS}"
    with Watch.over(link, listings) as watch:
        killed = fork_script(tmp_path, DIES.format(patch=STEPS[step]), *flags)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        done = step == "link replaced"
        left = Path(os.path.realpath(link)).name
        assert (left != published.run) == done
        after = categorize(manifest, published.output)["run_id"]
    assert watch.runs == [published.run, *([left] if done else []), after]
    # The killed run's leftovers are gone; the replaced run stays for those who still read it.
    assert {path.name for path in runs.iterdir()} == {left, after}
    client = MlflowClient(tracking_uri)
    experiment = client.get_run(after).info.experiment_id
    (_, last) = client.search_runs([experiment], order_by=["start_time DESC"], max_results=2)
    assert last.info.status == "KILLED"


def test_a_run_that_is_asked_to_end_cleans_up(
    flags: list[str],
    manifest: Path,
    published: Published,
    listings: list[str],
    categorize: Categorize,
    tracking_uri: str,
    tmp_path: Path,
) -> None:
    """SIGTERM is what a scheduler sends first."""
    asked = "when('_scratch-*/run=*', lambda: os.kill(os.getpid(), signal.SIGTERM))"
    with Watch.over(published.output / f"ds={DS}", listings) as watch:
        ended = fork_script(tmp_path, DIES.format(patch=asked), *flags)
        client = MlflowClient(tracking_uri)
        experiment = client.get_run(published.run).info.experiment_id
        (last, *_) = client.search_runs([experiment], order_by=["start_time DESC"])
        after = categorize(manifest, published.output)["run_id"]
    assert ended.returncode == 130, ended.stderr
    assert [line for line in ended.stderr.splitlines() if line.endswith("error: interrupted")]
    assert last.info.status == "KILLED"
    assert watch.runs == [published.run, after]
    # Tasks may still have been writing when the run cleaned up.
    runs = {path.name for path in (published.output / "_runs" / f"ds={DS}").iterdir()}
    assert runs == {published.run, after}
