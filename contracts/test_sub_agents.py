"""Sub-agents and MCP servers of a request, as a client sees them."""

import json
from typing import Any

import pytest

from contracts.client import Reply
from contracts.sage import World, said, unique


def script(*steps: Any) -> list[dict[str, str]]:
    """Messages at which the script model takes these steps."""
    return said("script:" + json.dumps(steps))


def handing(*tasks: tuple[str, str]) -> dict[str, Any]:
    """A step of a script that hands tasks out."""
    parts = [{"agent": agent, "task": task} for agent, task in tasks]
    return {"call": "delegate", "args": {"tasks": parts}}


def results(reply: Reply) -> list[str]:
    """What the run's own agent got back."""
    return [
        line["content"]
        for line in reply.lines
        if line["type"] == "tool_call_result" and "task" not in line["metadata"]
    ]


def speakers(reply: Reply) -> set[str]:
    """Who says something in a task."""
    return {
        line["agent_name"]
        for line in reply.lines
        if line["type"] == "assistant_text" and "task" in line["metadata"]
    }


def test_a_task_is_followed_from_the_stream_to_the_record(world: World) -> None:
    client, session_id = world.owner.client, unique("sess")
    sub = unique("sub")
    made = client.call("agent_create", body={"name": sub, "systemPrefix": "You help."})
    reply = client.call(
        "chat_stream_web",
        body={
            "messages": script(handing((sub, "one word"), ("Own", "harvest")), {"say": "Done."}),
            "session_id": session_id,
            "available_sub_agent_ids": [made.data["agent_id"]],
            "custom_sub_agents": [{"name": "Own", "system_prompt": "You help, too."}],
        },
    )
    assert results(reply) == [f"## {sub}\none word\n\n## Own\nharvest"]
    assert speakers(reply) == {sub, "Own"}
    path = {"session_id": session_id}
    again = client.call("chat_resume", path=path, query={"last_index": 0})
    assert again.body == reply.body
    tasks = client.call("session_check_tasks", path=path).data["tasks_status"]["tasks"]
    assert [(task["agent_name"], task["status"]) for task in tasks] == [
        *((sub, "completed"), ("Own", "completed"))
    ]
    kept = client.call("conversation_list_messages", path=path).data["messages"]
    in_tasks = {one["agent_name"] for one in kept if "task" in one["metadata"]}
    assert in_tasks == {sub, "Own"}
    shared = client.call("share_create", path=path).data["share_id"]
    shown = world.anonymous.call("share_list_messages", path={"session_id": shared})
    assert [one["role"] for one in shown.data["messages"]] == ["user", "assistant"]
    assert shown.data["messages"][1]["content"] == "Done."


@pytest.mark.parametrize("operation_id", ["chat_stream", "chat_stream_web"])
def test_a_sub_agent_that_is_not_there_refuses_the_request(operation_id: str, world: World) -> None:
    body = {"messages": said("Hello."), "available_sub_agent_ids": [unique("nowhere")]}
    reply = world.owner.client.call(operation_id, body=body)
    assert (reply.http, reply.body["code"]) == (400, 500)


def test_a_grant_opens_a_sub_agent(world: World) -> None:
    name = unique("granted")
    agent = world.agent(world.owner, name=name)
    body = {
        "messages": script(handing((name, "hello")), {"say": "Done."}),
        "available_sub_agent_ids": [agent],
    }
    assert world.stranger.client.call("chat_stream", body=body).http == 400
    grant = {"user_ids": [world.stranger.user_id]}
    world.owner.client.call("agent_set_grants", path={"agent_id": agent}, body=grant)
    assert results(world.stranger.client.call("chat_stream", body=body)) == ["hello"]


FIBRE = {"agent_mode": "fibre"}
TEAM = {"agent_mode": "team", "custom_sub_agents": [{"name": "A"}, {"name": "B"}]}
MODES: dict[str, tuple[dict[str, Any], dict[str, Any], set[str]]] = {
    "multi": ({"multi_agent": True}, handing(("worker", "x")), {"worker"}),
    "fibre": (FIBRE, handing(("Poet", "x"), ("Critic", "y")), {"Poet", "Critic"}),
    "team": (TEAM, {"call": "time"}, {"A", "B"}),
    "none": ({}, handing(("worker", "x")), set()),
    "simple": ({"agent_mode": "simple", "multi_agent": True}, handing(("worker", "x")), set()),
}


@pytest.mark.parametrize("mode", MODES)
def test_modes(mode: str, world: World) -> None:
    fields, step, names = MODES[mode]
    body = {"messages": script(step, {"say": "Done."}), **fields}
    reply = world.owner.client.call("chat_stream", body=body)
    assert speakers(reply) == names
    assert reply.lines[-1]["type"] == "stream_end"


def test_a_server_for_one_run(world: World) -> None:
    """Its tools are there in that run alone; nothing of it is stored."""
    client = world.owner.client
    messages = script({"call": "greet"}, {"say": "Done."})
    body = {"messages": messages, "extra_mcp_config": {"docs": {"url": world.started.mcp_url}}}
    assert results(client.call("chat_stream", body=body)) == ["Hello."]
    assert results(client.call("chat_stream", body={"messages": messages})) != ["Hello."]
    assert "docs" not in [one["name"] for one in client.call("mcp_list").data["servers"]]


NO_SERVERS: list[tuple[Any, int]] = [
    ({"command": "sh", "args": ["-c", "id"]}, 422),
    ({"protocol": "stdio"}, 422),
    ({"headers": {"Host": "example.com"}, "url": "https://example.com/mcp"}, 400),
    ({"url": "http://169.254.169.254/mcp"}, 400),
    ({"url": "gopher://example.com"}, 400),
    ({}, 400),
]


@pytest.mark.parametrize(("given", "status"), NO_SERVERS, ids=lambda one: str(one)[:40])
def test_what_is_no_server_is_refused(given: Any, status: int, world: World) -> None:
    body = {"messages": said("Hello."), "extra_mcp_config": {"bad": given}}
    assert world.owner.client.call("chat_stream", body=body).http == status
