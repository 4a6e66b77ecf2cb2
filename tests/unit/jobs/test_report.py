"""What a job prints of its report, and what it writes."""

import json
from pathlib import Path

import pytest

from jobs.command.report import write_report
from seer_model.tracking import runs


def test_long_lists_are_whole_in_the_file_and_cut_in_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = {"many": list(range(100, 200)), "thresholds": [0.5, None]}
    runs.connect(f"sqlite:///{tmp_path / 'mlflow.db'}")
    with runs.tracked_run("train_head", {}):
        write_report(figures, tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8")) == figures
    printed = capsys.readouterr().out
    assert "109 and 90 more" in printed
    assert "110" not in printed
    assert "[0.5, None]" in printed
