"""The job is killed at every step of its publishing, alone or with all that it started."""

import os
import signal
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.spark.faults.processes import run_script
from tests.spark.faults.watching import Watch
from tests.spark.manifest_rows import DS, Categorize

pytestmark = [pytest.mark.spark, pytest.mark.slow]

DIES = """
import os, signal, sys, threading, time
from contextlib import suppress
from pathlib import Path
import psutil
from jobs import categorize_listings as job, publish

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
    # Spark's tasks write below _temporary; what the run embeds on the way is in RUN_ID.work.
    output = Path(sys.argv[sys.argv.index("--output") + 1])
    pattern = "_runs/*/*" + written + "/_temporary/0/_temporary/*/*.parquet"
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
    "embedding": "when('.work', die)",
    "embedding, with all": "when('.work', die_with_all)",
    "embedded": "job.score_photos = die",
    "staging": "when('[0-9a-f]', die)",
    "staging, with all": "when('[0-9a-f]', die_with_all)",
    "staged": "job._check_counts = die",
    "counted": "publish.Partition.publish = die",
    "link made": "Path.replace = die",
    "link replaced": "Path.replace = replace_and_die",
}


@pytest.mark.parametrize("step", STEPS)
def test_readers_see_one_run_whole_and_the_next_run_puts_all_right(
    step: str,
    flags: list[str],
    manifest: Path,
    output: Path,
    listings: list[str],
    categorize: Categorize,
    tmp_path: Path,
) -> None:
    runs = output / "_runs" / f"ds={DS}"
    published = output / f"ds={DS}"
    before = categorize(manifest, output)["run_id"]
    with Watch.over(published, listings) as watch:
        killed = run_script(tmp_path, DIES.format(patch=STEPS[step]), *flags)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        done = step == "link replaced"
        assert (Path(os.path.realpath(published)).name != before) == done
        left = Path(os.path.realpath(published)).name
        after = categorize(manifest, output)["run_id"]
    assert watch.runs == [before, *([left] if done else []), after]
    # What the killed run left is gone; the one replaced stays for those who read it.
    assert {path.name for path in runs.iterdir()} == {left, after}


def test_asked_to_end_it_leaves_all_in_order(
    flags: list[str],
    manifest: Path,
    output: Path,
    listings: list[str],
    categorize: Categorize,
    tracking_uri: str,
    tmp_path: Path,
) -> None:
    """SIGTERM is what a scheduler sends first."""
    before = categorize(manifest, output)["run_id"]
    asked = "when('.work', lambda: os.kill(os.getpid(), signal.SIGTERM))"
    with Watch.over(output / f"ds={DS}", listings) as watch:
        ended = run_script(tmp_path, DIES.format(patch=asked), *flags)
        client = MlflowClient(tracking_uri)
        experiment = client.get_run(before).info.experiment_id
        (last, *_) = client.search_runs([experiment], order_by=["start_time DESC"])
        after = categorize(manifest, output)["run_id"]
    assert ended.returncode == 130, ended.stderr
    assert [line for line in ended.stderr.splitlines() if line.endswith("error: interrupted")]
    assert last.info.status == "KILLED"
    assert watch.runs == [before, after]
    # Tasks may have been writing still when the run tidied.
    assert {path.name for path in (output / "_runs" / f"ds={DS}").iterdir()} == {before, after}
