"""What is empty was not given: null, "", [] and {} in chats and agents."""

from typing import Any

import pytest

from contracts.sage import World, said, unique

EMPTY: dict[str, Any] = {
    "session_id": "",
    "user_id": "",
    "agent_id": "",
    "agent_name": "",
    "agent_mode": "",
    "system_prefix": "",
    "memory_type": "",
    "system_context": {},
    "available_tools": [],
    "available_workflows": {},
    "llm_model_config": {},
    "context_budget_config": {},
    "custom_sub_agents": [],
    "extra_mcp_config": {},
}


@pytest.mark.parametrize("operation_id", ["chat_stream", "chat_stream_web"])
def test_a_chat_whose_fields_are_empty(operation_id: str, world: World) -> None:
    """Each alone, and all together."""
    for fields in (*({name: value} for name, value in EMPTY.items()), EMPTY):
        body = {"messages": said("Hello."), **fields}
        reply = world.owner.client.call(operation_id, body=body)
        assert reply.lines[-1]["type"] == "stream_end", fields
        assert reply.lines[-1]["session_id"]


def test_a_chat_with_an_agent_and_no_session(world: World) -> None:
    agent = world.agent(world.owner, memoryType="")
    body = {"messages": said("Hello."), "agent_id": agent, "session_id": ""}
    first, second = (world.owner.client.call("chat_create", body=body) for _ in range(2))
    assert first.lines[-1]["session_id"] != second.lines[-1]["session_id"]


def test_a_protocol_that_is_empty_is_what_the_address_says(world: World) -> None:
    config = {"docs": {"url": world.started.mcp_url, "protocol": ""}}
    body = {"messages": said("Hello."), "extra_mcp_config": config}
    assert world.owner.client.call("chat_stream", body=body).lines[-1]["type"] == "stream_end"


def test_an_agent_whose_fields_are_empty_reads_as_one_without_them(world: World) -> None:
    client = world.owner.client
    fields = {"memoryType": "", "llm_provider_id": ""}
    agent = client.call("agent_create", body={"name": unique("agent"), **fields})
    path = {"agent_id": agent.data["agent_id"]}
    for body in ({"name": unique("agent"), **fields}, {"name": unique("agent")}):
        read = client.call("agent_get", path=path).data
        assert {name: read[name] for name in fields} == dict.fromkeys(fields)
        assert client.call("agent_replace", path=path, body=body).success


@pytest.mark.parametrize(
    "fields", [{"memory_type": "other"}, {"memory_type": " "}, {"session_id": " "}]
)
def test_what_is_not_empty_is_still_checked(fields: dict[str, str], world: World) -> None:
    body = {"messages": said("Hello."), **fields}
    assert world.owner.client.call("chat_stream", body=body).http == 422
