"""Speed of the Spark job against Ray Data and Daft, on the same photos with the same network.

    make .venv-peers/.stamp
    .venv/bin/python -m benchmarks.peers

Takes ten to twenty minutes on two cores, three with `--quick`. Every contender is a command in a
process of its own, from a cold start to its end. The smaller of two runs is the whole command; the
rate is the slope to the larger, which leaves start-up out. Contenders take turns, in rounds. Every
photo must come out, with a vector that agrees with ours. The job computes in eight bits, the others
in floating point. Prints a Markdown table and writes it as JSON.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from time import perf_counter

import numpy as np

from benchmarks.measuring import Row, machine_facts, markdown_table, say
from benchmarks.networks import drawn_networks
from benchmarks.peer_processes import PEERS_PYTHON, Job, Peer, PeerError
from benchmarks.results_file import write_results
from benchmarks.workload import Workload
from seer_model.backbones.backbone import load_backbone
from seer_model.backbones.runtimes.choose import open_runtime
from seer_model.photos.limits import PhotoLimits
from seer_model.photos.pixels import prepare_photo

GOAL = 5.0
WHOLE_S = 15.0
AGREEMENT = 0.98
"""Cosine of a vector with ours, both less our mean: without that, any two photos have 0.99."""

COMPARED = 32
"""Photos whose vectors are compared with ours."""

SHORTEST_S = 0.01


@dataclass(frozen=True)
class Plan:
    """How much to measure: rounds, and photos in a run.

    Attributes:
        whole: Photos of the smaller run, all of them distinct.
        eager: Photos of the larger run of a program with the eager network.
        openvino: Photos of the larger run of a program with the OpenVINO network.
        job: Photos of the larger run of the job.
        rounds: Number of rounds. The programs with the OpenVINO network run in the first.
    """

    whole: int
    eager: int
    openvino: int
    job: int
    rounds: int


FULL = Plan(whole=256, eager=640, openvino=1024, job=2560, rounds=2)
QUICK = Plan(whole=32, eager=64, openvino=96, job=128, rounds=1)


@dataclass(frozen=True)
class Timed:
    """A contender's two runs: seconds of the whole command, and photos per second."""

    whole_s: float
    rate: float


class Contest:
    """Lets the contenders run in turns.

    Args:
        plan: How much to measure.
        architecture: The backbone's.
        folder: An empty folder.
    """

    def __init__(self, plan: Plan, architecture: str, folder: Path) -> None:
        say(f"drawing {plan.whole} photos")
        (folder / "photos").mkdir()
        (folder / "home").mkdir()
        self._plan = plan
        self._folder = folder
        _, quantized = drawn_networks(architecture, folder)
        self._workload = Workload(folder / "photos", quantized, plan.whole)
        self._backbone = folder / "exact"
        self._job = Job(self._workload)
        ray, daft = (
            (self._peer(name, PEERS_PYTHON, program), self._peer(name, PEERS_PYTHON, program, True))
            for name, program in (("Ray Data", "ray_data"), ("Daft", "daft_frame"))
        )
        spark = Path(sys.executable)
        self._udf = self._peer("documented pandas UDF", spark, "pandas_udf")
        self._documented = [ray[0], daft[0]]
        self._with_openvino = [ray[1], daft[1]]
        self._ours = self._vectors()

    def run(self) -> list[dict[str, Timed]]:
        """Run all rounds; returns each round's measurements, by the contender's name."""
        return [self._round(number) for number in range(self._plan.rounds)]

    def _peer(self, name: str, python: Path, program: str, openvino: bool = False) -> Peer:
        label = f"{name}, our OpenVINO network" if openvino else name
        return Peer(label, python, program, self._backbone, self._folder / "home", openvino)

    def _round(self, number: int) -> dict[str, Timed]:
        say(f"round {number + 1} of {self._plan.rounds}")
        plan = self._plan
        found = {self._job.name: self._timed(self._job, plan.job)}
        found |= {peer.name: self._timed(peer, plan.eager) for peer in self._documented}
        if number == 0:
            found |= {peer.name: self._timed(peer, plan.openvino) for peer in self._with_openvino}
            found[self._udf.name] = self._timed(self._udf, plan.eager)
        return found

    def _timed(self, contender: Peer | Job, large: int) -> Timed:
        small = self._plan.whole
        seconds = [self._seconds(contender, count) for count in (small, large)]
        rate = (large - small) / max(seconds[1] - seconds[0], SHORTEST_S)
        say(f"{contender.name}: {small} photos in {seconds[0]:.1f} s, {rate:.0f} photos/s")
        return Timed(seconds[0], rate)

    def _seconds(self, contender: Peer | Job, count: int) -> float:
        work = self._folder / "work"
        work.mkdir()
        if isinstance(contender, Job):
            taken = contender.seconds(count, work)
        else:
            taken = contender.seconds(self._workload.photo_folder(count), work / "vectors")
            self._check(contender.name, contender.vectors(work / "vectors"))
        rmtree(work)
        return taken

    def _check(self, name: str, vectors: Mapping[str, np.ndarray]) -> None:
        mean = np.mean(list(self._ours.values()), axis=0)
        for photo, vector in self._ours.items():
            ours, theirs = vector - mean, vectors[photo] - mean
            cosine = ours @ theirs / (np.linalg.norm(ours) * np.linalg.norm(theirs))
            if not cosine > AGREEMENT:
                raise PeerError(f"{name}: the vector of {photo} is not ours: cosine {cosine:.3f}")

    def _vectors(self) -> dict[str, np.ndarray]:
        """Our vectors of some photos in floating point, by file name."""
        runtime = open_runtime(load_backbone(self._backbone), batch_size=COMPARED)
        paths = sorted(self._workload.photo_folder(self._plan.whole).iterdir())[:COMPARED]
        size = runtime.preprocessing.image_size
        pixels = [prepare_photo(path.read_bytes(), size, PhotoLimits()) for path in paths]
        vectors = runtime.start(np.stack(pixels))()
        return dict(zip((path.name for path in paths), vectors, strict=True))


def rows_of(rounds: Sequence[Mapping[str, Timed]], plan: Plan) -> list[Row]:
    """Compare the job with each contender, by rate and by the whole command."""
    ours = Job.name
    job = [one[ours] for one in rounds]
    rows = [Row(ours, [one.rate for one in job])]
    others = [name for name in rounds[0] if name != ours]
    for name in others:
        pairs = [(one[ours], one[name]) for one in rounds if name in one]
        rows += [
            Row(name, [theirs.rate for _, theirs in pairs]),
            Row(
                ours,
                ratios=[mine.rate / theirs.rate for mine, theirs in pairs],
                over=name,
                goal=GOAL if name in {"Ray Data", "Daft"} else None,
            ),
        ]
    whole = f"whole command, {plan.whole} photos"
    for name in [ours, *others]:
        seconds = [one[name].whole_s for one in rounds if name in one]
        goal = WHOLE_S if name == ours else None
        rows.append(Row(f"{whole}: {name}", ratios=seconds, over="s", goal=goal, at_most=True))
    fastest = [min(one[name].whole_s for name in others if name in one) for one in rounds]
    ratios = [mine.whole_s / best for mine, best in zip(job, fastest, strict=True)]
    rows.append(
        Row(f"{whole}: {ours}", ratios=ratios, over="the fastest other", goal=1.0, at_most=True)
    )
    return rows


def main() -> int:
    """Run the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers", description=__doc__.splitlines()[0] if __doc__ else None
    )
    parser.add_argument("--architecture", default="regnety_008")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    parser.add_argument(
        "--quick", action="store_true", help="check that it runs; figures are noise"
    )
    given = parser.parse_args()
    if not PEERS_PYTHON.is_file():
        print(f"{parser.prog}: error: run `make .venv-peers/.stamp` first", file=sys.stderr)
        return 2
    # Keep everything on the CPU, as benchmarks.throughput does.
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    begun, load = perf_counter(), os.getloadavg()
    plan = QUICK if given.quick else FULL
    try:
        with tempfile.TemporaryDirectory(prefix="seer-peers-") as folder:
            rounds = Contest(plan, given.architecture, Path(folder)).run()
    except PeerError as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 1
    rows = rows_of(rounds, plan)
    record = {
        "architecture": given.architecture,
        "quick": given.quick,
        "seconds": round(perf_counter() - begun),
        "machine": machine_facts() | {"load_before": load},
        "rounds": [{name: vars(timed) for name, timed in one.items()} for one in rounds],
        "rows": [row.to_json() for row in rows],
        "markdown": markdown_table(rows),
    }
    write_results(given.output / "peers.json", record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
