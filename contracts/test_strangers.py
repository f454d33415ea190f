"""Owner against stranger: every id in a path, a query or a body (security 14 to 17).

What is somebody else's looks like what is not there: same status, code, message and form. An
administrator sees it. GIVEN says for each id where it stands and how its owner comes by it.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pytest

from contracts import sandbox
from contracts.client import ABSENT, Reply
from contracts.conftest import OPERATIONS, URL, Worlds
from contracts.document import Contract, Operation, load
from contracts.sage import (
    PASSWORD,
    SUCCEEDING,
    Account,
    Request,
    World,
    packed,
    said,
    send,
    skill_md,
    unique,
    uploaded,
)
from contracts.subjects import SUBJECTS
from contracts.test_statuses import marks
from contracts.ways import prepared

ID = re.compile(r"(^|_)ids?$")


class Given(NamedTuple):
    """An id that a request may name. `place` is path, query or body; `make` returns the owner's;
    `ask` makes the request that names it."""

    operation_id: str
    place: str
    name: str
    make: Callable[[World, Account], str]
    ask: Callable[[str], Request]


def _path(operation_id: str, name: str, make: Callable[[World, Account], str]) -> Given:
    bodies: dict[str, Any] = {
        "agent_replace": lambda: {"name": unique("stolen")},
        "agent_set_grants": {"user_ids": []},
        "llm_provider_update": {"name": "stolen"},
        "conversation_rename": {"title": "stolen"},
    }

    def ask(id_: str) -> Request:
        request = Request(operation_id, {name: id_})
        if operation_id not in bodies:
            return request
        body = bodies[operation_id]
        return request._replace(body=body() if callable(body) else body)

    return Given(operation_id, "path", name, make, ask)


def _conversation_id(world: World, account: Account) -> str:
    """The conversation's own id, which unlike a session id is unique over all owners."""
    session_id = world.conversation(account)
    reply = account.client.call("conversation_list_messages", path={"session_id": session_id})
    found: str = reply.data["conversation_id"]
    return found


def _run_id(world: World, account: Account) -> str:
    reply = account.client.call("chat_stream", body={"messages": said("Hello.")})
    return str(reply.headers["x-run-id"])


def _chat(operation_id: str, **named: Callable[[str], Any]) -> Callable[[str], Request]:
    def ask(id_: str) -> Request:
        body: dict[str, Any] = {"messages": said("Hello.")}
        body.update({name: make(id_) for name, make in named.items()})
        return Request(operation_id, body=body)

    return ask


def _agent(**named: Callable[[str], Any]) -> Callable[[str], Request]:
    return lambda id_: Request(
        "agent_create",
        body={"name": unique("agent"), **{name: make(id_) for name, make in named.items()}},
    )


def _base(operation_id: str, place: str, **more: str) -> Callable[[str], Request]:
    return lambda id_: Request(operation_id, **{place: {"kdb_id": id_, **more}})


def _skill(operation_id: str) -> Callable[[str], Request]:
    return lambda name: Request(operation_id, query={"name": name})


def _of_agent(operation_id: str) -> Callable[[str], Request]:
    return lambda id_: Request(operation_id, query={"agent_id": id_})


def _skilled_agent(world: World, account: Account) -> str:
    agent = world.agent(account)
    world.skill(account, "asking", agent_id=agent)
    return agent


def same(id_: str) -> str:
    return id_


def listed(id_: str) -> list[str]:
    return [id_]


HIDDEN = [
    *(
        _path(name, "agent_id", World.agent)
        for name in (
            "agent_get",
            "agent_replace",
            "agent_delete",
            "agent_list_grants",
            "agent_set_grants",
            "workspace_list",
        )
    ),
    *(
        Given(
            operation_id,
            "path",
            "agent_id",
            lambda world, account: world.workspace(account)[0],
            lambda id_, name=operation_id: Request(
                name, {"agent_id": id_}, {"file_path": "sess_1/summary.md"}
            ),
        )
        for operation_id in ("workspace_download", "workspace_delete")
    ),
    *(
        _path(name, "provider_id", World.provider)
        for name in ("llm_provider_update", "llm_provider_delete")
    ),
    *(
        _path(name, "session_id", make)
        for make in (World.conversation, _conversation_id)
        for name in (
            "conversation_list_messages",
            "conversation_rename",
            "conversation_delete",
            "share_create",
            "share_delete",
            "share_list_messages",
            "session_interrupt",
            "session_check_tasks",
            "chat_resume",
        )
    ),
    _path("knowledge_base_delete", "kdb_id", World.knowledge_base),
    *(
        _path(name, "doc_id", World.document)
        for name in ("knowledge_document_get", "knowledge_document_delete")
    ),
    _path("knowledge_document_redo", "doc_id", World.document),
    *(
        Given(name, "query", "kdb_id", World.knowledge_base, _base(name, "query", **more))
        for name, more in {
            "knowledge_base_get": {},
            "knowledge_document_list": {},
            "knowledge_document_check_task": {"task_id": "none"},
        }.items()
    ),
    *(
        Given(name, "body", "kdb_id", World.knowledge_base, _base(name, "body", **more))
        for name, more in {
            "knowledge_base_update": {"name": "stolen"},
            "knowledge_base_retrieve": {"query": "What is there?"},
            "knowledge_base_clear": {},
            "knowledge_base_redo": {},
            "knowledge_document_redo_task": {"task_id": "none"},
        }.items()
    ),
    Given(
        "knowledge_document_upload",
        "body",
        "kdb_id",
        World.knowledge_base,
        lambda id_: Request("knowledge_document_upload", form=uploaded(id_)),
    ),
    *(_path(name, "server_name", World.mcp_server) for name in ("mcp_delete", "mcp_refresh")),
    *(
        Given(name, "query", "name", World.skill, _skill(name))
        for name in ("skill_get_content", "skill_delete")
    ),
    *(
        Given(name, "query", "agent_id", World.agent, _of_agent(name))
        for name in ("skill_list", "skill_list_available")
    ),
    Given(
        "skill_delete",
        "query",
        "agent_id",
        _skilled_agent,
        lambda id_: Request("skill_delete", query={"name": "asking", "agent_id": id_}),
    ),
    Given(
        "skill_update_content",
        "body",
        "name",
        World.skill,
        lambda name: Request(
            "skill_update_content", body={"name": name, "content": skill_md(name)}
        ),
    ),
    Given(
        "skill_upload",
        "body",
        "agent_id",
        World.agent,
        lambda id_: Request("skill_upload", form=packed("asking", agent_id=id_)),
    ),
    Given(
        "tool_execute",
        "body",
        "tool_name",
        World.mcp_tool,
        lambda name: Request("tool_execute", body={"tool_name": name}),
    ),
    Given(
        "chat_resume",
        "query",
        "run_id",
        _run_id,
        lambda id_: Request("chat_resume", {"session_id": "sess_123"}, {"run_id": id_}),
    ),
    Given(
        "conversation_list",
        "query",
        "agent_id",
        World.agent,
        lambda id_: Request("conversation_list", query={"agent_id": id_}),
    ),
    Given(
        "conversation_list",
        "query",
        "user_id",
        lambda world, account: account.user_id,
        lambda id_: Request("conversation_list", query={"user_id": id_}),
    ),
    Given(
        "system_count_usage",
        "body",
        "agent_id",
        World.agent,
        lambda id_: Request("system_count_usage", body={"days": 30, "agent_id": id_}),
    ),
    *(
        Given(name, "body", "agent_id", World.agent, _chat(name, agent_id=same))
        for name in ("chat_create", "chat_stream", "chat_stream_web")
    ),
    *(
        Given(
            name,
            "body",
            "available_sub_agent_ids",
            World.agent,
            _chat(name, available_sub_agent_ids=listed),
        )
        for name in ("chat_stream", "chat_stream_web")
    ),
    *(
        Given(
            name,
            "body",
            "custom_sub_agents/agent_id",
            World.agent,
            _chat(name, custom_sub_agents=lambda id_: [{"name": "helper", "agent_id": id_}]),
        )
        for name in ("chat_stream", "chat_stream_web")
    ),
    *(
        Given(
            name,
            "body",
            f"llm_model_config/{field}",
            World.provider,
            _chat(name, llm_model_config=lambda id_, field=field: {field: id_}),
        )
        for name in ("chat_stream", "chat_stream_web")
        for field in ("llm_provider_id", "provider_id")
    ),
    Given("agent_create", "body", "llm_provider_id", World.provider, _agent(llm_provider_id=same)),
    Given(
        "agent_create", "body", "availableSubAgentIds", World.agent,
        _agent(availableSubAgentIds=listed),
    ),
]  # fmt: skip


def seen(reply: Reply, id_: str) -> tuple[Any, ...]:
    """What a reply says, without the id that was asked for, times and ids of its own."""
    body = reply.body
    if isinstance(body, dict):
        body = {**body, "timestamp": 0}
    text = repr(body).replace(id_, "ID")
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "UUID", text)
    text = re.sub(r"[0-9]{10}\.[0-9]+|sess-[0-9a-f-]+", "N", text)
    return reply.status, reply.http, text, sorted(reply.headers.keys() - {"x-run-id"})


@pytest.mark.parametrize(
    "given", HIDDEN, ids=lambda g: f"{g.operation_id}-{g.place}-{g.name}-{g.make.__name__}"
)
def test_a_strangers_id_is_like_none(given: Given, world: World) -> None:
    owners = given.make(world, world.owner)
    nobodys = unique("nowhere") if "-" not in owners else "01a20630-0000-7000-8000-00000000dead"
    for account in (world.stranger, world.viewer):
        foreign = send(account.client, given.ask(owners))
        missing = send(account.client, given.ask(nobodys))
        assert seen(foreign, owners) == seen(missing, nobodys)
        assert foreign.status != 500 or foreign.http == 200
    again = send(world.owner.client, given.ask(owners))
    assert again.success, "the stranger's attempt changed it"


ADMINISTRATORS = [
    g
    for g in HIDDEN
    if g.place == "path"
    and g.make is not World.conversation
    and g.operation_id != "share_list_messages"
]
"""A session id is its owner's alone; under the shared view's path so is the conversation's own."""


@pytest.mark.parametrize(
    "given",
    ADMINISTRATORS,
    ids=lambda g: f"{g.operation_id}-{g.name}",
)
def test_an_administrator_reaches_it(given: Given, world: World) -> None:
    owners = given.make(world, world.owner)
    assert send(world.admin.client, given.ask(owners)).success


def ids(contract: Contract) -> list[tuple[str, str, str]]:
    """(operationId, place, name) of each id in a path, a query or a body."""
    found = []
    for operation in contract.operations.values():
        named = [(p.place, p.name) for p in operation.parameters if p.place in ("path", "query")]
        if "application/json" in operation.media:
            content = contract.followed(operation.raw["requestBody"])["content"]
            schema = content["application/json"]["schema"]
            named += [("body", name) for name in _names(contract, schema, set())]
        found += [
            (operation.id, place, name)
            for place, name in named
            if ID.search(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())
        ]
    return found


@pytest.mark.parametrize("name", SUBJECTS)
def test_every_id_stands_in_the_table(name: str) -> None:
    """A new id in a path, a query or a body is in HIDDEN (sage), in FOREIGN (sandbox), or in OPEN
    with the reason."""
    table = {(g.operation_id, g.place, g.name.rpartition("/")[2]) for g in HIDDEN}
    excused: Mapping[tuple[str, str], str] = OPEN
    if name == "sandbox":
        table = {(f.operation_id, f.place, f.name) for f in sandbox.FOREIGN}
        excused = sandbox.OPEN
    contract = load(name, URL)
    missing = [id_ for id_ in ids(contract) if id_ not in table and id_[::2] not in excused]
    assert missing == []
    assert {operation_id for operation_id, _ in excused} <= contract.operations.keys()


OPEN = {
    **{
        (f"auth_{name}_upstream{path}", "provider_id"): "providers are the operator's, for everyone"
        for name in ("begin", "finish")
        for path in ("", "_compat")
    },
    **{
        (f"oauth2_authorize{path}", "client_id"): "clients are the operator's, and for everyone"
        for path in ("", "_root")
    },
    ("agent_create", "id"): "ignored: the server chooses",
    ("agent_create", "user_id"): "ignored: the caller owns it; test_server_owned_fields",
    ("agent_replace", "id"): "must be the path's",
    ("agent_replace", "user_id"): "ignored: the owner never changes; test_server_owned_fields",
    ("agent_replace", "llm_provider_id"): "the check of agent_create",
    ("agent_replace", "availableSubAgentIds"): "the check of agent_create",
    ("skill_import", "agent_id"): "the check of skill_upload",
    ("agent_set_grants", "user_ids"): "every account may be named: /api/user/options lists them",
    ("user_delete", "user_id"): "for administrators, who see every account",
    **{
        (name, "task_id"): "looked for within the base that kdb_id names"
        for name in (
            "knowledge_document_list",
            "knowledge_document_check_task",
            "knowledge_document_redo_task",
        )
    },
    **{
        (f"workspace_{name}", "session_id"): "each account has its own workspace: test_workspaces"
        for name in ("list", "download", "delete")
    },
    **{
        (name, field): reason
        for name in ("chat_create", "chat_stream", "chat_stream_web")
        for field, reason in {
            "session_id": "each owner has their own: test_a_session_id_is_its_owners",
            "user_id": "another's is refused: test_nobody_speaks_for_another",
            "message_id": "the client's own name for a message within its session",
        }.items()
    },
}
"""Ids that need no secrecy, and why."""


def _names(contract: Contract, schema: Any, met: set[int]) -> set[str]:
    """Every property name in a schema."""
    schema = contract.followed(schema)
    if not isinstance(schema, dict) or id(schema) in met:
        return set()
    met.add(id(schema))
    names = set(schema.get("properties", {}))
    parts = [*schema.get("properties", {}).values(), schema.get("items")]
    for key in ("allOf", "anyOf", "oneOf"):
        parts += schema.get(key, [])
    return names.union(*(_names(contract, part, met) for part in parts if part))


# --- what the table does not say ---------------------------------------------------------------


def test_a_session_id_is_its_owners(world: World) -> None:
    """The same session id of another account is another conversation."""
    session_id = world.conversation(world.owner, "The owner's secret.")
    body = {"messages": said("Mine."), "session_id": session_id}
    assert world.stranger.client.call("chat_stream", body=body).success
    path = {"session_id": session_id}
    theirs = world.stranger.client.call("conversation_list_messages", path=path)
    assert "secret" not in repr(theirs.body)
    mine = world.owner.client.call("conversation_list_messages", path=path)
    assert "secret" in repr(mine.body)
    assert "Mine" not in repr(mine.body)


@pytest.mark.parametrize("operation_id", ["chat_create", "chat_stream", "chat_stream_web"])
def test_nobody_speaks_for_another(operation_id: str, world: World) -> None:
    """403 for another's user_id and for nobody's alike; an administrator may."""
    agent = world.agent(world.stranger)
    body = {"messages": said("Hi."), "agent_id": agent}
    client = world.stranger.client
    foreign = client.call(operation_id, body={**body, "user_id": world.owner.user_id})
    nobodys = client.call(operation_id, body={**body, "user_id": unique("nobody")})
    assert foreign.status == nobodys.status == 403
    assert foreign.body["message"] == nobodys.body["message"]
    assert client.call(operation_id, body={**body, "user_id": world.stranger.user_id}).success


def test_lists_show_ones_own(world: World) -> None:
    agent = world.agent(world.owner)
    provider = world.provider(world.owner)
    session_id = world.conversation(world.owner)
    for client, expected in ((world.stranger.client, False), (world.owner.client, True)):
        assert (agent in repr(client.call("agent_list").body)) is expected
        assert (provider in repr(client.call("llm_provider_list").body)) is expected
        query = {"page_size": 100}
        shown = repr(client.call("conversation_list", query=query).body)
        assert (session_id in shown) is expected
    assert agent in repr(world.admin.client.call("agent_list").body)


def test_a_share_is_the_one_conversation_and_can_be_revoked(world: World) -> None:
    """Security 21."""
    session_id = world.conversation(world.owner, "For everyone.")
    path = {"session_id": session_id}
    world.conversation(world.owner, "Not for everyone.")
    share = world.owner.client.call("share_create", path=path).data["share_id"]
    shown = world.anonymous.call("share_list_messages", path={"session_id": share})
    assert "For everyone." in repr(shown.body)
    assert "Not for everyone." not in repr(shown.body)
    assert session_id not in repr(shown.body)
    assert world.anonymous.call("share_list_messages", path=path).status == 404
    assert world.owner.client.call("share_delete", path=path).success
    gone = world.anonymous.call("share_list_messages", path={"session_id": share})
    assert gone.status == 404


def test_a_grant_is_for_using_and_not_for_changing(world: World) -> None:
    agent = world.agent(world.owner, systemPrefix="secret instructions")
    path = {"agent_id": agent}
    grants = {"user_ids": [world.stranger.user_id]}
    assert world.owner.client.call("agent_set_grants", path=path, body=grants).success
    friend = world.stranger.client
    assert friend.call("agent_get", path=path).success
    replaced = friend.call("agent_replace", path=path, body={"name": unique("stolen")})
    assert replaced.status == 403
    assert friend.call("agent_delete", path=path).status == 403
    assert friend.call("agent_set_grants", path=path, body={"user_ids": []}).status == 403
    assert friend.call("agent_list_grants", path=path).status == 403
    none: dict[str, list[str]] = {"user_ids": []}
    assert world.owner.client.call("agent_set_grants", path=path, body=none).success
    assert friend.call("agent_get", path=path).status == 404


# --- fields that are the server's --------------------------------------------------------------

SERVERS = {
    "id": "01a20630-0000-7000-8000-00000000beef",
    "user_id": "someone else",
    "owner_id": "someone else",
    "owner": "someone else",
    "role": "admin",
    "status": "banned",
    "workspace": "/",
    "created_at": "2001-01-01T00:00:00Z",
    "updated_at": "2001-01-01T00:00:00Z",
    "is_system": True,
    "is_admin": True,
    "approved": True,
    "version": 99,
}
"""Fields of rows that no request decides (security 16)."""

WRITES = [
    pytest.param(each, id=each.key, marks=marks(each))
    for each in OPERATIONS
    if "application/json" in each.media and each.method in ("POST", "PUT", "PATCH")
]


@pytest.mark.parametrize("operation", WRITES)
def test_server_owned_fields(operation: Operation, worlds: Worlds) -> None:
    """Refused as unknown (422), or, where a document says that more may be sent, not stored."""
    world = worlds(operation.contract)
    client, request = prepared(world, operation)
    body = {} if request.body is ABSENT else request.body
    contract = load(operation.contract, URL)
    content = contract.followed(operation.raw["requestBody"])["content"]["application/json"]
    schema = contract.followed(content["schema"])
    fields = {k: v for k, v in SERVERS.items() if k not in schema["properties"]}
    if schema.get("additionalProperties") is False:
        for name, value in fields.items():
            reply = send(client, request, body={**body, name: value})
            assert reply.status == 422, name
        return
    assert operation.key in ("sage.agent_create", "sage.agent_replace")
    body = {**body, **SERVERS}
    if operation.id == "agent_replace":
        body["id"] = request.path["agent_id"]
    agent_id = send(client, request, body=body).data["agent_id"]
    kept = client.call("agent_get", path={"agent_id": agent_id}).data
    assert kept["user_id"] == world.owner.user_id
    assert agent_id != SERVERS["id"]
    assert "2001" not in kept["created_at"] + kept["updated_at"]
    assert not kept.keys() & (SERVERS.keys() - {"id", "user_id", "created_at", "updated_at"})


@pytest.mark.own_server
def test_a_registration_makes_no_administrator(world: World) -> None:
    request = SUCCEEDING["auth_register"](world, world.owner)
    assert send(world.anonymous, request).success
    newcomer = world.login(request.body["username"], PASSWORD)
    assert newcomer.client.call("auth_get_session").data["user"]["role"] == "user"
    assert newcomer.client.call("user_list").status == 403


def test_creating_with_an_id_that_exists_changes_nothing(world: World) -> None:
    """Security 17: an insert is no update."""
    agent = world.agent(world.owner, description="the first")
    body = {"id": agent, "name": unique("second"), "description": "the second"}
    for account in (world.owner, world.stranger):
        made = account.client.call("agent_create", body={**body, "name": unique("second")})
        assert made.success
        assert made.data["agent_id"] != agent
    kept = world.owner.client.call("agent_get", path={"agent_id": agent}).data
    assert kept["description"] == "the first"
