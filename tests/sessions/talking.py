"""Clients of a real server, and what they read of its server-sent events."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx2

from tests.conftest import POSTGRES, administrator
from tests.serving import Server, serving

ADMIN_PASSWORD = "a long enough password"
PASSWORD = "password of a user"
SETTINGS = {
    "CHAT_RATE": "1000000/minute",
    "READ_RATE": "1000000/minute",
    "WRITE_RATE": "1000000/minute",
    "LOGIN_RATE": "1000000/minute",
    "SSE_PER_USER": "200",
    "HEARTBEAT_S": "1",
    "OUTBOUND_ALLOW": "mcp=127.0.0.1/32,a2a=127.0.0.1/32,fetch=127.0.0.1/32",
    "ADMIN_PASSWORD": ADMIN_PASSWORD,
    "DEFAULT_PROVIDER": "embedded/script",
}
SOON_S = 20.0
"""How long a test waits for what has to happen."""


def script(*steps: Mapping[str, Any]) -> str:
    """A message that tells embedded/script what to do."""
    return "script:" + json.dumps(steps)


def plan(*steps: str, **fields: str) -> dict[str, Any]:
    """The step by which embedded/script answers with a plan; a step may be a script of its own."""
    drawn = {"title": "", "message": "", "closing": "All is done.", **fields}
    return {"json": {**drawn, "steps": [{"description": step} for step in steps]}}


class Events:
    """The events of one stream, as they come."""

    def __init__(self, answer: httpx2.Response) -> None:
        self.answer = answer
        self.comments: list[str] = []
        self._lines = answer.aiter_lines()

    async def next(self) -> tuple[str, dict[str, Any]] | None:
        """The next event; None at the end. A stream that is cut raises."""
        name = ""
        async for line in self._lines:
            if line.startswith("event: "):
                name = line[7:]
            elif line.startswith("data: "):
                return name, json.loads(line[6:])
            elif line.startswith(":"):
                self.comments.append(line)
        return None

    async def until(self, name: str, **fields: Any) -> list[tuple[str, dict[str, Any]]]:
        """Events up to the first of that name whose data has these fields."""
        found = []
        async with asyncio.timeout(SOON_S):
            while (event := await self.next()) is not None:
                found.append(event)
                if event[0] == name and fields.items() <= event[1].items():
                    return found
        raise AssertionError(f"no {name} {fields} in {found}")

    async def rest(self) -> list[tuple[str, dict[str, Any]]]:
        """Every event to the end."""
        found = []
        async with asyncio.timeout(SOON_S):
            while (event := await self.next()) is not None:
                found.append(event)
        return found


class Account:
    """A logged-in account."""

    def __init__(self, client: httpx2.AsyncClient, user_id: str, name: str) -> None:
        self.client = client
        self.id = user_id
        self.name = name

    async def ask(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        """What stands under `data` of a success."""
        answer = await self.client.request(method, path, json=body, **options)
        assert answer.status_code == 200, answer.text
        assert answer.json()["code"] == 200, answer.text
        return answer.json()["data"]

    async def create(self) -> str:
        made: str = (await self.ask("POST", "/sandbox/api/sessions"))["session_id"]
        return made

    async def sessions(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.ask("GET", "/sandbox/api/sessions"))["sessions"]
        return found

    async def detail(self, session: str) -> dict[str, Any]:
        found: dict[str, Any] = await self.ask("GET", f"/sandbox/api/sessions/{session}")
        return found

    @asynccontextmanager
    async def chatting(
        self, session: str, said: str | None = None, *, headers: Any = None, **fields: Any
    ) -> AsyncIterator[Events]:
        """A chat that the block reads."""
        body = fields if said is None else {"message": said, **fields}
        path = f"/sandbox/api/sessions/{session}/chat"
        async with self.client.stream("POST", path, json=body, headers=headers) as answer:
            assert answer.status_code == 200, await answer.aread()
            yield Events(answer)

    async def chat(
        self, session: str, said: str | None = None, **fields: Any
    ) -> list[tuple[str, dict[str, Any]]]:
        """A whole chat."""
        async with self.chatting(session, said, **fields) as events:
            return await events.rest()

    @asynccontextmanager
    async def following(self) -> AsyncIterator[Events]:
        """The list of sessions as it changes."""
        async with self.client.stream("POST", "/sandbox/api/sessions/stream", json={}) as answer:
            assert answer.status_code == 200, await answer.aread()
            yield Events(answer)

    async def content(self, session: str, path: str) -> str:
        """What a file of the session's workspace holds, once it is there."""
        route = f"/sandbox/api/sessions/{session}/file"
        async with asyncio.timeout(SOON_S):
            while True:
                answer = await self.client.post(route, json={"filepath": path})
                if answer.status_code == 200 and (held := answer.json()["data"]["content"]):
                    return str(held)
                await asyncio.sleep(0.05)

    async def eventually(self, session: str, **fields: Any) -> dict[str, Any]:
        """The session's row in the list once it has these fields."""
        row: dict[str, Any] = {}
        async with asyncio.timeout(SOON_S):
            while True:
                row = next(one for one in await self.sessions() if one["session_id"] == session)
                if fields.items() <= row.items():
                    return row
                await asyncio.sleep(0.05)


class Place:
    """A server and the accounts that its tests make."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._clients: list[httpx2.AsyncClient] = []
        self._admin: Account | None = None

    async def account(self) -> Account:
        """A new account."""
        name = f"u{uuid.uuid4().hex[:12]}"
        client = self._client()
        answer = await client.post(
            "/sandbox/api/auth/register", json={"username": name, "password": PASSWORD}
        )
        return self._known(client, answer.json()["data"], name)

    async def again(self, account: Account) -> Account:
        """The account after another login."""
        client, told = self._client(), {"username": account.name, "password": PASSWORD}
        answer = await client.post("/sandbox/api/auth/login", json=told)
        return self._known(client, answer.json()["data"], account.name)

    async def admin(self) -> Account:
        if self._admin is None:
            client = self._client()
            answer = await client.post(
                "/sandbox/api/auth/login", json={"username": "admin", "password": ADMIN_PASSWORD}
            )
            self._admin = self._known(client, answer.json()["data"], "admin")
        return self._admin

    def _client(self) -> httpx2.AsyncClient:
        client = httpx2.AsyncClient(base_url=self.server.url, timeout=30)
        self._clients.append(client)
        return client

    def _known(self, client: httpx2.AsyncClient, data: dict[str, Any], name: str) -> Account:
        client.headers["authorization"] = f"Bearer {data['tokens']['access_token']}"
        return Account(client, data["user"]["id"], name)

    async def close(self) -> None:
        for client in self._clients:
            await client.aclose()


@contextmanager
def database(dialect: str) -> Iterator[dict[str, str]]:
    """The environment that names a database of its own."""
    if dialect == "sqlite":
        yield {}
        return
    name = f"quartet_test_{uuid.uuid4().hex[:12]}"
    with administrator() as admin:
        admin.execute(f"CREATE DATABASE {name}".encode())
    yield {"DATABASE_URL": f"{POSTGRES}/{name}".replace("postgresql://", "postgresql+psycopg://")}
    with administrator() as admin:
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@contextmanager
def served(data: Path, dialect: str, given: Mapping[str, str] | None = None) -> Iterator[Server]:
    """A server over a database of its own."""
    with (
        database(dialect) as named,
        serving(data, given={**SETTINGS, **named, **(given or {})}) as server,
    ):
        yield server


def names(events: list[tuple[str, dict[str, Any]]]) -> list[str]:
    """The names of events, repetitions left out."""
    found: list[str] = []
    for name, _ in events:
        if not found or found[-1] != name:
            found.append(name)
    return found


def said(events: list[tuple[str, dict[str, Any]]], role: str = "assistant") -> list[str]:
    """The whole messages of a role."""
    return [
        data["message"]
        for name, data in events
        if name == "message" and data["role"] == role and not data["partial"]
    ]
