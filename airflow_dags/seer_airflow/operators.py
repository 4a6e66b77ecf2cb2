"""Submit a job with spark-submit, and map its exit code to the task's state."""

import json
import logging
import os
import re
import signal
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, NoReturn

from airflow.providers.apache.spark.hooks.spark_submit import SparkSubmitHook
from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.sdk import Context, ObjectStoragePath
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from seer_airflow import settings

log = logging.getLogger(__name__)

# In cluster mode the exit code of spark-submit is 0 or 1; that of the job is in what it prints.
_ON_YARN = re.compile(r"User application exited with status (\d+)")
_ON_KUBERNETES = re.compile(r"Kubernetes spark exit code is: (\d+)")
_OF_SUBMIT = re.compile(r"Error code is: (\d+)")
_WRONG_SETTINGS, _BAD_DATA, _REFUSED = 2, 3, 4
_REPORT = "/{{ dag.dag_id }}/{{ run_id }}/{{ ti.task_id }}.{{ ti.try_number }}.json"
_GRACE_SECONDS = 3
"""Airflow kills a task 5 s after asking it to end."""


class SubmitJob(SparkSubmitOperator):
    """Submit one of the jobs; its report's scalar values become the task's result.

    They are also the extra of the task's asset events. The job's exit code decides the task's
    state: 2 (settings) and 3 (data) fail it at once, since a retry would end likewise; 4 (refused
    by a gate) does too, or skips it with the reasons in the log and in the XCom `refusal`. Anything
    else is retried: 5 (another run holds the partition), or a job that was killed.

    Client or cluster mode is the Spark connection's. In cluster mode the job's error line is in the
    driver's log.

    Args:
        job: Name of the job's module.
        flags: The job's other flags; those that render to nothing are left out.
        skip_if_refused: Whether exit code 4 skips the task.
        only_with: A template; if it renders to nothing, the task is skipped.
        task: Name of the task; default: the job's.
        kwargs: Passed on to `SparkSubmitOperator`.
    """

    template_fields = (*SparkSubmitOperator.template_fields, "flags", "only_with")

    def __init__(
        self,
        *,
        job: str,
        flags: Mapping[str, str],
        skip_if_refused: bool = False,
        only_with: str = "always",
        task: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            task_id=task or job,
            application=f"{settings.JOBS}/{job}.py",
            name=task or job,
            conn_id=settings.SPARK_CONNECTION,
            py_files=settings.PY_FILES,
            archives=settings.ARCHIVES or None,
            conf=dict(settings.SPARK_CONF),
            # Airflow would follow an earlier try's driver by its state alone, without an exit code.
            # A second one is harmless: the partition is locked, or replaced whole.
            durable=False,
            **kwargs,
        )
        metrics = f"{settings.METRICS}/seer_{task or job}.prom" if settings.METRICS else ""
        self.flags = {**flags, "--report": settings.REPORTS + _REPORT, "--metrics-file": metrics}
        self.skip_if_refused = skip_if_refused
        self.only_with = only_with
        self._driver_code: int | None = None

    def execute(self, context: Context) -> dict[str, Any]:  # type: ignore[override]
        """Submit, wait, and read the report."""
        if not self.only_with:
            raise AirflowSkipException("a parameter that this needs is empty")
        self.application_args = [part for flag in self.flags.items() if flag[1] for part in flag]
        # Airflow resets SIGINT, so Ctrl-C would end the task but not the job.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            super().execute(context)
        except AirflowException as error:
            self._conclude(error, context)
        except KeyboardInterrupt:
            self.on_kill()
            raise
        # Nested values may be long, and are in the report.
        figures = {
            name: value
            for name, value in self._read_report().items()
            if not isinstance(value, dict | list)
        }
        for asset in self.outlets:
            context["outlet_events"][asset].extra = figures
        return figures

    def on_kill(self) -> None:
        """End the job: in cluster mode on the cluster, else with spark-submit's process group.

        In client mode the job is a child of spark-submit's JVM and would outlive it.
        """
        process = self._hook._submit_sp if self._hook else None
        if self._hook and self._hook._connection["deploy_mode"] == "cluster":
            process = None  # Airflow asks the cluster only while spark-submit is alive.
        if process is not None:
            _signal_group(process, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE_SECONDS)
        super().on_kill()
        if process is not None:
            _signal_group(process, signal.SIGKILL)

    def _get_hook(self) -> SparkSubmitHook:
        hook = super()._get_hook()
        # Airflow watches the task's stdin to see whether it lives: the child must not inherit it.
        apart = partial(hook.submit, start_new_session=True, stdin=subprocess.DEVNULL)
        hook.submit = apart  # type: ignore[method-assign]
        read = hook._process_spark_submit_log
        hook._process_spark_submit_log = lambda itr: read(self._watched(itr))  # type: ignore[method-assign]
        return hook

    def _watched(self, lines: Iterable[str]) -> Iterator[str]:
        """Note the exit code that YARN tells of the driver: the error has the stack trace alone."""
        for line in lines:
            if found := _ON_YARN.search(line):
                self._driver_code = int(found[1])
            yield line

    def _conclude(self, error: AirflowException, context: Context) -> NoReturn:
        found = _ON_KUBERNETES.search(str(error)) or _OF_SUBMIT.search(str(error))
        code = self._driver_code or (int(found[1]) if found else None)
        said = [line for line in str(error).splitlines() if ": error: " in line]
        reason = said[-1] if said else "see the driver's log"
        message = f"exit code {code}: {reason}"
        if code == _REFUSED and self.skip_if_refused:
            gates = [gate for gate in self._read_report().get("gates", []) if not gate["passed"]]
            reasons = "; ".join(
                f"{gate['gate']}: {gate['measured']}, required: {gate['limit']}" for gate in gates
            )
            reasons = reasons or message
            context["ti"].xcom_push("refusal", reasons)
            raise AirflowSkipException(reasons) from error
        if code in (_WRONG_SETTINGS, _BAD_DATA, _REFUSED):
            raise AirflowFailException(message) from error
        raise error

    def _read_report(self) -> dict[str, Any]:
        report = ObjectStoragePath(self.flags["--report"])
        if not report.exists():
            log.warning("no report %s: the job's driver must write to where it is read", report)
            return {}
        figures: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
        return figures


def _signal_group(process: "subprocess.Popen[str]", number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
