"""Web search, against a real provider on this machine."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateways.errors import SearchFailed, SearchUnavailable
from gateways.outbound import Outbound
from gateways.search import Found, WebSearch
from tests.gateways.peer import Peer, plain


@pytest.fixture
async def outbound() -> AsyncIterator[Outbound]:
    outbound = Outbound(["search=127.0.0.1"])
    yield outbound
    await outbound.close()


def answer(data: Any) -> bytes:
    return plain(body=json.dumps(data), media_type="application/json")


async def test_a_searxng_answer_is_read(outbound: Outbound, peer: Peer) -> None:
    results = [
        {"title": "A\n title", "url": "https://a.example/", "content": "x " * 900, "score": 1},
        {"title": "", "url": "http://b.example/", "content": None},
        {"title": "trap", "url": "javascript:alert(1)", "content": ""},
        {"title": "no address"},
        "not an object",
        {"title": "C", "url": "https://c.example/", "content": "third"},
    ]
    peer.routes["/search"] = answer({"query": "q", "results": results, "number_of_results": 6})
    search = WebSearch(outbound, peer.url + "/search?q={query}&format=json", "key-1")
    found = await search.search("größe & mehr?#/\ud800", limit=2)
    assert found == [
        Found("A title", "https://a.example/", ("x " * 500).strip()),
        Found("http://b.example/", "http://b.example/", ""),
    ]
    (request,) = peer.requests
    assert request.target == "/search?q=gr%C3%B6%C3%9Fe%20%26%20mehr%3F%23%2F%3F&format=json"
    assert request.headers["authorization"] == "Bearer key-1"
    assert len(await search.search("x")) == 3


async def test_other_simple_shapes_are_read(outbound: Outbound, peer: Peer) -> None:
    item = {"title": "T", "link": "https://a.example/", "snippet": "S"}
    peer.routes["/"] = answer([item])
    found = await WebSearch(outbound, peer.url + "/?q={query}").search("x")
    assert found == [Found("T", "https://a.example/", "S")]
    assert "authorization" not in peer.requests[0].headers


async def test_without_a_provider_it_says_so(outbound: Outbound) -> None:
    search = WebSearch(outbound)
    assert not search.configured
    with pytest.raises(SearchUnavailable, match="no search provider is configured"):
        await search.search("x")
    with pytest.raises(ValueError, match="query"):
        WebSearch(outbound, "https://search.example/")


@pytest.mark.parametrize(
    "bad",
    [
        plain(500, "broken"),
        plain(302, location="http://10.0.0.1/"),
        plain(body="<html>"),
        plain(body="[" * 100_000),
        answer({"results": None}),
        answer("text"),
        plain(body=b"x" * 3_000_000),
        b"",
    ],
)
async def test_a_provider_that_fails_is_said(outbound: Outbound, peer: Peer, bad: bytes) -> None:
    peer.routes["/"] = bad
    with pytest.raises(SearchFailed) as failed:
        await WebSearch(outbound, peer.url + "/?q={query}", "canary").search("x")
    assert "canary" not in str(failed.value)


async def test_a_provider_inside_must_be_listed(peer: Peer) -> None:
    outbound = Outbound()
    with pytest.raises(SearchFailed, match="public"):
        await WebSearch(outbound, peer.url + "/?q={query}").search("x")
    await outbound.close()
    assert peer.connections == 0
