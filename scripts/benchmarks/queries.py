"""CPU per query: our executors beside SQLAlchemy's async engine and the bare driver.

    .venv/bin/python scripts/benchmarks/queries.py [rounds]

A point read of ten columns and a write of one row, one at a time and 32 at a time. CPU is user and
system time of this process; the database server's is not counted. Needs PostgreSQL at
TEST_DATABASE_URL (postgresql://postgres@127.0.0.1:5432).
"""

import asyncio
import os
import resource
import statistics
import sys
import tempfile
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import msgspec
import psycopg
import uvloop
from sqlalchemy import bindparam, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from storage.database import Database, Statement, Unit
from storage.migrating import migrate
from storage.opening import open_database
from storage.schema import agents, leases, users

SERVER = os.environ.get("TEST_DATABASE_URL", "postgresql://postgres@127.0.0.1:5432").rstrip("/")
COLUMNS = (
    *("id", "name", "description", "system_prefix", "memory_type", "deep_thinking"),
    *("multimodal", "created_at", "updated_at", "version"),
)


class Agent(msgspec.Struct, gc=False):
    id: str
    name: str
    description: str | None
    system_prefix: str | None
    memory_type: str | None
    deep_thinking: bool
    multimodal: bool
    created_at: float
    updated_at: float
    version: int


SELECT = select(*(agents.c[name] for name in COLUMNS)).where(
    agents.c.owner_id == bindparam("owner"), agents.c.id == bindparam("which")
)
FIND = Statement(SELECT, into=Agent)
ADD = Statement(insert(leases))
USER = {
    **{"id": "ada", "username": "ada", "username_key": "ada", "role": "operator"},
    **{"created_at": 1.0, "updated_at": 1.0},
}
AGENT = {
    **{
        "id": "a",
        "owner_id": "ada",
        "name": "n",
        "description": "d" * 80,
        "memory_type": "session",
    },
    **{"system_prefix": "p" * 200, "deep_thinking": False, "multimodal": True},
    **{"multi_agent": False, "created_at": 1.0, "updated_at": 1.0},
}
WHO = {"owner": "ada", "which": "a"}


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def measured(act: Callable[[], Awaitable[Any]], count: int, at_once: int) -> float:
    """Microseconds of CPU per call."""

    async def worker() -> None:
        for _ in range(count // at_once):
            await act()

    await act()
    began = cpu()
    await asyncio.gather(*(worker() for _ in range(at_once)))
    return (cpu() - began) / count * 1e6


def lease() -> dict[str, Any]:
    return {"name": uuid.uuid4().hex, "holder": "h", "until": 1.0}


def acts_of(database: Database) -> dict[str, Callable[[], Awaitable[Any]]]:
    def unit() -> Unit[None]:
        yield ADD(**lease())

    return {
        "read": lambda: database.read_one(FIND(**WHO)),
        "write": lambda: database.write(unit),
    }


def acts_of_engine(engine: AsyncEngine) -> dict[str, Callable[[], Awaitable[Any]]]:
    async def read() -> Agent:
        async with engine.connect() as connection:
            row = (await connection.execute(SELECT, WHO)).one()
        return Agent(*row)

    async def write() -> None:
        async with engine.begin() as connection:
            await connection.execute(insert(leases), lease())

    return {"read": read, "write": write}


async def compare(url: str, data: Path, engine_url: str, rounds: int) -> None:
    await migrate(url, data)
    database = await open_database(url, data, connections=8)
    engine = create_async_engine(engine_url, pool_size=8, max_overflow=0)

    def seed() -> Unit[None]:
        yield Statement(insert(users))(**USER)
        yield Statement(insert(agents))(**AGENT)

    await database.write(seed)
    for what in ("read", "write"):
        for at_once in (1, 32):
            ours, theirs = acts_of(database)[what], acts_of_engine(engine)[what]
            counts = (3200, 640) if what == "read" else (1280, 320)
            pairs = [
                (
                    await measured(ours, counts[0], at_once),
                    await measured(theirs, counts[1], at_once),
                )
                for _ in range(rounds)
            ]
            mine = statistics.median(pair[0] for pair in pairs)
            other = statistics.median(pair[1] for pair in pairs)
            ratio = statistics.median(pair[1] / pair[0] for pair in pairs)
            print(
                f"{database.dialect:<11} {what:<6} {at_once:>3} at once"
                f" {mine:>8.0f} µs   SQLAlchemy async {other:>6.0f} µs   {ratio:>5.1f} ×",
                flush=True,
            )
    await engine.dispose()
    await database.close()


async def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as data:
        file = Path(data) / "quartet.sqlite"
        await compare("", Path(data), f"sqlite+aiosqlite:///{file}", rounds)
    name = f"quartet_bench_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(f"{SERVER}/postgres", autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}".encode())
        try:
            url = f"{SERVER}/{name}"
            engine_url = url.replace("postgresql:", "postgresql+psycopg:")
            await compare(url, Path(), engine_url, rounds)
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5))
