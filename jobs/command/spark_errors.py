"""Spark's failures in one line: they come with pages of Java's stack traces."""

import errno
import os
import re

from py4j.protocol import Py4JNetworkError

__all__ = ["explain_spark_failure", "root_cause"]

_READ = re.compile(r"(FAILED_READ_FILE\S*)\] \D*?(file:\S+|\w+://\S+)")
_NO_MODULE = re.compile(r"ModuleNotFoundError: No module named '([\w.]+)'")
_OTHER_PYTHON = re.compile(r"\[PYTHON_VERSION_MISMATCH\] ([^\n,]*)")
# Spark Connect: no server any more, or another one since.
_LOST = re.compile(r"StatusCode\.UNAVAILABLE|RETRIES_EXCEEDED|INVALID_HANDLE\.SESSION_")
# Clients of S3 and of Iceberg's catalogs.
_STORE = re.compile(
    r"\b(SdkClientException|S3Exception|AWS\w+Exception|RESTException|ServiceFailureException|"
    r"CommitStateUnknownException|NoHttpResponseException|UnknownHostException|ConnectException)\b"
)
_CAUSE = re.compile(r"^Caused by: (?:[\w.$]*\.)?([\w$]+): (.*)$", re.MULTILINE)
_GONE = "FileNotFoundException"


def explain_spark_failure(error: Exception) -> tuple[int, str] | None:
    """Exit code and line for a failure that a person can mend; None for any other."""
    message = str(error)
    if _is_of_dead_jvm(error):
        return 1, (
            "Spark's Java process ended: it was killed, or ran out of memory; give it more "
            "(spark.driver.memory) and run again"
        )
    if os.strerror(errno.ENOSPC) in message:
        return 1, f"{os.strerror(errno.ENOSPC)} where this job writes; free some and run again"
    if found := _READ.search(message):
        file, cause = found[2].rstrip("."), root_cause(error)
        if "FILE_NOT_EXIST" in found[1] or cause.startswith(_GONE):
            return 3, f"{file} is gone: it was replaced while this job read it; run again"
        return 3, f"{file} is damaged, or Spark cannot read it ({cause}); write it again"
    if _STORE.search(message):
        return 1, (
            f"an object store or a catalog does not answer as it should ({root_cause(error)}); "
            "run again: readers see a whole run, this one's or the one before"
        )
    return _explain_workers(message) or _explain_connect(message)


def _explain_workers(message: str) -> tuple[int, str] | None:
    if found := _OTHER_PYTHON.search(message):
        return 2, f"Spark's workers need the Python that runs this job: {found[1]}"
    if found := _NO_MODULE.search(message):
        return 2, (
            f"Spark's Python workers have no package {found[1]}: install the lock of this project "
            "there, or send its environment along"
        )
    return None


def _explain_connect(message: str) -> tuple[int, str] | None:
    if _LOST.search(message):
        return 1, "Spark Connect's server ended, or ended this session; see its log, and run again"
    if "[JVM_ATTRIBUTE_NOT_SUPPORTED]" in message:
        return 2, "this cannot work under Spark Connect; unset SPARK_REMOTE and use spark-submit"
    return None


def _is_of_dead_jvm(error: BaseException | None) -> bool:
    # Py4J tries again, so that the last error is one of the socket.
    while error is not None and not isinstance(error, Py4JNetworkError):
        error = error.__cause__ or error.__context__
    return error is not None


def root_cause(error: Exception) -> str:
    """The innermost cause that a stack trace names, or else the first line."""
    message = str(error)
    if causes := _CAUSE.findall(message):
        return ": ".join(causes[-1])
    lines = [line for line in message.splitlines() if not line.startswith("An error occurred")]
    return lines[0].removeprefix(": ") if lines else type(error).__name__
