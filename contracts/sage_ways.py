"""Ways to statuses that sage's operations need beside those of ways.py."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contracts import running
from contracts.client import Reply
from contracts.document import Operation
from contracts.parts import PASSWORD, Request, send, unique
from contracts.sage import SUCCEEDING, World, packed, skill_md, uploaded
from contracts.ways import Way, prepared


def _registration_closed(world: World, operation: Operation) -> Reply:
    request = SUCCEEDING[operation.id](world, world.owner)
    settings = world.admin.client
    settings.call("system_update_settings", body={"allow_registration": False})
    try:
        return send(world.anonymous, request)
    finally:
        settings.call("system_update_settings", body={"allow_registration": True})


def _name_taken(world: World, operation: Operation) -> Reply:
    request = SUCCEEDING[operation.id](world, world.owner)
    taken: dict[str, Any] = {**request.body, "username": world.owner.username}
    return send(world.anonymous, request, body=taken)


def _wrong_password(world: World, operation: Operation) -> Reply:
    body = {"username_or_email": world.owner.username, "password": "not the password"}
    return send(world.anonymous, Request(operation.id, body=body))


def _inactive(world: World, operation: Operation) -> Reply:
    username = unique("left")
    world.create(username, status="inactive")
    body = {"username_or_email": username, "password": PASSWORD}
    return send(world.anonymous, Request(operation.id, body=body))


def _no_such_user(world: World, operation: Operation) -> Reply:
    return send(world.admin.client, Request(operation.id, body={"user_id": unique("nobody")}))


def _no_such_agent(world: World, operation: Operation) -> Reply:
    body = {"messages": [{"role": "user", "content": "Hi."}], "agent_id": unique("nowhere")}
    return send(world.owner.client, Request(operation.id, body=body))


def _no_version(world: World, operation: Operation) -> Reply:
    """None is published any more."""
    admin = world.admin.client
    for each in admin.call("version_list").data:
        assert admin.call("version_delete", path={"version_str": each["version"]}).success
    return world.anonymous.call(operation.id)


def _nowhere(**more: str) -> Way:
    """A knowledge base that does not exist, in a query or a body."""

    def way(world: World, operation: Operation) -> Reply:
        place = "query" if operation.method == "GET" else "body"
        named = {"kdb_id": unique("nowhere"), **more}
        return send(world.owner.client, Request(operation.id, **{place: named}))

    return way


def _upload_nowhere(world: World, operation: Operation) -> Reply:
    return send(world.owner.client, Request(operation.id, form=uploaded(unique("nowhere"))))


def _no_such_client(world: World, operation: Operation) -> Reply:
    unknown = {"client_id": unique("nobody")}
    if operation.method == "GET":
        return world.anonymous.call(operation.id, query=world.authorization(**unknown))
    fields = {**world.exchange(world.owner), **unknown}
    return world.anonymous.call(operation.id, fields=fields)


def _no_grant(world: World, operation: Operation) -> Reply:
    return world.anonymous.call(operation.id, fields={"grant_type": "authorization_code"})


def _granted_by_one_who_left(world: World, operation: Operation) -> Reply:
    account = world.account("left")
    granted = world.granted(account)
    world.started.set_account(account.username, status="inactive")
    return granted.call(operation.id)


def _no_such_tool(world: World, operation: Operation) -> Reply:
    body = {"tool_name": unique("none"), "tool_params": {}}
    return send(world.owner.client, Request(operation.id, body=body))


def _no_administrator(world: World, operation: Operation) -> Reply:
    return world.owner.client.call(operation.id)


def _long_destination(world: World, operation: Operation) -> Reply:
    return world.admin.client.call(operation.id, query={"next": "x" * 2049})


def _no_provider(world: World, operation: Operation) -> Reply:
    """A server where nobody can log in elsewhere."""
    client = world.anonymous
    with tempfile.TemporaryDirectory() as folder, running.server(Path(folder) / "data") as alone:
        return client.at(alone.url).call(operation.id)


def _skill_nowhere(world: World, operation: Operation) -> Reply:
    """An agent that does not exist, or a name that no skill has."""
    _, request = prepared(world, operation)
    nowhere = unique("nowhere")
    agent = {"agent_id": nowhere}
    changes: dict[str, dict[str, Any]] = {
        "skill_list": {"query": agent},
        "skill_list_available": {"query": agent},
        "skill_upload": {"form": packed("nowhere", **agent)},
        "skill_import": {"body": {**agent, "url": "http://127.0.0.1:9/skill.zip"}},
        "skill_update_content": {"body": {"name": nowhere, "content": skill_md(nowhere)}},
    }
    changed = changes.get(operation.id, {"query": {"name": nowhere}})
    return send(world.owner.client, request, **changed)


def _skills_of_two_agents(world: World, operation: Operation) -> Reply:
    """One name, two agents, and no skill of the caller's own."""
    name = unique("skill")
    for _ in range(2):
        world.skill(world.owner, name, agent_id=world.agent(world.owner))
    return send(world.owner.client, Request(operation.id, query={"name": name}))


PARTICULAR: Mapping[tuple[str, int], Way] = {
    **{(name, 404): _skill_nowhere for name in SUCCEEDING if name.startswith("skill_")},
    ("skill_get_content", 409): _skills_of_two_agents,
    ("jaeger_login", 422): _long_destination,
    **{
        (f"auth_begin_upstream_default{path}", status): way
        for path in ("", "_compat")
        for status, way in ((404, _no_provider), (422, _long_destination))
    },
    **{(f"jaeger_{name}", 403): _no_administrator for name in ("login", "check")},
    ("tool_execute", 404): _no_such_tool,
    **{
        (f"oauth2_{name}{path}", status): way
        for path in ("", "_root")
        for name, status, way in (
            ("authorize", 401, _no_such_client),
            ("issue_token", 401, _no_such_client),
            ("issue_token", 400, _no_grant),
            ("get_userinfo", 403, _granted_by_one_who_left),
            ("check_userinfo", 403, _granted_by_one_who_left),
        )
    },
    ("version_check", 404): _no_version,
    **{
        (name, 403): _registration_closed
        for base in ("auth_send_code", "auth_register")
        for name in (base, f"{base}_compat")
    },
    **{(name, 409): _name_taken for name in ("auth_register", "auth_register_compat")},
    **{
        (name, status): way
        for name in ("auth_login", "auth_login_compat")
        for status, way in ((401, _wrong_password), (403, _inactive))
    },
    ("user_delete", 404): _no_such_user,
    **{
        (name, 404): _nowhere()
        for name in (
            "knowledge_base_get",
            "knowledge_base_update",
            "knowledge_base_clear",
            "knowledge_base_redo",
            "knowledge_document_list",
        )
    },
    ("knowledge_base_retrieve", 404): _nowhere(query="Where?"),
    ("knowledge_document_check_task", 404): _nowhere(task_id="none"),
    ("knowledge_document_redo_task", 404): _nowhere(task_id="none"),
    ("knowledge_document_upload", 404): _upload_nowhere,
    **{(name, 404): _no_such_agent for name in ("chat_create", "chat_stream", "chat_stream_web")},
}
"""(operationId, status) → a way to it, where ways.GENERAL has none that fits."""
