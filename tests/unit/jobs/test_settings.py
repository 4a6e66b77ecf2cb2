"""A job's command line: flags and variables, and the line and exit code of each kind of error."""

import logging
import runpy
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

import pytest
from py4j.protocol import Py4JNetworkError
from pydantic import Field

from jobs.command.settings import Day, JobSettings, run_job
from schemas import errors
from tests.support.paths import ROOT


class Bake(JobSettings):
    """Bake a cake."""

    flour_sort: str = Field(description="what to bake it of")
    ds: Day = Field(date(2026, 1, 1), description="when")
    layers: int = Field(1, ge=1, le=9, description="how many")
    egg: list[str] = Field([], description="repeatable")
    with_icing: bool = Field(False, description="sweeter")
    recipe: Path | None = Field(None, description="where it is written")


REQUIRED = ["--flour-sort", "rye"]


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Bake.model_fields:
        monkeypatch.delenv(f"SEER_{name.upper()}", raising=False)


def parsed(argv: Sequence[str] | None) -> Bake:
    found: list[Bake] = []

    def work(settings: Bake) -> None:
        found.append(settings)

    assert run_job(Bake, work, argv) == 0
    return found[0]


def work_that(error: BaseException) -> Callable[[Bake], None]:
    def work(settings: Bake) -> None:
        raise error

    return work


def nothing(settings: Bake) -> None:
    """Do nothing."""


# Flags


def test_flags() -> None:
    settings = parsed(
        [
            "--flour-sort=spelt wheat",
            *("--ds", "2026-11-25", "--layers", "3", "--egg", "one", "--egg", "two"),
            *("--with-icing", "--recipe", "a/b.txt", "--report", "out.json"),
            *("--tracking-uri", "sqlite:///x.db"),
        ]
    )
    assert isinstance(settings, Bake)
    assert settings.model_dump() == {
        "flour_sort": "spelt wheat",
        "ds": date(2026, 11, 25),
        "layers": 3,
        "egg": ["one", "two"],
        "with_icing": True,
        "recipe": Path("a/b.txt"),
        "report": "out.json",
        "tracking_uri": "sqlite:///x.db",
        "metrics_file": None,
    }
    # Whom to tell of a run says nothing of the run.
    assert settings.run_parameters().keys() == Bake.model_fields.keys() - JobSettings.model_fields


def test_defaults() -> None:
    settings = parsed(REQUIRED)
    assert (settings.layers, settings.egg, settings.with_icing) == (1, [], False)
    assert (settings.recipe, settings.report, settings.tracking_uri) == (None, None, None)


def test_arguments_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["bake", *REQUIRED])
    assert parsed(None).flour_sort == "rye"
    assert run_job(Bake, nothing, []) == 2


@pytest.mark.parametrize("value", ["", "[]", "{}", "null", "-", "--x", "a,b", "models:/n@a", "1e3"])
def test_text_is_not_interpreted(value: str) -> None:
    assert parsed([f"--flour-sort={value}"]).flour_sort == value


def test_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEER_FLOUR_SORT", "oat")
    monkeypatch.setenv("SEER_LAYERS", "4")
    monkeypatch.setenv("LAYERS", "5")
    settings = parsed([])
    assert (settings.flour_sort, settings.layers) == ("oat", 4)
    assert parsed(["--layers", "6"]).layers == 6


# Help and errors of arguments


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_job(Bake, work_that(AssertionError()), ["--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: ")
    assert __name__ in text.splitlines()[0]
    assert "Bake a cake." in text
    for flag in ("--flour-sort", "--with-icing", "--tracking-uri", "--report", "what to bake"):
        assert flag in text


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        pytest.param([], "--flour-sort is required", id="missing"),
        pytest.param(
            [*REQUIRED, "--ds", "25.11.2026"], "--ds: '25.11.2026' is not a date", id="bad date"
        ),
        pytest.param(
            [*REQUIRED, "--ds", "2026-02-30"], "--ds: '2026-02-30' is not a date", id="no such day"
        ),
        pytest.param(
            [*REQUIRED, "--ds", "20261125"],
            "--ds: '20261125' is not a date YYYY-MM-DD",
            id="date without dashes",
        ),
        pytest.param([*REQUIRED, "--ds", "0"], "--ds: '0' is not a date", id="a number"),
        pytest.param([*REQUIRED, "--ds", "2026-W48-3"], "--ds: '2026-W48-3' is", id="a week"),
        pytest.param([*REQUIRED, "--layers", "many"], "--layers: ", id="no number"),
        pytest.param([*REQUIRED, "--layers", "10"], "less than or equal to 9", id="too many"),
        pytest.param(["--layers", "0"], "--layers: ", id="two errors"),
    ],
)
def test_bad_arguments_are_one_line(
    capsys: pytest.CaptureFixture[str], argv: list[str], message: str
) -> None:
    assert run_job(Bake, work_that(AssertionError()), argv) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert line.startswith(f"python -m {__name__}: error: --")
    assert message in line


def test_every_bad_argument_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_job(Bake, nothing, ["--layers", "0", "--ds", "soon"]) == 2
    line = capsys.readouterr().err
    assert all(flag in line for flag in ("--flour-sort", "--layers", "--ds"))


@pytest.mark.parametrize(
    ("name", "value"), [("SEER_LAYERS", "many"), ("SEER_EGG", "not a list"), ("SEER_DS", "soon")]
)
def test_bad_variables_are_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    assert run_job(Bake, nothing, REQUIRED) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert name.removeprefix("SEER_").lower() in line


@pytest.mark.parametrize("argv", [["--nosuch"], ["--nosuch", "1"], ["stray"], ["--layers"]])
def test_unknown_flags(capsys: pytest.CaptureFixture[str], argv: list[str]) -> None:
    assert run_job(Bake, work_that(AssertionError()), [*REQUIRED, *argv]) == 2
    printed = capsys.readouterr().err
    assert argv[0] in printed.splitlines()[-1]
    assert "Traceback" not in printed


# Errors of the work

CODES = {
    errors.SettingsError: 2,
    errors.DataContractError: 3,
    errors.TaxonomyError: 3,
    errors.BundleError: 3,
    errors.GateRefusal: 4,
    errors.PartitionBusy: 5,
    errors.SeerError: 1,
}


def test_every_error_has_its_code() -> None:
    exported = [getattr(errors, name) for name in errors.__all__]
    assert set(CODES) == {error for error in exported if isinstance(error, type)}


@pytest.mark.parametrize(("error", "code"), CODES.items(), ids=lambda x: getattr(x, "__name__", x))
def test_an_expected_error_is_one_line(
    capsys: pytest.CaptureFixture[str], error: type[errors.SeerError], code: int
) -> None:
    assert run_job(Bake, work_that(error("the oven\n is  cold; heat it")), REQUIRED) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == f"python -m {__name__}: error: the oven is cold; heat it\n"


def test_an_unforeseen_error_shows_where(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_job(Bake, work_that(ZeroDivisionError("by an egg")), REQUIRED) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("Traceback")
    assert "test_settings.py" in printed
    assert printed.endswith("ZeroDivisionError: by an egg\n")


@pytest.mark.parametrize(
    ("message", "code", "line"),
    [
        (
            "[FAILED_READ_FILE.NO_HINT] Encountered error while reading file file:///m/a.parquet.\n"
            "Caused by: java.io.IOException: outer\nCaused by: x.CodecException: no LZO\n\tat x.Y",
            3,
            "file:///m/a.parquet is damaged, or Spark cannot read it (CodecException: no LZO)",
        ),
        (
            "[FAILED_READ_FILE.FILE_NOT_EXIST] Encountered error while reading file "
            "file:///m/a.parquet. File does not exist.",
            3,
            "file:///m/a.parquet is gone: it was replaced while this job read it; run again",
        ),
        ("java.io.IOException: No space left on device", 1, "No space left on device where"),
        (
            "An exception was thrown from the Python worker.\nTraceback (most recent call last):\n"
            "ModuleNotFoundError: No module named 'torch'",
            2,
            "Spark's Python workers have no package torch: install",
        ),
        (
            "[PYTHON_VERSION_MISMATCH] Python in worker has different version: 3.12 than that in "
            "driver: 3.11, PySpark cannot run.\nPlease check",
            2,
            "the Python that runs this job: Python in worker has different version: 3.12 than",
        ),
        ("RPC that terminated with:\n\tstatus = StatusCode.UNAVAILABLE", 1, "server ended"),
        ("[INVALID_HANDLE.SESSION_CLOSED] The handle is invalid.", 1, "ended this session"),
        (
            "[JVM_ATTRIBUTE_NOT_SUPPORTED] Attribute `_jvm` is not supported in Spark Connect",
            2,
            "this cannot work under Spark Connect; unset SPARK_REMOTE",
        ),
    ],
)
def test_a_failure_of_spark_is_one_line(
    capsys: pytest.CaptureFixture[str], message: str, code: int, line: str
) -> None:
    assert run_job(Bake, work_that(RuntimeError(message)), REQUIRED) == code
    (printed,) = capsys.readouterr().err.splitlines()
    assert line in printed


def test_a_dead_java_process_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def work(settings: Bake) -> None:
        try:
            raise Py4JNetworkError("Answer from Java side is empty")
        except Py4JNetworkError:  # Py4J tries again.
            raise ConnectionRefusedError(111, "Connection refused")  # noqa: B904

    assert run_job(Bake, work, REQUIRED) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "Spark's Java process ended" in line


@pytest.mark.parametrize("kind", [errors.SettingsError, RuntimeError])
def test_passwords_are_not_printed(
    capsys: pytest.CaptureFixture[str], kind: type[Exception]
) -> None:
    assert run_job(Bake, work_that(kind("http://me:secret@host/: no answer")), REQUIRED) in (1, 2)
    printed = capsys.readouterr().err
    assert "http://host/: no answer" in printed
    assert "secret" not in printed


def test_an_interrupt(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_job(Bake, work_that(KeyboardInterrupt()), REQUIRED) == 130
    assert capsys.readouterr().err == f"python -m {__name__}: error: interrupted\n"


# As a program


def test_a_job_as_a_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a shell sees: the exit code, one line, and the name to call it by."""
    monkeypatch.delitem(sys.modules, "jobs.build_manifest", raising=False)
    argv = ("--images", str(tmp_path / "nosuch"), "--output", str(tmp_path), "--ds", "2026-11-25")
    monkeypatch.setattr(sys, "argv", ["somewhere/build_manifest.py", *argv])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("jobs.build_manifest", run_name="__main__")
    assert ended.value.code == 2
    message = f"error: --images {tmp_path / 'nosuch'}: no such folder"
    assert capsys.readouterr().err == f"build_manifest.py: {message}\n"


def test_help_and_wrong_arguments_wait_for_no_heavy_import() -> None:
    """All jobs in one process, which ends with the packages that it imported."""
    program = """if True:
        import runpy, sys
        jobs = sys.argv[1:]
        for job in jobs:
            for argument, code in (("--help", 0), ("--nosuch", 2)):
                sys.argv[:] = [job, argument]
                try:
                    runpy.run_module(f"jobs.{job}", run_name="__main__")
                except SystemExit as stop:
                    assert stop.code == code, (job, argument, stop.code)
        print(*{name.partition(".")[0] for name in sys.modules})
        """
    jobs = [path.stem for path in (ROOT / "jobs").glob("*.py")]
    jobs = sorted(set(jobs) - {"__init__", "udf"})
    assert len(jobs) >= 8
    ended = subprocess.run(
        [sys.executable, "-c", program, *jobs], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for job in jobs:
        assert f"usage: {job} " in ended.stdout
        assert f"{job}: error: " in ended.stderr
    imported = set(ended.stdout.splitlines()[-1].split())
    assert imported.isdisjoint({"torch", "timm", "mlflow", "pyspark", "scipy", "matplotlib"})
    assert "pydantic" in imported


def test_a_job_logs_what_it_does() -> None:
    assert run_job(Bake, nothing, REQUIRED) == 0
    assert logging.getLogger("jobs.build_manifest").isEnabledFor(logging.INFO)
    assert not logging.getLogger("some.library").isEnabledFor(logging.INFO)
