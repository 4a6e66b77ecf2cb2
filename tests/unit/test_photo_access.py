"""Which addresses of photos are allowed, before anything is asked."""

from pathlib import Path

import pytest

from seer_model.photo_access import PhotoAccess

ANYWHERE = PhotoAccess()


@pytest.mark.parametrize(
    ("uri", "allowed"),
    [
        ("https://photos.shop.example/1.jpg", True),
        ("HTTPS://photos.shop.example/1.jpg", True),
        ("s3://bucket/key.jpg", True),
        ("hdfs://namenode:8020/a.jpg", True),
        ("https://93.184.216.34/1.jpg", True),
        ("https://[2606:2800:220:1::]/1.jpg", True),
        ("ftp://files.shop.example/1.jpg", False),
        ("sftp://host/1.jpg", False),
        ("memory://1.jpg", False),
        ("reference://x", False),
        ("file:///etc/hostname", False),
        ("data:image/png;base64,AAAA", False),
        ("https://[", False),
        ("no scheme", False),
    ],
)
def test_schemes(uri: str, allowed: bool) -> None:
    assert ANYWHERE.allows_remote(uri) is allowed


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0177.0.0.1",
        "0.0.0.0",
        "10.0.0.7",
        "172.16.3.4",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "[::1]",
        "[::]",
        "[fe80::1]",
        "[fd00:ec2::254]",
        "[::ffff:127.0.0.1]",
        "[::ffff:169.254.169.254]",
        "[ff02::1]",
    ],
)
def test_web_servers_that_are_not_public(host: str) -> None:
    for scheme in ("http", "https"):
        assert not ANYWHERE.allows_remote(f"{scheme}://{host}/latest/meta-data")
        assert not ANYWHERE.allows_remote(f"{scheme}://user:secret@{host}:8080/")
    assert PhotoAccess(private_hosts=True).allows_remote(f"http://{host}/")
    bare = host.strip("[]")
    assert PhotoAccess(hosts=(bare,)).allows_remote(f"http://{host}/")
    assert not PhotoAccess(hosts=("*",)).allows_remote(f"http://{host}/")


def test_names_are_checked_when_looked_up() -> None:
    assert not ANYWHERE.allows_ip("127.0.0.1", "innocent.example")
    assert PhotoAccess(hosts=("innocent.example",)).allows_ip("127.0.0.1", "Innocent.example")
    assert not PhotoAccess(hosts=("*.example",)).allows_ip("127.0.0.1", "innocent.example")
    assert ANYWHERE.allows_ip("93.184.216.34", "innocent.example")
    assert not ANYWHERE.allows_ip("fe80::1%eth0", "innocent.example")
    assert not ANYWHERE.allows_ip("nonsense", "innocent.example")


@pytest.mark.parametrize(
    ("uri", "allowed"),
    [
        ("https://photos.shop.example/1.jpg", True),
        ("https://PHOTOS.shop.example:8443/1.jpg", True),
        ("https://shop.example/1.jpg", False),
        ("https://shop.example.evil.example/1.jpg", False),
        ("https://photos.shop.example@evil.example/1.jpg", False),
        ("https://evil.example/photos.shop.example/1.jpg", False),
        ("https://evil.example?.shop.example", False),
        ("s3://photos/1.jpg", True),
        ("s3://secrets/1.jpg", False),
    ],
)
def test_hosts_and_buckets(uri: str, allowed: bool) -> None:
    assert PhotoAccess(hosts=("*.shop.example", "photos")).allows_remote(uri) is allowed


def test_roots_with_links_followed(tmp_path: Path) -> None:
    inside, outside = tmp_path / "photos", tmp_path / "photos-private"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "a.jpg").touch()
    link = tmp_path / "link"
    link.symlink_to(inside)
    access = PhotoAccess(roots=(str(link),))
    assert access.allows_local(inside / "a.jpg")
    assert not access.allows_local(outside / "a.jpg")
    assert not access.allows_local(tmp_path)
    assert ANYWHERE.allows_local(outside / "a.jpg")


@pytest.mark.parametrize("name", ["/proc/self/environ", "/sys/kernel/notes", "/dev/zero"])
def test_what_is_the_kernels_is_never_a_photo(name: str) -> None:
    assert not ANYWHERE.allows_local(Path(name))
    assert not PhotoAccess(roots=("/proc", "/sys", "/dev")).allows_local(Path(name))
