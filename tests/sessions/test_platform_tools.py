"""Tools of the platform's servers and agents, and of the web, in a session."""

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.sessions.talking import Events, Place, script
from tests.tools.agents import agent
from tests.tools.servers import everything


class Page(BaseHTTPRequestHandler):
    """One web page."""

    def do_GET(self) -> None:
        body = b"<title>T</title><p>What the page says.</p>"
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nobody reads it."""


@pytest.fixture(scope="module")
def page() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


async def called(events: Events) -> dict[str, Any]:
    """The one call of a chat, once it was made."""
    [*_, (_, data)] = await events.until("tool", status="called")
    await events.rest()
    return data


async def test_servers_agents_and_pages(here: Place, page: str) -> None:
    ann, admin = await here.account(), await here.admin()
    session = await ann.create()
    with everything("streamable_http") as server, agent("streaming") as address:
        servers = {"docs": {"url": server.endpoint.url}}
        await admin.ask("POST", "/sandbox/api/app-config/mcp-servers", {"mcpServers": servers})
        await admin.ask("POST", "/sandbox/api/app-config/a2a-servers", {"base_url": address})
        listed = await ann.ask("GET", "/sandbox/api/app-config/a2a-servers")
        [known] = [one for one in listed["a2a_servers"] if one["name"] == "Echo agent"]

        async with ann.chatting(session, script({"call": "add", "args": {"a": 20, "b": 22}})) as e:
            added = await called(e)
        assert (added["name"], added["args"]) == ("mcp", {"a": 20, "b": 22})
        assert added["content"] == {"result": {"result": 42}}

        name = "a2a_" + re.sub("[^A-Za-z0-9]+", "_", address.partition("//")[2]).strip("_")
        async with ann.chatting(session, script({"call": name, "args": {"message": "hi"}})) as e:
            asked = await called(e)
        assert (asked["name"], list(asked["content"])) == ("a2a", ["a2a_result"]), asked

        prefer = f"/sandbox/api/user/tools/a2a/{known['id']}/enabled"
        await ann.ask("POST", prefer, {"enabled": False})
        async with ann.chatting(session, script({"call": name, "args": {"message": "hi"}})) as e:
            refused = await called(e)
        assert list(refused["content"]) == ["result", "error"]

    async with ann.chatting(session, script({"call": "web_fetch", "args": {"url": page}})) as e:
        fetched = await called(e)
    assert (fetched["name"], fetched["content"]["screenshot"]) == ("browser", "")
    assert "What the page says." in fetched["content"]["content"]


@pytest.mark.parametrize(
    ("call", "shown"),
    [
        (
            {"call": "web_fetch", "args": {"url": "http://10.0.0.1/"}},
            {"screenshot": "", "content": ""},
        ),
        ({"call": "web_search", "args": {"query": "x"}}, {"results": []}),
        ({"call": "shell_wait", "args": {"shell": "none"}}, {"console": []}),
        ({"call": "file_read", "args": {"path": "none"}}, {"content": ""}),
    ],
)
async def test_a_call_that_failed_has_the_shape_of_its_toolbox(
    here: Place, call: dict[str, Any], shown: dict[str, Any]
) -> None:
    ann = await here.account()
    async with ann.chatting(await ann.create(), script(call)) as events:
        failed = await called(events)
    error = failed["content"].pop("error")
    assert error
    assert failed["content"] == shown


async def test_a_failed_result_is_its_reason(here: Place) -> None:
    """Where a tool's result is text; one that came back has no error."""
    ann = await here.account()
    session = await ann.create()
    for expression, keys in (("6 *", ["result", "error"]), ("6 * 7", ["result"])):
        sums = {"call": "calculator", "args": {"expression": expression}}
        async with ann.chatting(session, script(sums)) as events:
            content = (await called(events))["content"]
        assert list(content) == keys
        assert content["result"] == content.get("error", "42")
