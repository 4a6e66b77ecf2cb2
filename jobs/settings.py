"""Settings of a job: one class makes the flags, the environment variables and `--help`."""

import errno
import logging
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, CliApp, SettingsConfigDict, SettingsError

from schemas.errors import SeerError
from seer_model.credentials import without_passwords

__all__ = ["JobSettings", "run_job"]


class JobSettings(BaseSettings):
    """Flags that every job has. A flag `--some-name` may also be set as SEER_SOME_NAME."""

    model_config = SettingsConfigDict(
        env_prefix="SEER_",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_avoid_json=True,
        cli_hide_none_type=True,
        nested_model_default_partial_update=False,
    )

    tracking_uri: str | None = Field(
        None, description="MLflow server or database; else MLFLOW_TRACKING_URI, else ./mlflow.db"
    )
    report: Path | None = Field(None, description="write counts, rates and versions here, as JSON")


Settings = TypeVar("Settings", bound=JobSettings)


def run_job(
    settings: type[Settings], work: Callable[[Settings], None], argv: Sequence[str] | None
) -> int:
    """Parse the flags, do the work, and turn what went wrong into a line and an exit code.

    Passwords in addresses are left out of what is said.

    Args:
        settings: The job's flags.
        work: The job.
        argv: Arguments, or None for those of the process.

    Returns:
        0 when done, else the error's `exit_code`: 2 settings, 3 data, 4 gate, 5 busy, 1 unforeseen;
        130 where a person or the system (SIGTERM) asked it to end.
    """
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    for ours in (work.__module__, "jobs", "seer_model"):
        logging.getLogger(ours).setLevel(logging.INFO)
    name = _program(work.__module__)
    try:
        arguments = list(sys.argv[1:] if argv is None else argv)
        with _ending_when_asked():
            work(CliApp.run(_named(settings, name), cli_args=arguments))
    except ValidationError as error:
        code, message = 2, "; ".join(_describe(e) for e in error.errors())
    except SettingsError as error:
        code, message = 2, str(error)
    except SeerError as error:
        code, message = error.exit_code, str(error)
    except KeyboardInterrupt:
        code, message = 130, "interrupted"
    except SystemExit as stop:
        # argparse has said what there was to say: --help, or a flag it does not know.
        return int(stop.code or 0)
    except Exception as error:
        if not (known := _known_failure(str(error))):
            sys.stderr.write(without_passwords(traceback.format_exc()))
            return 1
        code, message = known
    else:
        return 0
    line = without_passwords(" ".join(message.split()))
    print(f"{name}: error: {line}", file=sys.stderr)  # noqa: T201
    return code


@contextmanager
def _ending_when_asked() -> Iterator[None]:
    """SIGTERM, as schedulers send it, is taken for Ctrl-C, which puts in order what is open."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Signals are the main thread's.
        return
    before = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _known_failure(message: str) -> tuple[int, str] | None:
    """Exit code and line for what Spark wraps in a page of traces, if a person can act on it."""
    if os.strerror(errno.ENOSPC) in message:
        return 1, f"{os.strerror(errno.ENOSPC)} where this job writes; make room and run again"
    if found := re.search(r"FAILED_READ_FILE\S*\] \D*?(file:\S+|\w+://\S+)", message):
        return 3, f"{found[1].rstrip('.')} is damaged: it cannot be read whole"
    return None


def _program(module: str) -> str:
    return Path(sys.argv[0]).name if module == "__main__" else f"python -m {module}"


def _named(settings: type[Settings], name: str) -> type[Settings]:
    return type(
        settings.__name__,
        (settings,),
        {
            "__doc__": settings.__doc__,
            "__module__": settings.__module__,
            "model_config": SettingsConfigDict(cli_prog_name=name),
        },
    )


def _describe(error: object) -> str:
    assert isinstance(error, dict)  # noqa: S101
    flag = "--" + "-".join(str(part) for part in error["loc"]).replace("_", "-")
    if error["type"] == "missing":
        return f"{flag} is required"
    return f"{flag}: {error['msg']}"
