"""The listener of server-sent events, which must notice whatever a server does not send."""

import asyncio

import pytest

from scripts.benchmarks.sse import RECENT, Listener

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


async def test_a_text_is_heard_however_it_is_cut() -> None:
    listener = Listener(b"")
    listener.data_received(HEAD)
    heard = asyncio.ensure_future(listener.heard(b"event: done"))
    await asyncio.sleep(0)
    listener.data_received(b"data: 1\r\n\r\neve")
    assert not heard.done()
    listener.data_received(b"nt: done\r\n")
    assert await heard > 0


async def test_what_came_before_is_heard_only_since_then() -> None:
    listener = Listener(b"")
    listener.data_received(HEAD + b"event: do")
    listener.data_received(b"ne")
    at = await listener.heard(b"event: done", since=0.0)
    with pytest.raises(TimeoutError):
        await listener.heard(b"event: done", within_s=0)
    with pytest.raises(TimeoutError):
        await listener.heard(b"event: done", since=at + 1, within_s=0)
    listener.data_received(b"event: done")
    again = await listener.heard(b"event: done", since=at)
    assert again > at
    assert await listener.heard(b"event: done", since=again) == again
    for _ in range(RECENT):
        listener.data_received(b"another")
    with pytest.raises(TimeoutError):
        await listener.heard(b"event: done", since=0.0, within_s=0)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ((b"HTTP/1.1 429 Too Many Requests\r\n\r\n",), RuntimeError),
        ((HEAD, b"event: error\r\ndata: {}\r\n\r\n"), RuntimeError),
        ((HEAD,), ConnectionError),
    ],
)
async def test_what_fails_is_raised(data: tuple[bytes, ...], error: type[Exception]) -> None:
    listener = Listener(b"")
    heard = asyncio.ensure_future(listener.heard(b"event: done"))
    await asyncio.sleep(0)
    for piece in data:
        listener.data_received(piece)
    listener.connection_lost(None)
    with pytest.raises(error):
        await heard
    with pytest.raises(error):
        await listener.heard(b"event: done", since=0.0)
