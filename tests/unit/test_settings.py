"""What a job's flags become, and the line and exit code that each kind of error ends with."""

import logging
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

import pytest
from pydantic import Field

from jobs.settings import JobSettings, run_job
from schemas import errors


class Bake(JobSettings):
    """Bake a cake."""

    flour_sort: str = Field(description="what to bake it of")
    ds: date = Field(date(2026, 1, 1), description="when")
    layers: int = Field(1, ge=1, le=9, description="how many")
    egg: list[str] = Field([], description="repeatable")
    with_icing: bool = Field(False, description="sweeter")
    recipe: Path | None = Field(None, description="where it is written")


REQUIRED = ["--flour-sort", "rye"]


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FLOUR_SORT", "DS", "LAYERS", "EGG", "WITH_ICING", "RECIPE", "REPORT"):
        monkeypatch.delenv(f"SEER_{name}", raising=False)


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
        "report": Path("out.json"),
        "tracking_uri": "sqlite:///x.db",
    }


def test_defaults() -> None:
    settings = parsed(REQUIRED)
    assert (settings.layers, settings.egg, settings.with_icing) == (1, [], False)
    assert (settings.recipe, settings.report, settings.tracking_uri) == (None, None, None)


def test_arguments_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["bake", *REQUIRED])
    assert parsed(None).flour_sort == "rye"
    assert run_job(Bake, nothing, []) == 2


@pytest.mark.parametrize("value", ["", "[]", "{}", "null", "-", "--x", "a,b", "models:/n@a", "1e3"])
def test_text_is_taken_as_it_is(value: str) -> None:
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
        pytest.param([*REQUIRED, "--ds", "25.11.2026"], "--ds: ", id="bad date"),
        pytest.param([*REQUIRED, "--ds", "2026-02-30"], "--ds: ", id="no such day"),
        pytest.param([*REQUIRED, "--ds", "20261125"], "--ds: ", id="date without dashes"),
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
    assert set(CODES) == {getattr(errors, name) for name in errors.__all__}


@pytest.mark.parametrize(("error", "code"), CODES.items(), ids=lambda x: getattr(x, "__name__", x))
def test_an_error_of_a_person_is_one_line(
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


@pytest.mark.parametrize("kind", [errors.SettingsError, RuntimeError])
def test_passwords_are_not_said(capsys: pytest.CaptureFixture[str], kind: type[Exception]) -> None:
    assert run_job(Bake, work_that(kind("http://me:secret@host/: no answer")), REQUIRED) in (1, 2)
    printed = capsys.readouterr().err
    assert "http://host/: no answer" in printed
    assert "secret" not in printed


def test_an_interrupt(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_job(Bake, work_that(KeyboardInterrupt()), REQUIRED) == 130
    assert capsys.readouterr().err == f"python -m {__name__}: error: interrupted\n"


# As a process


def test_a_job_as_a_process(tmp_path: Path) -> None:
    """What a shell sees: the exit code, one line, and the name to call it by."""

    def run(*argv: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "jobs.build_manifest", *argv],
            capture_output=True,
            text=True,
            check=False,
            cwd=Path(__file__).parents[2],
        )

    argv = ("--images", str(tmp_path / "nosuch"), "--output", str(tmp_path), "--ds", "2026-11-25")
    ended = run(*argv)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert "build_manifest" in line
    assert line.endswith(f"error: --images {tmp_path / 'nosuch'}: no such folder")


def test_a_job_logs_what_it_does() -> None:
    assert run_job(Bake, nothing, REQUIRED) == 0
    assert logging.getLogger("jobs.build_manifest").isEnabledFor(logging.INFO)
    assert not logging.getLogger("some.library").isEnabledFor(logging.INFO)
