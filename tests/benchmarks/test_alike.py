"""Comparators do the same work: the same answers, the same refusals."""

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from scripts.benchmarks import database
from scripts.benchmarks.comparators import APPS
from scripts.benchmarks.lane import one, requests
from scripts.benchmarks.load import Refused, ask, request
from scripts.benchmarks.processes import Process


@pytest.mark.filterwarnings("ignore::DeprecationWarning:litestar")
def test_the_five_applications_answer_the_same_data() -> None:
    for name, asked in requests().items():
        answers = {app: asyncio.run(one(make(), asked)) for app, make in APPS.items()}
        assert {status for status, _ in answers.values()} == {200}, name
        values = [json.loads(body) for _, body in answers.values()]
        assert all(value == values[0] for value in values), name


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Servers"]:
    with ExitStack() as stack:
        stack.enter_context(pytest.MonkeyPatch.context()).setattr(database, "CONVERSATIONS", 50)
        who, copies = database.prepared(stack, Path(tmp_path_factory.mktemp("bench")), url="")
        running = {n: stack.enter_context(database.started(n, c)) for n, c in copies.items()}
        yield who, running, copies


Servers = tuple[database.Account, dict[str, Process], dict[str, database.Copy]]


def test_the_servers_answer_the_same_data(servers: Servers) -> None:
    who, running, _ = servers
    asyncio.run(database.alike(running, who))


def test_the_servers_refuse_the_same(servers: Servers) -> None:
    who, running, _ = servers
    for name, server in running.items():
        token = who.foreign_token if name.startswith("FastAPI") else who.token
        path = f"/api/agent/{who.agent_id}"
        body = {**database.AGENT, "maxLoopCount": 0}
        taken = request("POST", "/api/agent/create", token=token, body=database.AGENT)
        for status, content in (
            (401, request("GET", path)),
            (401, request("GET", path, token=token[:-4] + "AAAA")),
            (404, request("GET", path + "0", token=token)),
            (422, request("POST", "/api/agent/create", token=token, body=body)),
            (409, taken),
        ):
            with pytest.raises(Refused, match=f"^{status}"):
                asyncio.run(ask(server.port, content))


def test_only_the_patched_server_leaves_events_out(servers: Servers) -> None:
    who, running, copies = servers
    created = who.requests(foreign=False)["create"]
    for name, events in (("Quartet", 1), ("Quartet without events", 0)):
        made = asyncio.run(ask(running[name].port, created()))["agent_id"]
        with sqlite3.connect(copies[name].data / "quartet.sqlite") as connection:
            (count,) = connection.execute(
                "SELECT count(*) FROM events WHERE stream = ?", (f"agent:{made}",)
            ).fetchone()
        assert count == events
