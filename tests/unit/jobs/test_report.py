"""What a job prints of its report, and what it writes."""

import json
from pathlib import Path

import fsspec
import pytest

from jobs.command.report import write_report
from seer_model.tracking import runs


def test_long_lists_are_whole_in_the_file_and_cut_in_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = {"many": list(range(100, 200)), "thresholds": [0.5, None]}
    runs.connect(f"sqlite:///{tmp_path / 'mlflow.db'}")
    with runs.tracked_run("train_head", {}):
        write_report(figures, str(tmp_path / "made" / "report.json"))
    assert json.loads((tmp_path / "made" / "report.json").read_text(encoding="utf-8")) == figures
    printed = capsys.readouterr().out
    assert "109 and 90 more" in printed
    assert "110" not in printed
    assert "[0.5, None]" in printed


def test_report_goes_to_an_address_too() -> None:
    write_report({"listings": 3}, "memory://bucket/2026-11-25/report.json")
    files = fsspec.filesystem("memory")
    assert json.loads(files.read_text("/bucket/2026-11-25/report.json")) == {"listings": 3}
