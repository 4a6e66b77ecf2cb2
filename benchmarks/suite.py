"""Measurements of `benchmarks.throughput`, interleaved in rounds so that ratios are fair."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from time import perf_counter

from benchmarks.bounds import CoreBounds
from benchmarks.hand_written import HandWritten
from benchmarks.measuring import measure, say
from benchmarks.networks import drawn_networks
from benchmarks.simulated_accelerator import SimulatedAccelerator, embedded_photos
from benchmarks.spark_job import JobRun, SparkJob
from benchmarks.udf_pattern import UdfPattern
from benchmarks.workload import Workload
from jobs.command.session import start_session
from seer_model.backbones.embedder import PhotoEmbedder
from seer_model.photos.source import PhotoSource

__all__ = ["ACCELERATORS", "Bounds", "Measured", "Plan", "Round", "Suite", "slope"]

ACCELERATORS = {
    "4 times as fast as decoding": 4.0,
    "as fast as decoding": 1.0,
    "a quarter as fast as decoding": 0.25,
}
"""Speeds of the simulated accelerator, relative to decoding."""

_FEW = 16
_ACCELERATOR_BATCH = 32
_SHORTEST_S = 0.01


@dataclass(frozen=True)
class Plan:
    """How much to measure.

    Attributes:
        distinct: Distinct photos.
        growth: Job sizes, in photos, in the first round; later rounds run the first two.
        rounds: Number of rounds.
        slice_s: Seconds of each measurement without Spark.
        eager: Photos in the two runs of the documented pandas UDF.
        openvino: Photos in the two runs of the pandas UDF with OpenVINO.
        known: Photos in the two pre-filled stores.
        reruns: Number of reruns and of re-scorings from each store.
    """

    distinct: int
    growth: tuple[int, int, int]
    rounds: int
    slice_s: float
    eager: tuple[int, int]
    openvino: tuple[int, int]
    known: tuple[int, int]
    reruns: int


@dataclass(frozen=True)
class Bounds:
    """Photos per second: one core decoding, one on the model, and the hand-written process.

    `exact` is one core on the model in floating point.
    """

    decode: float
    model: float
    exact: float
    hand: float

    def together(self, cores: int) -> float:
        """Upper bound in photos per second: decoding and model on `cores` cores, nothing else."""
        return cores / (1 / self.decode + 1 / self.model)


@dataclass(frozen=True)
class Round:
    """One round of measurements, taken back to back. Rates are photos per second.

    Attributes:
        bounds: Mean of the bounds just before and just after the jobs.
        warm: A tiny job on warm workers.
        runs: Jobs of growing size.
        eager: Rate of the documented pandas UDF.
        openvino: Rate of the pandas UDF with OpenVINO.
        decoding: Rate of decoding into an accelerator that costs nothing.
        accelerators: Speed of each simulated accelerator, and the rate at which it was fed.
        colours: Rate of naming colours, a core.
        text: Rate of reading text, a core.
    """

    bounds: Bounds
    warm: JobRun
    runs: Sequence[JobRun]
    eager: float
    openvino: float
    decoding: float
    accelerators: dict[str, tuple[float, float]]
    colours: float
    text: float

    @property
    def job(self) -> float:
        """Photos per second of the job in the steady state."""
        return slope(self.runs[0], self.runs[-1])


@dataclass(frozen=True)
class Measured:
    """All measurements: rounds, rates of reruns and re-scorings, and seconds of start-up."""

    cores: int
    rounds: Sequence[Round]
    again: Sequence[float]
    rescored: Sequence[float]
    start_up: dict[str, float]


def slope(small: JobRun, large: JobRun) -> float:
    """Photos per second between two runs; the start-up that both share cancels out.

    A difference in time below 10 ms counts as 10 ms, since the clock cannot tell it from noise.
    """
    return (large.photos - small.photos) / max(large.seconds - small.seconds, _SHORTEST_S)


class Suite:
    """Sets up the contenders once and measures them in rounds.

    Args:
        plan: How much to measure.
        architecture: The backbone's; weights are drawn. The job computes in eight bits, the
            patterns in floating point.
        folder: An empty folder.
    """

    def __init__(self, plan: Plan, architecture: str, folder: Path) -> None:
        say(f"drawing {plan.distinct} photos")
        (folder / "photos").mkdir()
        self._plan = plan
        self._folder = folder
        _, quantized = drawn_networks(architecture, folder)
        self._workload = Workload(folder / "photos", quantized, plan.distinct)
        saved, exact = self._workload.model / "backbone", folder / "exact"
        say("starting Spark")
        started = perf_counter()
        spark = start_session("throughput")
        self._start_up = {"spark_session_s": perf_counter() - started}
        self._cores = spark.sparkContext.defaultParallelism
        say(f"loading the model on {self._cores} cores")
        self._job = SparkJob(self._workload, folder)
        self._eager = UdfPattern(spark, exact, openvino=False)
        self._openvino = UdfPattern(spark, exact, openvino=True)
        self._core_bounds = CoreBounds(saved, self._workload.photos, self._cores)
        self._exact_bounds = CoreBounds(exact, self._workload.photos, self._cores)
        self._hand_written = HandWritten(quantized, self._cores)
        self._sources = [PhotoSource(str(path), None) for path in self._workload.photos]
        self._free = self._accelerated(math.inf)
        speed = self._fed(self._free)
        self._accelerators = {
            name: (share * speed, self._accelerated(share * speed))
            for name, share in ACCELERATORS.items()
        }

    def run(self) -> Measured:
        """Run all measurements."""
        say("first job, which loads the model")
        self._start_up["first_job_s"] = self._job.embed(_FEW).seconds
        rounds = []
        for number in range(self._plan.rounds):
            say(f"round {number + 1} of {self._plan.rounds}")
            rounds.append(self._round(self._plan.growth[: None if number == 0 else 2]))
        self._start_up["warm_job_s"] = fmean(one.warm.seconds for one in rounds)
        again, rescored = self._reruns()
        return Measured(self._cores, rounds, again, rescored, self._start_up)

    def _round(self, sizes: Sequence[int]) -> Round:
        before = self._bounds()
        # Warm up again: Spark ends workers that were idle for a minute.
        warm = self._embed(_FEW)
        runs = [self._embed(size) for size in sizes]
        after = self._bounds()
        free, fed = [self._fed(self._free)], {}
        for name, (speed, embedder) in self._accelerators.items():
            fed[name] = speed, self._fed(embedder)
            say(f"accelerator of {speed:.0f} photos/s: fed {fed[name][1]:.0f}")
        free.append(self._fed(self._free))
        return Round(
            bounds=Bounds(
                fmean((before.decode, after.decode)),
                fmean((before.model, after.model)),
                fmean((before.exact, after.exact)),
                fmean((before.hand, after.hand)),
            ),
            warm=warm,
            runs=runs,
            eager=self._pattern("pandas UDF", self._eager, self._plan.eager),
            openvino=self._pattern("pandas UDF, OpenVINO", self._openvino, self._plan.openvino),
            decoding=fmean(free),
            accelerators=fed,
            colours=self._core_bounds.rate("colours", self._plan.slice_s),
            text=self._core_bounds.rate("text", self._plan.slice_s),
        )

    def _bounds(self) -> Bounds:
        seconds = self._plan.slice_s
        found = Bounds(
            decode=self._core_bounds.rate("decode", seconds),
            model=self._core_bounds.rate("model", seconds),
            exact=self._exact_bounds.rate("model", seconds),
            hand=measure(self._hand_written.embedded(self._workload.photos), seconds),
        )
        say(
            f"a core: decoding {found.decode:.0f} photos/s, model {found.model:.0f} "
            f"(floating point {found.exact:.0f}); "
            f"{self._cores} cores: bound {found.together(self._cores):.0f}, "
            f"by hand {found.hand:.0f}"
        )
        return found

    def _embed(self, count: int) -> JobRun:
        run = self._job.embed(count)
        say(f"job of {count:,} photos: {run.seconds:.1f} s, {run.peak >> 20} MiB a worker")
        return run

    def _pattern(self, name: str, pattern: UdfPattern, sizes: tuple[int, int]) -> float:
        seconds = [
            pattern.seconds(self._workload.photo_folder(count), self._folder / "vectors")
            for count in (_FEW, *sizes)
        ]
        rate = (sizes[1] - sizes[0]) / max(seconds[2] - seconds[1], _SHORTEST_S)
        say(f"{name}: {rate:.0f} photos/s")
        return rate

    def _accelerated(self, speed: float) -> PhotoEmbedder:
        preprocessing = self._workload.preprocessing
        accelerator = SimulatedAccelerator(
            preprocessing, batch_size=_ACCELERATOR_BATCH, speed=speed
        )
        return PhotoEmbedder(accelerator, decode_threads=self._cores)

    def _fed(self, embedder: PhotoEmbedder) -> float:
        return measure(embedded_photos(embedder, self._sources), self._plan.slice_s)

    def _reruns(self) -> tuple[list[float], list[float]]:
        """Photos per second of reruns and of re-scorings, as slopes between two stores."""
        small, large = self._plan.known
        say(f"runs from stores of {small:,} and {large:,} photos")
        again, rescored = [], []
        self._job.again(small)
        for _ in range(self._plan.reruns):
            again.append(slope(self._job.again(small), self._job.again(large)))
            rescored.append(slope(self._job.rescore(small), self._job.rescore(large)))
            say(f"unchanged {again[-1]:,.0f} photos/s, another head {rescored[-1]:,.0f}")
        return again, rescored
