"""Bytes between a websocket and a stream of this machine."""

import asyncio

from handlers.wire import Socket

PIECE = 64 * 1024


async def relay(socket: Socket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry bytes both ways until the stream ends, or raise what ends the socket; the writer is
    closed in either case."""

    async def outward() -> None:
        while data := await reader.read(PIECE):
            await socket.send(data)

    async def inward() -> None:
        while True:
            writer.write(await socket.receive())
            await writer.drain()

    ways = [asyncio.create_task(outward()), asyncio.create_task(inward())]
    try:
        ended, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ended:
            if not isinstance(way.exception(), ConnectionError):  # the stream's end, seen from here
                way.result()
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        writer.close()
