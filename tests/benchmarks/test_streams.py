"""The reader of streams, which must find what is lost."""

import asyncio
import json
from typing import Any

import pytest

from scripts.benchmarks.streams import Client, accounted

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


def line(**fields: Any) -> bytes:
    return json.dumps(fields).encode() + b"\n"


def token(number: int) -> bytes:
    return line(type="assistant_text", content=f"t{number} ", timestamp=1.0)


USAGE = line(type="token_usage", content="")


def end(count: int) -> bytes:
    return line(type="stream_end", total_stream_count=count)


def chunked(*parts: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


async def heard(answer: bytes, size: int) -> Client:
    """A client that got the bytes in pieces of that size."""
    client = Client(b"")

    class Closing:
        def close(self) -> None:
            client.connection_lost(None)

    client._transport = Closing()  # type: ignore[assignment]
    for at in range(0, len(answer), size):
        client.data_received(answer[at : at + size])
    return client


@pytest.mark.parametrize("size", [1, 7, 64, 100_000])
def test_every_line_is_found_however_it_is_cut(size: int) -> None:
    body = chunked(token(0) + token(1)[:9], token(1)[9:], b": heartbeat\n\n", USAGE, end(4))
    client = asyncio.run(heard(HEAD + body, size))
    assert len(accounted(client, 2)) == 2


@pytest.mark.parametrize(
    "parts",
    [
        (token(0), USAGE, end(3)),
        (token(0), token(0), USAGE, end(4)),
        (token(1), token(0), USAGE, end(4)),
        (token(0), token(1), end(3)),
        (token(0), token(1), USAGE),
        (token(0), token(1), USAGE, end(5)),
    ],
    ids=["lost", "doubled", "swapped", "no usage", "no end", "counted otherwise"],
)
def test_what_is_wrong_is_found(parts: tuple[bytes, ...]) -> None:
    client = asyncio.run(heard(HEAD + chunked(*parts), 4096))
    with pytest.raises(RuntimeError):
        accounted(client, 2)


def test_a_refusal_is_no_stream() -> None:
    answer = b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 2\r\n\r\n{}"
    client = asyncio.run(heard(answer, 4096))
    with pytest.raises(RuntimeError, match="refused"):
        client.lines()
