"""The benchmarks' verdicts and draws, and what they do where something is missing."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from time import monotonic

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import peers
from benchmarks.few_labels import draw, precision
from benchmarks.gpu import Figure, Results, Step, measure_within, rows_of
from benchmarks.gpu_run import run_step
from benchmarks.measuring import Row
from benchmarks.peer_processes import Peer, PeerError, run
from seer_model.training.labelled import LabelledPhotos
from tests.support.paths import ROOT


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda p: p.stem)
def test_a_benchmark_has_what_it_imports(path: Path) -> None:
    import_module(f"benchmarks.{path.stem}")


@pytest.mark.parametrize(
    ("ratios", "goal", "at_most", "verdict"),
    [
        ([0.95, 0.85, 0.9], 0.9, False, "met"),
        ([0.81], 0.9, False, "missed by 10.0%"),
        ([0.01, 0.02], 0.02, True, "met"),
        ([0.03], 0.02, True, "missed by 50.0%"),
        ([0.5], None, False, ""),
    ],
)
def test_a_row_says_by_how_much_it_misses_its_goal(
    ratios: list[float], goal: float | None, at_most: bool, verdict: str
) -> None:
    assert Row("job", ratios=ratios, goal=goal, at_most=at_most).verdict == verdict


def test_few_labels_are_drawn_by_listing_from_every_class() -> None:
    listings = [f"{label}{i}" for label, count in (("a", 9), ("b", 2)) for i in range(count)]
    ids = [listing for listing in listings for _ in range(2)]
    photos = LabelledPhotos(ids, [listing[0] for listing in ids], np.zeros((22, 1), np.float16))
    drawn = [draw(photos, 3, seed) for seed in range(5)]
    for found in drawn:
        assert len(found.labels) == 2 * (3 + 2)
        assert len(set(found.listing_ids)) == 3 + 2
    assert len({tuple(found.listing_ids) for found in drawn}) > 1
    assert draw(photos, 3, 0).listing_ids == drawn[0].listing_ids


def test_precision_over_draws_has_the_interval_of_one() -> None:
    one, other = np.ones(20, np.bool_), np.arange(40) < 30
    found = precision([one, other, one[:0]])
    assert found is not None
    assert found["precision"] == pytest.approx(50 / 60)
    assert found["draws_below"] == 1
    assert found["high"] - found["low"] > 0.3  # Of 17 right ones out of 20.
    assert precision([one[:0], one[:0]]) is None


def test_gpu_benchmark_needs_no_spark_and_says_that_there_is_no_cuda() -> None:
    script = (
        "import sys; from benchmarks import gpu; sys.argv[1:] = []; "
        "assert not {'pyspark', 'mlflow', 'openvino'} & set(sys.modules); sys.exit(gpu.main())"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script],
        check=False,
        cwd=ROOT,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 2
    assert ended.stderr.splitlines() == [
        "python -m benchmarks.gpu: error: torch finds no CUDA device"
    ]


def test_peers_benchmark_says_how_to_make_its_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(peers, "PEERS_PYTHON", tmp_path / "python")
    monkeypatch.setattr(sys, "argv", ["peers"])
    assert peers.main() == 2
    assert capsys.readouterr().err.splitlines() == [
        "python -m benchmarks.peers: error: run `make .venv-peers/.stamp` first"
    ]


def test_a_peer_that_fails_is_an_error_of_one_line() -> None:
    script = "import sys; print('first\\nlast', file=sys.stderr); sys.exit(3)"
    with pytest.raises(PeerError, match=r"^Daft: exit code 3: first / last$"):
        run("Daft", [sys.executable, "-c", script], {})


def test_a_peer_that_leaves_out_a_photo_is_an_error(tmp_path: Path) -> None:
    photos, output = tmp_path / "photos", tmp_path / "output"
    photos.mkdir()
    output.mkdir()
    for name in ("a.jpg", "b.jpg"):
        (photos / name).touch()
    rows = pa.table({"path": ["file:///photos/a.jpg"], "vector": [[1.0]]})
    pq.write_table(rows, output / "part.parquet")
    true = Path(shutil.which("true") or "")
    with pytest.raises(PeerError, match=r"^Daft: 1 rows for 2 photos$"):
        Peer("Daft", true, "daft_frame", tmp_path, tmp_path).seconds(photos, output)


def test_the_job_is_compared_with_a_peer_in_the_rounds_that_it_ran_in() -> None:
    first = {
        peers.Job.name: peers.Timed(10.0, 300.0),
        "Daft": peers.Timed(20.0, 50.0),
        "Daft, our OpenVINO network": peers.Timed(8.0, 100.0),
    }
    rows = peers.rows_of([first, {**first, "Daft": peers.Timed(20.0, 75.0)}], peers.FULL)
    over = {row.over: row for row in rows if row.over}
    assert over["Daft"].ratios == [6.0, 4.0]
    assert over["Daft"].verdict == "met"
    assert over["Daft, our OpenVINO network"].ratios == [3.0, 3.0]
    assert over["the fastest other"].verdict == "missed by 25.0%"


@pytest.mark.slow
def test_gpu_benchmark_runs_dry_on_a_cpu(tmp_path: Path) -> None:
    module = ["-m", "benchmarks.gpu", "--device", "cpu", "--output", "gpu.json"]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, *module], check=True, cwd=tmp_path, env=environment)
    record = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert record["dry_run"]
    assert "Dry run on a CPU" in record["markdown"]
    assert (record["failed"], record["left_out"]) == ({}, [])
    found = {figure["what"] for figure in record["figures"]}
    assert found == {"bare", "fed", "shared", "decoded", "decoded on device"}
    assert all(figure["photos_per_second"] > 0 for figure in record["figures"])


def test_gpu_benchmark_keeps_what_it_has_when_time_is_up_and_steps_fail(tmp_path: Path) -> None:
    def one() -> Iterator[Figure]:
        yield {"what": "decoded", "decode_threads": 1, "photos_per_second": 100.0}

    def half() -> Iterator[Figure]:
        yield {"what": "decoded", "decode_threads": 2, "photos_per_second": 200.0}
        raise RuntimeError("out of memory\nand more")

    steps = [Step("half", 1, half), Step("long", 1000, one), Step("short", 1, one)]
    measure_within(steps, monotonic() + 100, Results(tmp_path / "gpu.json", {"title": "GPU"}))
    record = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert [row["photos_per_second"] for row in record["rows"]] == [200, 100]
    assert record["left_out"] == ["long"]
    assert record["failed"] == {"half": "RuntimeError: out of memory"}
    assert [path.name for path in tmp_path.iterdir()] == ["gpu.json"]


def test_gpu_benchmark_compares_the_best_with_bare_and_with_the_goal() -> None:
    network = {"network": "regnety_320", "batch": 256}
    fed = network | {"what": "fed", "compiled": False, "gpu_busy_percent": 97.0}
    figures = [
        {"what": "decoded", "decode_threads": 16, "photos_per_second": 2000.0},
        {"what": "decoded on device", "resized": False, "photos_per_second": 5000.0},
        network | {"what": "bare", "way": "CUDA graph", "photos_per_second": 2500.0},
        fed | {"decode_threads": 16, "photos_per_second": 1800.0},
        fed | {"decode_threads": 4, "photos_per_second": 900.0},
        network
        | {"what": "shared", "processes": 2, "decode_threads": 8, "photos_per_second": 1890.0},
    ]
    found = [(row.name, row.ratio, row.verdict) for row in rows_of(figures) if row.ratio]
    name = "regnety_320 fed"
    assert found == [
        ("torchvision on the device", 2.5, ""),
        (f"{name}, batch 256, 16 threads, GPU busy 97 %", 0.9, ""),
        (f"{name}, batch 256, 4 threads, GPU busy 97 %", 0.45, ""),
        (f"**{name}, the best**", 0.72, "missed by 20.0%"),
        (f"**{name}, the best**", 0.9, "missed by 10.0%"),
        (f"{name}, 2 processes of 8 threads", 1.05, ""),
    ]


def test_a_step_on_a_gpu_is_ended_when_its_time_is_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log.txt"
    assert run_step("fine", ["timeit", "-n1", "-r1", "print('said')"], log, 60)
    assert "said" in log.read_text(encoding="utf-8")
    assert not run_step("wrong", ["no_such_module"], log, 60)
    assert not run_step("long", ["timeit", "-n1", "import time; time.sleep(60)"], log, 0.5)
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("fine: ok, ")
    assert said[1].startswith("wrong: FAILED with exit code 1, ")
    assert said[2].startswith("long: FAILED: ended after 0 s, ")
