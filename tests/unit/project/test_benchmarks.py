"""The benchmarks' verdicts and draws, and what they say where something is missing."""

import os
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import peers
from benchmarks.few_labels import draw, precision
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
