"""Throughput on a GPU, against the bare forward pass, and the decode threads needed to reach it.

    python -m benchmarks.gpu

Compares the forward pass alone, in bfloat16 and channels-last (eager, as a CUDA graph, compiled),
with `PhotoEmbedder` fed with JPEGs, for RegNetY-8GF and 32GF at 224 px. Weights are random: speed
does not depend on them. Takes about six minutes on an H100. Needs torch, timm, NumPy, Pillow,
OpenCV, simplejpeg, pi-heif, safetensors and fsspec, but not Spark, OpenVINO or MLflow. Prints a
Markdown table and writes JSON; exit code 2 without CUDA.
"""

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import Any

import torch

from benchmarks.measuring import Row, machine_facts, markdown_table, measure, say
from benchmarks.noisy_photos import draw_photo
from benchmarks.simulated_accelerator import SimulatedAccelerator, embedded_photos
from seer_model.backbones.backbone import Backbone
from seer_model.backbones.embedder import PhotoEmbedder
from seer_model.backbones.preprocessing import Preprocessing
from seer_model.backbones.runtimes.choose import open_runtime
from seer_model.backbones.weights import random_backbone
from seer_model.photos.source import PhotoSource

ARCHITECTURES = ("regnety_080", "regnety_320")
BATCHES = (64, 128, 256, 512)
PHOTOS = 64
BARE_S = 1.5
FED_S = 6.0
NO_LOSS = 0.9
# Photos per second that an architecture should reach.
GOALS = {"regnety_320": 2000}
DEVICE = "cuda:0"

Sources = Sequence[PhotoSource]


def thread_counts(cores: int) -> list[int]:
    """Powers of two up to the number of cores, and that number."""
    return sorted({2**k for k in range(cores.bit_length()) if 2**k <= cores} | {cores})


def decode_rate(sources: Sources, threads: int) -> float:
    """Measure decoding alone; returns photos per second."""
    free = SimulatedAccelerator(Preprocessing(), batch_size=64, speed=math.inf)
    embedder = PhotoEmbedder(free, decode_threads=threads)
    return measure(embedded_photos(embedder, sources), FED_S)


@torch.inference_mode()
def bare_rates(backbone: Backbone, batch: int, *, compiled: bool) -> dict[str, float]:
    """Measure the forward pass on one batch already on the GPU; photos per second by mode."""
    trunk = backbone.build().to(DEVICE, torch.bfloat16).to(memory_format=torch.channels_last)
    size = backbone.preprocessing.image_size
    photos = torch.rand((batch, 3, size, size), device=DEVICE, dtype=torch.bfloat16)
    photos = photos.to(memory_format=torch.channels_last)
    if compiled:
        fast = torch.compile(trunk, mode="reduce-overhead")
        return {"compiled": batch * repeats(lambda: fast(photos))}
    eager = batch * repeats(lambda: trunk(photos))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        trunk(photos)
    return {"eager": eager, "CUDA graph": batch * repeats(graph.replay)}


def repeats(work: Callable[[], object]) -> float:
    """Measure how many times per second the GPU completes `work`."""
    for _ in range(5):
        work()
    torch.cuda.synchronize()
    done, started = 0, perf_counter()
    while (elapsed := perf_counter() - started) < BARE_S or not done:
        for _ in range(8):
            work()
        torch.cuda.synchronize()
        done += 8
    return done / elapsed


def fed_rate(backbone: Backbone, sources: Sources, batch: int, threads: int) -> dict[str, Any]:
    """Measure `PhotoEmbedder`: photos per second, and GPU utilisation."""
    runtime = open_runtime(backbone, DEVICE, batch_size=batch)
    embedder = PhotoEmbedder(runtime, decode_threads=threads)
    with watched_gpu() as busy:
        rate = measure(embedded_photos(embedder, sources), FED_S)
    used = fmean(busy) if busy else None
    say(f"batch {batch}, {threads} decode threads: {rate:.0f} photos/s, GPU busy {used} %")
    return {"batch": batch, "decode_threads": threads, "photos_per_second": rate, "busy": used}


@contextmanager
def watched_gpu() -> Iterator[list[float]]:
    """Sample GPU utilisation, in per cent, from nvidia-smi; no samples where it is missing."""
    samples: list[float] = []
    program = shutil.which("nvidia-smi")
    name = f"GPU-{torch.cuda.get_device_properties(DEVICE).uuid}"
    query = ["--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", f"--id={name}"]
    done = threading.Event()

    def watch() -> None:
        while program and not done.wait(0.5):
            answer = subprocess.run([program, *query], capture_output=True, text=True, check=False)
            if not answer.stdout.strip().isdigit():
                return
            samples.append(float(answer.stdout))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        done.set()
        thread.join()


def measure_architecture(
    architecture: str, sources: Sources, decoding: dict[int, float]
) -> dict[str, Any]:
    """Measure one architecture; `decoding` maps decode threads to photos per second."""
    say(architecture)
    backbone = random_backbone(architecture)
    bare = []
    for batch in BATCHES:
        for how, rate in bare_rates(backbone, batch, compiled=False).items():
            bare.append({"batch": batch, "how": how, "photos_per_second": rate})
            say(f"bare, batch {batch}, {how}: {rate:.0f} photos/s")
    batch = best(bare)["batch"]
    try:
        rate = bare_rates(backbone, batch, compiled=True)["compiled"]
        bare.append({"batch": batch, "how": "compiled", "photos_per_second": rate})
        say(f"bare, batch {batch}, compiled: {rate:.0f} photos/s")
    except Exception as error:  # The compiler needs Triton and a C compiler.
        say(f"cannot be compiled here: {str(error).splitlines()[0]}")
    limit = best(bare)["photos_per_second"]
    most = max(decoding)
    fed = [fed_rate(backbone, sources, batch, most) for batch in BATCHES]
    batch = best(fed)["batch"]
    fed += [fed_rate(backbone, sources, batch, threads) for threads in decoding if threads < most]
    enough = [x["decode_threads"] for x in fed if x["photos_per_second"] >= NO_LOSS * limit]
    return {
        "architecture": architecture,
        "bare": bare,
        "fed": fed,
        "best_bare": best(bare),
        "best_fed": best(fed),
        "decode_threads_reckoned": math.ceil(limit / decoding[1]),
        "decode_threads_that_did": min(enough, default=None),
    }


def best(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the fastest result."""
    return max(results, key=lambda result: result["photos_per_second"])


def rows_of(result: dict[str, Any], decoding: dict[int, float]) -> list[Row]:
    """Build the table's rows for one architecture."""
    name, bare, fed = result["architecture"], result["best_bare"], result["best_fed"]
    limit, rate = bare["photos_per_second"], fed["photos_per_second"]
    slower = min(limit, max(decoding.values()))
    embedder = f"{name} fed with JPEGs, batch {fed['batch']}"
    busy = "" if fed["busy"] is None else f", GPU busy {fed['busy']:.0f} %"
    rows = [
        Row(f"{name} bare, {bare['how']}, batch {bare['batch']}", [limit]),
        Row(f"{embedder}{busy}", [rate], ratios=[rate / limit], over="bare", goal=NO_LOSS),
        Row(embedder, [rate], ratios=[rate / slower], over="the slower of bare and decoding"),
    ]
    if goal := GOALS.get(name):
        ratios = [rate / goal]
        rows.append(Row(embedder, [rate], ratios=ratios, over=f"{goal:,} photos/s", goal=1.0))
    return rows


def main() -> int:
    """Run the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0] if __doc__ else None
    )
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("python -m benchmarks.gpu: error: torch finds no CUDA device", file=sys.stderr)
        return 2
    sources = [PhotoSource(None, draw_photo(seed)) for seed in range(PHOTOS)]
    decoding = {}
    for threads in thread_counts(os.cpu_count() or 1):
        decoding[threads] = decode_rate(sources, threads)
        say(f"decoding on {threads} threads: {decoding[threads]:.0f} photos/s")
    results = [measure_architecture(name, sources, decoding) for name in ARCHITECTURES]
    rows = [Row(f"decoding, {threads} threads", [rate]) for threads, rate in decoding.items()]
    rows += [row for result in results for row in rows_of(result, decoding)]
    device = torch.cuda.get_device_properties(DEVICE)
    record = {
        "machine": machine_facts() | {"gpu": device.name, "cuda": torch.version.cuda},
        "rows": [row.to_json() for row in rows],
        "decoding": decoding,
        "results": results,
        "markdown": markdown_table(rows),
    }
    arguments.output.mkdir(parents=True, exist_ok=True)
    path = arguments.output / "gpu.json"
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(record["markdown"])
    for result in results:
        print(
            f"\n{result['architecture']}: decode threads to keep it busy: "
            f"{result['decode_threads_reckoned']} by the rate of one, "
            f"{result['decode_threads_that_did'] or 'none of the tried'} as measured"
        )
    print(f"Written to {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
