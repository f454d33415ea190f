"""Accounts over a real database and event log, with a mailbox and a clock that tests move."""

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from domain.accounts import Accounts, accounts
from domain.caller import Caller
from domain.identity.clock import Clock
from domain.identity.identity import Login
from domain.identity.passwords import Passwords
from domain.identity.policy import IdentityPolicy
from storage.database import Database
from storage.events import EventLog
from storage.users import User
from storage.wakeups import OneProcess, Polling
from tests.storage.events.redis_server import RedisServer

KEY = b"0123456789abcdef0123456789ABCDEF-for-tests"
ISSUER = "http://127.0.0.1:8000"
PASSWORD = "correct horse battery"
ADMIN = Caller(user_id="the-admin", role="admin", username="root")


class Moved(Clock):
    """A clock that can be set forward and back."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead = 0.0

    def __call__(self) -> float:
        return super().__call__() + self.ahead


class Mailbox:
    """Keeps what is sent; `fails` makes it refuse."""

    def __init__(self) -> None:
        self.mails: list[tuple[str, str, str]] = []
        self.fails: Exception | None = None

    async def __call__(self, to: str, subject: str, text: str) -> None:
        if self.fails is not None:
            raise self.fails
        self.mails.append((to, subject, text))

    def code(self, to: str) -> str:
        """The digits of the last mail to an address; "" when that mail holds none."""
        text = [text for address, _, text in self.mails if address == to][-1]
        return next((word for word in _words(text) if len(word) == 6 and word.isdigit()), "")


def _words(text: str) -> list[str]:
    return "".join(c if c.isascii() and c.isalnum() else " " for c in text).split()


class World:
    """One process with accounts."""

    def __init__(self, database: Database, log: EventLog, parts: Accounts, clock: Moved) -> None:
        self.database = database
        self.log = log
        self.clock = clock
        self.identity = parts.identity
        self.registration = parts.registration
        self.users = parts.users
        self.system = parts.system
        self.mailbox = Mailbox()

    async def add(self, username: str, **fields: Any) -> User:
        return await self.users.add(ADMIN, username=username, password=PASSWORD, **fields)

    async def login(self, username: str, password: str = PASSWORD, **fields: Any) -> Login:
        fields.setdefault("address", "192.0.2.1")
        return await self.identity.login(username, password, **fields)

    async def events(self, stream: str) -> list[tuple[str, dict[str, Any]]]:
        await self.identity._failures.flush()
        return [(r.type, json.loads(r.payload)) for r in await self.log.read(stream)]


MakeWorld = Callable[..., Any]


@pytest.fixture
async def make_world(database: Database) -> AsyncIterator[MakeWorld]:
    """Makes processes over one database; settings of the policy by name."""
    worlds: list[World] = []

    async def make(
        *,
        alone: bool = True,
        redis_url: str = "",
        passwords: Passwords | None = None,
        **policy: Any,
    ) -> World:
        log = EventLog(database, OneProcess() if alone else Polling())
        clock = Moved()
        box: list[World] = []

        async def send(to: str, subject: str, text: str) -> None:
            await box[0].mailbox(to, subject, text)

        parts = accounts(
            database,
            log,
            key=KEY,
            issuer=ISSUER,
            policy=msgspec.structs.replace(IdentityPolicy(), **policy),
            send=send,
            redis_url=redis_url,
            passwords=passwords or Passwords(memory_kib=64, passes=1),
            clock=clock,
        )
        world = World(database, log, parts, clock)
        box.append(world)
        worlds.append(world)
        await world.identity.start()
        return world

    yield make
    for world in worlds:
        await world.identity.close()
        await world.log.close()


@pytest.fixture
async def world(make_world: MakeWorld) -> World:
    return await make_world()


@pytest.fixture
async def redis_server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    """A Redis of the test's own, which it may kill."""
    server = RedisServer(tmp_path)
    await server.start()
    yield server
    server.kill()
