"""The contenders of `benchmarks.peers`, each a command in a process of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import pyarrow.dataset as ds

from benchmarks.workload import DS, Workload

__all__ = ["PEERS_PYTHON", "Job", "Peer", "PeerError", "run"]

ROOT = Path(__file__).parents[1]
PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"
_PROGRAMS = "benchmarks.peer_programs"
_TIMEOUT_S = 600
_SILENT = {"RAY_USAGE_STATS_ENABLED": "0", "DAFT_ANALYTICS_ENABLED": "0", "DO_NOT_TRACK": "1"}
"""No usage statistics: Ray's, Daft's."""


class PeerError(Exception):
    """A contender failed, or left out photos; one line."""


@dataclass(frozen=True)
class Peer:
    """A program that embeds a folder of photos, and writes Parquet with `path` and `vector`.

    Attributes:
        name: What the table calls it.
        python: The environment's interpreter.
        program: Module in `benchmarks.peer_programs`.
        backbone: Folder of the backbone.
        home: Its home folder: Ray leaves a token there.
        openvino: Compute with the backbone's OpenVINO network instead of eager torch.
    """

    name: str
    python: Path
    program: str
    backbone: Path
    home: Path
    openvino: bool = False

    def seconds(self, photos: Path, output: Path) -> float:
        """Embed the photos of a folder; returns the seconds from start to end.

        Raises:
            PeerError: It failed, took longer than ten minutes, or not every photo came out.
        """
        command = [self.python, "-m", f"{_PROGRAMS}.{self.program}", photos, self.backbone, output]
        chosen = ["--openvino"] if self.openvino else []
        taken = run(self.name, [*map(str, command), *chosen], {"HOME": str(self.home)})
        expected = {path.name for path in photos.iterdir()}
        found = [
            Path(path).name for path in _parquet(output).to_table(["path"])["path"].to_pylist()
        ]
        if len(found) != len(expected) or set(found) != expected:
            raise PeerError(f"{self.name}: {len(found)} rows for {len(expected)} photos")
        return taken

    def vectors(self, output: Path) -> dict[str, np.ndarray]:
        """Read the vectors of an output, by the photo's file name."""
        rows = _parquet(output).to_table(["path", "vector"]).to_pylist()
        return {Path(row["path"]).name: np.array(row["vector"], np.float32) for row in rows}


@dataclass(frozen=True)
class Job:
    """Our job's command, on a manifest, with an empty store and a new MLflow database."""

    workload: Workload
    name: str = "**the Spark job**"

    def seconds(self, count: int, work: Path) -> float:
        """Categorize `count` new photos, in an empty folder; returns the seconds it took.

        Raises:
            PeerError: It failed, took longer than ten minutes, or left out photos.
        """
        options = {
            "manifest": self.workload.manifest(count),
            "ds": DS,
            "model": self.workload.model,
            "output": work / "categories",
            "embeddings": work / "embeddings",
            "tracking-uri": f"sqlite:///{work / 'mlflow.db'}",
            "report": work / "report.json",
        }
        flags = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        taken = run("our job", [sys.executable, "-m", "jobs.categorize_listings", *flags], {})
        report = json.loads((work / "report.json").read_text(encoding="utf-8"))
        if report["photos_embedded"] != count:
            raise PeerError(f"our job: {report['photos_embedded']} of {count} photos embedded")
        return taken


def run(name: str, command: Sequence[str], environment: Mapping[str, str]) -> float:
    """Run a command to its end, in a process group of its own; returns the seconds it took.

    Raises:
        PeerError: It failed or took too long.
    """
    started = perf_counter()
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | _SILENT | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        _, said = process.communicate(timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise PeerError(f"{name}: not done after {_TIMEOUT_S} s") from None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.returncode:
        tail = " / ".join(said.strip().splitlines()[-3:]) or "no message"
        raise PeerError(f"{name}: exit code {process.returncode}: {tail}")
    return perf_counter() - started


def _parquet(folder: Path) -> ds.Dataset:
    return ds.dataset(folder, format="parquet")
