"""Web addresses, which are asked for exactly as they are given."""

import re
from urllib.parse import quote, urljoin

from yarl import URL

__all__ = ["follow_redirect", "web_url"]

_ADDRESS = re.compile(r"(https?://[^/?#]*)([^#]*)", re.IGNORECASE)  # A fragment is never sent.
_NOT_SENDABLE = re.compile(r"[^\x21-\x7e]+|%(?![0-9a-fA-F]{2})")
_WITH_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)


def web_url(address: str) -> URL:
    """The URL that is asked for: its host normalised, its request target as given.

    An address may be signed, and a server may tell `%2F` from `/`, so nothing in it is decoded,
    encoded or resolved. Only what a request cannot hold is percent-encoded, as UTF-8: white space,
    control characters, other letters than ASCII, and a `%` that begins no escape.

    Returns:
        The URL; the whole request target, with the query, is its path.

    Raises:
        ValueError: It is not a web address.
    """
    match = _ADDRESS.match(address)
    if match is None:
        raise ValueError(f"not a web address: {address}")
    origin, target = match.groups()
    encoded = _NOT_SENDABLE.sub(lambda found: quote(found[0], errors="surrogateescape"), target)
    return URL(origin).with_path(encoded, encoded=True)


def follow_redirect(url: URL, location: str) -> str:
    """The address that a `Location` header names, as it was sent.

    Args:
        url: What was asked for, from `web_url`.
        location: The header: an address, or a reference relative to `url` (RFC 3986, section 4.2).
    """
    if _WITH_SCHEME.match(location):
        return location
    if location.startswith("//"):
        return f"{url.scheme}:{location}"
    server = str(url.with_path("")).rstrip("/")
    if location.startswith("/"):
        return server + location
    asked, _, _ = url.raw_path.partition("?")
    path, mark, query = location.partition("#")[0].partition("?")
    return urljoin(server + asked, path) + mark + query
