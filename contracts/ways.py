"""Ways to each status that hold for every contract. What one operation needs beside them stands
with its contract: sage_ways.py, sandbox.py."""

from collections.abc import Callable
from typing import Any

from contracts.client import Client, Reply
from contracts.document import Operation
from contracts.parts import Account, Request, address, send, unique

FORM = "multipart/form-data"
Way = Callable[[Any, Operation], Reply]
"""Gets an answer out of an operation in a world."""


def caller(world: Any, operation: Operation) -> Account:
    """Who may call: the administrator, the owner, or somebody new where the login is spent."""
    found: Account
    if operation.role in ("admin", "gate"):
        found = world.admin
    else:
        found = world.account("spent") if operation.id in world.spent else world.owner
    return found


def client_for(world: Any, operation: Operation, account: Account) -> Client:
    """What the account sends with: nothing where none is asked for."""
    found: Client
    if operation.role == "oauth2":
        found = world.granted(account)
    else:
        found = world.anonymous if operation.public else account.client
    return found


def prepared(world: Any, operation: Operation) -> tuple[Client, Request]:
    """A request that would succeed, and who sends it."""
    account = caller(world, operation)
    request = world.request(operation.id, account)
    return client_for(world, operation, account), request


def raw(world: Any, operation: Operation, content: bytes, media: str) -> Reply:
    """A body as it stands."""
    client, request = prepared(world, operation)
    return client.call(
        operation.id,
        path=request.path,
        query=request.query,
        content=content,
        headers={"content-type": media, **address()},
    )


def unusable(world: Any, operation: Operation) -> Reply:
    """Not JSON; a key that is none; a query that does not decode."""
    if FORM in operation.media:
        return raw(world, operation, b"no part at all", f"{FORM}; boundary=b")
    if operation.media:
        return raw(world, operation, b'{"a": 1, "a": 2}', "application/json")
    client, request = prepared(world, operation)
    if operation.keyed:
        return send(client, request, headers={"idempotency-key": "k" * 300})
    return client.call(operation.id, path=request.path, query="page=%ff", headers=address())


def nobody(world: Any, operation: Operation) -> Reply:
    """No credential."""
    _, request = prepared(world, operation)
    return send(world.anonymous, request)


def refused(world: Any, operation: Operation) -> Reply:
    """A plain user where an administrator is asked for; a viewer who writes; an account that is
    no longer active."""
    _, request = prepared(world, operation)
    if operation.role == "admin":
        return send(world.owner.client, request)
    if operation.writes:
        return send(world.viewer.client, request)
    return send(world.left(), request)


def missing(world: Any, operation: Operation) -> Reply:
    """A path that leads to nothing."""
    client, request = prepared(world, operation)
    nowhere = {name: unique("nowhere") for name in request.path}
    return send(client, request, path=nowhere)


def unchanged(world: Any, operation: Operation) -> Reply:
    """Asked for with the version that stands."""
    client, request = prepared(world, operation)
    tag = send(client, request).headers["etag"]
    return send(client, request, headers={"if-none-match": tag})


def outdated(world: Any, operation: Operation) -> Reply:
    """A change that is meant for another version."""
    client, request = prepared(world, operation)
    return send(client, request, headers={"if-match": '"999"'})


def unacceptable(world: Any, operation: Operation) -> Reply:
    """A client that takes pictures alone."""
    client, request = prepared(world, operation)
    return send(client, request, headers={"accept": "image/png"})


def reused_key(world: Any, operation: Operation) -> Reply:
    """The same key for another request."""
    client, request = prepared(world, operation)
    key = {"idempotency-key": unique("key")}
    first = send(client, request, headers=key)
    assert first.success, first
    return send(client, request, headers=key, query={**request.query, "again": "1"})


def wrong_media(world: Any, operation: Operation) -> Reply:
    """A page instead of a body."""
    return raw(world, operation, b"hello", "text/html")


def invalid(world: Any, operation: Operation) -> Reply:
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
    304: unchanged,
    400: unusable,
    401: nobody,
    403: refused,
    404: missing,
    406: unacceptable,
    409: reused_key,
    412: outdated,
    415: wrong_media,
    422: invalid,
}
