"""What a server says when something under it is broken: 500, 503, 507. Once per contract, on a
server of the suite's own, whose data directory is what breaks."""

import contextlib
import resource
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from contracts import parts, running
from contracts.client import Client
from contracts.conftest import URL, judge_of
from contracts.document import load
from contracts.parts import Account, send
from contracts.reach import Reach
from contracts.subjects import SUBJECTS
from contracts.ways import client_for

pytestmark = pytest.mark.own_server


class Breaking(NamedTuple):
    """What of a contract is tried: operations that write (the first is tried again once all is
    well) and that read, and one that needs a table which nothing else does."""

    writes: tuple[str, ...]
    reads: tuple[str, ...]
    table: str
    needs_table: str


BREAKING = {
    "sage": Breaking(
        ("agent_create", "auth_logout", "user_update_config", "agent_delete"),
        ("agent_get", "agent_list", "system_check_active"),
        "agent_grants",
        "agent_list_grants",
    ),
    "sandbox": Breaking(
        ("auth_update_me", "auth_register"), ("auth_get_me",), "settings", "auth_register"
    ),
}


class Place:
    """A server that nobody else uses, and a contract of it that is about to break."""

    def __init__(self, world: parts.World) -> None:
        self.world = world
        self.contract = world.anonymous.contract
        self.breaking = BREAKING[self.contract.name]
        assert world.started.data is not None
        self.file = world.started.data / "quartet.sqlite"

    def prepared(self, operation_id: str) -> tuple[Client, parts.Request]:
        """The owner's request, made while all is well."""
        owner: Account = self.world.owner
        operation = self.contract.operations[operation_id]
        return client_for(self.world, operation, owner), self.world.request(operation_id, owner)


@pytest.fixture(params=SUBJECTS)
def place(request: pytest.FixtureRequest, tmp_path: Path, reach: Reach) -> Iterator[Place]:
    name = request.param
    with running.server(tmp_path / "data") as started:
        anonymous = Client(started.url, load(name, URL), judge_of(name), reach)
        yield Place(SUBJECTS[name].world(started, anonymous))


def test_a_full_disk_is_507_and_reads_go_on(place: Place) -> None:
    """A file that may not grow: writes are refused with nothing kept, reads and logins' checks
    are answered, and all is well once there is room again (security 60)."""
    writes = [place.prepared(each) for each in place.breaking.writes]
    reads = [place.prepared(each) for each in place.breaking.reads]
    shown = [send(*each).body for each in reads]
    pid = place.world.started.pid
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        for each in writes:
            assert send(*each).status == 507, each
        again = [send(*each) for each in reads]
        assert all(reply.success for reply in again)
        assert [_timeless(reply.body) for reply in again] == [_timeless(body) for body in shown]
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)
    assert send(*writes[0]).success
    assert [_timeless(send(*each).body) for each in reads] != [_timeless(body) for body in shown]


def _timeless(body: object) -> object:
    return {**body, "timestamp": 0} if isinstance(body, dict) else body


def test_a_database_that_does_not_answer_is_503(place: Place) -> None:
    """Another process holds the database; when it lets go, the same request is answered."""
    write = place.prepared(place.breaking.writes[0])
    with contextlib.closing(sqlite3.connect(place.file, isolation_level=None)) as file:
        file.execute("BEGIN IMMEDIATE")
        refused = send(*write)
        assert refused.status == 503
        assert int(refused.headers["retry-after"]) > 0
        file.execute("ROLLBACK")
    assert send(*write).success


def test_a_fault_of_ours_is_500_and_tells_nothing(place: Place) -> None:
    """A table is gone. The answer has the contract's form and an id to ask about, and neither the
    statement nor a file's name (security 57)."""
    table = place.breaking.table
    asking = place.prepared(place.breaking.needs_table)
    with contextlib.closing(sqlite3.connect(place.file)) as file:
        file.execute(f"DROP TABLE {table}")
        file.commit()
    reply = send(*asking)
    assert (reply.status, reply.http) == (500, 500)
    SUBJECTS[place.contract.name].assert_refused(reply)
    assert reply.headers["x-request-id"]
    for told in (table, "sqlite", "SELECT", "Traceback", ".py"):
        assert told not in repr(reply.body)
