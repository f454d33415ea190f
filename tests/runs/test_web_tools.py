"""The web tools in the loop, against a real HTTP server."""

from tests.gateways.peer import Peer, plain
from tests.runs.conftest import Here
from tests.runs.test_turns import script
from tests.runs.world import World


def results(lines: list[dict[str, object]]) -> list[tuple[object, object]]:
    """What the tools gave, and whether they failed."""
    return [
        (line["content"], line["metadata"]["failed"])  # type: ignore[index]
        for line in lines
        if line["type"] == "tool_call_result"
    ]


async def test_fetch_and_search(make: Here) -> None:
    peer = await Peer().start()
    peer.routes["/page"] = plain(
        200, "<title>T</title><p>Hello <b>you</b></p><script>no</script>", "text/html"
    )
    peer.routes["/gone"] = plain(404, "no")
    found = '{"results":[{"title":"One","url":"https://one.example/","content":"first"}]}'
    peer.routes["/search"] = plain(200, found, "application/json")
    said = script(
        {"call": "web_fetch", "args": {"url": f"{peer.url}/page"}},
        {"call": "web_search", "args": {"query": "big cats"}},
        {"call": "web_fetch", "args": {"url": f"{peer.url}/gone"}},
        {"call": "web_fetch", "args": {"url": "http://169.254.169.254/latest/meta-data"}},
        {"call": "web_fetch", "args": {"address": "x"}},
    )
    async with make(web_search_url=f"{peer.url}/search?q={{query}}") as here:
        [page, hits, *failed] = results(await here.turn(said))
    await peer.stop()
    assert page == (f"T\n{peer.url}/page\n\nHello you", False)
    assert hits == ("1. One\nhttps://one.example/\nfirst", False)
    assert [one[1] for one in failed] == [True, True, True]
    assert [request.target for request in peer.requests] == [
        "/page",
        "/search?q=big%20cats",
        "/gone",
    ]


async def test_search_without_a_provider_says_so(here: World) -> None:
    lines = await here.turn(script({"call": "web_search", "args": {"query": "x"}}, {"say": "so"}))
    assert results(lines) == [
        ("web_search failed: no search provider is configured", True),
    ]
    assert lines[-1]["type"] == "stream_end"
