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


def called(world: World, account: Account, steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The `tool` events, of those calls that have ended, of a chat in a new session."""
    url = f"{world.started.url}/sandbox/api/sessions"
    token = {"authorization": f"Bearer {account.client.token}"}
    session = requests.post(url, headers=token, json={}, timeout=20).json()["data"]["session_id"]
    answer = requests.post(
        f"{url}/{session}/chat",
        headers=token,
        json={"message": f"script:{json.dumps(steps)}"},
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
