"""Photos are read from paths, file URIs and stores, or rejected for the right reason."""

import asyncio
import os
import socket
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
from fsspec.asyn import AsyncFileSystem

from schemas.rejects import RejectReason
from seer_model.photos import fetch
from seer_model.photos.fetch import read_photo
from tests.support.encoded_photos import LIMITS, reject_reason_of

# Local files


NAMES = [
    "plain.jpg",
    "with space.jpg",
    " .jpg",
    "100%.jpg",
    "100%25.jpg",
    "%2e%2e%2fphoto.jpg",
    "$HOME.jpg",
    "~root.jpg",
    "Žluť 写真 📷.jpg",
    "e\u0301.jpg",
    "new\nline.jpg",
    "tab\t.jpg",
    "-rf.jpg",
    "a;b|c&d`e`.jpg",
    "*.jpg",
    "[a-z].jpg",
    "photo.jpg?width=100#top",
    "a::b.jpg",
    "s3:",
    "x" * 246 + ".jpg",
    "no_suffix",
    "photo.html",
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_local_photo_of_any_name_is_read_by_path_and_by_uri(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"photo")
    uri = path.as_uri()
    addresses = [str(path), uri]
    addresses += [uri.replace("file://", prefix) for prefix in ("file:", "FILE://localhost")]
    for address in addresses:
        assert read_photo(address, LIMITS) == b"photo"


def test_a_path_is_taken_literally_and_a_uri_is_percent_decoded(tmp_path: Path) -> None:
    (tmp_path / "a%20b.jpg").write_bytes(b"literal")
    (tmp_path / "a b.jpg").write_bytes(b"decoded")
    assert read_photo(f"{tmp_path}/a%20b.jpg", LIMITS) == b"literal"
    assert read_photo(f"file://{tmp_path}/a%20b.jpg", LIMITS) == b"decoded"


def test_a_path_is_not_expanded(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"secret")
    (tmp_path / "below").mkdir()
    for name in ("below/%2e%2e/photo.jpg", "*.jpg", "phot?.jpg", "photo.jpg\n", "photo.jpg\0.png"):
        assert reject_reason_of(f"{tmp_path}/{name}") is RejectReason.NOT_FOUND
    for name in ("~/photo.jpg", "$HOME/photo.jpg", "${HOME}/photo.jpg", "%HOME%/photo.jpg"):
        assert reject_reason_of(name) is RejectReason.NOT_FOUND


def test_name_that_is_not_utf8_is_read(tmp_path: Path) -> None:
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.jpg")).write_bytes(b"photo")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert read_photo(f"{tmp_path}/\udcff.jpg", LIMITS) == b"photo"
    assert read_photo(f"file://{tmp_path}/%FF.jpg", LIMITS) == b"photo"


def test_relative_path_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photo.jpg").write_bytes(b"photo")
    assert read_photo("photo.jpg", LIMITS) == b"photo"


def test_symbolic_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"photo")
    (tmp_path / "link.jpg").symlink_to("photo.jpg")
    (tmp_path / "again.jpg").symlink_to("link.jpg")
    assert read_photo(f"{tmp_path}/again.jpg", LIMITS) == b"photo"


def test_missing_file_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "dangling").symlink_to("nowhere")
    for name in ("missing.jpg", "file/below.jpg", "dangling", "nul\0.jpg"):
        assert reject_reason_of(f"{tmp_path}/{name}") is RejectReason.NOT_FOUND
    for uri in ("", "file://", "file://photos/a.jpg", f"file://{tmp_path}/missing.jpg"):
        assert reject_reason_of(uri) is RejectReason.NOT_FOUND


def test_anything_but_a_regular_file_is_refused_without_blocking(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder.jpg").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for name in ("fifo", "folder.jpg", "socket"):
            place = tmp_path / name
            (tmp_path / f"link-{name}").symlink_to(place)
            for uri in (str(place), place.as_uri(), f"{tmp_path}/link-{name}"):
                assert reject_reason_of(uri) is RejectReason.NOT_FOUND, uri


@pytest.mark.parametrize("device", ["zero", "random", "tty", "stdin"])
def test_device_is_refused_without_reading_it(tmp_path: Path, device: str) -> None:
    (tmp_path / "link").symlink_to(f"/dev/{device}")
    for uri in (f"/dev/{device}", f"local:///dev/{device}", f"{tmp_path}/link"):
        # What standard input leads to may lie outside of /dev, and need not exist.
        allowed = ("not_allowed", "not_found") if device == "stdin" else ("not_allowed",)
        assert reject_reason_of(uri) in allowed


def test_symlink_loop_is_read_failed(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("other")
    (tmp_path / "other").symlink_to("one")
    assert reject_reason_of(f"{tmp_path}/one") is RejectReason.READ_FAILED


@pytest.mark.parametrize("length", [256, 5000, 1_000_000])
def test_name_that_is_too_long_is_rejected(tmp_path: Path, length: int) -> None:
    assert reject_reason_of(f"{tmp_path}/{'x' * length}") in ("read_failed", "not_found")


def test_file_without_permission_is_read_failed() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        path = Path(folder) / "photo.jpg"
        path.write_bytes(b"x")
        path.chmod(0)
        user = os.geteuid()
        if user == 0:  # Permissions do not stop root.
            os.seteuid(65534)
        try:
            assert reject_reason_of(str(path)) is RejectReason.READ_FAILED
        finally:
            os.seteuid(user)


# Limit of bytes


def test_sparse_file_of_a_terabyte_is_too_large(tmp_path: Path) -> None:
    """It is refused by its size: to read it would exhaust the memory."""
    path = tmp_path / "sparse.jpg"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    assert reject_reason_of(str(path)) is RejectReason.TOO_LARGE


@pytest.mark.parametrize("place", ["local", "memory"])
def test_limit_of_bytes_is_inclusive(tmp_path: Path, place: str) -> None:
    uri = f"{tmp_path}/photo.jpg" if place == "local" else "memory://test_photos/limit.jpg"
    with fsspec.open(uri, "wb") as file:
        file.write(b"12345")
    assert read_photo(uri, replace(LIMITS, max_bytes=5)) == b"12345"
    too_small = replace(LIMITS, max_bytes=4)
    assert reject_reason_of(uri, too_small) is RejectReason.TOO_LARGE


def test_empty_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    fsspec.filesystem("memory").pipe("/test_photos/empty.jpg", b"")
    assert read_photo(f"{tmp_path}/empty.jpg", LIMITS) == b""
    assert read_photo("memory://test_photos/empty.jpg", LIMITS) == b""


# Remote stores


def test_photo_of_another_store_is_read() -> None:
    fsspec.filesystem("memory").pipe("/test_photos/a b%20é.jpg", b"photo")
    assert read_photo("memory://test_photos/a b%20é.jpg", LIMITS) == b"photo"
    for name in ("missing.jpg", ""):
        uri = f"memory://test_photos/{name}"
        assert reject_reason_of(uri) is RejectReason.NOT_FOUND


@pytest.mark.parametrize("uri", ["nosuch://bucket/a.jpg", "zip+x://a.jpg", "blockcache://a/b.jpg"])
def test_scheme_without_a_reader_is_unsupported(uri: str) -> None:
    assert reject_reason_of(uri) is RejectReason.UNSUPPORTED_SCHEME


def test_scheme_whose_driver_is_not_installed_is_unsupported() -> None:
    fsspec.register_implementation("nodriver", "no_such_package.Store", errtxt="Install it")
    assert reject_reason_of("nodriver://bucket/a.jpg") is RejectReason.UNSUPPORTED_SCHEME


# Retries


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between attempts, which are not really waited."""
    waited: list[float] = []
    monkeypatch.setattr(fetch, "sleep", waited.append)
    return waited


@pytest.fixture
def fail_with(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception], list[object]]:
    """Makes a store raise an error at each attempt; returns the list of attempts."""

    def install(error: Exception) -> list[object]:
        attempts: list[object] = []

        def fail(*args: object, **options: object) -> bytes:
            attempts.append(args)
            raise error

        monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "cat_file", fail)
        return attempts

    return install


@pytest.mark.parametrize(
    ("error", "reason", "attempts"),
    [
        (TimeoutError(), RejectReason.READ_FAILED, 3),
        (ConnectionResetError(), RejectReason.READ_FAILED, 3),
        (OSError("too few bytes"), RejectReason.READ_FAILED, 3),
        (PermissionError(), RejectReason.READ_FAILED, 1),
        (ValueError("no such bucket name"), RejectReason.READ_FAILED, 1),
        (FileNotFoundError(), RejectReason.NOT_FOUND, 1),
        (IsADirectoryError(), RejectReason.NOT_FOUND, 1),
    ],
)
def test_transient_failures_are_retried_and_permanent_ones_are_not(
    error: Exception,
    reason: RejectReason,
    attempts: int,
    waits: list[float],
    fail_with: Callable[[Exception], list[object]],
) -> None:
    made = fail_with(error)
    assert reject_reason_of("memory://a.jpg") is reason
    assert len(made) == attempts
    assert len(waits) == attempts - 1
    for waited, wait in zip(waits, (0.2, 0.8), strict=False):
        assert 0.5 * wait <= waited <= 1.5 * wait


def test_waits_have_jitter(
    waits: list[float], fail_with: Callable[[Exception], list[object]]
) -> None:
    fail_with(TimeoutError())
    for _ in range(3):
        reject_reason_of("memory://a.jpg")
    assert len(set(waits)) == 6


def test_no_attempt_starts_after_the_deadline(
    waits: list[float],
    fail_with: Callable[[Exception], list[object]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter([1000.0, 1000.0 + 119.0, 1000.0 + 121.0])
    monkeypatch.setattr(fetch, "monotonic", clock.__next__)
    attempts = fail_with(TimeoutError())
    assert reject_reason_of("memory://a.jpg") is RejectReason.READ_FAILED
    assert (len(attempts), len(waits)) == (2, 2)


def test_asynchronous_store_that_hangs_is_read_failed(
    waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hanging(AsyncFileSystem):
        protocol = "hanging"
        attempts = 0

        async def _cat_file(self, path: str, **options: object) -> bytes:
            Hanging.attempts += 1
            if path == "photo.jpg":
                return b"photo"
            await asyncio.Event().wait()
            raise AssertionError

    fsspec.register_implementation("hanging", Hanging, clobber=True)
    monkeypatch.setattr(fetch, "_ATTEMPT_TIMEOUT_S", 0.05)
    assert read_photo("hanging://photo.jpg", LIMITS) == b"photo"
    assert reject_reason_of("hanging://other.jpg") is RejectReason.READ_FAILED
    assert Hanging.attempts == 4
