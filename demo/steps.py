"""The demo's steps on the screen: a line for each, with its progress and its seconds.

A terminal shows a spinner while a step runs; elsewhere a step's start, its progress now and then,
and its end are plain lines. What the jobs print goes to a log file; warnings and errors are shown.
"""

import io
import logging
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from time import monotonic
from typing import TextIO

from rich.console import Console
from rich.padding import Padding
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column
from rich.text import Text

from schemas.errors import SeerError

__all__ = ["Step", "Steps"]

_PRINT_EVERY_SECONDS = 10.0
_INDENT = len("[1/6] ")
_OURS = ("demo", "jobs", "seer_model", "schemas")


class _JobFailed(SeerError):
    """A job that has said itself what is wrong."""

    def __init__(self, job: str, code: int) -> None:
        super().__init__(f"{job} ended with exit code {code}")
        self.exit_code = code


class Steps:
    """Runs steps one after another and shows them.

    Args:
        total: Number of steps.
        log: The file that what the jobs print is added to.
    """

    def __init__(self, total: int, log: Path) -> None:
        self.console = Console(file=sys.stdout, highlight=False)
        # A pipe has no width: lines are wrapped on a terminal alone.
        self.console.soft_wrap = not self.console.is_terminal
        self.started = monotonic()
        self._total = total
        self._number = 0
        self._log = log

    @contextmanager
    def step(self, title: str) -> Iterator["Step"]:
        """Show a step until the block ends; without its end if the block fails."""
        self._number += 1
        with Step(self.console, f"[{self._number}/{self._total}] {title}") as step:
            yield step

    def run(
        self,
        title: str,
        job: Callable[[Sequence[str]], int],
        *parts: Sequence[str],
        summary: Callable[[], str] | None = None,
    ) -> None:
        """Run a job in this process as a step.

        Args:
            title: What it does.
            job: The job's `main`.
            parts: Its arguments, in groups.
            summary: Says what came of it, once it is done; else its last message does.

        Raises:
            SeerError: The job failed, with its exit code; its messages are on standard error.
        """
        arguments = [argument for part in parts for argument in part]
        name, stderr = job.__module__, sys.stderr
        with self.step(f"{title} ({name})") as step, self._log.open("a", encoding="utf-8") as log:
            log.write(f"\n$ python -m {name} {shlex.join(arguments)}\n")
            said = _Copying(log)
            with _logging_to(step, log), redirect_stdout(log), redirect_stderr(said):
                code = job(arguments)
            if code:
                stderr.write(said.getvalue())
                raise _JobFailed(name, code)
            if summary is not None:
                step.summarize(summary())


class Step:
    """One step that is shown; see `Steps.step`."""

    def __init__(self, console: Console, title: str) -> None:
        self._console, self._title = console, title
        self._started = self._printed = monotonic()
        self._summary = ""
        self._live: Progress | None = None

    def __enter__(self) -> "Step":
        if not self._console.is_terminal:
            self._console.print(self._title, markup=False)
            return self
        fixed = Column(no_wrap=True)
        rest = Column(no_wrap=True, overflow="ellipsis", ratio=1)
        self._live = Progress(
            SpinnerColumn(table_column=fixed),
            TextColumn("{task.description}", markup=False, table_column=fixed),
            TimeElapsedColumn(table_column=fixed),
            TextColumn("{task.fields[message]}", "dim", markup=False, table_column=rest),
            console=self._console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            expand=True,
        )
        self._live.add_task(self._title, total=None, message="")
        self._live.start()
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
        seconds = monotonic() - self._started
        if failure is not None:
            return
        if self._console.is_terminal:
            self._console.print(f"{self._title}: {seconds:.0f} s", markup=False, style="bold")
            self._indented(self._summary, "dim")
        else:
            self._indented(f"{self._summary or 'done'}: {seconds:.0f} s")

    def summarize(self, message: str) -> None:
        """Set what is shown at the end."""
        self._summary = message

    def progress(self, message: str) -> None:
        """Show how far it is; the last message is the summary unless another is set."""
        news, self._summary = message != self._summary, message
        if self._live is not None:
            self._live.update(self._live.task_ids[0], message=message)
        elif news and monotonic() - self._printed >= _PRINT_EVERY_SECONDS:
            self._printed = monotonic()
            self._indented(message)

    def say(self, line: str, style: str | None = None) -> None:
        """Print a line that stays."""
        self._indented(line, style)

    def _indented(self, line: str, style: str | None = None) -> None:
        if line and self._console.is_terminal:
            self._console.print(Padding(Text(line, style or ""), (0, 0, 0, _INDENT)))
        elif line:
            self._console.print(" " * _INDENT + line, markup=False)


class _Copying(io.StringIO):
    """Keeps what is written, and copies it to a log."""

    def __init__(self, log: TextIO) -> None:
        super().__init__()
        self._log = log

    def write(self, text: str) -> int:
        self._log.write(text)
        return super().write(text)


class _Relay(logging.Handler):
    """Shows our messages as a step's progress, and warnings of all as lines that stay."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        self._step = step

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if record.levelno >= logging.WARNING:
            self._step.say(f"{record.levelname.lower()}: {message}", "yellow")
        elif record.name.partition(".")[0] in _OURS:
            self._step.progress(message)


@contextmanager
def _logging_to(step: Step, log: TextIO) -> Iterator[None]:
    """Send log records and Python's warnings to the step and to the log file alone."""
    root = logging.getLogger()
    to_log = logging.StreamHandler(log)
    to_log.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    before, root.handlers = root.handlers, [_Relay(step), to_log]
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.handlers = before
