"""`PhotoAccess` allows or refuses addresses before any request is made."""

import pickle
from pathlib import Path

import pytest
from aiohttp.helpers import is_ip_address
from yarl import URL

from schemas.rejects import RejectReason
from seer_model.photos.limits import PhotoAccess, PhotoRejected

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
def test_only_allowed_schemes_are_requested(uri: str, allowed: bool) -> None:
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
def test_private_ip_addresses_are_refused_in_any_notation(host: str) -> None:
    for scheme in ("http", "https"):
        assert not ANYWHERE.allows_remote(f"{scheme}://{host}/latest/meta-data")
        assert not ANYWHERE.allows_remote(f"{scheme}://user:secret@{host}:8080/")
    assert PhotoAccess(private_hosts=True).allows_remote(f"http://{host}/")
    bare = host.strip("[]")
    assert is_ip_address(bare), "aiohttp resolves it, and so checks the address it resolves to"
    assert PhotoAccess(hosts=(bare,)).allows_remote(f"http://{host}/")
    assert not PhotoAccess(hosts=("*",)).allows_remote(f"http://{host}/")


@pytest.mark.parametrize("dot", ["\u3002", "\uff0e", "\uff61"])  # Full stops of East Asian text.
@pytest.mark.parametrize("first", ["127", "\uff11\uff12\uff17"])
def test_loopback_address_in_unicode_is_refused(first: str, dot: str) -> None:
    uri = f"http://{dot.join((first, *'001'))}/"
    assert URL(uri).raw_host == "127.0.0.1", "what aiohttp connects to, without resolving it"
    assert not ANYWHERE.allows_remote(uri)
    assert PhotoAccess(private_hosts=True).allows_remote(uri)


def test_ip_address_of_a_host_name_is_checked() -> None:
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
def test_hosts_and_buckets_must_match_a_pattern(uri: str, allowed: bool) -> None:
    assert PhotoAccess(hosts=("*.shop.example", "photos")).allows_remote(uri) is allowed


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("bücher.example", True),
        ("BÜCHER.example", True),
        ("xn--bcher-kva.example", True),
        ("bucher.example", False),
        ("user@bücher.example:81", True),
        ("bücher.example\\@evil.example", False),
        ("evil.example\\.bücher.example", False),
    ],
)
@pytest.mark.parametrize("pattern", ["bücher.example", "xn--bcher-kva.example"])
def test_host_that_is_judged_is_the_one_that_is_asked(
    host: str, pattern: str, allowed: bool
) -> None:
    assert PhotoAccess(hosts=(pattern,)).allows_remote(f"http://{host}/a.jpg") is allowed


def test_local_photos_must_lie_in_a_root_once_links_are_resolved(tmp_path: Path) -> None:
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
def test_system_folders_are_never_readable(name: str) -> None:
    assert not ANYWHERE.allows_local(Path(name))
    assert not PhotoAccess(roots=("/proc", "/sys", "/dev")).allows_local(Path(name))


def test_rejection_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(PhotoRejected(RejectReason.TRUNCATED)))
    assert error.reason is RejectReason.TRUNCATED
    assert str(error) == "truncated"
