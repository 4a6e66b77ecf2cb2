"""Which photos may be read: from where, how large, and for how long.

Manifests are written by third parties. An address may be an attempt at SSRF, and a photo may be a
decompression bomb.
"""

import ipaddress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

from schemas.rejects import RejectReason
from seer_model.photos.web_address import web_url

__all__ = ["SCHEMES", "PhotoAccess", "PhotoLimits", "PhotoRejected"]

SCHEMES = ("https", "http", "s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "hdfs")
"""Remote stores allowed by default. Left out on purpose: drivers that reach into this machine,
chain other drivers or use this user's keys, such as `memory`, `zip`, `reference` and `sftp`."""

_WEB_SCHEMES = ("http", "https")
# Files in these folders belong to the kernel and its devices; none is a photo.
_SYSTEM_FOLDERS = tuple(Path(folder) for folder in ("/proc", "/sys", "/dev"))


@dataclass(frozen=True)
class PhotoAccess:
    """The addresses that photos may be read from: the guard against SSRF and path traversal.

    Attributes:
        roots: Local folders; a local photo must lie in one of them once links are resolved.
        schemes: Allowed schemes of remote addresses.
        hosts: Patterns such as `*.shop.example`. One must match the host name of a web server, or
            the bucket of an object store.
        private_hosts: Whether web servers may have IP addresses that are not public: loopback,
            link-local, private networks. A host named in `hosts` without a wildcard always may.
    """

    roots: tuple[str, ...] = ("/",)
    schemes: tuple[str, ...] = SCHEMES
    hosts: tuple[str, ...] = ("*",)
    private_hosts: bool = False

    def allows_local(self, path: Path) -> bool:
        """Whether a local file may be read; `path` is absolute and its links are resolved."""
        inside = any(path.is_relative_to(root) for root in self._resolved_roots)
        return inside and not any(path.is_relative_to(folder) for folder in _SYSTEM_FOLDERS)

    def allows_remote(self, uri: str) -> bool:
        """Whether a remote address may be requested, before any host name is resolved."""
        try:
            address = urlsplit(uri)
            scheme, host = address.scheme.lower(), (address.hostname or "").lower()
            names, ip = {host}, ""
            if scheme in _WEB_SCHEMES:
                # What aiohttp connects to: yarl normalises `127。0。0。1` to 127.0.0.1.
                asked = web_url(uri)
                if _is_ip(asked.raw_host or ""):
                    ip = asked.raw_host or ""
                else:
                    names = {asked.raw_host or "", asked.host or ""}  # As IDNA, and in Unicode.
        except ValueError:  # For example `https://[`.
            return False
        host_matches = any(
            fnmatchcase(name, pattern.lower()) for pattern in self.hosts for name in names
        )
        if scheme not in self.schemes or not host_matches:
            return False
        return not ip or self.allows_ip(ip, host)

    def allows_ip(self, ip: str, host: str) -> bool:
        """Whether a web server may be contacted at `ip`, the address that `host` resolves to."""
        return self.private_hosts or host.lower() in self.hosts or _is_public(ip)

    @cached_property
    def _resolved_roots(self) -> tuple[Path, ...]:
        return tuple(Path(root).resolve() for root in self.roots)


@dataclass(frozen=True)
class PhotoLimits:
    """Bounds on the memory, time and work that photos may take, and where they may come from.

    Attributes:
        max_bytes: Size of an encoded photo, in bytes.
        max_pixels: Width times height, as stated in the header.
        max_encoded_memory: Bytes of encoded photos that are in flight in a task; a photo that is
            still to be fetched counts as `max_bytes`.
        max_decode_memory: Peak memory of all photos that a process decodes at the same time, in
            bytes; a photo that needs more by itself is rejected. A pixel takes 8 to 22 bytes,
            depending on format and mode. A JPEG counts at its reduced scale; a progressive one
            takes another 2 to 8 bytes for each pixel of the full scale.
        max_passes: How many times decoding may pass over a photo of `max_pixels`, and in proportion
            more often over a smaller one, since a JPEG may have any number of scans. This bounds
            the time of a photo: 20 passes over 100 megapixels take 2 seconds. A limit in seconds
            would make the outcome depend on the load of the machine.
        max_seconds: Time to fetch a remote photo, retries included.
        access: Addresses that may be read.
    """

    max_bytes: int = 32 * 1024 * 1024
    max_pixels: int = 100_000_000
    max_encoded_memory: int = 256 * 1024 * 1024
    max_decode_memory: int = 1024 * 1024 * 1024
    max_passes: int = 20
    max_seconds: float = 120.0
    access: PhotoAccess = field(default_factory=PhotoAccess)


class PhotoRejected(Exception):
    """A photo cannot be used; its `__cause__` is the underlying error, if there is one.

    Attributes:
        reason: Why, from the closed set in `schemas.rejects`.
    """

    def __init__(self, reason: RejectReason) -> None:
        super().__init__(reason)
        self.reason = reason


def _is_ip(host: str) -> bool:
    """Whether aiohttp connects to `host` without resolving it, as to `2130706433` and `127.1`."""
    return ":" in host or host.replace(".", "").isdigit()


def _is_public(ip: str) -> bool:
    try:
        address = ipaddress.ip_address(ip.partition("%")[0])
    except ValueError:
        return False
    # An IPv4-mapped IPv6 address is as public as the IPv4 address in it.
    mapped = getattr(address, "ipv4_mapped", None) or address
    return mapped.is_global and not mapped.is_multicast
