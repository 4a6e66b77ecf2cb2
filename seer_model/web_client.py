"""The web client for photos: asks no server that `PhotoAccess` forbids, however it gets there."""

import socket
from functools import partial
from types import SimpleNamespace
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from schemas.rejects import RejectReason
from seer_model.photo_access import PhotoAccess
from seer_model.photos import PhotoRejected

__all__ = ["client_options"]


def client_options(access: PhotoAccess) -> dict[str, Any]:
    """Options for fsspec's web driver, so that every request and redirect is checked.

    A name is looked up once, and what it stands for is checked before the connection is made to
    that very address: a name that stands for another a moment later gains nothing.
    """
    return {"get_client": partial(_client, access)}


async def _client(access: PhotoAccess, **options: Any) -> aiohttp.ClientSession:
    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(partial(_check_redirect, access))
    connector = aiohttp.TCPConnector(resolver=_Resolver(access))
    return aiohttp.ClientSession(connector=connector, trace_configs=[trace], **options)


async def _check_redirect(
    access: PhotoAccess,
    session: aiohttp.ClientSession,  # noqa: ARG001 - aiohttp's signature
    context: SimpleNamespace,  # noqa: ARG001
    redirect: aiohttp.TraceRequestRedirectParams,
) -> None:
    headers = redirect.response.headers
    target = headers.get("Location") or headers.get("URI") or ""
    if not access.allows_remote(str(redirect.url.join(URL(target)))):
        raise PhotoRejected(RejectReason.NOT_ALLOWED)


class _Resolver(AbstractResolver):
    """The system's, less the addresses that are forbidden."""

    def __init__(self, access: PhotoAccess) -> None:
        self._access = access
        self._system = aiohttp.DefaultResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._system.resolve(host, port, family)
        if not all(self._access.allows_ip(result["host"], host) for result in found):
            raise PhotoRejected(RejectReason.NOT_ALLOWED)
        return found

    async def close(self) -> None:
        await self._system.close()
