"""Embeddings over HTTP, from a peer whose answers are written by hand."""

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from gateways.embedding.embedder import EmbeddingFailed, EmbeddingMalformed, EmbeddingRefused
from gateways.embedding.openai_compatible import CHARACTERS_MAX, TOGETHER, RemoteEmbedder
from gateways.outbound import Outbound
from tests.gateways.peer import Peer, Request, plain

KEY = "key-of-the-embedder"
PATH = "/v1/embeddings"


@pytest.fixture
async def outbound() -> AsyncIterator[Outbound]:
    outbound = Outbound(["embedding=127.0.0.1"])
    yield outbound
    await outbound.close()


def embedder(outbound: Outbound, peer: Peer, **limits: float) -> RemoteEmbedder:
    return RemoteEmbedder(outbound, f"{peer.url}/v1/", "m", 2, KEY, **limits)


def answer(*vectors: list[Any], backwards: bool = False) -> bytes:
    data = [{"index": place, "embedding": vector} for place, vector in enumerate(vectors)]
    body = {"object": "list", "data": data[::-1] if backwards else data, "model": "m"}
    return plain(body=json.dumps(body), media_type="application/json")


async def echo(request: Request, writer: asyncio.StreamWriter) -> None:
    """Answers a text that is a number n with the vector (n, 1)."""
    texts = json.loads(request.body)["input"]
    writer.write(answer(*([float(text), 1.0] for text in texts), backwards=True))
    await writer.drain()


async def test_vectors_come_in_order_and_have_length_one(outbound: Outbound, peer: Peer) -> None:
    peer.routes[PATH] = answer([3.0, 4.0], [0, -2], backwards=True)
    found = await embedder(outbound, peer).embed(["a", ""])
    assert [struct.unpack("<2f", one) for one in found] == [
        pytest.approx((0.6, 0.8)),
        pytest.approx((0.0, -1.0)),
    ]
    (request,) = peer.requests
    assert (request.method, request.headers["authorization"]) == ("POST", f"Bearer {KEY}")
    asked = {"model": "m", "input": ["a", " "], "encoding_format": "float"}
    assert json.loads(request.body) == asked


async def test_many_texts_go_in_batches(outbound: Outbound, peer: Peer) -> None:
    peer.routes[PATH] = echo
    texts = [str(number) for number in range(2 * TOGETHER + 1)]
    found = await embedder(outbound, peer).embed(texts)
    ratios = [(lambda pair: pair[0] / pair[1])(struct.unpack("<2f", one)) for one in found]
    assert ratios == pytest.approx([float(text) for text in texts])
    sizes = [len(json.loads(request.body)["input"]) for request in peer.requests]
    assert sizes == [TOGETHER, TOGETHER, 1]
    assert await embedder(outbound, peer).embed([]) == []


async def test_a_long_text_is_cut(outbound: Outbound, peer: Peer) -> None:
    peer.routes[PATH] = answer([1.0, 0.0])
    await embedder(outbound, peer).embed_question("x" * (CHARACTERS_MAX + 1))
    assert len(json.loads(peer.requests[0].body)["input"][0]) == CHARACTERS_MAX


@pytest.mark.parametrize(
    ("sent", "error", "why"),
    [
        (answer([1.0, 2.0, 3.0]), EmbeddingMalformed, "3 dimensions, not 2"),
        (answer([1.0]), EmbeddingMalformed, "1 dimensions, not 2"),
        (answer(), EmbeddingMalformed, "1 vectors"),
        (answer([1.0, 2.0], [3.0, 4.0]), EmbeddingMalformed, "1 vectors"),
        (answer([0.0, 0.0]), EmbeddingMalformed, "no direction"),
        (answer([1e308, 1e308]), EmbeddingMalformed, "no direction"),
        (answer(["1", "2"]), EmbeddingMalformed, "not answer with vectors"),
        (plain(body="[[1, 2]]"), EmbeddingMalformed, "not answer with vectors"),
        (plain(body="{"), EmbeddingMalformed, "not answer with vectors"),
        (answer([1.0] * 2000), EmbeddingMalformed, "larger"),
        (plain(401, KEY), EmbeddingRefused, "status 401"),
        (plain(404), EmbeddingRefused, "status 404"),
        (plain(307, location="http://127.0.0.1:1/"), EmbeddingRefused, "status 307"),
        (plain(429), EmbeddingFailed, "status 429"),
        (plain(503), EmbeddingFailed, "status 503"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{", EmbeddingFailed, "cannot be asked"),
    ],
)
async def test_what_is_wrong_has_a_type_and_no_key(
    outbound: Outbound, peer: Peer, sent: bytes, error: type[EmbeddingFailed], why: str
) -> None:
    async def send(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(sent)
        await writer.drain()
        writer.close()

    peer.routes[PATH] = send
    with pytest.raises(EmbeddingFailed, match=why) as raised:
        await embedder(outbound, peer).embed(["1"])
    assert type(raised.value) is error
    assert KEY not in str(raised.value)
    assert len(peer.requests) == 1, "nothing is sent twice"


Ask = Callable[[RemoteEmbedder], Any]


@pytest.mark.parametrize("ask", [lambda e: e.embed(["1"]), lambda e: e.embed_question("1")])
async def test_a_slow_server_is_not_waited_for(outbound: Outbound, peer: Peer, ask: Ask) -> None:
    gone = asyncio.Event()

    async def silent(request: Request, writer: asyncio.StreamWriter) -> None:
        await gone.wait()

    peer.routes[PATH] = silent
    with pytest.raises(EmbeddingFailed, match="no whole answer"):
        await ask(embedder(outbound, peer, answer_s=0.05, question_s=0.05))
    gone.set()
    peer.routes[PATH] = echo
    assert await ask(embedder(outbound, peer)), "another request is served"


async def test_a_server_that_is_away_has_failed(outbound: Outbound, peer: Peer) -> None:
    await peer.stop()
    with pytest.raises(EmbeddingFailed, match="cannot be asked"):
        await embedder(outbound, peer).embed(["1"])


@pytest.mark.parametrize("allowed", [(), ("model=127.0.0.1",)])
async def test_a_private_address_is_refused(peer: Peer, allowed: tuple[str, ...]) -> None:
    door = Outbound(allowed)
    with pytest.raises(EmbeddingRefused, match="may not be reached"):
        await embedder(door, peer).embed(["1"])
    await door.close()
    assert peer.connections == 0
