"""jobs.promote_challenger: gates, refusals, rollback, and two promotions at once."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest
from pyspark.sql import SparkSession

from jobs import evaluate_challenger, promote_challenger
from seer_model.categorizer.bundle import Bundle, save_bundle
from seer_model.tracking import promotion, registration, registry, runs
from seer_model.tracking.promotion import promotion_lock
from tests.support.paths import ROOT

pytestmark = pytest.mark.spark


@pytest.fixture
def gates(tmp_path: Path) -> Path:
    """The package's gates, scaled down to sixteen listings."""
    text = (ROOT / "seer_model/evaluation/gates.toml").read_text("utf-8")
    for required, here in (("200", "16"), ("50", "8"), ("max_error = 0.1", "max_error = 0.6")):
        text = text.replace(required, here)
    path = tmp_path / "gates.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def promote(database: str, gates: Path) -> Callable[..., int]:
    def run(*flags: str, name: str = "colours") -> int:
        argv = ["--model-name", name, "--tracking-uri", database]
        return promote_challenger.main([*argv, "--gates", str(gates), *flags])

    return run


@pytest.fixture
def evaluate(labelled: Path, database: str) -> Callable[..., None]:
    def run(challenger: str, champion: str = "colours@champion") -> None:
        argv = ["--manifest", str(labelled), "--tracking-uri", database, "--splits", "test"]
        argv += ["--challenger", f"models:/colours/{challenger}"]
        argv += ["--champion", f"models:/{champion}"]
        assert evaluate_challenger.main(argv) == 0

    return run


def champion(database: str) -> str | None:
    runs.connect(database)
    return registry.aliased_version("colours", "champion")


def test_the_better_challenger_wins_and_rollback_brings_the_old_one_back(
    spark: SparkSession,
    promote: Callable[..., int],
    evaluate: Callable[..., None],
    database: str,
    tmp_path: Path,
    capsys: Any,
) -> None:
    assert promote("--version", "1", "--without-evaluation") == 0
    assert champion(database) == "1"

    assert promote("--version", "2") == 4
    assert "evaluation: none; run jobs.evaluate_challenger" in capsys.readouterr().err
    evaluate("2", "colours/1")
    report = tmp_path / "promotion.json"
    assert promote("--version", "2", "--report", str(report)) == 0
    assert champion(database) == "2"
    outcome = json.loads(report.read_text(encoding="utf-8"))
    assert outcome["promoted"]
    assert {g["gate"] for g in outcome["gates"]} >= {"licence", "better", "slices", "taxonomy"}
    record = json.loads(registry.version_tags("colours", "2")["promotion"])
    assert record["instead_of"] == "1"
    assert "better: +0." in record["reason"]
    assert record["evaluation_run"] == registry.version_tags("colours", "2")["evaluation_run"]
    logged = mlflow.artifacts.load_dict(f"runs:/{record['run_id']}/promotion.json")
    assert logged == outcome

    evaluate("1", "colours/2")
    capsys.readouterr()
    assert promote("--version", "1", "--report", str(report)) == 4
    said = capsys.readouterr()
    assert "failed" in said.out
    assert "better: -0." in said.err
    refused = json.loads(report.read_text(encoding="utf-8"))
    assert not refused["promoted"]
    assert {g["gate"] for g in refused["gates"] if not g["passed"]} >= {"better", "slices"}
    assert champion(database) == "2"
    assert registry.aliased_version("colours", "previous") == "1"

    assert promote("--rollback") == 0
    assert champion(database) == "1"
    record = json.loads(registry.version_tags("colours", "1")["promotion"])
    assert (record["instead_of"], record["reason"]) == ("2", "rollback")
    assert registry.aliased_version("colours", "previous") == "2"


def test_a_first_version_must_assign_something_on_listings_held_out(
    spark: SparkSession,
    promote: Callable[..., int],
    evaluate: Callable[..., None],
    database: str,
    tmp_path: Path,
    capsys: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert promote("--version", "1") == 4
    assert "evaluation: none; run jobs.evaluate_challenger" in capsys.readouterr().err
    evaluate("1")
    assert "there is no champion yet" in caplog.text
    assert promote("--version", "1") == 4
    assert "coverage: 0.000, required: above 0" in capsys.readouterr().err
    assert champion(database) is None

    evaluate("2")
    report = tmp_path / "promotion.json"
    assert promote("--version", "2", "--report", str(report)) == 0
    assert champion(database) == "2"
    outcome = json.loads(report.read_text(encoding="utf-8"))
    assert [gate["gate"] for gate in outcome["gates"]] == [
        *("licence", "evaluation", "splits", "listings", "age", "coverage", "precision"),
        "calibration",
    ]
    assert not outcome["without_evaluation"]
    assert promote("--version", "3", "--without-evaluation") == 2
    assert "--without-evaluation is for a first version" in capsys.readouterr().err
    assert champion(database) == "2"


@pytest.mark.slow
def test_two_promotions_at_once_do_not_both_win(
    spark: SparkSession,
    promote: Callable[..., int],
    evaluate: Callable[..., None],
    database: str,
    gates: Path,
) -> None:
    assert promote("--version", "1", "--without-evaluation") == 0
    for version in ("2", "3"):
        evaluate(version)
    command = [sys.executable, "-m", "jobs.promote_challenger", "--model-name", "colours"]
    command += ["--tracking-uri", database, "--gates", str(gates), "--version"]
    running = {
        version: subprocess.Popen(
            [*command, version], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for version in ("2", "3")
    }
    said = {version: process.communicate(timeout=300) for version, process in running.items()}
    codes = {version: process.returncode for version, process in running.items()}
    [winner] = [version for version, code in codes.items() if code == 0]
    [loser] = [version for version, code in codes.items() if code in (4, 5)]
    assert champion(database) == winner
    message = said[loser][1].splitlines()[-1]
    assert "is promoting" in message or f"against colours/1, required: colours/{loser}" in message


def test_a_promotion_under_way_keeps_others_out(
    promote: Callable[..., int],
    database: str,
    capsys: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs.connect(database)
    with promotion_lock("colours"):
        assert promote("--version", "1") == 5
        assert "is promoting" in capsys.readouterr().err
        assert champion(database) is None
    assert promote("--version", "1", "--without-evaluation") == 0
    with pytest.raises(mlflow.MlflowException):
        mlflow.MlflowClient().get_registered_model("colours.promoting")

    # A lock of a dead process expires.
    mlflow.MlflowClient().create_registered_model("colours.promoting", {"owner": "a dead process"})
    assert promote("--version", "1") == 5
    assert "a dead process" in capsys.readouterr().err
    monkeypatch.setattr(promotion, "_LEASE_SECONDS", 0)
    assert promote("--version", "1", "--without-evaluation") == 0


def test_a_licence_that_may_forbid_commerce_must_be_acknowledged(
    bundle: Bundle,
    promote: Callable[..., int],
    database: str,
    tmp_path: Path,
    capsys: Any,
) -> None:
    backbone = replace(bundle.backbone, licence="seer-license")
    save_bundle(replace(bundle, backbone=backbone), tmp_path / "restricted")
    runs.connect(database)
    with runs.tracked_run("train_head", {}):
        version = registration.register_bundle(tmp_path / "restricted", "colours")
    first = ("--version", version, "--without-evaluation")
    assert promote(*first) == 4
    assert "licence: seer-license, required: allows commercial use" in capsys.readouterr().err
    assert champion(database) is None
    assert promote(*first, "--acknowledge-licence") == 0
    assert champion(database) == version
    record = json.loads(registry.version_tags("colours", version)["promotion"])
    assert record["licence_acknowledged"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "either --version N or --rollback"),
        (["--version", "1", "--rollback"], "either --version N or --rollback"),
        (["--rollback", "--without-evaluation"], "--without-evaluation goes with --version"),
        (["--version", "9"], "models:/colours/9"),
        (["--rollback"], "models:/colours: no @previous"),
        (["--version", "1", "--gates", "none.toml"], "--gates none.toml"),
    ],
)
def test_what_cannot_be_promoted(
    promote: Callable[..., int], capsys: Any, flags: list[str], message: str
) -> None:
    assert promote(*flags) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("flags", [["--version", "1"], ["--rollback"]])
def test_no_such_model(promote: Callable[..., int], capsys: Any, flags: list[str]) -> None:
    assert promote(*flags, name="shapes") == 2
    assert "models:/shapes" in capsys.readouterr().err


def test_the_only_champion_has_nothing_to_roll_back_to(
    promote: Callable[..., int], capsys: Any
) -> None:
    assert promote("--version", "1", "--without-evaluation") == 0
    assert promote("--rollback") == 2
    assert "no @previous to roll back to" in capsys.readouterr().err
