"""Every operation's success, and every status it declares but those of faults (reach.BY_FAULT)."""

from collections.abc import Callable
from typing import Any

import pytest

from contracts.client import Client, Reply
from contracts.conftest import URL
from contracts.document import Operation, load
from contracts.reach import BY_FAULT
from contracts.running import FILE_MAX
from contracts.sage import (
    PASSWORD,
    SUCCEEDING,
    Account,
    Request,
    World,
    address,
    packed,
    send,
    skill_md,
    unique,
    uploaded,
)

CONTRACT = load("sage", URL)


def marks(operation: Operation, status: int = 0) -> Any:
    """What needs a server of the suite's own: a mailed code, an account made inactive."""
    mailed = operation.id.startswith("auth_register")
    inactive = status == 403 and operation.role != "admin" and not operation.writes
    return pytest.mark.own_server if mailed or inactive else ()


DECLARED = [
    pytest.param(each, status, id=f"{each.id}-{status}", marks=marks(each, status))
    for each in CONTRACT.operations.values()
    for status in each.statuses.keys() | set(each.raw.get("x-soft", {}).values())
    if status not in BY_FAULT and status != each.success
]
FORM = "multipart/form-data"
SPENT = frozenset({"auth_logout", "auth_logout_compat", "user_change_password"})
"""Operations that end the login they are called with."""


def caller(world: World, operation: Operation) -> Account:
    """Who may call: the administrator, the owner, or somebody new where the login is spent."""
    if operation.role in ("admin", "gate"):
        return world.admin
    return world.account("spent") if operation.id in SPENT else world.owner


def client_for(world: World, operation: Operation, account: Account) -> Client:
    if operation.role == "oauth2":
        return world.granted(account)
    return world.anonymous if operation.public else account.client


SUCCESSES = [pytest.param(each.id, marks=marks(each)) for each in CONTRACT.operations.values()]


@pytest.mark.parametrize("operation_id", SUCCESSES)
def test_succeeds(operation_id: str, world: World) -> None:
    operation = CONTRACT.operations[operation_id]
    account = caller(world, operation)
    request = SUCCEEDING[operation_id](world, account)
    reply = send(client_for(world, operation, account), request)
    assert reply.success, reply


@pytest.mark.parametrize(("operation", "status"), DECLARED)
def test_declared_status(operation: Operation, status: int, world: World) -> None:
    way = PARTICULAR.get((operation.id, status)) or GENERAL[status]
    reply = way(world, operation)
    assert reply.status == status, reply
    if isinstance(reply.body, dict):
        if operation.raw.get("x-shape") == "oauth2":
            assert list(reply.body) == ["error", "error_description"]
            return
        assert reply.body["message"]
        if status == 422:
            assert {error["loc"][0] for error in reply.body["data"]["errors"]}
        else:
            assert reply.body["data"] is None


# --- how to get each status -------------------------------------------------------------------

Way = Callable[[World, Operation], Reply]


def prepared(world: World, operation: Operation) -> tuple[Client, Request]:
    """A request that would succeed, and who sends it."""
    account = caller(world, operation)
    request = SUCCEEDING[operation.id](world, account)
    return client_for(world, operation, account), request


def raw(world: World, operation: Operation, content: bytes, media: str) -> Reply:
    client, request = prepared(world, operation)
    return client.call(
        operation.id,
        path=request.path,
        query=request.query,
        content=content,
        headers={"content-type": media, **address()},
    )


def unusable(world: World, operation: Operation) -> Reply:
    """Not JSON; a key that is none; a query that does not decode."""
    if FORM in operation.media:
        return raw(world, operation, b"no part at all", f"{FORM}; boundary=b")
    if operation.media:
        return raw(world, operation, b'{"a": 1, "a": 2}', "application/json")
    client, request = prepared(world, operation)
    if operation.keyed:
        return send(client, request, headers={"idempotency-key": "k" * 300})
    return client.call(operation.id, path=request.path, query="page=%ff", headers=address())


def nobody(world: World, operation: Operation) -> Reply:
    _, request = prepared(world, operation)
    return send(world.anonymous, request)


def refused(world: World, operation: Operation) -> Reply:
    """A plain user where an administrator is asked for; a viewer who writes; a cookie from
    another site; an account that is no longer active."""
    _, request = prepared(world, operation)
    if operation.role == "admin":
        return send(world.owner.client, request)
    if operation.writes:
        return send(world.viewer.client, request)
    if operation.id.startswith("auth_login"):
        username = unique("left")
        world.create(username, status="inactive")
        body = {"username_or_email": username, "password": PASSWORD}
        return send(world.anonymous, request._replace(body=body))
    return send(world.left(), request)


def missing(world: World, operation: Operation) -> Reply:
    client, request = prepared(world, operation)
    nowhere = {name: unique("nowhere") for name in request.path}
    return send(client, request, path=nowhere)


def unacceptable(world: World, operation: Operation) -> Reply:
    client, request = prepared(world, operation)
    return send(client, request, headers={"accept": "image/png"})


def reused_key(world: World, operation: Operation) -> Reply:
    """The same key for another request."""
    client, request = prepared(world, operation)
    key = {"idempotency-key": unique("key")}
    first = send(client, request, headers=key)
    assert first.success, first
    return send(client, request, headers=key, query={**request.query, "again": "1"})


def wrong_media(world: World, operation: Operation) -> Reply:
    return raw(world, operation, b"hello", "text/html")


def invalid(world: World, operation: Operation) -> Reply:
    """A body, a query or a path that breaks its schema."""
    client, request = prepared(world, operation)
    if FORM in operation.media:
        return send(client, request, form=[("unknown", "field")])
    if operation.media:
        return send(client, request, body=[])
    if any(each.place == "query" and each.required for each in operation.parameters):
        return send(client, request, query={})
    for parameter in operation.parameters:
        if parameter.place == "query" and {"enum", "minimum"} & parameter.schema.keys():
            return send(client, request, query={parameter.name: "no such value"})
    return send(client, request, path=dict.fromkeys(request.path, "x" * 200))


GENERAL: dict[int, Way] = {
    400: unusable,
    401: nobody,
    403: refused,
    404: missing,
    406: unacceptable,
    409: reused_key,
    415: wrong_media,
    422: invalid,
}


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


PARTICULAR: dict[tuple[str, int], Way] = {
    **{(name, 404): _skill_nowhere for name in CONTRACT.operations if name.startswith("skill_")},
    ("skill_get_content", 409): _skills_of_two_agents,
    ("jaeger_login", 422): _long_destination,
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
    **{(name, 401): _wrong_password for name in ("auth_login", "auth_login_compat")},
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


@pytest.mark.own_server
def test_throttled_guesses(world: World) -> None:
    """Ten wrong passwords in a row, and the right one waits (429, Retry-After)."""
    someone, place = world.account("guessed"), address()
    wrong = {"username_or_email": someone.username, "password": "not the password"}
    for _ in range(10):
        reply = world.anonymous.call("auth_login", body=wrong, headers=place)
        assert reply.status == 401
    right = {"username_or_email": someone.username, "password": PASSWORD}
    reply = world.anonymous.call("auth_login", body=right, headers=place)
    assert reply.status == 429
    assert int(reply.headers["retry-after"]) > 0
    assert world.anonymous.call("auth_login", body=right, headers=address()).success


@pytest.mark.parametrize(
    "operation_id",
    [pytest.param(e.id, marks=marks(e)) for e in CONTRACT.operations.values() if e.media],
)
def test_too_large(operation_id: str, world: World) -> None:
    """A body beyond 1 MiB is refused before it is read, a file beyond its limit while it is."""
    operation = CONTRACT.operations[operation_id]
    if FORM in operation.media:
        client, request = prepared(world, operation)
        large_file = ("large.txt", b"x" * (FILE_MAX + 1))
        form = [(n, p if isinstance(p, str) else large_file) for n, p in request.form or ()]
        assert send(client, request, form=form).status == 413
        return
    large = b'{"a": "' + b"x" * (1024 * 1024) + b'"}'
    assert raw(world, operation, large, operation.media[0]).status == 413
