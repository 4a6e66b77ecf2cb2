"""What stands where a photo should be: links, pipes, devices, folders, and names of every kind."""

import os
import socket
import tempfile
from pathlib import Path

import pytest

from seer_model.backbone import Backbone
from seer_model.embedder import PhotoEmbedder
from seer_model.photo_reading import read_photo
from seer_model.photo_source import PhotoSource
from tests.unit.encoded_photos import LIMITS, encode, verdict_on_address
from tests.unit.hostile.photo_parts import card

NAMES = [
    "with space.jpg",
    " .jpg",
    "100%.jpg",
    "%2e%2e%2fphoto.jpg",
    "$HOME.jpg",
    "~root.jpg",
    "写真 📷.jpg",
    "e\u0301.jpg",
    "new\nline.jpg",
    "tab\t.jpg",
    "-rf.jpg",
    "a;b|c&d`e`.jpg",
    "*.jpg",
    "[a-z].jpg",
    "photo.jpg?width=100#top",
    "s3:",
    "x" * 246 + ".jpg",
    "no_suffix",
    "photo.html",
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_name_is_taken_as_it_is(tmp_path: Path, name: str) -> None:
    data = encode(card(), "PNG")  # Whatever the name says.
    path = tmp_path / name
    path.write_bytes(data)
    assert read_photo(str(path), LIMITS) == data
    assert read_photo(path.as_uri(), LIMITS) == data


def test_names_do_not_reach_other_files(tmp_path: Path) -> None:
    """Nothing in a path is expanded."""
    (tmp_path / "photo.jpg").write_bytes(b"secret")
    (tmp_path / "below").mkdir()
    for name in ("below/%2e%2e/photo.jpg", "*.jpg", "phot?.jpg", "photo.jpg\n", "photo.jpg\0.png"):
        assert verdict_on_address(f"{tmp_path}/{name}") in ("not_found", "not_allowed")
    for name in ("~/photo.jpg", "$HOME/photo.jpg", "${HOME}/photo.jpg", "%HOME%/photo.jpg"):
        assert verdict_on_address(name) in ("not_found", "not_allowed")


def test_a_link_to_a_photo_is_the_photo(tmp_path: Path, backbone: Backbone) -> None:
    data = encode(card(), "JPEG")
    (tmp_path / "photo.jpg").write_bytes(data)
    (tmp_path / "link.jpg").symlink_to("photo.jpg")
    (tmp_path / "again.jpg").symlink_to("link.jpg")
    embedder = PhotoEmbedder.open(backbone, batch_size=2)
    sources = [PhotoSource(str(tmp_path / "again.jpg"), None), PhotoSource(None, data)]
    (linked, _), (plain, _) = embedder.embed(sources)
    assert linked is not None
    assert plain is not None
    assert linked.tobytes() == plain.tobytes()


def test_what_is_no_file_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder.jpg").mkdir()
    places = {"pipe": tmp_path / "pipe", "folder": tmp_path / "folder.jpg"}
    for device in ("/dev/zero", "/dev/random", "/dev/tty", "/dev/stdin"):
        places[device] = Path(device)
    for name, place in list(places.items()):
        link = tmp_path / f"link-{name.replace('/', '-')}"
        link.symlink_to(place)
        places[link.name] = link
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        places["socket"] = tmp_path / "socket"
        for place in places.values():
            assert verdict_on_address(str(place)) in ("not_found", "not_allowed"), place


def test_links_in_a_circle_and_to_nowhere_are_refused(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("other")
    (tmp_path / "other").symlink_to("one")
    (tmp_path / "nowhere").symlink_to("missing.jpg")
    assert verdict_on_address(str(tmp_path / "one")) in ("read_failed", "not_allowed", "not_found")
    assert verdict_on_address(str(tmp_path / "nowhere")) in ("not_found", "not_allowed")


@pytest.mark.parametrize("size", [256, 5000, 1_000_000])
def test_a_name_that_is_too_long_is_refused(tmp_path: Path, size: int) -> None:
    assert verdict_on_address(f"{tmp_path}/{'x' * size}") in ("read_failed", "not_found")


def test_a_sparse_file_is_read_no_further_than_the_limit(tmp_path: Path) -> None:
    """A terabyte that takes no room on the disk."""
    with (tmp_path / "sparse.jpg").open("wb") as file:
        file.truncate(1 << 40)
    assert verdict_on_address(str(tmp_path / "sparse.jpg")) == "too_large"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become someone else")
def test_a_photo_of_someone_else_is_read_failed() -> None:
    """As somebody who is not root, whom no permission stops."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        path = Path(folder) / "photo.jpg"
        path.write_bytes(b"x")
        path.chmod(0)
        os.seteuid(65534)
        try:
            assert verdict_on_address(str(path)) == "read_failed"
        finally:
            os.seteuid(0)
