"""Publishing: readers see old rows or new ones; one run at a time; killed runs leave nothing."""

import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

from jobs.stages.publish.folder import FolderOutput, FolderPartition
from schemas.errors import PartitionBusy, SettingsError
from tests.support.paths import ROOT

DS = "2026-11-25"
PARTS = 3
ROWS = 50

Reader = Callable[[Path], list[str]]


def write(partition: FolderPartition, run_id: str) -> None:
    """Write rows of a run in files of its own, as Spark does."""
    partition.staged.mkdir()
    for part in range(PARTS):
        table = pa.table({"run": [run_id] * ROWS})
        pq.write_table(table, partition.staged / f"part-{part}-{run_id}.parquet")


def publish(output: Path, run_id: str, ds: str = DS) -> None:
    with FolderOutput(output).hold(ds, run_id) as partition:
        write(partition, run_id)
        partition.publish({})


def read_dataset(output: Path) -> list[str]:
    dataset = pads.dataset(output, partitioning="hive")
    return list(dataset.to_table(["run"])["run"].to_pylist()) if dataset.files else []


def read_pandas(output: Path) -> list[str]:
    return list(pd.read_parquet(output).get("run", []))


both_readers = pytest.mark.parametrize("read", [read_dataset, read_pandas])


def runs_kept(output: Path, ds: str = DS) -> list[str]:
    return sorted(path.name for path in (output / "_runs" / f"ds={ds}").iterdir())


# Publishing


@both_readers
def test_publish_replace_and_repeat(tmp_path: Path, read: Reader) -> None:
    for run_id, kept in (("1", ["1"]), ("2", ["1", "2"]), ("3", ["2", "3"])):
        publish(tmp_path / "out", run_id)
        assert read(tmp_path / "out") == [run_id] * PARTS * ROWS
        assert set(pd.read_parquet(tmp_path / "out")["ds"]) == {DS}
        # A replaced run is kept until the next one, for readers that are listing its folder.
        assert runs_kept(tmp_path / "out") == kept


def test_partitions_are_independent(tmp_path: Path) -> None:
    publish(tmp_path, "one", "2026-11-24")
    with FolderOutput(tmp_path).hold(DS, "two") as partition:
        publish(tmp_path, "three", "2026-11-24")
        write(partition, "two")
        partition.publish({})
    assert Counter(read_pandas(tmp_path)) == {"two": PARTS * ROWS, "three": PARTS * ROWS}


def test_the_output_can_be_moved(tmp_path: Path) -> None:
    publish(tmp_path / "here", "one")
    (tmp_path / "here").rename(tmp_path / "there")
    assert read_dataset(tmp_path / "there") == ["one"] * PARTS * ROWS


def test_the_output_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    publish(Path("out"), "one")
    monkeypatch.chdir("/")
    assert read_dataset(tmp_path / "out") == ["one"] * PARTS * ROWS


def test_a_run_that_fails_changes_nothing(tmp_path: Path) -> None:
    publish(tmp_path, "one")

    def fail() -> None:
        with FolderOutput(tmp_path).hold(DS, "two") as partition:
            write(partition, "two")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert read_dataset(tmp_path) == ["one"] * PARTS * ROWS
    assert runs_kept(tmp_path) == ["one"]
    publish(tmp_path, "three")


def test_nothing_is_published_without_publish(tmp_path: Path) -> None:
    with FolderOutput(tmp_path).hold(DS, "one") as partition:
        write(partition, "one")
    assert not (tmp_path / f"ds={DS}").exists()


def test_leftovers_of_killed_runs_are_removed(tmp_path: Path) -> None:
    publish(tmp_path, "one")
    runs = tmp_path / "_runs" / f"ds={DS}"
    (runs / "dead").mkdir()
    (runs / "dead" / "part-0.parquet").write_bytes(b"half")
    (runs / "dead.work" / "deep").mkdir(parents=True)
    (runs / "dead.link").symlink_to("dead")
    (runs / "stray").write_bytes(b"")
    with FolderOutput(tmp_path).hold(DS, "two"):
        assert runs_kept(tmp_path) == ["one"]
        assert read_dataset(tmp_path) == ["one"] * PARTS * ROWS


def test_a_link_to_nothing_is_replaced(tmp_path: Path) -> None:
    (tmp_path / f"ds={DS}").symlink_to("_runs/gone")
    publish(tmp_path, "one")
    assert read_dataset(tmp_path) == ["one"] * PARTS * ROWS


# Concurrent readers


@both_readers
@pytest.mark.parametrize("resolve", [False, True], ids=["by link", "by folder"])
def test_a_reader_never_sees_a_mixture(tmp_path: Path, read: Reader, resolve: bool) -> None:
    """Old rows or new ones; a reader that follows the link twice may miss a file in between."""
    publish(tmp_path, "0")
    outcomes: Counter[str] = Counter()
    has_read, done = threading.Event(), threading.Event()

    def look() -> None:
        while not done.is_set():
            try:
                rows = read((tmp_path / f"ds={DS}").resolve() if resolve else tmp_path)
            except FileNotFoundError:
                rows = []
            outcomes[f"{len(rows)} rows of {len(set(rows))} runs" if rows else "gone"] += 1
            has_read.set()

    with ThreadPoolExecutor() as pool:
        reader = pool.submit(look)
        try:
            for number in range(1, 51):
                publish(tmp_path, str(number))
                # Let the reader finish before the next run removes the replaced one.
                has_read.clear()
                assert reader.done() or has_read.wait(timeout=30)
        finally:
            done.set()
    reader.result()
    whole = f"{PARTS * ROWS} rows of 1 runs"
    assert outcomes.keys() <= ({whole} if resolve else {whole, "gone"})
    assert outcomes[whole] >= 25
    assert read(tmp_path) == ["50"] * PARTS * ROWS


def test_the_partition_exists_at_every_moment(tmp_path: Path) -> None:
    publish(tmp_path, "0")
    done = threading.Event()

    def look() -> set[str]:
        seen = set()
        while not done.is_set():
            seen.add((tmp_path / f"ds={DS}").readlink().name)
        return seen

    with ThreadPoolExecutor() as pool:
        reader = pool.submit(look)
        try:
            for number in range(1, 31):
                publish(tmp_path, str(number))
        finally:
            done.set()
    assert len(reader.result()) > 2


def test_a_reader_that_opened_the_folder_can_list_it_after_the_swap(tmp_path: Path) -> None:
    publish(tmp_path, "one")
    with os.scandir(tmp_path / f"ds={DS}") as folder:
        publish(tmp_path, "two")
        names = sorted(entry.name for entry in folder)
    assert names == [f"part-{part}-one.parquet" for part in range(PARTS)]


# Concurrent runs

HOLDER = """
import sys
from pathlib import Path
from jobs.stages.publish.folder import FolderOutput
with FolderOutput(Path(sys.argv[1])).hold(sys.argv[2], "the-other-run") as partition:
    partition.staged.mkdir()
    (partition.staged / "part-0.parquet").write_bytes(b"half")
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other_process(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process that holds the partition until its input ends."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path), DS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_the_second_run_names_the_holder(
    tmp_path: Path, other_process: "subprocess.Popen[str]"
) -> None:
    for _ in range(2):
        with (
            pytest.raises(PartitionBusy, match=f"ds={DS} is held by run the-other-run") as caught,
            FolderOutput(tmp_path).hold(DS, "mine"),
        ):
            raise AssertionError
        assert f"process {other_process.pid} on " in str(caught.value)
    # What the other run has written is still there.
    assert runs_kept(tmp_path) == ["the-other-run"]
    publish(tmp_path, "mine", "2026-11-26")


def test_a_killed_run_releases_the_lock(
    tmp_path: Path, other_process: "subprocess.Popen[str]"
) -> None:
    other_process.kill()
    other_process.wait()
    assert runs_kept(tmp_path) == ["the-other-run"]
    publish(tmp_path, "mine")
    assert read_dataset(tmp_path) == ["mine"] * PARTS * ROWS
    assert runs_kept(tmp_path) == ["mine"]


def test_a_run_that_ends_releases_the_lock(
    tmp_path: Path, other_process: "subprocess.Popen[str]"
) -> None:
    other_process.communicate()
    assert other_process.returncode == 0
    publish(tmp_path, "mine")


def test_the_same_process_cannot_hold_twice(tmp_path: Path) -> None:
    with (
        FolderOutput(tmp_path).hold(DS, "one"),
        pytest.raises(PartitionBusy, match="held by run one"),
        FolderOutput(tmp_path).hold(DS, "two"),
    ):
        raise AssertionError


# Unusable outputs


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_this_job_did_not_publish_is_left_alone(tmp_path: Path, kind: str) -> None:
    foreign = tmp_path / f"ds={DS}"
    kept = foreign / "part-0.parquet" if kind == "folder" else foreign
    kept.parent.mkdir(exist_ok=True)
    kept.write_bytes(b"precious")
    with (
        pytest.raises(SettingsError, match=f"ds={DS}: was not published by this job"),
        FolderOutput(tmp_path).hold(DS, "one"),
    ):
        raise AssertionError
    assert kept.read_bytes() == b"precious"


@pytest.mark.parametrize("in_the_way", ["out", "out/_runs", f"out/_runs/ds={DS}", "out/_locks"])
def test_a_file_in_place_of_a_folder(tmp_path: Path, in_the_way: str) -> None:
    (tmp_path / in_the_way).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / in_the_way).write_bytes(b"a file")
    with (
        pytest.raises(SettingsError, match=f"--output {tmp_path / 'out'}: ") as caught,
        FolderOutput(tmp_path / "out").hold(DS, "one"),
    ):
        raise AssertionError
    assert "None" not in str(caught.value)
    assert (tmp_path / in_the_way).read_bytes() == b"a file"
