"""Read a photo's bytes from a path, an object store or a web server.

Thread-safe. A photo that cannot be read raises `PhotoRejected` and nothing else.
"""

import hashlib
import os
import random
import re
import stat
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from urllib.parse import unquote

import fsspec
from fsspec.asyn import AsyncFileSystem, sync
from fsspec.registry import known_implementations, registry

from schemas.rejects import RejectReason
from seer_model.photos.limits import PhotoLimits, PhotoRejected
from seer_model.photos.source import PhotoSource

__all__ = ["fetch_photo", "known_schemes", "local_path", "missing_driver", "read_photo"]

# A remote photo is tried three times. The jitter, a factor on each wait, keeps the workers of a
# cluster from retrying in step.
_RETRY_WAITS_S = (0.2, 0.8)
_JITTER = (0.5, 1.5)
_ATTEMPT_TIMEOUT_S = 60.0

_LOCAL_URI = re.compile(r"(?:file|local):(?://(?:localhost)?)?(/.*)", re.IGNORECASE | re.DOTALL)
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
_MISSING_ERRORS = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
_PERMANENT_ERRORS = (*_MISSING_ERRORS, PhotoRejected, PermissionError, ValueError, TypeError)
# The extra of this package that installs a driver.
_EXTRAS = {
    **dict.fromkeys(("s3", "s3a"), "s3"),
    **dict.fromkeys(("gs", "gcs"), "gcs"),
    **dict.fromkeys(("abfs", "abfss", "az"), "azure"),
}


def known_schemes() -> list[str]:
    """The schemes of all stores that fsspec has a driver for, installed or not."""
    return sorted({*known_implementations, *registry})


def missing_driver(scheme: str) -> str | None:
    """What to install to read photos of a scheme; None if that would not help or is not needed."""
    try:
        fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        extra = _EXTRAS.get(scheme)
        return f"pip install 'seer-categories[{extra}]'" if extra else str(error)
    except ValueError:  # There is none.
        return None
    return None


def local_path(uri: str) -> str | None:
    """The path that a path or a `file:` URI names; None for an address elsewhere."""
    if local := _LOCAL_URI.fullmatch(uri):
        return unquote(local[1], errors="surrogateescape")
    return None if _SCHEME.match(uri) else uri


def fetch_photo(source: PhotoSource, limits: PhotoLimits) -> bytes:
    """Return the encoded photo: the bytes of `source`, or those at its address.

    Raises:
        PhotoRejected: `NO_PHOTO` or `AMBIGUOUS_SOURCE` if `source` has neither or both,
            `KEY_MISMATCH` if the bytes do not have its key, or as `read_photo` does.
    """
    if source.uri is not None and source.data is not None:
        raise PhotoRejected(RejectReason.AMBIGUOUS_SOURCE)
    data = source.data if source.uri is None else read_photo(source.uri, limits)
    if data is None:
        raise PhotoRejected(RejectReason.NO_PHOTO)
    if source.key and hashlib.sha256(data).hexdigest() != source.key.lower():
        raise PhotoRejected(RejectReason.KEY_MISMATCH)
    return data


def read_photo(uri: str, limits: PhotoLimits) -> bytes:
    """Read the bytes of a photo; of a remote one, at most one byte more than the limit.

    Credentials, endpoints and proxies of a remote store come from the defaults of its driver and
    from fsspec's configuration. Transient failures (time-out, lost connection, short body, status
    408, 429 or 5xx) are retried twice, after the wait that `Retry-After` asks for with status 429
    or 503 if there is time for it. All attempts end within `max_seconds`. A driver without asyncio,
    such as that of HDFS, cannot be interrupted: there, no attempt starts after that time.

    Args:
        uri: A path, taken literally (including `%` and spaces); a `file:` URI, percent-decoded; or
            an address whose scheme has an installed fsspec driver (`s3://`, `hdfs://`, `https://`).
        limits: `max_bytes`, `max_seconds` and `access` apply.

    Returns:
        The bytes as stored, possibly none, and not necessarily an image.

    Raises:
        PhotoRejected: `UNSUPPORTED_SCHEME` (no driver), `NOT_ALLOWED` (see `PhotoAccess`),
            `NOT_FOUND` (also for a local path that is not a regular file), `TOO_LARGE`, or
            `READ_FAILED` for anything else.
    """
    try:
        data = _read(uri, limits)
    except PhotoRejected:
        raise
    except _MISSING_ERRORS as error:
        raise PhotoRejected(RejectReason.NOT_FOUND) from error
    except Exception as error:
        gone = _http_status(error) in (404, 410)
        reason = RejectReason.NOT_FOUND if gone else RejectReason.READ_FAILED
        raise PhotoRejected(reason) from error
    if len(data) > limits.max_bytes:
        raise PhotoRejected(RejectReason.TOO_LARGE)
    return data


def _read(uri: str, limits: PhotoLimits) -> bytes:
    if (path := local_path(uri)) is not None:
        return _read_local(path, limits)
    return _read_remote(uri.partition("://")[0].lower(), uri, limits)


def _read_local(name: str, limits: PhotoLimits) -> bytes:
    if "\0" in name:  # Not valid in a path; `realpath` would raise ValueError.
        raise PhotoRejected(RejectReason.NOT_FOUND)
    # `Path.resolve` would raise RuntimeError for a loop of symbolic links.
    path = Path(os.path.realpath(name))
    if not limits.access.allows_local(path):
        raise PhotoRejected(RejectReason.NOT_ALLOWED)
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):  # Opening a FIFO would block until there is a writer.
        raise PhotoRejected(RejectReason.NOT_FOUND)
    if found.st_size > limits.max_bytes:
        raise PhotoRejected(RejectReason.TOO_LARGE)
    # `read(max_bytes + 1)` would allocate that much first, which takes ten times as long.
    return path.read_bytes()


def _read_remote(scheme: str, uri: str, limits: PhotoLimits) -> bytes:
    """Read from a remote store, retrying transient failures."""
    if scheme in ("file", "local"):  # `file://host/path`, or `file://` without a path.
        raise PhotoRejected(RejectReason.NOT_FOUND)
    if scheme not in registry and scheme not in known_implementations:
        raise PhotoRejected(RejectReason.UNSUPPORTED_SCHEME)
    if not limits.access.allows_remote(uri):
        raise PhotoRejected(RejectReason.NOT_ALLOWED)
    waits = iter(_RETRY_WAITS_S)
    seconds_left = limits.max_seconds
    deadline = monotonic() + seconds_left
    while True:
        try:
            return _request(scheme, uri, limits, min(_ATTEMPT_TIMEOUT_S, seconds_left))
        except Exception as error:
            wait = next(waits, None)
            if wait is None or not _is_transient(error):
                raise
            wait *= random.uniform(*_JITTER)  # noqa: S311 - not cryptographic
            asked = _retry_after(error)
            if asked and asked + wait < deadline - monotonic():
                wait += asked
            sleep(wait)
            seconds_left = deadline - monotonic()
            if seconds_left <= 0:
                raise


def _request(scheme: str, uri: str, limits: PhotoLimits, timeout_s: float) -> bytes:
    """Make one attempt, keeping at most one byte more than the limit."""
    on_the_web = scheme in ("http", "https")
    count = limits.max_bytes + 1
    try:
        driver = fsspec.get_filesystem_class(scheme)
        # `fsspec.open` would read a `::` anywhere in an address as a chain of file systems.
        # fsspec caches instances by options, so threads share one client and its connections:
        # asynchronous drivers (web, S3, Google, Azure) are cached by process, as all their
        # requests run on fsspec's event loop; others (SFTP, FTP) by thread, as they need not be
        # thread-safe.
        options = _web_options(limits) if on_the_web else driver._get_kwargs_from_urls(uri)
        store = driver(**options)
    except (ImportError, TypeError, ValueError) as error:
        raise PhotoRejected(RejectReason.UNSUPPORTED_SCHEME) from error
    if on_the_web:
        return _request_web(store, uri, limits, timeout_s)
    path = driver._strip_protocol(uri)
    data: bytes
    if isinstance(store, AsyncFileSystem):
        data = sync(store.loop, store._cat_file, path, start=0, end=count, timeout=timeout_s)
    else:
        data = store.cat_file(path, start=0, end=count)
    return data


def _web_options(limits: PhotoLimits) -> dict[str, Any]:
    # Imports aiohttp, which a run without web photos does not need.
    from seer_model.photos.http_client import client_options  # noqa: PLC0415

    return client_options(limits.access)


def _request_web(
    store: fsspec.AbstractFileSystem, uri: str, limits: PhotoLimits, timeout_s: float
) -> bytes:
    # Of fsspec's driver this takes the client, shared by all threads, and what its settings say.
    from seer_model.photos.http_client import read_body  # noqa: PLC0415

    session = sync(store.loop, store.set_session)
    count = limits.max_bytes + 1
    data: bytes = sync(
        store.loop,
        partial(read_body, session, uri, limits.access, count, **store.kwargs),
        timeout=timeout_s,
    )
    return data


def _is_transient(error: Exception) -> bool:
    """Whether the same request may succeed a moment later."""
    status = _http_status(error) or 0
    refused = 400 <= status < 500 and status not in (408, 429)
    return not (refused or isinstance(error, _PERMANENT_ERRORS))


def _retry_after(error: Exception) -> float:
    """Seconds that a busy server asks to wait (RFC 9110, section 10.2.3); 0 if it does not."""
    if _http_status(error) not in (429, 503):
        return 0.0
    text = str((getattr(error, "headers", None) or {}).get("Retry-After", "")).strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    # A date without a zone is in UTC, as all are in HTTP.
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _http_status(error: Exception) -> int | None:
    """The status code in an error of aiohttp; None in any other error."""
    status = getattr(error, "status", None)
    return status if isinstance(status, int) else None
