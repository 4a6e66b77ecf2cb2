"""Photos are read from paths, file URIs and stores, or rejected for the right reason."""

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
from fsspec.asyn import AsyncFileSystem

from schemas.rejects import RejectReason
from seer_model import photo_reading
from seer_model.photo_reading import read_photo
from tests.unit.encoded_photos import LIMITS, verdict_on_address


@pytest.mark.parametrize(
    "name",
    ["plain.jpg", "with space.jpg", "100%25.jpg", "Žluť 写真 📷.jpg", "a#b?c=d.jpg", "a::b.jpg"],
)
def test_local_photo_is_read_by_path_and_by_uri(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"photo")
    addresses = [str(path), path.as_uri(), path.as_uri().replace("file://", "file:")]
    addresses.append(path.as_uri().replace("file://", "FILE://localhost"))
    for address in addresses:
        assert read_photo(address, LIMITS) == b"photo"


def test_path_is_taken_literally_and_uri_is_not(tmp_path: Path) -> None:
    (tmp_path / "a%20b.jpg").write_bytes(b"literal")
    (tmp_path / "a b.jpg").write_bytes(b"decoded")
    assert read_photo(f"{tmp_path}/a%20b.jpg", LIMITS) == b"literal"
    assert read_photo(f"file://{tmp_path}/a%20b.jpg", LIMITS) == b"decoded"


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


def test_nothing_there_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("missing.jpg", "file/below.jpg", "dangling", "nul\0.jpg"):
        assert verdict_on_address(f"{tmp_path}/{name}") is RejectReason.NOT_FOUND
    for uri in ("", "file://", "file://photos/a.jpg", f"file://{tmp_path}/missing.jpg"):
        assert verdict_on_address(uri) is RejectReason.NOT_FOUND


def test_directory_is_not_found(tmp_path: Path) -> None:
    for uri in (str(tmp_path), tmp_path.as_uri()):
        assert verdict_on_address(uri) is RejectReason.NOT_FOUND


def test_fifo_and_device_do_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for uri in (f"{tmp_path}/fifo", f"file://{tmp_path}/fifo"):
        assert verdict_on_address(uri) is RejectReason.NOT_FOUND
    for uri in ("/dev/zero", "local:///dev/zero"):
        assert verdict_on_address(uri) is RejectReason.NOT_ALLOWED


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_forbidden_file_is_read_failed(tmp_path: Path) -> None:
    path = tmp_path / "secret.jpg"
    path.write_bytes(b"x")
    path.chmod(0)
    assert verdict_on_address(str(path)) is RejectReason.READ_FAILED


def test_symlink_loop_is_read_failed(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert verdict_on_address(f"{tmp_path}/loop") is RejectReason.READ_FAILED


def test_file_over_the_limit_is_too_large_without_reading_it(tmp_path: Path) -> None:
    path = tmp_path / "sparse.jpg"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    assert verdict_on_address(str(path)) is RejectReason.TOO_LARGE


@pytest.mark.parametrize("place", ["local", "memory"])
def test_limit_of_bytes_is_inclusive(tmp_path: Path, place: str) -> None:
    uri = f"{tmp_path}/photo.jpg" if place == "local" else "memory://test_photos/limit.jpg"
    with fsspec.open(uri, "wb") as file:
        file.write(b"12345")
    assert read_photo(uri, replace(LIMITS, max_bytes=5)) == b"12345"
    too_small = replace(LIMITS, max_bytes=4)
    assert verdict_on_address(uri, too_small) is RejectReason.TOO_LARGE


def test_empty_file_is_read_as_such(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    fsspec.filesystem("memory").pipe("/test_photos/empty.jpg", b"")
    assert read_photo(f"{tmp_path}/empty.jpg", LIMITS) == b""
    assert read_photo("memory://test_photos/empty.jpg", LIMITS) == b""


def test_photo_of_another_store_is_read() -> None:
    fsspec.filesystem("memory").pipe("/test_photos/a b%20é.jpg", b"photo")
    assert read_photo("memory://test_photos/a b%20é.jpg", LIMITS) == b"photo"
    for name in ("missing.jpg", ""):
        uri = f"memory://test_photos/{name}"
        assert verdict_on_address(uri) is RejectReason.NOT_FOUND


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was waited between tries; not for real."""
    waited: list[float] = []
    monkeypatch.setattr(photo_reading, "sleep", waited.append)
    return waited


@pytest.mark.parametrize(
    ("error", "reason", "tries"),
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
def test_failing_store_is_tried_again_where_that_may_help(
    error: Exception,
    reason: RejectReason,
    tries: int,
    waits: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []

    def fail(*args: object, **options: object) -> bytes:
        calls.append(args)
        raise error

    monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "cat_file", fail)
    assert verdict_on_address("memory://a.jpg") is reason
    assert len(calls) == tries
    assert len(waits) == tries - 1
    for waited, wait in zip(waits, (0.2, 0.8), strict=False):
        assert 0.5 * wait <= waited <= 1.5 * wait


def test_waits_differ(waits: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> bytes:
        raise TimeoutError

    monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "cat_file", fail)
    for _ in range(3):
        verdict_on_address("memory://a.jpg")
    assert len(set(waits)) == 6


def test_no_try_begins_when_the_time_of_the_photo_is_over(
    waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([1000.0, 1000.0 + 119.0, 1000.0 + 121.0])
    monkeypatch.setattr(photo_reading, "monotonic", clock.__next__)

    def fail(*args: object, **options: object) -> bytes:
        raise TimeoutError

    monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "cat_file", fail)
    assert verdict_on_address("memory://a.jpg") is RejectReason.READ_FAILED
    assert len(waits) == 2


def test_asynchronous_store_that_hangs_is_read_failed(
    waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hanging(AsyncFileSystem):
        protocol = "hanging"
        calls = 0

        async def _cat_file(self, path: str, **options: object) -> bytes:
            Hanging.calls += 1
            if path == "photo.jpg":
                return b"photo"
            await asyncio.Event().wait()
            raise AssertionError

    fsspec.register_implementation("hanging", Hanging, clobber=True)
    monkeypatch.setattr(photo_reading, "_TRY_TIMEOUT_S", 0.05)
    assert read_photo("hanging://photo.jpg", LIMITS) == b"photo"
    assert verdict_on_address("hanging://other.jpg") is RejectReason.READ_FAILED
    assert Hanging.calls == 4


@pytest.mark.parametrize("uri", ["nosuch://bucket/a.jpg", "zip+x://a.jpg", "blockcache://a/b.jpg"])
def test_scheme_without_a_reader_is_unsupported(uri: str) -> None:
    assert verdict_on_address(uri) is RejectReason.UNSUPPORTED_SCHEME


def test_known_scheme_without_its_driver_is_unsupported() -> None:
    fsspec.register_implementation("nodriver", "no_such_package.Store", errtxt="Install it")
    assert verdict_on_address("nodriver://bucket/a.jpg") is RejectReason.UNSUPPORTED_SCHEME
