"""The platform's tools in the chat of a session."""

import json
from pathlib import Path
from typing import Any

import requests

from contracts.parts import Account
from contracts.sandbox import World
from tests.app_config.test_over_http import save, serving
from tests.tools.agents import agent
from tests.tools.servers import everything


def begun(world: World, account: Account) -> str:
    """A new session."""
    url = f"{world.started.url}/sandbox/api/sessions"
    token = {"authorization": f"Bearer {account.client.token}"}
    made = requests.post(url, headers=token, json={}, timeout=20)
    session: str = made.json()["data"]["session_id"]
    return session


def called(world: World, account: Account, steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The `tool` events, of those calls that have ended, of a chat in a new session."""
    return said(world, account, begun(world, account), f"script:{json.dumps(steps)}")


def said(world: World, account: Account, session: str, message: str) -> list[dict[str, Any]]:
    """As `called`, of a message to a session."""
    answer = requests.post(
        f"{world.started.url}/sandbox/api/sessions/{session}/chat",
        headers={"authorization": f"Bearer {account.client.token}"},
        json={"message": message},
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    events = [block.split("\n") for block in answer.text.replace("\r\n", "\n").split("\n\n")]
    data = [json.loads(lines[1][6:]) for lines in events if lines[0] == "event: tool"]
    return [each for each in data if each["status"] == "called"]


def test_a_session_calls_what_its_account_wants(tmp_path: Path) -> None:
    with (
        everything("streamable_http") as server,
        agent("streaming") as address,
        serving(tmp_path) as world,
    ):
        root, ann, bob = world.admin.client, world.account("ann"), world.account("bob")
        assert save(root, docs={"url": server.endpoint.url}).success
        assert root.call("app_config_create_a2a_server", body={"base_url": address}).success
        name = "a2a_" + address.removeprefix("http://").replace(".", "_").replace(":", "_")
        steps = [
            {"call": "weather", "args": {"city": "Bonn"}},
            {"call": name, "args": {"message": "hello"}},
            {"say": "done"},
        ]
        for account in (ann, bob):
            weather, asked = called(world, account, steps)
            assert (weather["name"], weather["function"]) == ("mcp", "weather")
            assert weather["content"] == {"result": {"city": "Bonn", "degrees": 21.5}}
            assert (asked["name"], asked["function"]) == ("a2a", name)
            assert asked["content"] == {"a2a_result": "echo: hello\ndone"}
        off = {"enabled": False}
        path = {"server_name": "docs"}
        assert ann.client.call("user_tools_update_mcp_enabled", path=path, body=off).success
        weather, asked = called(world, ann, steps)
        assert weather["content"] != {"result": {"city": "Bonn", "degrees": 21.5}}
        assert asked["content"] == {"a2a_result": "echo: hello\ndone"}
        weather, _ = called(world, bob, steps)
        assert weather["content"] == {"result": {"city": "Bonn", "degrees": 21.5}}
        assert root.call("app_config_update_mcp_server_enabled", path=path, body=off).success
        weather, _ = called(world, bob, steps)
        assert weather["content"] != {"result": {"city": "Bonn", "degrees": 21.5}}


def test_a_run_that_waited_calls_what_its_account_wants_now(tmp_path: Path) -> None:
    with everything("streamable_http") as server, serving(tmp_path) as world:
        ann, bob = world.account("ann"), world.account("bob")
        assert save(world.admin.client, docs={"url": server.endpoint.url}).success
        steps = [
            {"call": "count", "args": {}},
            {"ask": "Shall I?"},
            {"call": "add", "args": {"a": 20, "b": 22}},
            {"say": "done"},
        ]
        waiting = {account: begun(world, account) for account in (ann, bob)}
        for account, session in waiting.items():
            [counted] = said(world, account, session, f"script:{json.dumps(steps)}")
            assert counted["content"] == {"result": "0"}
        path, off = {"server_name": "docs"}, {"enabled": False}
        assert ann.client.call("user_tools_update_mcp_enabled", path=path, body=off).success
        [unwanted] = said(world, ann, waiting[ann], "yes")
        assert list(unwanted["content"]) == ["result", "error"]
        [counted] = called(world, bob, [{"call": "count", "args": {}}])
        assert counted["content"] == {"result": "0"}, "the server was not asked"
        [added] = said(world, bob, waiting[bob], "yes")
        assert added["content"] == {"result": {"result": 42}}
