"""Reading a photo's bytes from an address: a path, or a store that fsspec knows.

Nothing here raises for a bad photo but `PhotoRejected`. It may run in any number of threads at
once.
"""

import os
import random
import re
import stat
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from urllib.parse import unquote

import fsspec
from fsspec.asyn import AsyncFileSystem, sync
from fsspec.registry import known_implementations, registry

from schemas.rejects import RejectReason
from seer_model.photos import PhotoLimits, PhotoRejected

__all__ = ["read_photo"]

# A remote photo is tried three times; what the waits are multiplied with keeps the workers of a
# cluster from coming back at the same moment. A try ends when its time or the photo's is over.
_RETRY_WAITS_S = (0.2, 0.8)
_JITTER = (0.5, 1.5)
_TRY_TIMEOUT_S = 60.0

_LOCAL_URI = re.compile(r"(?:file|local):(?://(?:localhost)?)?(/.*)", re.IGNORECASE | re.DOTALL)
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
_NOTHING_THERE = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
_LASTING = (*_NOTHING_THERE, PhotoRejected, PermissionError, ValueError, TypeError)


def read_photo(uri: str, limits: PhotoLimits) -> bytes:
    """Read the bytes of a photo, no more of a remote one than one above the limit.

    Credentials, endpoints and proxies of a remote store come from its driver's defaults and from
    fsspec's own configuration. What fails there for a reason that may pass (time-out, lost
    connection, too short a body, status 408, 429 or 5xx) is tried three times. All tries together
    end within `max_seconds`, but for a store whose driver knows no time-outs of ours (HDFS): there
    no try begins later than that.

    Args:
        uri: A path, taken literally (`%` and spaces too); a `file:` URI, percent-decoded; or an
            address whose scheme fsspec knows and has a driver for (`s3://`, `hdfs://`, `https://`).
        limits: `max_bytes`, `max_seconds` and `access` are those that count here.

    Returns:
        The bytes as stored; they may be none, or of no image.

    Raises:
        PhotoRejected: `UNSUPPORTED_SCHEME`: no driver. `NOT_ALLOWED`: see `PhotoAccess`.
            `NOT_FOUND`: nothing there, or locally something other than a regular file.
            `TOO_LARGE`. `READ_FAILED`: anything else.
    """
    try:
        data = _read(uri, limits)
    except PhotoRejected:
        raise
    except _NOTHING_THERE as error:
        raise PhotoRejected(RejectReason.NOT_FOUND) from error
    except Exception as error:
        gone = _status(error) == 410
        reason = RejectReason.NOT_FOUND if gone else RejectReason.READ_FAILED
        raise PhotoRejected(reason) from error
    if len(data) > limits.max_bytes:
        raise PhotoRejected(RejectReason.TOO_LARGE)
    return data


def _read(uri: str, limits: PhotoLimits) -> bytes:
    """The bytes at `uri`; of a remote photo one more than the limit, or all if there are fewer."""
    if local := _LOCAL_URI.fullmatch(uri):
        return _read_local(unquote(local[1], errors="surrogateescape"), limits)
    if remote := _SCHEME.match(uri):
        return _read_remote(remote[1].lower(), uri, limits)
    return _read_local(uri, limits)


def _read_local(name: str, limits: PhotoLimits) -> bytes:
    if "\0" in name:  # No name of a file has one.
        raise PhotoRejected(RejectReason.NOT_FOUND)
    # Not `Path.resolve`, for which a circle of links is a RuntimeError.
    path = Path(os.path.realpath(name))
    if not limits.access.allows_local(path):
        raise PhotoRejected(RejectReason.NOT_ALLOWED)
    found = path.stat()
    # Opening a FIFO would wait for a writer.
    if not stat.S_ISREG(found.st_mode):
        raise PhotoRejected(RejectReason.NOT_FOUND)
    if found.st_size > limits.max_bytes:
        raise PhotoRejected(RejectReason.TOO_LARGE)
    # Not so many bytes at most: Python sets them all aside first, ten times the time of reading.
    return path.read_bytes()


def _read_remote(scheme: str, uri: str, limits: PhotoLimits) -> bytes:
    if scheme in ("file", "local"):  # `file://host/path`, and `file://` without a path.
        raise PhotoRejected(RejectReason.NOT_FOUND)
    if scheme not in registry and scheme not in known_implementations:
        raise PhotoRejected(RejectReason.UNSUPPORTED_SCHEME)
    if not limits.access.allows_remote(uri):
        raise PhotoRejected(RejectReason.NOT_ALLOWED)
    waits = iter(_RETRY_WAITS_S)
    left = limits.max_seconds
    deadline = monotonic() + left
    while True:
        try:
            return _request(scheme, uri, limits, min(_TRY_TIMEOUT_S, left))
        except Exception as error:
            wait = next(waits, None)
            if wait is None or not _may_pass(error):
                raise
            sleep(wait * random.uniform(*_JITTER))  # noqa: S311 - no secret
            left = deadline - monotonic()
            if left <= 0:
                raise


def _may_pass(error: Exception) -> bool:
    """Whether the same request may well succeed a moment later."""
    status = _status(error) or 0
    refused = 400 <= status < 500 and status not in (408, 429)
    return not (refused or isinstance(error, _LASTING))


def _status(error: Exception) -> int | None:
    """The web server's status, where `error` comes of one."""
    status = getattr(error, "status", None)  # As aiohttp names it; it may be absent.
    return status if isinstance(status, int) else None


def _request(scheme: str, uri: str, limits: PhotoLimits, timeout_s: float) -> bytes:
    """One request, and never more than one byte above the limit kept."""
    on_the_web = scheme in ("http", "https")
    count = limits.max_bytes + 1
    try:
        driver = fsspec.get_filesystem_class(scheme)
        # Not `fsspec.open`: it takes a `::` anywhere in an address for a chain of file systems.
        # All threads get the same object, and so one client and its connections: fsspec caches
        # what a driver makes of the same options, by process where the driver is asynchronous
        # (web, S3, Google, Azure: all their requests run on the one thread of fsspec's loop), and
        # by thread where it is not, as such a driver need not be safe to share (SFTP, FTP).
        options = _web_options(limits) if on_the_web else driver._get_kwargs_from_urls(uri)
        store = driver(**options)
    except (ImportError, TypeError, ValueError) as error:
        raise PhotoRejected(RejectReason.UNSUPPORTED_SCHEME) from error
    if on_the_web:
        return _request_stream(store, uri, count, timeout_s)
    path = driver._strip_protocol(uri)
    data: bytes
    if isinstance(store, AsyncFileSystem):
        data = sync(store.loop, store._cat_file, path, start=0, end=count, timeout=timeout_s)
    else:
        data = store.cat_file(path, start=0, end=count)
    return data


def _web_options(limits: PhotoLimits) -> dict[str, Any]:
    from seer_model.web_client import client_options  # noqa: PLC0415 - no photo may be on the web

    return client_options(limits.access)


def _request_stream(
    store: fsspec.AbstractFileSystem, uri: str, count: int, timeout_s: float
) -> bytes:
    # A web server may ignore a byte range, so read a stream. A block size of 0 asks for one, and a
    # size spares the request for it, whose every failure fsspec reports as "not found".
    parts: list[bytes] = []
    with store.open(uri, "rb", block_size=0, size=1, timeout=timeout_s) as stream:
        while count > 0 and (part := stream.read(count)):
            parts.append(part)
            count -= len(part)
    return b"".join(parts)
