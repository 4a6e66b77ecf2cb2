"""The command line of a job: flags, environment variables, `--help`, and exit codes."""

import logging
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, Field, ValidationError, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    CliApp,
    CliSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from jobs.command.job_run import Ending, observe
from jobs.command.spark_errors import explain_spark_failure
from schemas.errors import SeerError, without_passwords

__all__ = ["Day", "JobSettings", "begin", "check_arguments", "run_job"]


def _as_day(value: object) -> object:
    # Pydantic takes a number for seconds since 1970, and `date` takes weeks and dates without
    # dashes, too.
    if isinstance(value, str):
        try:
            if re.fullmatch(r"\d{4}-\d{2}-\d{2}", value, re.ASCII):
                return date.fromisoformat(value)
        except ValueError:
            pass
        raise ValueError(f"{value!r} is not a date YYYY-MM-DD")
    return value


Day = Annotated[date, BeforeValidator(_as_day)]
"""A date, written as in the names of partitions."""


class JobSettings(BaseSettings):
    """Flags that every job has. SEER_SOME_NAME in the environment sets `--some-name`, too."""

    model_config = SettingsConfigDict(
        env_prefix="SEER_",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_avoid_json=True,
        cli_hide_none_type=True,
    )

    tracking_uri: str | None = Field(
        None, description="MLflow server or database; else MLFLOW_TRACKING_URI, else ./mlflow.db"
    )
    report: str | None = Field(
        None, description="write counts, rates and versions to this path or address, as JSON"
    )
    metrics_file: Path | None = Field(
        None, description="write them here (NAME.prom) for Prometheus, after a failure, too"
    )

    @field_validator("metrics_file")
    @classmethod
    def _is_collected(cls, path: Path | None) -> Path | None:
        if path is not None and path.suffix != ".prom":
            raise ValueError(f"{path}: node_exporter reads files named NAME.prom only")
        return path

    @classmethod
    def job_name(cls) -> str:
        """The job's name, that of its module: `categorize_listings`."""
        return re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()

    def run_parameters(self) -> dict[str, Any]:
        """The parameters of the job's MLflow run: all flags but for whom to tell of it."""
        return self.model_dump(exclude=set(JobSettings.model_fields))


Settings = TypeVar("Settings", bound=JobSettings)


def check_arguments(settings: type[JobSettings]) -> None:
    """Exit here if the program was called with `--help` or with wrong arguments.

    A job calls this above its imports of torch, Spark and MLflow, so that a mistake need not wait
    for them; `run_job` then parses the same arguments again.
    """
    parsed: list[JobSettings] = []
    code = _run(settings, parsed.append, _program_name("__main__"), sys.argv[1:])
    if not parsed:
        sys.exit(code)


def begin(settings: type[JobSettings]) -> None:
    """Check the arguments, then start Spark, which also takes seconds, beside those imports."""
    check_arguments(settings)
    from jobs.command.session import start_early  # noqa: PLC0415 - not for `--help`

    start_early(settings.job_name())


def run_job(
    settings: type[Settings], work: Callable[[Settings], None], argv: Sequence[str] | None
) -> int:
    """Parse the flags, do the work, and turn an error into one line and an exit code.

    Passwords in URIs are removed from the line.

    Args:
        settings: The job's flags.
        work: The job.
        argv: Arguments, or None for those of the process.

    Returns:
        0 on success, else the error's `exit_code`: 2 settings, 3 data, 4 gate, 5 busy, 1 anything
        else; 130 on Ctrl-C or SIGTERM.
    """
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    for ours in (work.__module__, "jobs", "seer_model"):
        logging.getLogger(ours).setLevel(logging.INFO)
    arguments = list(sys.argv[1:] if argv is None else argv)
    observed = partial(_observe, work)
    return _run(settings, observed, _program_name(work.__module__), arguments)


def _observe(work: Callable[[Settings], None], settings: Settings) -> None:
    ds = getattr(settings, "ds", None)
    with observe(settings.job_name(), ds, settings.metrics_file, _explain):
        work(settings)


def _run(
    settings: type[Settings],
    work: Callable[[Settings], None],
    program: str,
    arguments: list[str],
) -> int:
    try:
        source = CliSettingsSource[Any](settings, cli_prog_name=program)
        with _sigterm_as_interrupt():
            work(CliApp.run(settings, cli_args=arguments, cli_settings_source=source))
    except SystemExit as stop:
        # argparse has already printed the help, or the flag it does not know.
        return int(stop.code or 0)
    except (Exception, KeyboardInterrupt) as error:
        ending = _explain(error)
        said = ending.trace or f"{program}: error: {ending.message}\n"
        sys.stderr.write(said)
        return ending.exit_code
    return 0


def _explain(error: BaseException) -> Ending:
    match error:
        case ValidationError():
            code, message = 2, "; ".join(_describe(e) for e in error.errors())
        case SettingsError():
            code, message = 2, str(error)
        case SeerError():
            code, message = error.exit_code, str(error)
        case KeyboardInterrupt():
            code, message = 130, "interrupted"
        case Exception() if known := explain_spark_failure(error):
            code, message = known
        case _:
            trace = without_passwords("".join(traceback.format_exception(error)))
            return Ending(1, trace.strip().splitlines()[-1], trace)
    return Ending(code, without_passwords(" ".join(message.split())))


def _program_name(module: str) -> str:
    return Path(sys.argv[0]).name if module == "__main__" else f"python -m {module}"


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Handle SIGTERM, which schedulers send, like Ctrl-C, so that the job cleans up."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Only the main thread may set signal handlers.
        return
    before = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _describe(error: ErrorDetails) -> str:
    flag = "--" + "-".join(str(part) for part in error["loc"]).replace("_", "-")
    if error["type"] == "missing":
        return f"{flag} is required"
    message = error["msg"].removeprefix("Value error, ")
    # What is wrong with several flags together has no place of its own.
    return f"{flag}: {message}" if error["loc"] else message
