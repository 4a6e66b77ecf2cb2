"""Run `jobs.categorize_listings`; measure its time and its Python workers' peak memory."""

import io
import json
import logging
import os
import uuid
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from benchmarks.udf_pattern import MARK
from benchmarks.workload import DS, Workload
from jobs import categorize_listings

__all__ = ["JobRun", "SparkJob"]

_RESET_PEAK = "5"
"""Written to clear_refs, resets a process's peak memory (proc(5))."""


@dataclass(frozen=True)
class JobRun:
    """A run of the job.

    Attributes:
        photos: Photos in its manifest.
        seconds: Wall-clock time of the job's `main`.
        peak: Peak memory of its largest Python worker, in bytes; 0 where there is no /proc.
    """

    photos: int
    seconds: float
    peak: int


class SparkJob:
    """Runs the job through its `main`, in this process's Spark session.

    Args:
        workload: Manifests and models.
        work: Folder for outputs.
    """

    def __init__(self, workload: Workload, work: Path) -> None:
        self._workload = workload
        self._work = work
        # Hide the job's progress; it prints its errors itself.
        for name in ("jobs", "seer_model"):
            logger = logging.getLogger(name)
            logger.propagate = False
            logger.addHandler(logging.NullHandler())

    def embed(self, count: int) -> JobRun:
        """Categorize new photos, with an empty store."""
        manifest, store = self._workload.manifest(count), self._work / f"store-{uuid.uuid4().hex}"
        return self._run(count, manifest, self._workload.model, store, new=count)

    def again(self, count: int) -> JobRun:
        """Categorize stored photos again with the same model."""
        manifest, store = self._workload.known(count)
        return self._run(count, manifest, self._workload.model, store, new=0)

    def rescore(self, count: int) -> JobRun:
        """Categorize stored photos with another head."""
        manifest, store = self._workload.known(count)
        return self._run(count, manifest, self._workload.other_model, store, new=0)

    def _run(self, count: int, manifest: Path, model: Path, store: Path, *, new: int) -> JobRun:
        report = self._work / "report.json"
        options = {
            "manifest": manifest,
            "ds": DS,
            "model": model,
            "output": self._work / f"categories-{manifest.name}",
            "embeddings": store,
            "tracking-uri": f"sqlite:///{self._work / 'mlflow.db'}",
            "report": report,
        }
        argv = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        _forget_peaks()
        started = perf_counter()
        with redirect_stdout(io.StringIO()):
            code = categorize_listings.main(argv)
        seconds = perf_counter() - started
        peak = max((_status(worker, "VmHWM") for worker in _workers()), default=0) * 1024
        if code:
            raise SystemExit(code)
        figures = json.loads(report.read_text(encoding="utf-8"))
        found = figures["photos_embedded"], figures["photos_used"]
        if found != (new, count):
            raise ValueError(f"embedded and used {found} photos, not {(new, count)}")
        return JobRun(count, seconds, peak)


def _forget_peaks() -> None:
    for worker in _workers():
        with suppress(OSError):
            (worker / "clear_refs").write_text(_RESET_PEAK)


def _workers() -> Iterator[Path]:
    """List /proc folders of the job's Python workers, without those of the UDF patterns."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
            if b"pyspark.daemon" not in command or not _is_below(int(folder.name)):
                continue
            if MARK.encode() not in (folder / "environ").read_bytes():
                yield folder
        except (FileNotFoundError, ProcessLookupError):
            continue  # The process has just ended.


def _is_below(pid: int) -> bool:
    while pid > 1 and pid != os.getpid():
        pid = _status(Path(f"/proc/{pid}"), "PPid")
    return pid == os.getpid()


def _status(process: Path, name: str) -> int:
    lines = (process / "status").read_text(encoding="utf-8").splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)
