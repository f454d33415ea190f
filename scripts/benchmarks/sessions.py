"""(g) The list of an account's sessions; (h) those who follow it while nothing happens."""

import asyncio
import json
import shutil
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from scripts.benchmarks.database import SERVER, Copy, administer, backends
from scripts.benchmarks.load import ask, connect, request
from scripts.benchmarks.processes import ADMIN_PASSWORD as PASSWORD
from scripts.benchmarks.processes import Process, quartet
from scripts.benchmarks.sse import Listener, listen
from scripts.benchmarks.streams import quantile
from scripts.benchmarks.tables import Table, spread

if TYPE_CHECKING:
    import sqlalchemy

    from storage.database import Unit

API = "/sandbox/api"
ROUNDS = 5
SESSIONS = 1000
OTHERS = 100
"""Other accounts with as many sessions each."""
OTHER = "other-"
NAMED = frozenset({"id", "session_id", "conversation_id", "latest_run_id"})
"""Columns whose values are an owner's own."""
ALONE, AMONG = "alone", f"among {SESSIONS * OTHERS:,} of others"
EACH = 60
FEW = 20
STATEMENTS_MAX = 2
ACCOUNTS = 50
SUBSCRIBERS = 10
"""Of one account: as many as it may hold open by default."""
MEMORY_ROUNDS = 3
SETTLED_S = 2.0
IDLE_S = 20.0
EVERY = b"event: sessions"
SETTINGS = {"LOGIN_RATE": "1000000/minute"}
QUICK = {**SETTINGS, "READ_RATE": "1000000/minute"}


class Account(NamedTuple):
    """An account of its own, logged in."""

    user_id: str
    token: str

    def listing(self) -> bytes:
        return request("GET", f"{API}/sessions", token=self.token)

    def following(self) -> bytes:
        return request("POST", f"{API}/sessions/stream", token=self.token, body={})

    async def create(self, port: int) -> str:
        made = await ask(port, request("POST", f"{API}/sessions", token=self.token, body={}))
        session: str = made["session_id"]
        return session


async def register(port: int) -> Account:
    body = {"username": f"bench{uuid.uuid4().hex[:12]}", "password": PASSWORD}
    found = await ask(port, request("POST", f"{API}/auth/register", body=body))
    return Account(found["user"]["id"], found["tokens"]["access_token"])


async def fill(copy: Copy, owners: list[Account], count: int) -> None:
    """So many sessions of each owner, whose runs have ended, straight into the tables."""
    from sqlalchemy import insert

    from domain.ids import uuid7
    from storage.database import Statement, Unit
    from storage.schema import conversations, runs

    now = time.time()
    listed: list[Mapping[str, Any]] = []
    ended: list[Mapping[str, Any]] = []
    for owner in owners:
        for number in range(count):
            session, run, at = uuid7(), uuid7(), now - number * 60
            title = f"What the market of region {number} looks like"
            said = f"The market of region {number} has grown by a tenth; its sources are named."
            of = {"owner_id": owner.user_id, "created_at": at - 60}
            listed.append(
                {**of, "id": session, "session_id": session, "title": title, "latest_run_id": run}
                | {"latest_message": said, "latest_message_at": at, "unread": 1, "updated_at": at}
            )
            ended.append(
                {**of, "id": run, "conversation_id": session, "state": "completed", "request": {}}
                | {"query": title, "stops_with_client": False, "ended_at": at}
            )

    def unit() -> Unit[None]:
        yield Statement(insert(conversations)).many(listed)
        yield Statement(insert(runs)).many(ended)

    await _write(copy, unit)


async def fill_others(copy: Copy, owner: Account) -> None:
    """The owner's sessions once more for each other account, with their runs."""
    from sqlalchemy import bindparam, insert, select

    from storage.database import Statement, Unit
    from storage.schema import conversations, runs, users

    def of_others(table: "sqlalchemy.Table") -> Statement:
        values = [
            users.c.id
            if column.name == "owner_id"
            else users.c.id + "-" + column
            if column.name in NAMED
            else column
            for column in table.c
        ]
        source = (
            select(*values)
            .select_from(table.join(users, users.c.id.like(f"{OTHER}%")))
            .where(table.c.owner_id == bindparam("owner"))
        )
        return Statement(insert(table).from_select([column.name for column in table.c], source))

    people: list[Mapping[str, Any]] = [
        {"id": name, "username": name, "username_key": name, "role": "operator"}
        | {"created_at": 0.0, "updated_at": 0.0}
        for name in (f"{OTHER}{number}" for number in range(OTHERS))
    ]

    def unit() -> Unit[None]:
        yield Statement(insert(users)).many(people)
        for table in (conversations, runs):
            yield of_others(table)(owner=owner.user_id)

    await _write(copy, unit)


async def _write(copy: Copy, unit: Callable[[], "Unit[None]"]) -> None:
    from storage.opening import open_database

    database = await open_database(copy.url, copy.data)
    await database.write(unit)
    await database.close()


# --- (g) ------------------------------------------------------------------------------------------


class Figures:
    """What one server gave: per round CPU µs of a request and of PostgreSQL for it; seconds of
    every request; bytes of an answer."""

    def __init__(self) -> None:
        self.cpu: list[float] = []
        self.backend: list[float] = []
        self.taken: list[float] = []
        self.size = 0


async def _counted(server: Process, counts: Path) -> tuple[Account, int]:
    """An account with a few sessions, and how many statements its list takes."""
    who = await register(server.port)
    for _ in range(FEW):
        await who.create(server.port)
    each = []
    for _ in range(2 * FEW):
        begun = counts.stat().st_size
        found = await ask(server.port, who.listing())
        each.append(counts.stat().st_size - begun)
        if len(found["sessions"]) != FEW:
            raise RuntimeError(f"{len(found['sessions'])} of {FEW} sessions")
    statements = statistics.median_low(each)
    if not 0 < statements <= STATEMENTS_MAX:
        raise RuntimeError(f"the list of {FEW} sessions takes statements: {each}")
    return who, statements


async def _asked(server: Process, copy: Copy, who: Account, figures: Figures, count: int) -> None:
    """One round, one request at a time."""
    asking = who.listing()
    connection = await connect(server.port)
    behind, spent = backends(copy), server.cpu
    for _ in range(count):
        begun = time.perf_counter()
        answer = await connection.ask(asking)
        figures.taken.append(time.perf_counter() - begun)
    figures.cpu.append((server.cpu - spent) / count * 1e6)
    figures.backend.append((backends(copy) - behind) / count * 1e6)
    connection.close()
    if len(json.loads(answer)["data"]["sessions"]) != SESSIONS:
        raise RuntimeError(f"not all sessions are told of: {answer[:300]!r}")
    figures.size = len(answer)


async def _lists(
    servers: dict[str, Process], copies: dict[str, Copy], who: Account
) -> dict[str, Figures]:
    """The servers interleaved."""
    for name, server in servers.items():
        await _asked(server, copies[name], who, Figures(), 10)
    figures = {name: Figures() for name in servers}
    for _ in range(ROUNDS):
        for name, server in servers.items():
            await _asked(server, copies[name], who, figures[name], EACH)
    return figures


def _database(stack: ExitStack, copy: Copy, template: str = "template1") -> None:
    name = copy.url.rpartition("/")[2]
    administer(f"CREATE DATABASE {name} TEMPLATE {template}")
    stack.callback(administer, f"DROP DATABASE {name} WITH (FORCE)")


def _prepared(stack: ExitStack, folder: Path, url: str) -> tuple[Account, int, dict[str, Copy]]:
    """An account, the statements of its list, and its sessions in two copies of the data."""
    alone = Copy(folder / "alone", url)
    among = Copy(folder / "among", f"{url}_among" if url else "")
    counts = folder / "statements"
    settings = {**QUICK, **alone.settings(), "STATEMENTS": str(counts)}
    if url:
        _database(stack, alone)
    counting = "scripts.benchmarks.counting_statements"
    with quartet(alone.data, module=counting, settings=settings) as server:
        who, statements = asyncio.run(_counted(server, counts))
    asyncio.run(fill(alone, [who], SESSIONS - FEW))
    shutil.copytree(alone.data, among.data)
    if url:
        _database(stack, among, url.rpartition("/")[2])
    asyncio.run(fill_others(among, who))
    if url:
        for copy in (alone, among):
            administer("VACUUM ANALYZE", copy.url)
    return who, statements, {ALONE: alone, AMONG: among}


def _listed(table: Table, title: str, url: str) -> None:
    """One database's rows."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        who, statements, copies = _prepared(stack, folder, url)
        servers = {
            name: stack.enter_context(quartet(copy.data, settings={**QUICK, **copy.settings()}))
            for name, copy in copies.items()
        }
        for name, found in asyncio.run(_lists(servers, copies, who)).items():
            table.rows.append(
                [
                    f"{title}, {name}",
                    spread([cpu / 1e3 for cpu in found.cpu]),
                    f"{statistics.median(found.backend) / 1e3:.1f}" if url else "–",
                    f"{quantile(found.taken, 0.5):.1f}",
                    f"{quantile(found.taken, 0.99):.1f}",
                    f"{found.size:,}",
                    str(statements),
                ]
            )


def _list() -> Table:
    table = Table(
        f"(g) The list of an account's {SESSIONS:,} sessions",
        ["database", "CPU, ms a request", "PostgreSQL's", "p50, ms", "p99", "bytes", "statements"],
        note=f"`GET {API}/sessions`, authenticated, one at a time, {ROUNDS} rounds of {EACH}, the "
        f"two tables interleaved; the median of rounds (lowest–highest). The others are {OTHERS} "
        f"accounts with {SESSIONS:,} sessions each. Statements are counted in a process of its "
        "own.",
    )
    _listed(table, "SQLite", "")
    _listed(table, "PostgreSQL", f"{SERVER}/quartet_bench_{uuid.uuid4().hex[:12]}")
    return table


# --- (h) ------------------------------------------------------------------------------------------


class Held(NamedTuple):
    """Bytes that a subscriber takes; cores of the idle server; seconds from a new session's request
    until every subscriber of its account has it."""

    memory: float
    cpu: float
    told: list[float]


async def _subscribe(server: Process, people: list[Account]) -> list[list[Listener]]:
    """Every account's subscribers, all of whom have had the list."""
    found = []
    for who in people:
        mine = [await listen(server.port, who.following()) for _ in range(SUBSCRIBERS)]
        found.append(mine)
    await _listed_to(found, since=0.0)
    return found


async def _listed_to(subscribers: list[list[Listener]], *, since: float) -> None:
    """Once all have had the list since then. Raises where a stream has ended."""
    await asyncio.gather(*(one.heard(EVERY, since=since) for mine in subscribers for one in mine))


async def _held(server: Process, people: list[Account], *, idle_s: float) -> Held:
    for who in people:
        await ask(server.port, who.listing())
    for one in (await _subscribe(server, people[:1]))[0]:
        one.close()
    await asyncio.sleep(SETTLED_S)
    before = server.pss
    subscribers = await _subscribe(server, people)
    await asyncio.sleep(SETTLED_S)
    memory = (server.pss - before) / (len(people) * SUBSCRIBERS)
    await _listed_to(subscribers, since=0.0)
    told: list[float] = []
    spent = server.cpu
    if idle_s:
        await asyncio.sleep(idle_s)
        spent = server.cpu - spent
        await _listed_to(subscribers, since=time.perf_counter() - idle_s / 2)
        for who, mine in zip(people, subscribers, strict=True):
            told.append(await _told(server, who, mine))
    for mine in subscribers:
        for one in mine:
            one.close()
    return Held(memory, spent / idle_s if idle_s else 0.0, told)


async def _told(server: Process, who: Account, mine: list[Listener]) -> float:
    """Seconds until all of an account's subscribers have its new session."""
    begun = time.perf_counter()
    session = (await who.create(server.port)).encode()
    return max(await asyncio.gather(*(one.heard(session, since=begun) for one in mine))) - begun


def _followers() -> Table:
    total = ACCOUNTS * SUBSCRIBERS
    table = Table(
        f"(h) {total} idle subscribers of the list",
        ["figure", "value"],
        note=f"`POST {API}/sessions/stream` over SQLite, {ACCOUNTS} accounts with {SUBSCRIBERS} "
        f"streams and {FEW} sessions each; every one gets its list at once and every five seconds. "
        "Memory is the Pss of the process tree with them, less what it was before, in "
        f"{MEMORY_ROUNDS} servers; accounts' parts are in it.",
    )
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        with quartet(data, settings=SETTINGS) as server:
            people = asyncio.run(_people(server))
        asyncio.run(fill(Copy(data, ""), people, FEW))
        for number in range(MEMORY_ROUNDS):
            with quartet(data, settings=SETTINGS) as server:
                idle_s = IDLE_S if number == 0 else 0.0
                rounds.append(asyncio.run(_held(server, people, idle_s=idle_s)))
    memory = [held.memory / 1e3 for held in rounds]
    first = rounds[0]
    table.rows = [
        ["memory of each, kB (lowest–highest)", spread(memory)],
        [f"server's CPU, {IDLE_S:g} s without events", f"{first.cpu:.1%} of a core"],
        [
            f"a new session at all {SUBSCRIBERS} subscribers of its account, p50",
            f"{statistics.median(first.told) * 1e3:.1f} ms",
        ],
        [f"the slowest of {ACCOUNTS}", f"{max(first.told) * 1e3:.1f} ms"],
    ]
    table.claim("memory of a subscriber, kB", statistics.median(memory), at_most=40)
    return table


async def _people(server: Process) -> list[Account]:
    return await asyncio.gather(*(register(server.port) for _ in range(ACCOUNTS)))


def run() -> Iterator[Table]:
    """The tables of bench (g) and (h), each as soon as it stands."""
    yield _list()
    yield _followers()
