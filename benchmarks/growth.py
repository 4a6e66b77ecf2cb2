"""How a day grows: a million photos that are known already, and small photos from far away.

    .venv/bin/python -m benchmarks.growth

Submits `categorize_listings` to two executors of one core each on this machine, and watches their
memory. Three days of photos that the embedding store has (drawn vectors), each with a thousand new
ones, tell what a known photo costs as a day grows. Two days of small photos, on disk and behind a
web server that answers after 50 ms, tell whether the jobs hide that latency. Needs 24 GB of memory
and 10 GB of disk. Prints a Markdown table and writes JSON.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from time import perf_counter
from typing import Any

import psutil
from PIL import Image

from benchmarks.measuring import machine_facts, say
from benchmarks.networks import drawn_networks
from benchmarks.noisy_photos import draw_photo
from benchmarks.results_file import write_results
from benchmarks.slow_server import slow_server
from benchmarks.workload import DS, Workload
from tests.support.paths import ROOT
from tests.support.spark_java import BIN

EXECUTORS, EXECUTOR_MIB = 2, 2048
DISTINCT = 200
SMALL = (320, 240)
LATENCY_S = 0.05
KINDS = {
    "executors": "CoarseGrainedExecutorBackend",
    "workers": "pyspark.daemon",
    "driver": "categorize_listings",
}
"""Kinds of processes, by what their command line has; the first that matches."""
WATCH_S = 0.25


@dataclass(frozen=True)
class Day:
    """One run of the job.

    Attributes:
        name: What it read.
        photos: Photos of the day.
        embedded: Those that it embedded.
        seconds: Wall-clock time of the whole command.
        shuffled: Bytes that were written for other tasks to read.
        peaks: Peak memory (RSS) by `KINDS`, in bytes: of the largest executor and worker, and of
            the driver's two processes, Python and Java, together.
    """

    name: str
    photos: int
    embedded: int
    seconds: float
    shuffled: int
    peaks: dict[str, int]


def run_day(
    name: str, manifest: Path, store: Path | None, model: Path, work: Path, *flags: str
) -> Day:
    """Submit the job for one manifest; fails where it did."""
    say(name)
    folder = Path(tempfile.mkdtemp(dir=work))
    events, report = folder / "events", folder / "report.json"
    events.mkdir()
    conf = {
        "spark.driver.memory": "2g",
        "spark.executor.cores": 1,
        "spark.executor.memory": f"{EXECUTOR_MIB}m",
        "spark.executorEnv.PYTHONPATH": ROOT,
        "spark.eventLog.enabled": "true",
        "spark.eventLog.compress": "false",
        "spark.eventLog.rolling.enabled": "false",
        "spark.eventLog.dir": events.as_uri(),
        "spark.local.dir": folder / "local",
        "spark.ui.enabled": "false",
    }
    options = {
        "manifest": manifest,
        "ds": DS,
        "model": model,
        "output": folder / "categories",
        "embeddings": store or folder / "store",
        "tracking-uri": f"sqlite:///{work / 'mlflow.db'}",
        "report": report,
    }
    command: list[Any] = [BIN / "spark-submit"]
    command += ["--master", f"local-cluster[{EXECUTORS},1,{EXECUTOR_MIB}]"]
    command += [part for pair in conf.items() for part in ("--conf", "=".join(map(str, pair)))]
    command += [ROOT / "jobs" / "categorize_listings.py"]
    command += [part for key, value in options.items() for part in (f"--{key}", value)]
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_LOCAL_IP": "127.0.0.1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    started = perf_counter()
    with (folder / "log").open("wb") as log:
        submitted = subprocess.Popen(
            [*command, *flags], env=environment, cwd=folder, stdout=log, stderr=log
        )
        peaks = watch_memory(submitted)
    seconds = perf_counter() - started
    if submitted.returncode:
        sys.exit((folder / "log").read_text(encoding="utf-8"))
    figures = json.loads(report.read_text(encoding="utf-8"))
    if figures["photos_rejected"] or figures["photos_used"] != figures["photos"]:
        sys.exit(f"{name}: {figures['reject_reasons']}")
    photos, embedded = figures["photos"], figures["photos_embedded"]
    return Day(name, photos, embedded, seconds, shuffled_bytes(events), peaks)


def watch_memory(submitted: "subprocess.Popen[bytes]") -> dict[str, int]:
    """Look at the memory of a submitted job's processes until it ends."""
    peaks = dict.fromkeys(KINDS, 0)
    top = psutil.Process(submitted.pid)
    while True:
        now = dict.fromkeys(KINDS, 0)
        for process in [top, *top.children(recursive=True)]:
            try:
                command, memory = " ".join(process.cmdline()), process.memory_info().rss
            except psutil.Error:  # It has just ended.
                continue
            kind = next((kind for kind, mark in KINDS.items() if mark in command), None)
            if kind == "driver":
                now[kind] += memory
            elif kind is not None:
                now[kind] = max(now[kind], memory)
        peaks = {kind: max(peaks[kind], now[kind]) for kind in KINDS}
        try:
            submitted.wait(WATCH_S)
        except subprocess.TimeoutExpired:
            continue
        return peaks


def shuffled_bytes(events: Path) -> int:
    """Sum what tasks wrote for other tasks, from Spark's event log."""
    total = 0
    for path in events.iterdir():
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith('{"Event":"SparkListenerTaskEnd"'):
                metrics = json.loads(line).get("Task Metrics") or {}
                total += metrics.get("Shuffle Write Metrics", {}).get("Shuffle Bytes Written", 0)
    return total


def small_photo(photo: bytes) -> bytes:
    """Make a small file of a photo, as thumbnails are."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(photo)) as image:
        image.resize(SMALL, Image.Resampling.BOX).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def known_days(workload: Workload, sizes: Sequence[int], new: int, work: Path) -> Iterator[Day]:
    """Run the days of known photos, after one of the new photos alone."""
    model, alone = workload.model, workload.manifest(new)
    yield run_day(f"{new:,} new photos", alone, None, model, work)
    for size in sizes:
        manifest, store = workload.known(size - new)
        for part in (alone / f"ds={DS}").iterdir():
            os.link(part, manifest / f"ds={DS}" / f"new-{part.name}")
        yield run_day(f"{size:,} photos, {new:,} of them new", manifest, store, model, work)


def small_days(workload: Workload, near: int, far: Sequence[int], work: Path) -> Iterator[Day]:
    """Run the days of small photos: on disk, and behind a server."""
    photos = [small_photo(draw_photo(seed)) for seed in range(DISTINCT)]
    size = sum(map(len, photos)) / len(photos) / 1000
    model, kind = workload.model, f"small photos ({size:.0f} KB)"
    local = work / "small"
    local.mkdir()
    for number in range(near):
        (local / f"{number:06}.jpg").write_bytes(photos[number % DISTINCT])
    manifest = workload.addressed(near, lambda number: str(local / f"{number:06}.jpg"), "near")
    yield run_day(f"{near:,} {kind} on disk", manifest, None, model, work)
    with slow_server(photos, LATENCY_S) as address:
        for count in far:
            manifest = workload.addressed(count, lambda n: f"{address}/{n}.jpg", f"far-{count}")
            name = f"{count:,} {kind} by http, {LATENCY_S * 1000:.0f} ms"
            flags = ("--photo-hosts", "127.0.0.1", "--private-photo-hosts")
            yield run_day(name, manifest, None, model, work, *flags)


def table(days: Sequence[Day]) -> str:
    """Format the days as Markdown."""
    lines = [
        "| | whole command | photos/s | shuffled | an executor's JVM | a worker | driver |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for day in days:
        memory = " | ".join(f"{day.peaks[kind] / 2**30:.2f} GiB" for kind in KINDS)
        lines.append(
            f"| {day.name} | {day.seconds:.0f} s | {day.photos / day.seconds:,.0f} "
            f"| {day.shuffled / 1e6:,.1f} MB | {memory} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run the days and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.growth", description=__doc__.splitlines()[0] if __doc__ else None
    )
    parser.add_argument("--architecture", default="regnety_004")
    parser.add_argument("--known", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--new", type=int, default=1000, help="photos of those that are new")
    parser.add_argument("--near", type=int, default=10_000, help="small photos on disk")
    parser.add_argument("--far", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    begun = perf_counter()
    with tempfile.TemporaryDirectory(prefix="seer-bench-") as folder:
        work = Path(folder)
        (work / "photos").mkdir()
        _, quantized = drawn_networks(arguments.architecture, work)
        workload = Workload(work / "photos", quantized, min(DISTINCT, arguments.new))
        days: list[Day] = []
        for day in chain(
            known_days(workload, arguments.known, arguments.new, work),
            small_days(workload, arguments.near, arguments.far, work),
        ):
            days.append(day)
            record = {
                "architecture": arguments.architecture,
                "seconds": round(perf_counter() - begun),
                "machine": machine_facts(),
                "days": [asdict(day) for day in days],
                "markdown": table(days),
            }
            write_results(arguments.results / "growth.json", record)  # A cut run keeps its days.


if __name__ == "__main__":
    main()
