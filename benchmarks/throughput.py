"""Speed of the Spark job, against the processor's upper bound and against the alternatives.

    .venv/bin/python -m benchmarks.throughput

Takes less than ten minutes on two cores, about one with `--quick`. Measures in rounds, so that both
sides of a ratio are measured close together; the table has the median and range of the rounds.
Rates of Spark are slopes between two runs of different sizes, which leaves start-up out; it is
given below the table. The job computes in eight bits, the patterns in floating point. Prints a
Markdown table, writes it as JSON and plots it.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from benchmarks.charts import plot_throughput
from benchmarks.measuring import Row, machine_facts, markdown_table
from benchmarks.spark_job import JobRun
from benchmarks.suite import ACCELERATORS, Measured, Plan, Suite, slope

FULL = Plan(
    distinct=400,
    growth=(1000, 4000, 16000),
    rounds=3,
    slice_s=3.0,
    eager=(128, 448),
    openvino=(128, 768),
    known=(20_000, 160_000),
    reruns=3,
)
QUICK = Plan(
    distinct=20,
    growth=(40, 80, 160),
    rounds=1,
    slice_s=0.4,
    eager=(8, 40),
    openvino=(16, 64),
    known=(200, 800),
    reruns=1,
)
JOB = "**the Spark job**"
NO_LOSS = 0.9
FED = 0.95
RERUN = 0.01
RESCORED = 100
FLAT = 1.1
WORKER_MIB = 600
# Goals over both pandas UDFs, by what the CPU has for eight bits.
PATTERNS = {"AMX": (9.0, 2.3), "VNNI": (7.0, 2.3), "neither AMX nor VNNI": (4.0, 1.8)}


def bound_rows(measured: Measured) -> list[Row]:
    """Compare the job with the processor's upper bound."""
    rounds, cores = measured.rounds, measured.cores
    job = [one.job for one in rounds]
    bound = [one.bounds.together(cores) for one in rounds]
    hand = [one.bounds.hand for one in rounds]
    every = f"{cores} cores"
    return [
        Row("decoding alone, one core", [one.bounds.decode for one in rounds]),
        Row("model alone in eight bits, one core", [one.bounds.model for one in rounds]),
        Row("model alone in floating point, one core", [one.bounds.exact for one in rounds]),
        Row(f"bound, {every}: 1 / (decode + model)", bound),
        Row(f"written by hand, {every}", hand, ratios=over(hand, bound), over="bound"),
        Row(JOB, job, ratios=over(job, bound), over="bound", goal=NO_LOSS),
        Row(JOB, job, ratios=over(job, hand), over="written by hand", goal=NO_LOSS),
    ]


def pattern_rows(measured: Measured, kind: str) -> list[Row]:
    """Compare the job with pandas UDFs."""
    job = [one.job for one in measured.rounds]
    eager = [one.eager for one in measured.rounds]
    openvino = [one.openvino for one in measured.rounds]
    goals = PATTERNS[kind]
    return [
        Row("documented pandas UDF: Pillow, eager f32", eager),
        Row(JOB, job, ratios=over(job, eager), over="documented pandas UDF", goal=goals[0]),
        Row("the same with our OpenVINO model", openvino),
        Row(JOB, job, ratios=over(job, openvino), over="that with OpenVINO", goal=goals[1]),
    ]


def accelerator_rows(measured: Measured) -> list[Row]:
    """Compare the feeding of an accelerator with the slower of both sides."""
    rounds = measured.rounds
    rows = [Row("decoding into an accelerator that costs nothing", [x.decoding for x in rounds])]
    for name in ACCELERATORS:
        fed = [one.accelerators[name][1] for one in rounds]
        limit = [min(one.decoding, one.accelerators[name][0]) for one in rounds]
        ratios = over(fed, limit)
        rows.append(
            Row(f"an accelerator {name}", fed, ratios=ratios, over="the slower of both", goal=FED)
        )
    return rows


def signal_rows(measured: Measured) -> list[Row]:
    """Compare what screening and describing take of a photo with decoding and model."""
    rounds = measured.rounds
    both = [one.bounds.together(1) for one in rounds]
    colours, text = [one.colours for one in rounds], [one.text for one in rounds]
    share = "decode + model, one core"
    return [
        Row("naming colours: time a photo", colours, ratios=over(both, colours), over=share),
        Row("reading text: time a photo", text, ratios=over(both, text), over=share),
    ]


def store_rows(measured: Measured) -> list[Row]:
    """Compare runs from the embedding store with a first run, per photo."""
    first = median(one.job for one in measured.rounds)
    again = [first / rate for rate in measured.again]
    rescored = [rate / first for rate in measured.rescored]
    return [
        Row(
            "rerun, nothing changed: time a photo",
            measured.again,
            ratios=again,
            over="first run",
            goal=RERUN,
            at_most=True,
        ),
        Row(
            "re-scored with another head",
            measured.rescored,
            ratios=rescored,
            over="first run",
            goal=RESCORED,
        ),
    ]


def growth_rows(measured: Measured) -> list[Row]:
    """Compare time and memory between job sizes."""
    warm, runs = measured.rounds[0].warm, measured.rounds[0].runs
    rates = [slope(warm, run) for run in runs]
    rows = [
        Row(f"job of {run.photos:,} photos{_memory(run)}", [rate])
        for run, rate in zip(runs, rates, strict=True)
    ]
    small, large = runs[0], runs[-1]
    over = f"{small.photos:,} photos"
    time = [rates[0] / rates[-1]]
    rows.append(
        Row(
            f"{large.photos:,} photos: time a photo",
            ratios=time,
            over=over,
            goal=FLAT,
            at_most=True,
        )
    )
    if small.peak:
        peak, most = [large.peak / small.peak], [large.peak / (1 << 20)]
        name = f"{large.photos:,} photos: memory of a worker"
        rows += [
            Row(name, ratios=peak, over=over, goal=FLAT, at_most=True),
            Row(name, ratios=most, over="MiB", goal=WORKER_MIB, at_most=True),
        ]
    return rows


def _memory(run: JobRun) -> str:
    return f", {run.peak >> 20} MiB a worker" if run.peak else ""


def instructions(flags: Sequence[str]) -> str:
    """What a CPU computes eight bits with, as `PATTERNS` names it."""
    if "amx_int8" in flags:
        return "AMX"
    return "VNNI" if {"avx512_vnni", "avx_vnni"} & {*flags} else "neither AMX nor VNNI"


def over(rates: Sequence[float], others: Sequence[float]) -> list[float]:
    """Divide rates, round by round."""
    return [rate / other for rate, other in zip(rates, others, strict=True)]


def contenders(measured: Measured) -> dict[str, float]:
    """Median photos per second of the contenders that do the whole work, for the plot."""
    rounds = measured.rounds
    return {
        "documented pandas UDF": median(one.eager for one in rounds),
        "with our OpenVINO model": median(one.openvino for one in rounds),
        "the Spark job": median(one.job for one in rounds),
        "written by hand": median(one.bounds.hand for one in rounds),
        "bound": median(one.bounds.together(measured.cores) for one in rounds),
    }


def record_of(measured: Measured) -> dict[str, Any]:
    """Collect the raw measurements behind the rows."""
    runs = [[one.warm, *one.runs] for one in measured.rounds]
    return {
        "start_up": {name: round(value, 2) for name, value in measured.start_up.items()},
        "job_runs": [
            [{"photos": x.photos, "seconds": x.seconds, "peak_bytes": x.peak} for x in one]
            for one in runs
        ],
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.throughput",
        description=__doc__.splitlines()[0] if __doc__ else None,
    )
    parser.add_argument("--architecture", default="regnety_008")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    parser.add_argument(
        "--quick", action="store_true", help="check that it runs; figures are noise"
    )
    arguments = parser.parse_args()
    # Keep everything on the CPU, the job's workers included.
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    begun = perf_counter()
    with tempfile.TemporaryDirectory(prefix="seer-bench-") as folder:
        plan = QUICK if arguments.quick else FULL
        measured = Suite(plan, arguments.architecture, Path(folder)).run()
    machine = machine_facts()
    kind = instructions(machine["cpu_flags"])
    rows = [
        *bound_rows(measured),
        *pattern_rows(measured, kind),
        *accelerator_rows(measured),
        *signal_rows(measured),
        *store_rows(measured),
        *growth_rows(measured),
    ]
    record = {
        "architecture": arguments.architecture,
        "quick": arguments.quick,
        "seconds": round(perf_counter() - begun),
        "machine": machine | {"cores_used": measured.cores},
        "rows": [row.to_json() for row in rows],
        **record_of(measured),
        "markdown": markdown_table(rows),
    }
    arguments.output.mkdir(parents=True, exist_ok=True)
    path = arguments.output / "throughput.json"
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    plot_throughput(contenders(measured), measured, path.with_suffix(".png"))
    print(record["markdown"])
    start_up = ", ".join(f"{name} {value}" for name, value in record["start_up"].items())
    print(f"\nStarting up, not in the above: {start_up}")
    print(f"Goals over pandas UDFs: those of a CPU with {kind}")
    print(f"Written to {path} and {path.with_suffix('.png')} after {record['seconds']} s")


if __name__ == "__main__":
    main()
