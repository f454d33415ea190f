"""What a server says when something under it is broken: 500, 503, 507. Once per contract, on a
server of the suite's own, whose data directory is what breaks."""

import contextlib
import resource
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts import running
from contracts.client import Client
from contracts.document import Contract
from contracts.judging import Judge
from contracts.reach import Reach
from contracts.sage import World, unique

pytestmark = pytest.mark.own_server


@pytest.fixture
def broken(tmp_path: Path, contract: Contract, judge: Judge, reach: Reach) -> Iterator[World]:
    """A server that nobody else uses."""
    with running.server(tmp_path / "data") as started:
        yield World(started, Client(started.url, contract, judge, reach))


def test_a_full_disk_is_507_and_reads_go_on(broken: World) -> None:
    """A file that may not grow: writes are refused with nothing kept, reads and logins' checks
    are answered, and all is well once there is room again (security 60)."""
    owner = broken.owner.client
    agent = broken.agent(broken.owner)
    pid = broken.started.pid
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    assert broken.started.data is not None
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        refused = owner.call("agent_create", body={"name": unique("none")})
        assert refused.status == 507
        for operation_id in ("auth_logout", "user_update_config", "agent_delete"):
            path = {"agent_id": agent} if operation_id == "agent_delete" else None
            body = {"body": {"config": {}}} if operation_id == "user_update_config" else {}
            assert owner.call(operation_id, path=path, **body).status == 507
        assert owner.call("agent_get", path={"agent_id": agent}).success
        assert [each["id"] for each in owner.call("agent_list").data] == [agent]
        assert broken.anonymous.call("system_check_active").success
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)
    assert owner.call("agent_create", body={"name": unique("some")}).success
    assert len(owner.call("agent_list").data) == 2


def test_a_database_that_does_not_answer_is_503(broken: World) -> None:
    """Another process holds the database; when it lets go, the same request is answered."""
    assert broken.started.data is not None
    name = unique("later")
    file = sqlite3.connect(broken.started.data / "quartet.sqlite", isolation_level=None)
    with contextlib.closing(file):
        file.execute("BEGIN IMMEDIATE")
        refused = broken.owner.client.call("agent_create", body={"name": name})
        assert refused.status == 503
        assert int(refused.headers["retry-after"]) > 0
        file.execute("ROLLBACK")
    assert broken.owner.client.call("agent_create", body={"name": name}).success


def test_a_fault_of_ours_is_500_and_tells_nothing(broken: World) -> None:
    """A table is gone. The answer has the contract's form and an id to ask about, and neither the
    statement nor a file's name (security 57)."""
    assert broken.started.data is not None
    agent = broken.agent(broken.owner)
    with contextlib.closing(sqlite3.connect(broken.started.data / "quartet.sqlite")) as file:
        file.execute("DROP TABLE agent_grants")
        file.commit()
    reply = broken.owner.client.call("agent_list_grants", path={"agent_id": agent})
    assert reply.status == 500
    assert reply.body["data"] is None
    assert reply.headers["x-request-id"]
    for told in ("agent_grants", "sqlite", "SELECT", "Traceback", ".py"):
        assert told not in repr(reply.body)
