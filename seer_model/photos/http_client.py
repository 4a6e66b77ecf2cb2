"""An HTTP client that is safe against SSRF: `PhotoAccess` is checked on every hop.

Without it, a redirect or a host name that resolves to a private address would lead requests to
this machine, its network, or the metadata service of a cloud.
"""

import socket
from functools import partial
from typing import Any

import aiohttp
from aiohttp import hdrs
from aiohttp.abc import AbstractResolver, ResolveResult

from schemas.rejects import RejectReason
from seer_model.photos.limits import PhotoAccess, PhotoRejected
from seer_model.photos.web_address import follow_redirect, web_url

__all__ = ["client_options", "read_body"]

_REDIRECTS = (301, 302, 303, 307, 308)
_MAX_REDIRECTS = 10
_CREDENTIALS = (hdrs.AUTHORIZATION, hdrs.COOKIE, hdrs.PROXY_AUTHORIZATION)


def client_options(access: PhotoAccess) -> dict[str, Any]:
    """Options for fsspec's HTTP driver that make its client check resolved addresses.

    The connection is made to the very IP address that was checked, so DNS rebinding has no effect.
    """
    return {"get_client": partial(_client, access)}


async def read_body(
    session: aiohttp.ClientSession,
    address: str,
    access: PhotoAccess,
    count: int,
    **options: Any,
) -> bytes:
    """Read the beginning of what is at an address, following redirects that `access` allows.

    Args:
        session: A client with `client_options`.
        address: A web address that `access` allows; asked for as given.
        access: Checked at every redirect. aiohttp's own redirects would encode the address anew.
        count: Bytes after which to hang up.
        options: Of the request.

    Raises:
        aiohttp.ClientError: `ClientResponseError`, with its status, if the server refuses.
        PhotoRejected: `NOT_ALLOWED`.
    """
    first = url = web_url(address)
    for _ in range(_MAX_REDIRECTS):
        if url.origin() != first.origin():
            options["middlewares"] = (_without_credentials,)
        async with session.get(url, allow_redirects=False, **options) as response:
            location = response.headers.get(hdrs.LOCATION) or response.headers.get(hdrs.URI)
            if response.status not in _REDIRECTS or location is None:
                response.raise_for_status()
                return await _read(response.content, count)
        address = follow_redirect(url, location)
        if not access.allows_remote(address):
            raise PhotoRejected(RejectReason.NOT_ALLOWED)
        url = web_url(address)
    raise aiohttp.TooManyRedirects(response.request_info, response.history)


async def _read(stream: aiohttp.StreamReader, count: int) -> bytes:
    # A web server may ignore a request for a range, so the end is cut off here.
    parts: list[bytes] = []
    while count > 0 and (part := await stream.read(count)):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


async def _without_credentials(
    request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Withhold the credentials of the server that sent a redirect from another one."""
    for name in _CREDENTIALS:
        request.headers.popall(name, None)
    return await send(request)


async def _client(access: PhotoAccess, **options: Any) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(resolver=_CheckingResolver(access))
    return aiohttp.ClientSession(connector=connector, **options)


class _CheckingResolver(AbstractResolver):
    """The default resolver; rejects a host if any of its addresses is not allowed."""

    def __init__(self, access: PhotoAccess) -> None:
        self._access = access
        self._resolver = aiohttp.DefaultResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        if not all(self._access.allows_ip(result["host"], host) for result in found):
            raise PhotoRejected(RejectReason.NOT_ALLOWED)
        return found

    async def close(self) -> None:
        await self._resolver.close()
