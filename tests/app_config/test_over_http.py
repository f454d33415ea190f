"""App config and user tools over HTTP, as sandbox has them."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from contracts import running
from contracts.client import Client, Reply
from contracts.document import load
from contracts.judging import Judge
from contracts.parts import Account, unique
from contracts.reach import Reach
from contracts.sandbox import World
from tests.tools.agents import agent
from tests.tools.servers import COMMAND, SERVER, Running, everything

CANARIES = {
    name: f"canary-{name}-6b1f08c3" for name in ("key", "env", "header", "arg", "extra", "url")
}
LLM = {"base_url": "https://8.8.8.8/v1", "model_name": "m", "api_key": CANARIES["key"]}
STDIO = {"transport": "stdio", "command": sys.executable, "args": [str(SERVER), "stdio"]}


@contextmanager
def serving(folder: Path, **settings: str) -> Iterator[World]:
    contract = load("sandbox", "")
    given = {
        "OUTBOUND_ALLOW": "mcp=127.0.0.1/32,a2a=127.0.0.1/32",
        "MCP_STDIO_COMMANDS": f"TOKEN= {COMMAND} stdio",
        "LOG_LEVEL": "debug",
        **settings,
    }
    with running.server(folder / "data", **given) as started:
        yield World(started, Client(started.url, contract, Judge(contract), Reach()))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with serving(tmp_path_factory.mktemp("app-config")) as made:
        yield made


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with everything("streamable_http") as running_:
        yield running_


def save(client: Client, **servers: dict[str, Any]) -> Reply:
    return client.call("app_config_create_mcp_servers", body={"mcpServers": servers})


def listed(client: Client) -> dict[str, dict[str, Any]]:
    reply = client.call("app_config_list_mcp_servers")
    assert reply.success, reply
    return {one["server_name"]: one for one in reply.data["mcp_servers"]}


def tools(account: Account, kind: str) -> dict[str, dict[str, Any]]:
    reply = account.client.call(f"user_tools_list_{kind}")
    assert reply.success, reply
    return {one["tool_id"]: one for one in reply.data["tools"]}


def test_a_server_from_beginning_to_end(world: World, server: Running) -> None:
    root, ann, bob = world.admin.client, world.account("ann"), world.account("bob")
    name = unique("docs")
    saved = save(root, **{name: {"url": server.endpoint.url, "description": "Documents"}})
    assert (saved.http, saved.data) == (200, None)
    found = listed(world.anonymous)[name]
    assert (found["enabled"], found["transport"]) == (True, "streamable_http")
    assert "odd name/with.dots — 数" in found["tools"]
    assert "error" not in found
    assert tools(ann, "mcp")[name] == {
        "tool_id": name,
        "tool_name": name,
        "description": "Documents",
        "enabled_global": True,
        "enabled_user": True,
    }
    path = {"server_name": name}
    off = {"enabled": False}
    assert ann.client.call("user_tools_update_mcp_enabled", path=path, body=off).success
    assert tools(ann, "mcp")[name]["enabled_user"] is False
    assert tools(bob, "mcp")[name]["enabled_user"] is True
    assert root.call("app_config_update_mcp_server_enabled", path=path, body=off).success
    assert tools(bob, "mcp")[name]["enabled_global"] is False
    assert listed(world.anonymous)[name]["enabled"] is False
    assert root.call("app_config_delete_mcp_server", path=path).success
    assert name not in listed(world.anonymous)
    assert name not in tools(ann, "mcp")
    assert root.call("app_config_delete_mcp_server", path=path).status == 404


def test_an_agent_from_beginning_to_end(world: World) -> None:
    root, ann = world.admin.client, world.account("ann")
    with agent("streaming") as address:
        assert root.call("app_config_create_a2a_server", body={"base_url": address}).success
        again = root.call("app_config_create_a2a_server", body={"base_url": f"{address}/"})
        assert (again.http, again.status) == (409, 409)
    [found] = [
        one
        for one in world.anonymous.call("app_config_list_a2a_servers").data["a2a_servers"]
        if one["name"] == "Echo agent"
    ]
    assert (found["streaming"], found["enabled"]) == (True, True)
    path = {"a2a_id": found["id"]}
    off = {"enabled": False}
    assert ann.client.call("user_tools_update_a2a_enabled", path=path, body=off).success
    assert tools(ann, "a2a")[found["id"]]["enabled_user"] is False
    assert tools(world.owner, "a2a")[found["id"]]["enabled_user"] is True
    assert root.call("app_config_update_a2a_server_enabled", path=path, body=off).success
    assert tools(ann, "a2a")[found["id"]]["enabled_global"] is False
    assert root.call("app_config_delete_a2a_server", path=path).success
    assert tools(ann, "a2a") == {}


def test_anybody_reads_and_administrators_write(world: World) -> None:
    body: dict[str, Any] = {
        "app_config_update_llm": {"base_url": "", "model_name": "embedded/script"},
        "app_config_update_agent": {"max_iterations": 7},
        "app_config_create_mcp_servers": {"mcpServers": {"x": {"url": "https://8.8.8.8/"}}},
        "app_config_create_a2a_server": {"base_url": "https://8.8.8.8"},
    }
    for operation, sent in body.items():
        assert world.anonymous.call(operation, body=sent).http == 401
        for account in (world.owner, world.viewer):
            assert account.client.call(operation, body=sent).http == 403
    for operation, path in {
        "app_config_delete_mcp_server": {"server_name": "x"},
        "app_config_delete_a2a_server": {"a2a_id": "x"},
    }.items():
        assert world.anonymous.call(operation, path=path).http == 401
        assert world.owner.client.call(operation, path=path).http == 403
        assert world.admin.client.call(operation, path=path).http == 404
    for operation in (
        "app_config_get_llm",
        "app_config_get_agent",
        "app_config_list_mcp_servers",
        "app_config_list_a2a_servers",
    ):
        assert world.anonymous.call(operation).success
    assert world.anonymous.call("user_tools_list_mcp").http == 401
    assert world.viewer.client.call("user_tools_list_a2a").success
    assert world.anonymous.call("app_config_get_agent").data["max_iterations"] == 100


@pytest.mark.parametrize(
    ("field", "least", "most"),
    [("max_iterations", 1, 999), ("max_retries", 2, 9), ("max_search_results", 2, 29)],
)
def test_the_limits_of_the_agent(world: World, field: str, least: int, most: int) -> None:
    root = world.admin.client
    for value in (least, most):
        assert root.call("app_config_update_agent", body={field: value}).data[field] == value
        assert world.anonymous.call("app_config_get_agent").data[field] == value
    for value in (least - 1, most + 1, 5.5, "5", None):
        refused = root.call("app_config_update_agent", body={field: value})
        assert (refused.http, refused.body["data"]["errors"][0]["loc"]) == (422, ["body", field])
    assert root.call("app_config_update_agent", body={}).data == {
        "max_iterations": 100,
        "max_retries": 3,
        "max_search_results": 10,
    }


@pytest.mark.parametrize("noun", ["llm", "agent"])
def test_versions(world: World, noun: str) -> None:
    root, update = world.admin.client, f"app_config_update_{noun}"
    body: dict[str, Any] = {"base_url": ""} if noun == "llm" else {"max_retries": 4}
    if noun == "llm":
        body["model_name"] = "embedded/script"
    stored = root.call(update, body=body).headers["etag"]
    read = world.anonymous.call(f"app_config_get_{noun}")
    assert read.headers["etag"] == stored
    known = {"if-none-match": stored}
    assert world.anonymous.call(f"app_config_get_{noun}", headers=known).http == 304
    changed = root.call(update, body=body, headers={"if-match": stored})
    assert changed.success
    assert changed.headers["etag"] != stored
    assert root.call(update, body=body, headers={"if-match": stored}).http == 412
    assert world.anonymous.call(f"app_config_get_{noun}", headers=known).http == 200


def test_rules_that_a_server_breaks_are_422_with_their_place(world: World) -> None:
    for config, place in [
        ({"transport": "sse"}, "url"),
        ({}, "url"),
        ({"transport": "stdio", "url": "https://8.8.8.8/"}, "command"),
    ]:
        refused = save(world.admin.client, good={"url": "https://8.8.8.8/"}, bad=config)
        assert refused.http == refused.status == 422
        [error] = refused.body["data"]["errors"]
        assert error["loc"] == ["body", "mcpServers", "bad", place]
        assert error["type"] == "required"
    assert not {"good", "bad"} & set(listed(world.anonymous))


def test_addresses_inside_are_refused(world: World) -> None:
    root = world.admin.client
    for url in ("http://10.0.0.1/", "http://169.254.169.254/", "http://[::1]:9/", "http://0x7f.1/"):
        assert save(root, inside={"url": url}).http == 400
        assert save(root, inside={"url": url, "transport": "sse"}).http == 400
        for operation, body in {
            "app_config_create_a2a_server": {"base_url": url},
            "app_config_update_llm": {"base_url": url, "model_name": "m"},
        }.items():
            assert root.call(operation, body=body).http == 400, (operation, url)
    assert (
        root.call(
            "app_config_update_llm", body={"base_url": "http://127.0.0.1:9/v1", "model_name": "m"}
        ).http
        == 400
    ), "this machine is open to MCP and A2A alone"
    assert "inside" not in listed(world.anonymous)


def test_stdio_is_started_if_the_operator_lists_it(world: World) -> None:
    saved = save(
        world.admin.client,
        listed=STDIO,
        shell={"transport": "stdio", "command": "/bin/sh", "args": ["-c", "true"]},
        longer={**STDIO, "args": [*STDIO["args"], "more"]},
        variable={**STDIO, "env": {"NODE_OPTIONS": "--import=data:text/javascript,1"}},
    )
    assert saved.success, saved
    found = listed(world.anonymous)
    assert "environment" in found["listed"]["tools"]
    for name in ("shell", "longer", "variable"):
        assert found[name]["error"] == "not allowed by the operator"
        assert found[name]["tools"] == []


def test_no_secret_comes_back(world: World, server: Running) -> None:
    """In no answer, no row, no log (security 53)."""
    root = world.admin.client
    replies = [
        root.call("app_config_update_llm", body=LLM),
        world.anonymous.call("app_config_get_llm"),
        root.call("app_config_update_llm", body={**LLM, "api_key": "", "max_tokens": 5}),
        root.call("app_config_update_llm", body={**LLM, "base_url": "http://10.0.0.1/"}),
        save(
            root,
            secretive={**STDIO, "env": {"TOKEN": CANARIES["env"]}, "note": CANARIES["extra"]},
            refused={**STDIO, "args": [CANARIES["arg"]]},
            headed={"url": server.endpoint.url, "headers": {"X-Key": CANARIES["header"]}},
            wrong={"headers": {"X-Key": CANARIES["header"]}},
        ),
        save(
            root,
            secretive={**STDIO, "env": {"TOKEN": CANARIES["env"]}, "note": CANARIES["extra"]},
            refused={**STDIO, "args": [CANARIES["arg"]]},
            headed={
                "url": f"{server.endpoint.url}?key={CANARIES['url']}",
                "headers": {"X-Key": CANARIES["header"]},
            },
            lost={"url": f"http://127.0.0.1:9/{CANARIES['url']}"},
        ),
        world.anonymous.call("app_config_list_mcp_servers"),
        world.owner.client.call("user_tools_list_mcp"),
    ]
    assert [reply.http for reply in replies] == [200, 200, 200, 400, 422, 200, 200, 200]
    assert set(replies[1].data) == {"base_url", "model_name", "temperature", "max_tokens"}
    found = listed(world.anonymous)
    assert found["secretive"]["tools"] == found["headed"]["tools"] != []
    assert found["lost"]["error"] == "no answer"
    assert set(found["secretive"]) == {"server_name", "enabled", "transport", "tools"}
    data = world.started.data
    assert data is not None
    kept = [file for file in [*data.rglob("*"), data.with_suffix(".log")] if file.is_file()]
    for canary in CANARIES.values():
        assert canary not in repr([reply.body for reply in replies])
        for file in kept:
            assert canary.encode() not in file.read_bytes(), file


def test_a_key_of_a_request_saves_once(world: World, server: Running) -> None:
    name = unique("once")
    body = {"mcpServers": {name: {"url": server.endpoint.url}}}
    key = {"idempotency-key": unique("key")}
    first = world.admin.client.call("app_config_create_mcp_servers", body=body, headers=key)
    path = {"server_name": name}
    assert first.success
    assert world.admin.client.call("app_config_delete_mcp_server", path=path).success
    again = world.admin.client.call("app_config_create_mcp_servers", body=body, headers=key)
    assert again.success
    assert again.headers["idempotency-replayed"] == "true"
    assert name not in listed(world.anonymous)


def test_what_the_operator_may_open(tmp_path: Path, server: Running) -> None:
    """Anybody keeps servers, as the reference has it; but nobody a command line."""
    with serving(tmp_path, SANDBOX_OPEN_CONFIG="true") as world:
        ann = world.account("ann").client
        assert save(world.admin.client, started={**STDIO, "enabled": False}).success
        kept = listed(ann)
        for client in (world.anonymous, ann):
            path = {"server_name": "started"}
            for enabled in (True, False):
                operation = "app_config_update_mcp_server_enabled"
                refused = client.call(operation, path=path, body={"enabled": enabled})
                assert (refused.http, refused.status) == (403, 403)
            assert client.call("app_config_delete_mcp_server", path=path).http == 403
            assert save(client, started={"url": server.endpoint.url}).http == 403
            assert listed(client) == kept
            name = unique("open")
            assert save(client, **{name: {"url": server.endpoint.url}}).success
            assert "echo" in listed(client)[name]["tools"]
            refused = save(client, **{unique("stdio"): STDIO})
            assert (refused.http, refused.status) == (403, 403)
            path = {"server_name": name}
            assert client.call("app_config_delete_mcp_server", path=path).success
            most = client.call("app_config_update_agent", body={"max_iterations": 999})
            assert most.data["max_iterations"] == 50, "the operator's cap"
            llm = {"base_url": "", "model_name": "embedded/script"}
            assert client.call("app_config_update_llm", body=llm).success
        assert world.viewer.client.call("app_config_update_agent", body={}).http == 403
        broken = ann.holding("no token")
        assert broken.call("app_config_update_agent", body={}).http == 401
        assert ann.call("admin_list_users").http == 403, "and nothing else is open"
        stdio = [name for name, one in listed(ann).items() if one["transport"] == "stdio"]
        assert stdio == ["started"], "nobody but the administrator has one"
