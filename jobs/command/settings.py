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
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, Field, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    CliApp,
    CliSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from jobs.command.spark_errors import explain_spark_failure
from schemas.errors import SeerError, without_passwords

__all__ = ["Day", "JobSettings", "check_arguments", "run_job"]


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

    def run_parameters(self) -> dict[str, Any]:
        """The parameters of the job's MLflow run."""
        return self.model_dump(exclude={"tracking_uri", "report"})


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
    return _run(settings, work, _program_name(work.__module__), arguments)


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
    except ValidationError as error:
        code, message = 2, "; ".join(_describe(e) for e in error.errors())
    except SettingsError as error:
        code, message = 2, str(error)
    except SeerError as error:
        code, message = error.exit_code, str(error)
    except KeyboardInterrupt:
        code, message = 130, "interrupted"
    except SystemExit as stop:
        # argparse has already printed the help, or the flag it does not know.
        return int(stop.code or 0)
    except Exception as error:
        if not (known := explain_spark_failure(error)):
            sys.stderr.write(without_passwords(traceback.format_exc()))
            return 1
        code, message = known
    else:
        return 0
    line = without_passwords(" ".join(message.split()))
    print(f"{program}: error: {line}", file=sys.stderr)  # noqa: T201
    return code


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
    return f"{flag}: {error['msg'].removeprefix('Value error, ')}"
