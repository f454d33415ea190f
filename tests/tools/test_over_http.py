"""Tools and MCP servers over HTTP, as sage has them."""

from collections.abc import Iterator
from typing import Any

import pytest

from contracts import running
from contracts.client import Client, Reply
from contracts.document import load
from contracts.judging import Judge
from contracts.reach import Reach
from contracts.sage import World, unique
from tests.tools.servers import Running, everything

KEY = "canary-91c2de77"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("tools")
    contract = load("sage", "")
    with running.server(folder / "data", OUTBOUND_ALLOW="mcp=127.0.0.1/32") as started:
        yield World(started, Client(started.url, contract, Judge(contract), Reach()))


def add(client: Client, server: Running, **fields: Any) -> Reply:
    """Add a server under a name of its own."""
    endpoint = server.endpoint
    body = {
        "name": unique("mcp"),
        "protocol": endpoint.protocol,
        url_field(endpoint.protocol): endpoint.url,
        "api_key": endpoint.key,
    }
    return client.call("mcp_create", body={**body, **fields})


def url_field(protocol: str) -> str:
    return "sse_url" if protocol == "sse" else "streamable_http_url"


def tools(client: Client, **query: str) -> dict[str, dict[str, Any]]:
    reply = client.call("tool_list", query=query)
    assert reply.success, reply
    return {tool["name"]: tool for tool in reply.data["tools"]}


def execute(client: Client, name: str, **params: Any) -> Reply:
    return client.call("tool_execute", body={"tool_name": name, "tool_params": params})


def test_a_server_from_beginning_to_end(world: World, server: Running) -> None:
    owner = world.account("keeper").client
    added = add(owner, server)
    assert added.success, added
    name = added.data["server_name"]
    assert added.data["status"] == "success"
    [shown] = owner.call("mcp_list").data["servers"]
    assert shown["protocol"] == server.endpoint.protocol
    assert shown[url_field(server.endpoint.protocol)] == server.endpoint.url
    assert (shown["disabled"], shown["api_key"], shown["command"]) == (False, None, None)
    found = tools(owner, type="mcp")
    assert found["add"]["source"] == name
    assert found["add"]["parameters"]["properties"]["b"]["maximum"] == 1000
    assert found[f"{name}_calculator"]["type"] == "mcp"
    assert "odd_name_with_dots_" in found
    assert tools(owner, type="basic")["calculator"]["source"] == "system"
    assert tools(owner, type="agent") == {}
    assert execute(owner, "weather", city="Bonn").data == {"city": "Bonn", "degrees": 21.5}
    assert execute(owner, "echo", text="你好").data == "你好"
    assert execute(owner, "odd_name_with_dots_").data == "odd"
    assert execute(owner, "calculator", expression="6*7").data == "42"
    assert execute(owner, f"{name}_calculator").data == "not the built-in"
    path = {"server_name": name}
    assert owner.call("mcp_refresh", path=path).data["status"] == "refreshed"
    assert tools(owner) == tools(owner, type="basic") | found
    assert owner.call("mcp_delete", path=path).data == path
    assert tools(owner, type="mcp") == {}
    assert execute(owner, "echo", text="x").status == 404


def test_arguments_and_failures_are_business_errors(world: World, streamable: Running) -> None:
    owner = world.account("caller").client
    assert add(owner, streamable).success
    for name, params in {
        "add": {"a": 1},
        "echo": {"text": 5},
        "fail": {"reason": "out of tea"},
        "calculator": {"expression": "1/0"},
        "web_search": {"query": "Sage repository"},
        "huge": {"size": 6_000_000},
    }.items():
        reply = execute(owner, name, **params)
        assert (reply.http, reply.body["code"]) == (400, 500), (name, reply)
    assert "out of tea" in execute(owner, "fail", reason="out of tea").body["message"]
    over = execute(owner, "add", a=1, b=1001)
    assert over.http == 400
    assert "1001" not in over.body["message"]
    missing = execute(owner, "no_such_tool")
    assert (missing.http, missing.body["code"], missing.body["message"]) == (
        404,
        500,
        "工具不存在",
    )


def test_a_stranger_sees_and_calls_nothing(world: World, streamable: Running) -> None:
    """Not in lists, not by name; an administrator sees all servers, and the tools of its own,
    which are those that it can call."""
    owner, stranger = world.account("owner").client, world.account("stranger").client
    name = add(owner, streamable).data["server_name"]
    assert "add" in tools(owner)
    assert "add" not in tools(stranger)
    assert stranger.call("mcp_list").data == {"servers": []}
    path = {"server_name": name}
    for operation in ("mcp_refresh", "mcp_delete"):
        refused = stranger.call(operation, path=path)
        missing = stranger.call(operation, path={"server_name": unique("none")})
        assert refused.status == missing.status == 400
        assert refused.body["message"] == missing.body["message"]
    refused, missing = execute(stranger, "add", a=1, b=2), execute(stranger, "none", a=1, b=2)
    assert (refused.status, refused.body["message"]) == (404, missing.body["message"])
    assert name in {one["name"] for one in world.admin.client.call("mcp_list").data["servers"]}
    sources = {tool["source"] for tool in tools(world.admin.client).values()}
    assert name not in sources
    assert execute(world.admin.client, "add", a=1, b=2).status == 404
    assert add(stranger, streamable, name=name).success, "names are each owner's own"
    assert world.admin.client.call("mcp_delete", path=path).status == 409
    assert stranger.call("mcp_delete", path=path).success
    assert world.admin.client.call("mcp_delete", path=path).success
    assert tools(owner, type="mcp") == {}


def test_a_viewer_reads_only(world: World, streamable: Running) -> None:
    viewer = world.viewer.client
    assert "calculator" in tools(viewer)
    assert viewer.call("mcp_list").success
    assert execute(viewer, "calculator", expression="1+1").status == 403
    assert add(viewer, streamable).status == 403


def test_what_cannot_be_added(world: World, streamable: Running) -> None:
    owner = world.account("adder").client
    name = add(owner, streamable).data["server_name"]
    url = streamable.endpoint.url
    for fields, code in [
        ({"name": name}, 400),
        ({"name": "list"}, 400),
        ({"streamable_http_url": None}, 400),
        ({"protocol": "sse"}, 400),
        ({"protocol": "sse", "streamable_http_url": None}, 400),
        ({"sse_url": url}, 400),
        ({"protocol": "sse", "sse_url": url}, 400),
        ({"streamable_http_url": "file:///etc/passwd"}, 400),
        ({"streamable_http_url": "http://169.254.169.254/mcp"}, 400),
        ({"streamable_http_url": "http://10.1.2.3/mcp"}, 400),
        ({"streamable_http_url": f"{url}#x"}, 400),
        ({"api_key": "****cret"}, 400),
        ({"streamable_http_url": "http://127.0.0.1:9/mcp"}, 500),
        ({"streamable_http_url": url + "/nowhere"}, 500),
    ]:
        refused = add(owner, streamable, **fields)
        assert (refused.http, refused.body["code"]) == (400, code), (fields, refused)
    for fields in ({"protocol": "stdio"}, {"command": "sh"}, {"name": ""}, {"api_key": "a\nb"}):
        assert add(owner, streamable, **fields).status == 422
    assert len(owner.call("mcp_list").data["servers"]) == 1


@pytest.mark.parametrize("protocol", ["streamable_http", "sse"])
def test_a_server_that_goes_and_comes_back(world: World, protocol: Any) -> None:
    owner = world.account("patient").client
    with everything(protocol) as first:
        added = add(owner, first)
        path = {"server_name": added.data["server_name"]}
    called = execute(owner, "echo", text="x")
    assert (called.http, called.body["code"]) == (400, 500)
    assert "echo" in tools(owner), "a list answers from the last refresh"
    assert owner.call("mcp_refresh", path=path).data["status"] == "disabled"
    assert "echo" not in tools(owner)
    assert execute(owner, "echo", text="x").status == 404
    assert [one["disabled"] for one in owner.call("mcp_list").data["servers"]] == [True]


def test_the_key_is_never_shown(world: World) -> None:
    """In no answer, no row, no log (security 53)."""
    owner = world.account("secretive").client
    with everything("streamable_http", KEY) as server:
        wrong = add(owner, server, api_key="another")
        assert (wrong.http, wrong.body["code"]) == (400, 500)
        added = add(owner, server)
        assert execute(owner, "echo", text="x").data == "x"
        path = {"server_name": added.data["server_name"]}
        replies = [wrong, added, owner.call("mcp_refresh", path=path)]
    replies += [owner.call("mcp_list"), owner.call("tool_list"), execute(owner, "echo", text="x")]
    replies += [owner.call("mcp_refresh", path=path), world.admin.client.call("mcp_list")]
    assert [one["api_key"] for one in owner.call("mcp_list").data["servers"]] == ["****de77"]
    for reply in replies:
        assert KEY not in repr(reply)
    data = world.started.data
    assert data is not None
    for file in [*data.rglob("*"), data.with_suffix(".log")]:
        assert not file.is_file() or KEY.encode() not in file.read_bytes(), file


def test_a_key_of_a_request_makes_one_call(world: World, streamable: Running) -> None:
    """A retry with the same Idempotency-Key gets the first answer, and calls nothing."""
    owner = world.account("retrying").client
    assert add(owner, streamable).success
    before = int(execute(owner, "count").data)
    body = {"tool_name": "add", "tool_params": {"a": 2, "b": 3}}
    key = {"idempotency-key": unique("key")}
    first = owner.call("tool_execute", body=body, headers=key)
    again = owner.call("tool_execute", body=body, headers=key)
    assert first.data == again.data == {"result": 5}
    assert again.headers["idempotency-replayed"] == "true"
    assert int(execute(owner, "count").data) == before + 1
