"""(b) Over a socket, with a database: CPU per request of our server and of FastAPI's."""

import asyncio
import itertools
import json
import os
import shutil
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import jwt
import msgspec

from scripts.benchmarks.load import ask, connect, load, request
from scripts.benchmarks.processes import ADMIN_PASSWORD as PASSWORD
from scripts.benchmarks.processes import Process, cpu_of, free_port, quartet
from scripts.benchmarks.tables import Table, ratios, spread

ROUNDS = 5
CONVERSATIONS = 10_000
CONNECTIONS = (1, 32)
COUNTS = {"Quartet": 1500, "Quartet without events": 1500, "FastAPI": 320, "FastAPI tuned": 480}
JWT_KEY = "bench-key-of-32-bytes-or-more-00"
SERVER = os.environ.get("TEST_DATABASE_URL", "postgresql://postgres@127.0.0.1:5432").rstrip("/")
AT_LEAST = {"SQLite": 5.0, "PostgreSQL": 2.5}

AGENT: dict[str, Any] = {
    "name": "Research Agent",
    "description": "Handles market research and writes it down.",
    "systemPrefix": "You are a careful research assistant. State your sources. " * 6,
    "systemContext": {"company": "Example", "region": "EU", "budget": 1200},
    "availableWorkflows": {"research": ["collect", "compare", "write down"]},
    "availableTools": ["web_search", "calculator"],
    "availableSkills": ["market-research"],
    "memoryType": "session",
    "maxLoopCount": 10,
    "deepThinking": False,
    "agentMode": "default",
}


class Account(NamedTuple):
    """Who asks, and the agent that is asked for."""

    user_id: str
    token: str
    foreign_token: str
    agent_id: str

    def requests(self, *, foreign: bool) -> dict[str, Callable[[], bytes]]:
        """What is measured; `foreign` signs with the comparator's key instead of ours."""
        token = self.foreign_token if foreign else self.token
        one = request("GET", f"/api/agent/{self.agent_id}", token=token)
        many = request("GET", "/api/conversations?page=1&page_size=20", token=token)

        def create() -> bytes:
            body = {**AGENT, "name": f"Research Agent {uuid.uuid4()}"}
            return request("POST", "/api/agent/create", token=token, body=body)

        return {"get one": lambda: one, "list 20 of 10,000": lambda: many, "create": create}


class Copy(NamedTuple):
    """One server's own copy of the same data."""

    data: Path
    url: str

    def settings(self) -> dict[str, str]:
        return {"DATABASE_URL": self.url} if self.url else {}

    def engine_url(self) -> str:
        if self.url:
            return self.url.replace("postgresql:", "postgresql+psycopg:")
        return f"sqlite+aiosqlite:///{self.data / 'quartet.sqlite'}"


async def account(port: int) -> Account:
    """A user that is no administrator, with an agent."""

    async def log_in(name: str) -> str:
        credentials = {"username_or_email": name, "password": PASSWORD}
        answer = await ask(port, request("POST", "/api/auth/login", body=credentials))
        token: str = answer["access_token"]
        return token

    added = {"username": "bench", "password": PASSWORD, "role": "user"}
    administrator = await log_in("admin")
    await ask(port, request("POST", "/api/user/add", token=administrator, body=added))
    token = await log_in("bench")
    made = await ask(port, request("POST", "/api/agent/create", token=token, body=AGENT))
    claims = jwt.decode(token, options={"verify_signature": False})
    foreign = jwt.encode(claims, JWT_KEY, algorithm="HS256")
    return Account(claims["sub"], token, foreign, made["agent_id"])


async def fill(copy: Copy, who: Account) -> None:
    """The caller's 10,000 conversations, straight into the tables."""
    from sqlalchemy import insert

    from domain.ids import uuid7
    from storage.conversations import Conversation
    from storage.database import Statement, Unit
    from storage.opening import open_database
    from storage.schema import conversations

    add = Statement(insert(conversations))
    now = time.time()
    rows = [
        Conversation(
            id=uuid7(),
            owner_id=who.user_id,
            session_id=f"session_{number}",
            agent_id=who.agent_id,
            agent_name=AGENT["name"],
            title=f"What the market of region {number} looks like",
            message_count=4,
            user_count=2,
            agent_count=2,
            latest_run_id=None,
            latest_message="",
            latest_message_at=None,
            unread=0,
            attended_until=0.0,
            created_at=now - number * 60,
            updated_at=now - number * 60 + 5,
            version=1,
        )
        for number in range(CONVERSATIONS)
    ]

    def unit() -> Unit[None]:
        yield add.many([msgspec.structs.asdict(row) for row in rows])

    database = await open_database(copy.url, copy.data)
    await database.write(unit)
    await database.close()


def prepared(stack: ExitStack, folder: Path, *, url: str) -> tuple[Account, dict[str, Copy]]:
    """The same data once for every server; `url` is PostgreSQL's, or empty for SQLite."""
    original = Copy(folder / "original", url)
    with quartet(original.data, settings=original.settings()) as server:
        who = asyncio.run(account(server.port))
    asyncio.run(fill(original, who))
    copies = {}
    for number, name in enumerate(COUNTS):
        data = folder / str(number)
        shutil.copytree(original.data, data)
        copies[name] = Copy(data, f"{url}_{number}" if url else "")
        if url:
            database = url.rpartition("/")[2]
            administer(f"CREATE DATABASE {database}_{number} TEMPLATE {database}")
            stack.callback(administer, f"DROP DATABASE {database}_{number} WITH (FORCE)")
    if url:
        for copy in copies.values():
            administer("VACUUM ANALYZE", copy.url)
    return who, copies


def administer(statement: str, url: str = f"{SERVER}/postgres") -> list[Any]:
    """Run one statement and return its rows."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def started(name: str, copy: Copy) -> Process:
    """The server of that name over its copy."""
    if name.startswith("Quartet"):
        module = "scripts.benchmarks.without_events" if name != "Quartet" else "server"
        return quartet(copy.data, module=module, settings=copy.settings())
    port = free_port()
    variant = "tuned" if name.endswith("tuned") else "plain"
    command = ["-m", "scripts.benchmarks.fastapi_server", variant, str(port)]
    return Process([*command, copy.engine_url(), JWT_KEY], {}, port, "/api/health")


def backends(copy: Copy) -> float:
    """Seconds of CPU of PostgreSQL's processes that serve this copy, where they can be seen."""
    if not copy.url:
        return 0.0
    name = copy.url.rpartition("/")[2]
    rows = administer(f"SELECT pid FROM pg_stat_activity WHERE datname = '{name}'")
    spent = 0.0
    for (pid,) in rows:
        try:
            spent += cpu_of(pid)
        except OSError:
            return float("nan")
    return spent


async def alike(servers: dict[str, Process], who: Account) -> None:
    """Raise RuntimeError unless every server answers the reads with the same data and size."""
    for what in ("get one", "list 20 of 10,000"):
        answers = {}
        for name, server in servers.items():
            connection = await connect(server.port)
            make = who.requests(foreign=name.startswith("FastAPI"))[what]
            answers[name] = await connection.ask(make())
            connection.close()
        data = {name: json.loads(body)["data"] for name, body in answers.items()}
        for name, body in answers.items():
            if data[name] != data["Quartet"] or abs(len(body) - len(answers["Quartet"])) > 16:
                raise RuntimeError(f"{name} answers {what} otherwise: {body[:500]!r}")


class Figure(NamedTuple):
    """Microseconds per request: of the server, of PostgreSQL's backends, of the wall clock."""

    cpu: float
    backend: float
    wall: float


Figures = dict[tuple[str, int], dict[str, list[Figure]]]


async def measure(servers: dict[str, Process], copies: dict[str, Copy], who: Account) -> Figures:
    """(request, connections) → server → one figure per round, the servers interleaved."""
    asked = {name: who.requests(foreign=name.startswith("FastAPI")) for name in servers}
    cases = list(itertools.product(asked["Quartet"], CONNECTIONS))
    figures: Figures = {case: {name: [] for name in servers} for case in cases}
    await alike(servers, who)
    for name, server in servers.items():
        for make in asked[name].values():
            await load(server.port, make, 100, 8)
    for _ in range(ROUNDS):
        for what, connections in cases:
            for name, server in servers.items():
                if name == "Quartet without events" and what != "create":
                    continue
                count = COUNTS[name] if connections > 1 else COUNTS[name] // 2
                behind, begun = backends(copies[name]), time.perf_counter()
                spent = server.cpu
                await load(server.port, asked[name][what], count, connections)
                spent = server.cpu - spent
                took = time.perf_counter() - begun
                behind = backends(copies[name]) - behind
                figures[what, connections][name].append(
                    Figure(spent / count * 1e6, behind / count * 1e6, took / count * 1e6)
                )
    return figures


def table_of(title: str, figures: Figures) -> Table:
    """The figures, and the claims made of them."""
    table = Table(
        f"(b) Over a socket, {title}, authenticated: CPU µs per request",
        ["request", "connections", "server", "CPU µs", "× Quartet", "PostgreSQL µs", "wall µs"],
        note=f"CPU of the server's process tree; PostgreSQL's backends stand apart. Medians of "
        f"{ROUNDS} interleaved rounds; × is the median of per-round ratios, lowest–highest.",
    )
    for (what, connections), by_server in figures.items():
        ours = [figure.cpu for figure in by_server["Quartet"]]
        for name, rounds in by_server.items():
            if not rounds:
                continue
            cpu, backend, wall = (
                statistics.median(figure[at] for figure in rounds) for at in range(3)
            )
            times = ratios([figure.cpu for figure in rounds], ours)
            behind = f"{backend:.0f}" if title == "PostgreSQL" else "–"
            table.rows.append(
                [what, str(connections), name, f"{cpu:.0f}", spread(times), behind, f"{wall:.0f}"]
            )
            if name == "FastAPI":
                table.claim(
                    f"FastAPI / Quartet, {what}, {connections} connections",
                    statistics.median(times),
                    at_least=AT_LEAST[title],
                )
    return table


def compare(title: str, url: str) -> Table:
    """One database's table."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if url:
            name = url.rpartition("/")[2]
            administer(f"CREATE DATABASE {name}")
            stack.callback(administer, f"DROP DATABASE {name} WITH (FORCE)")
        who, copies = prepared(stack, folder, url=url)
        servers = {name: stack.enter_context(started(name, copy)) for name, copy in copies.items()}
        return table_of(title, asyncio.run(measure(servers, copies, who)))


def run() -> Iterator[Table]:
    """The tables of bench (b), each as soon as it stands."""
    yield compare("SQLite", "")
    yield compare("PostgreSQL", f"{SERVER}/quartet_bench_{uuid.uuid4().hex[:12]}")
