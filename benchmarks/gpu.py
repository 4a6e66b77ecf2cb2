"""Throughput on a GPU: bare forward passes, the embedder, decoders, several processes.

    python -m benchmarks.gpu [--minutes 8]
    python -m benchmarks.gpu --device cpu       # a dry run of every step that needs no GPU

Compares the forward pass alone, in bfloat16 and channels-last, with `PhotoEmbedder` fed with JPEGs
of 1280 by 960, at 224 px. RegNetYs have random weights: speed does not depend on them. The most
important figures come first; a step that the time left does not suffice for is left out, and the
results are written after every figure. Needs no Spark, OpenVINO or MLflow. Prints a Markdown table
and writes JSON; exit code 1 if a step failed, 2 without CUDA.
"""

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import torch

from benchmarks.gpu_measures import (
    Bench,
    apart,
    ask_nvidia_smi,
    bare_rate,
    cpu_decode_rate,
    device_decode_rate,
    fed_rate,
    shared_rate,
)
from benchmarks.measuring import Row, machine_facts, markdown_table, say
from benchmarks.noisy_photos import draw_photo

NO_LOSS = 0.9
"""Share of the bare forward pass that the embedder should reach."""
GOALS = {"regnety_320": 2000}
"""Photos per second that the embedder should reach."""

Figure = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        networks: The most important one first.
        photos: Different photos.
        batch: The runtime's batch, for most figures.
        batches: Others to try.
        processes: How many share the device.
        ways: To run the forward pass, for every network; the last one for every batch.
        ways_apart: Those that leave something behind, for the first network.
        compiled: Whether to compile trunks.
        bare_s: See `Bench`.
        fed_s: See `Bench`.
    """

    networks: tuple[str, ...]
    photos: int
    batch: int
    batches: tuple[int, ...]
    processes: tuple[int, ...]
    ways: tuple[str, ...]
    ways_apart: tuple[str, ...]
    compiled: bool
    bare_s: float
    fed_s: float


ZOO = "zoo:retail-400mf-distilled"
ON_GPU = Plan(
    networks=("regnety_320", "regnety_080", "regnety_008", ZOO),
    photos=64,
    batch=256,
    batches=(64, 128, 512),
    processes=(2, 4),
    ways=("eager", "CUDA graph"),
    ways_apart=("CUDA graph, cuDNN's search",),
    compiled=True,
    bare_s=1.5,
    fed_s=5.0,
)
DRY_RUN = Plan(
    networks=("regnety_002", ZOO),
    photos=4,
    batch=2,
    batches=(1,),
    processes=(2,),
    ways=("eager",),
    ways_apart=("eager",),
    compiled=False,
    bare_s=0.1,
    fed_s=0.3,
)


@dataclass(frozen=True)
class Step:
    """Figures that are measured together.

    Attributes:
        name: For the log.
        seconds: What it may take on a GPU. It is left out if less time is left, and ended after
            them if it runs in a process of its own.
        measure: Yields figures: what was measured, and `photos_per_second`.
    """

    name: str
    seconds: float
    measure: Callable[[], Iterator[Figure]]


def list_steps(plan: Plan, bench: Bench) -> list[Step]:
    """What to measure, the most important first."""
    first, *others = plan.networks
    most, *fewer = thread_counts(os.cpu_count() or 1)

    def bare(name: str, batch: int, way: str, apart_s: float | None = None) -> Step:
        work = partial(bare_figure, bench, name, batch, way, apart_s)
        return Step(f"{name} bare, {way}, batch {batch}", apart_s or 10, work)

    def fed(name: str, batch: int, threads: int, apart_s: float | None = None) -> Step:
        work = partial(fed_figure, bench, name, batch, threads, apart_s)
        how = ", compiled" if apart_s else ""
        return Step(f"{name} fed{how}, batch {batch}, {threads} threads", apart_s or 15, work)

    def shared(processes: int) -> Step:
        work = partial(shared_figure, bench, first, processes, plan.batch, most, 60)
        return Step(f"{first} fed, {processes} processes", 60, work)

    decoded = [
        Step(f"decoding, {threads} threads", 6, partial(decode_figure, bench, threads))
        for threads in (most, *fewer)
    ]
    compiled = [bare(first, plan.batch, "compiled", 150), fed(first, plan.batch, most, 120)]
    listed = [
        decoded[0],
        *(bare(first, plan.batch, way) for way in plan.ways),
        fed(first, plan.batch, most),
        *(compiled if plan.compiled else []),
        *(bare(first, plan.batch, way, 60) for way in plan.ways_apart),
        *(bare(first, batch, plan.ways[-1]) for batch in plan.batches),
        Step("decoding on the device", 10, partial(device_decode_figures, bench)),
        *decoded[1:],
        *(fed(first, plan.batch, threads) for threads in fewer),
        *(shared(processes) for processes in plan.processes),
    ]
    for name in others:
        listed += [*(bare(name, plan.batch, way) for way in plan.ways), fed(name, plan.batch, most)]
    listed += [fed(first, batch, most) for batch in plan.batches]
    if plan.compiled:
        listed += [bare(name, plan.batch, "compiled", 90) for name in others]
        listed.append(bare(first, plan.batch, "compiled, max-autotune", 200))
    return listed


def thread_counts(cores: int) -> list[int]:
    """The number of cores, and the powers of two below it, descending."""
    return sorted({2**k for k in range(cores.bit_length()) if 2**k <= cores} | {cores})[::-1]


def bare_figure(
    bench: Bench, name: str, batch: int, way: str, apart_s: float | None
) -> Iterator[Figure]:
    """The forward pass alone, in a process of its own if it has `apart_s` seconds."""
    wanted = (name, batch, way, bench)
    rate = apart(apart_s, bare_rate, *wanted) if apart_s else bare_rate(*wanted)
    yield {"what": "bare", "network": name, "way": way, "batch": batch, "photos_per_second": rate}


def fed_figure(
    bench: Bench, name: str, batch: int, threads: int, apart_s: float | None
) -> Iterator[Figure]:
    """The embedder in one process; compiled, in a process of its own, if it has `apart_s`."""
    compiled = apart_s is not None
    wanted = (name, batch, threads, compiled, bench)
    rate, busy = apart(apart_s, fed_rate, *wanted) if apart_s else fed_rate(*wanted)
    yield {
        "what": "fed",
        "network": name,
        "compiled": compiled,
        "batch": batch,
        "decode_threads": threads,
        "gpu_busy_percent": busy,
        "photos_per_second": rate,
    }


def shared_figure(
    bench: Bench, name: str, processes: int, batch: int, threads: int, seconds: float
) -> Iterator[Figure]:
    """The embedder in several processes, which share the decode threads."""
    each = max(1, threads // processes)
    yield {
        "what": "shared",
        "network": name,
        "processes": processes,
        "batch": batch,
        "decode_threads": each,
        "photos_per_second": shared_rate(name, processes, batch, each, seconds, bench),
    }


def decode_figure(bench: Bench, threads: int) -> Iterator[Figure]:
    """Decoding on CPUs."""
    rate = cpu_decode_rate(threads, bench)
    yield {"what": "decoded", "decode_threads": threads, "photos_per_second": rate}


def device_decode_figures(bench: Bench) -> Iterator[Figure]:
    """Decoding on the device, without and with resizing there."""
    for resized in (False, True):
        rate = device_decode_rate(bench, resized=resized)
        yield {"what": "decoded on device", "resized": resized, "photos_per_second": rate}


def rows_of(figures: list[Figure]) -> list[Row]:
    """Build the table from the figures there are."""
    rows = []
    decoded = {f["decode_threads"]: f["photos_per_second"] for f in _those(figures, "decoded")}
    fastest = max(decoded.values(), default=math.inf)
    rows += [Row(f"decoding, {count} threads", [rate]) for count, rate in decoded.items()]
    for figure in _those(figures, "decoded on device"):
        rate = figure["photos_per_second"]
        name = f"torchvision on the device{', resized' if figure['resized'] else ''}"
        rows.append(Row(name, [rate], ratios=[rate / fastest], over="decoding on all threads"))
    for network in dict.fromkeys(f["network"] for f in figures if "network" in f):
        rows += _network_rows([f for f in figures if f.get("network") == network], network, fastest)
    return rows


def _network_rows(figures: list[Figure], network: str, decoding: float) -> list[Row]:
    """Rows of one network; `decoding` is the rate of all decode threads."""
    rows = []
    bare, fed = _those(figures, "bare"), _those(figures, "fed")
    for figure in bare:
        name = f"{network} bare, {figure['way']}, batch {figure['batch']}"
        rows.append(Row(name, [figure["photos_per_second"]]))
    limit = max((f["photos_per_second"] for f in bare), default=None)
    for figure in fed:
        name = f"{network} fed{', compiled' if figure['compiled'] else ''}"
        name += f", batch {figure['batch']}, {figure['decode_threads']} threads"
        if (busy := figure["gpu_busy_percent"]) is not None:
            name += f", GPU busy {busy:.0f} %"
        rate = figure["photos_per_second"]
        ratios = [] if limit is None else [rate / min(limit, decoding)]
        rows.append(Row(name, [rate], ratios=ratios, over="the slower of bare and all decoding"))
    if fed:
        best = max(f["photos_per_second"] for f in fed)
        name = f"**{network} fed, the best**"
        if limit is not None:
            over = "the best bare"
            rows.append(Row(name, [best], ratios=[best / limit], over=over, goal=NO_LOSS))
        if goal := GOALS.get(network):
            over = f"{goal:,} photos/s"
            rows.append(Row(name, [best], ratios=[best / goal], over=over, goal=1.0))
        for figure in _those(figures, "shared"):
            rate, processes = figure["photos_per_second"], figure["processes"]
            name = f"{network} fed, {processes} processes of {figure['decode_threads']} threads"
            rows.append(Row(name, [rate], ratios=[rate / best], over="the best of one process"))
    return rows


def _those(figures: list[Figure], what: str) -> list[Figure]:
    return [figure for figure in figures if figure["what"] == what]


class Results:
    """The results file, rewritten after every figure.

    Args:
        path: Where it is; its folder is made.
        facts: What the figures depend on.
    """

    def __init__(self, path: Path, facts: dict[str, Any]) -> None:
        self.figures: list[Figure] = []
        self.left_out: list[str] = []
        self.failed: dict[str, str] = {}
        self._path = path
        self._facts = facts
        path.parent.mkdir(parents=True, exist_ok=True)

    @property
    def markdown(self) -> str:
        """The table, and what is missing in it."""
        lines = [f"**{self._facts['title']}**", "", markdown_table(rows_of(self.figures))]
        lines += [f"\nLeft out for want of time: {name}" for name in self.left_out]
        lines += [f"\nFailed: {name}: {reason}" for name, reason in self.failed.items()]
        return "\n".join(lines)

    def write(self) -> None:
        """Write what there is."""
        record = {
            **self._facts,
            "rows": [row.to_json() for row in rows_of(self.figures)],
            "figures": self.figures,
            "left_out": self.left_out,
            "failed": self.failed,
            "markdown": self.markdown,
        }
        unfinished = self._path.with_suffix(".part")
        unfinished.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        unfinished.replace(self._path)


def measure_within(listed: list[Step], ends_at: float, results: Results) -> None:
    """Take the steps that there is time for, until `ends_at` of the monotonic clock."""
    for step in listed:
        if monotonic() + step.seconds > ends_at:
            say(f"{step.name}: no time left")
            results.left_out.append(step.name)
            continue
        try:
            for figure in step.measure():
                results.figures.append(figure)
                results.write()
                say(f"{step.name}: {figure['photos_per_second']:,.0f} photos/s")
        except Exception as error:  # Whatever it is, the other figures are wanted.
            reason = (str(error).strip() or repr(error)).partition("\n")[0]
            say(f"{step.name}: failed: {reason}")
            results.failed[step.name] = f"{type(error).__name__}: {reason}"
        results.write()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    results.write()


def device_facts(device: str, minutes: float) -> dict[str, Any]:
    """What the figures depend on, and the title of the table."""
    facts: dict[str, Any] = {"machine": machine_facts(), "device": device, "minutes": minutes}
    if device == "cpu":
        title = "Dry run on a CPU with tiny batches: the figures say nothing of a GPU"
        return {"title": title, "dry_run": True, **facts}
    gpu = torch.cuda.get_device_properties(device)
    facts["gpu"] = {
        "name": gpu.name,
        "memory_gib": round(gpu.total_memory / 2**30, 1),
        "driver": ask_nvidia_smi("driver_version"),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }
    return {"title": f"{gpu.name}, torch {torch.__version__}", "dry_run": False, **facts}


def main() -> int:
    """Run the benchmark; returns the exit code."""
    started = monotonic()
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0] if __doc__ else None
    )
    parser.add_argument("--device", choices=("cuda:0", "cpu"), default="cuda:0")
    parser.add_argument("--minutes", type=float, default=8.0, help="what all steps may take")
    parser.add_argument(
        "--output", type=Path, help="default: benchmarks/results/gpu.json, or build/gpu.json (CPU)"
    )
    given = parser.parse_args()
    dry = given.device == "cpu"
    if not dry and not torch.cuda.is_available():
        print("python -m benchmarks.gpu: error: torch finds no CUDA device", file=sys.stderr)
        return 2
    if dry:
        torch.set_num_threads(1)
        os.environ["OMP_NUM_THREADS"] = "1"  # Of the processes that are started.
    plan = DRY_RUN if dry else ON_GPU
    photos = [draw_photo(seed) for seed in range(plan.photos)]
    bench = Bench(given.device, photos, plan.bare_s, plan.fed_s)
    output = given.output or Path("build/gpu.json" if dry else "benchmarks/results/gpu.json")
    results = Results(output, device_facts(given.device, given.minutes))
    measure_within(list_steps(plan, bench), started + 60 * given.minutes, results)
    print(results.markdown)
    print(f"\nWritten to {output} after {monotonic() - started:.0f} s")
    return 1 if results.failed else 0


if __name__ == "__main__":
    sys.exit(main())
