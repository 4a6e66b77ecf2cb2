"""Where photos may be read from: manifests come from others, and so do the addresses in them."""

import ipaddress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

__all__ = ["SCHEMES", "PhotoAccess"]

SCHEMES = ("https", "http", "s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "hdfs")
"""Stores of files. Not among them: what reaches into this machine or chains other drivers, such as
`memory`, `zip`, `reference` and `sftp` with this user's keys."""

_WEB = ("http", "https")
# Files there are the kernel's and the machine's, and never photos.
_NEVER = tuple(Path(folder) for folder in ("/proc", "/sys", "/dev"))


@dataclass(frozen=True)
class PhotoAccess:
    """What addresses of photos are allowed.

    Attributes:
        roots: Local folders, in which, links followed, a local photo must lie.
        schemes: Of remote addresses.
        hosts: Patterns (`*.shop.example`) of which a web server's name, or the bucket of another
            store, must match one.
        private_hosts: Whether web servers may be at addresses that are not public: this machine,
            its link, the local network. One that `hosts` names without a wildcard may always.
    """

    roots: tuple[str, ...] = ("/",)
    schemes: tuple[str, ...] = SCHEMES
    hosts: tuple[str, ...] = ("*",)
    private_hosts: bool = False

    @cached_property
    def _real_roots(self) -> tuple[Path, ...]:
        return tuple(Path(root).resolve() for root in self.roots)

    def allows_local(self, path: Path) -> bool:
        """Whether a file may be read; `path` is absolute, and its links are followed already."""
        inside = any(path.is_relative_to(root) for root in self._real_roots)
        return inside and not any(path.is_relative_to(folder) for folder in _NEVER)

    def allows_remote(self, uri: str) -> bool:
        """Whether an address may be asked, as far as can be told without asking."""
        try:
            address = urlsplit(uri)
            host = (address.hostname or "").lower()
        except ValueError:  # As of `https://[`.
            return False
        scheme = address.scheme.lower()
        named = any(fnmatchcase(host, pattern.lower()) for pattern in self.hosts)
        if scheme not in self.schemes or not named:
            return False
        return scheme not in _WEB or not _is_ip(host) or self.allows_ip(host, host)

    def allows_ip(self, ip: str, host: str) -> bool:
        """Whether a web server may be asked at an IP address, which `host` stands for."""
        return self.private_hosts or host.lower() in self.hosts or _is_public(ip)


def _is_ip(host: str) -> bool:
    """As connecting code sees it, which also takes `2130706433` and `127.1` for addresses."""
    return ":" in host or host.replace(".", "").isdigit()


def _is_public(ip: str) -> bool:
    try:
        address = ipaddress.ip_address(ip.partition("%")[0])
    except ValueError:
        return False
    # An IPv4 address in IPv6's clothes is what it is underneath.
    mapped = getattr(address, "ipv4_mapped", None) or address
    return mapped.is_global and not mapped.is_multicast
