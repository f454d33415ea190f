"""Every operation's success, and every status it declares but those of faults (reach.BY_FAULT)."""

from collections.abc import Iterator
from typing import Any

import pytest

from contracts.conftest import OPERATIONS, Worlds
from contracts.document import Operation
from contracts.parts import PASSWORD, address, send
from contracts.reach import BY_FAULT
from contracts.running import FILE_MAX
from contracts.subjects import SUBJECTS
from contracts.ways import FORM, prepared, raw


def marks(operation: Operation, status: int = 0, soft: bool = False) -> Any:
    """What needs a server of the suite's own: a mailed code, its login provider or none, an
    account made inactive, a second administrator."""
    behind = operation.id in SUBJECTS[operation.contract].own_server
    inactive = status == 403 and operation.role != "admin" and not operation.writes
    second = status == 403 and operation.role == "admin" and soft
    alone = status == 404 and operation.id.startswith("auth_begin_upstream_default")
    return pytest.mark.own_server if behind or alone or inactive or second else ()


def case(operation: Operation, status: int, soft: bool) -> Any:
    name = f"{operation.key}-200/{status}" if soft else f"{operation.key}-{status}"
    return pytest.param(operation, status, soft, id=name, marks=marks(operation, status, soft))


def cases(operation: Operation) -> Iterator[Any]:
    """Each status, and each code that comes with HTTP 200: apart where the contract keeps them
    apart (Subject.soft)."""
    known = SUBJECTS[operation.contract].soft
    softly = set(operation.raw.get("x-soft", {}).values())
    for status in operation.statuses.keys() | (softly if known is None else ()):
        if status not in BY_FAULT and status not in (operation.success, 200):
            yield case(operation, status, False)
    for code in softly if known is not None else ():
        if code not in BY_FAULT or (operation.id, code) in known:
            yield case(operation, code, True)


DECLARED = [each for operation in OPERATIONS for each in cases(operation)]
SUCCESSES = [pytest.param(each, id=each.key, marks=marks(each)) for each in OPERATIONS]
BODIES = [pytest.param(each, id=each.key, marks=marks(each)) for each in OPERATIONS if each.media]


@pytest.mark.parametrize("operation", SUCCESSES)
def test_succeeds(operation: Operation, worlds: Worlds) -> None:
    client, request = prepared(worlds(operation.contract), operation)
    reply = send(client, request)
    assert reply.success, reply


@pytest.mark.parametrize(("operation", "status", "soft"), DECLARED)
def test_declared_status(operation: Operation, status: int, soft: bool, worlds: Worlds) -> None:
    subject = SUBJECTS[operation.contract]
    reply = subject.way(operation.id, status, soft)(worlds(operation.contract), operation)
    assert reply.status == status, reply
    if subject.soft is not None:
        assert reply.http == (200 if soft else status), reply
    if operation.raw.get("x-shape") == "oauth2":
        assert list(reply.body) == ["error", "error_description"]
    elif isinstance(reply.body, dict):
        subject.assert_refused(reply, soft)


@pytest.mark.own_server
@pytest.mark.parametrize("name", SUBJECTS)
def test_throttled_guesses(name: str, worlds: Worlds) -> None:
    """Ten wrong passwords in a row, and the right one waits (429, Retry-After)."""
    world = worlds(name)
    someone, place = world.account("guessed"), address()
    wrong = world.login_request(someone.username, "not the password")
    for _ in range(10):
        assert send(world.anonymous, wrong, headers=place).status == 401
    right = world.login_request(someone.username, PASSWORD)
    reply = send(world.anonymous, right, headers=place)
    assert reply.status == 429
    assert int(reply.headers["retry-after"]) > 0
    assert send(world.anonymous, right).success


@pytest.mark.parametrize("operation", BODIES)
def test_too_large(operation: Operation, worlds: Worlds) -> None:
    """A body beyond 1 MiB is refused before it is read, a file beyond its limit while it is."""
    world = worlds(operation.contract)
    if FORM in operation.media:
        client, request = prepared(world, operation)
        large_file = ("large.txt", b"x" * (FILE_MAX + 1))
        form = [(n, p if isinstance(p, str) else large_file) for n, p in request.form or ()]
        assert send(client, request, form=form).status == 413
        return
    large = b'{"a": "' + b"x" * (1024 * 1024) + b'"}'
    assert raw(world, operation, large, operation.media[0]).status == 413
