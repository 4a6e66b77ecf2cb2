"""A run's figures as Prometheus reads them, and what a dashboard sees of a run that fails."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from jobs.build_manifest import main
from jobs.command.job_run import Ending, JobRun
from jobs.command.metrics import write_metrics
from tests.support.listing_tables import DS

JOB = "seer_build_manifest"
FAILED = Ending(3, "no photo")

Sample = tuple[str, frozenset[tuple[str, str]]]

names = st.from_regex("[a-z][a-z0-9_]{0,8}", fullmatch=True)
texts = st.text(st.characters(codec="utf-8"), max_size=20)
numbers = st.one_of(st.booleans(), st.integers(0, 2**53), st.floats(allow_nan=False))
reports = st.dictionaries(
    names,
    st.one_of(
        *(numbers, texts, st.none(), st.lists(numbers)),
        st.dictionaries(texts.filter(lambda key: "." not in key), st.one_of(numbers, texts)),
    ),
    min_size=1,
)


def written(path: Path) -> dict[Sample, float]:
    """The file's samples by name and labels; each may be there once."""
    text = path.read_bytes().decode()  # A carriage return ends no line.
    samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
    found = {(s.name, frozenset(s.labels.items())): s.value for s in samples}
    assert len(found) == len(samples)
    return found


def write(path: Path, figures: Mapping[str, Any], ending: Ending = Ending(0)) -> None:  # noqa: B008
    started = datetime.now(UTC) - timedelta(seconds=90)
    write_metrics(JobRun("bake", started_at=started, figures=figures, ending=ending), path)


@given(reports)
def test_the_numbers_are_those_of_the_report(
    tmp_path_factory: pytest.TempPathFactory, figures: dict[str, Any]
) -> None:
    path = tmp_path_factory.mktemp("metrics") / "bake.prom"
    write(path, figures)
    expected: dict[Sample, float] = {}
    for name, value in json.loads(json.dumps(figures)).items():
        if isinstance(value, bool | int | float):
            expected[f"seer_bake_{name}", frozenset()] = value
        elif isinstance(value, dict):
            for key, number in value.items():
                if not isinstance(number, str):
                    expected[f"seer_bake_{name}", frozenset([("key", key)])] = number
    info = {name: value for name, value in figures.items() if isinstance(value, str)}
    if info:
        expected["seer_bake_info", frozenset(info.items())] = 1
    found = written(path)
    assert {s: v for s, v in found.items() if not s[0].startswith("seer_bake_last_")} == expected


def test_names_and_labels(tmp_path: Path) -> None:
    figures = {
        "drift": {"compared_with": "2026-11-24", "beyond": [], "score_psi": 0.1, "by": {"a": 2}},
        "backbone=ab12": {"rows_after": 7},
        "promoted": False,
        "gates": [{"gate": "precision", "passed": True}],
        "model": 'shoes "new"\n\\1',
    }
    write(tmp_path / "bake.prom", figures)
    lines = (tmp_path / "bake.prom").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if "_last_" not in line] == [
        "# HELP seer_bake_drift Figure drift of the report.",
        "# TYPE seer_bake_drift gauge",
        'seer_bake_drift{key="score_psi"} 0.1',
        'seer_bake_drift{key="by.a"} 2.0',
        "# HELP seer_bake_rows_after Figure rows_after of the report.",
        "# TYPE seer_bake_rows_after gauge",
        'seer_bake_rows_after{backbone="ab12"} 7.0',
        "# HELP seer_bake_promoted Figure promoted of the report.",
        "# TYPE seer_bake_promoted gauge",
        "seer_bake_promoted 0.0",
        "# HELP seer_bake_info Texts of the report.",
        "# TYPE seer_bake_info gauge",
        r'seer_bake_info{model="shoes \"new\"\n\\1"} 1.0',
    ]


def values(path: Path, *metrics: str) -> list[float | None]:
    found = written(path)
    return [found.get((f"seer_bake_{metric}", frozenset())) for metric in metrics]


def test_a_failed_run_is_no_fresh_success(tmp_path: Path) -> None:
    path = tmp_path / "bake.prom"
    outcome = ("last_run_exit_code", "last_success_timestamp_seconds", "cakes")
    write(path, {}, FAILED)
    assert values(path, *outcome) == [3, None, None]
    write(path, {"cakes": 2, "burnt": 1})
    success = values(path, "last_success_timestamp_seconds")[0]
    assert success == pytest.approx(time(), abs=60)
    write(path, {}, FAILED)
    assert values(path, *outcome) == [3, success, 2]
    write(path, {}, FAILED)
    assert values(path, *outcome, "burnt") == [3, success, 2, 1]
    (ended, took) = values(path, "last_run_timestamp_seconds", "last_run_duration_seconds")
    assert success < (ended or 0)
    assert took == pytest.approx(90, abs=60)


def test_a_report_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "bake.prom"
    write(path, {"cakes": 2, "burnt": 1, "sort": "rye"})
    success = values(path, "last_success_timestamp_seconds")
    write(path, {"cakes": 3}, Ending(4, "refused"))
    assert values(path, "cakes", "burnt", "last_run_exit_code") == [3, None, 4]
    assert values(path, "last_success_timestamp_seconds") == success
    assert not any(name == "seer_bake_info" for name, _ in written(path))


def test_a_file_of_another_sort_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "bake.prom"
    path.write_text("neither metrics nor {", encoding="utf-8")
    write(path, {"cakes": 2})
    assert values(path, "cakes") == [2]
    assert list(tmp_path.iterdir()) == [path]


# As a flag


def test_the_metrics_of_a_job(images: Path, tmp_path: Path) -> None:
    path, report = tmp_path / "new/manifest.prom", tmp_path / "report.json"
    flags = ["--output", str(tmp_path / "manifest"), "--ds", DS]
    flags += ["--metrics-file", str(path), "--report", str(report)]
    assert main(["--images", str(images), *flags]) == 0
    figures = json.loads(report.read_text(encoding="utf-8"))
    found = written(path)
    for name in ("photos", "photos_missing", "listings", "listings_labelled"):
        assert found[f"{JOB}_{name}", frozenset()] == figures[name]
    none = frozenset([("key", "none")])
    assert found[f"{JOB}_listings_by_split", none] == figures["listings_by_split"]["none"] == 2
    texts = {name: value for name, value in figures.items() if isinstance(value, str)}
    assert found[f"{JOB}_info", frozenset(texts.items())] == 1
    code = f"{JOB}_last_run_exit_code", frozenset[tuple[str, str]]()
    assert found[code] == 0

    assert main(["--images", str(tmp_path / "nosuch"), *flags]) == 2
    after = written(path)
    assert after.pop(code) == 2
    assert after.items() >= {s: v for s, v in found.items() if "_last_run_" not in s[0]}.items()


@pytest.mark.parametrize("name", ["metrics.txt", "metrics", ".prom"])
def test_a_name_that_is_not_collected(
    name: str, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--images", str(images), "--output", str(tmp_path / "manifest"), "--ds", DS]
    assert main([*flags, "--metrics-file", name]) == 2
    assert f"--metrics-file: {name}: node_exporter" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    flags = ["--images", str(images), "--output", str(tmp_path / "manifest"), "--ds", DS]
    assert main([*flags, "--metrics-file", str(tmp_path / "file/new/m.prom")]) == 2
    assert "m.prom: Not a directory" in capsys.readouterr().err
    assert not (tmp_path / "manifest").exists()


def test_a_file_that_cannot_be_written(
    images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The work is done, so a retry would help nobody; the age of the old file raises the alarm."""
    path = tmp_path / "manifest.prom"
    path.mkdir()
    flags = ["--images", str(images), "--output", str(tmp_path / "manifest"), "--ds", DS]
    assert main([*flags, "--metrics-file", str(path)]) == 0
    assert f"--metrics-file {path} not written" in caplog.text
    assert (tmp_path / "manifest" / f"ds={DS}").exists()
