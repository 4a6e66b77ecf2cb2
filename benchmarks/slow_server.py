"""A web server far away: a process that answers every request after the same latency."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection

__all__ = ["slow_server"]

_END = b"\r\n\r\n"


@contextmanager
def slow_server(photos: Sequence[bytes], latency: float) -> Iterator[str]:
    """Serve photos until the block ends: `ADDRESS/N.jpg` is photo N, modulo their number.

    Connections are kept open, and any number is served at once.

    Args:
        photos: JPEGs.
        latency: Seconds from a request to its answer.

    Yields:
        The address, `http://127.0.0.1:PORT`.
    """
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, list(photos), latency), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}"
    finally:
        process.terminate()
        process.join()


def _serve(started: Connection, photos: list[bytes], latency: float) -> None:
    asyncio.run(_serve_forever(started, photos, latency))


async def _serve_forever(started: Connection, photos: list[bytes], latency: float) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                request = await reader.readuntil(_END)
                number = int(request.split(b" ", 2)[1].strip(b"/").partition(b".")[0])
                await asyncio.sleep(latency)
                photo = photos[number % len(photos)]
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: "
                    + str(len(photo)).encode()
                    + _END
                    + photo
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=1024)
    started.send(server.sockets[0].getsockname()[1])
    await server.serve_forever()
