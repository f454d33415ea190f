"""A composed server in this process, with accounts and things that they own."""

import contextlib
import itertools
import json
import re
from collections.abc import AsyncIterator
from functools import cache
from pathlib import Path
from typing import Any

from contracts.document import Contract, Operation, load
from domain.caller import Caller
from server import composition
from server.settings import Settings
from tests.security import asgi
from tests.security.asgi import Reply
from tests.upstream.issuer import Issuer

PASSWORD = "correct horse battery"
NOWHERE = "0192f000-0000-7000-8000-000000000000"
CONTRACTS: dict[str, Contract] = {name: load(name) for name in ("sage", "sandbox")}
"""Those that are built."""
OPERATIONS = [each for contract in CONTRACTS.values() for each in contract.operations.values()]
_MOUNTED = tuple(f"/{name}/" for name in CONTRACTS)
OAUTH_BACK = "https://client.example.com/callback"
OAUTH_CLIENTS = [
    {"client_id": "asks", "redirect_uris": [OAUTH_BACK]},
    *(
        {"client_id": name, "redirect_uris": [OAUTH_BACK], "skip_consent": True}
        for name in ("spa", "other")
    ),
]
_NUMBERS = itertools.count(1)


@cache
def issuer() -> Issuer:
    """Where people of every place may log in."""
    return Issuer()


def unique(word: str) -> str:
    return f"{word}-{next(_NUMBERS)}"


def fresh_address() -> str:
    """A client that nobody has counted anything of."""
    number = next(_NUMBERS)
    return f"198.51.{100 + number // 250}.{1 + number % 250}"


class Account:
    """Somebody with a login session."""

    def __init__(self, place: "Place", user_id: str, username: str, token: str) -> None:
        self.place = place
        self.id = user_id
        self.username = username
        self.token = token

    async def ask(self, method: str, path: str, body: Any = None, **options: Any) -> Reply:
        options["headers"] = {"authorization": f"Bearer {self.token}", **options.get("headers", {})}
        return await self.place.ask(method, path, body=body, **options)

    def caller(self, role: Any = "operator") -> Caller:
        return Caller(user_id=self.id, role=role, username=self.username)


class Place:
    """One composition. `agent`, `provider`, `session`, `conversation`, `run` are the owner's."""

    def __init__(self, started: composition.Started, data: Path) -> None:
        self.started = started
        self.application = started.application
        self.quartet = started.quartet
        self.identity = started.quartet.identity
        self.database = started.quartet.users._database
        self.tokens = started.quartet.identity._tokens
        self.data = data
        self.root = Caller(user_id="", role="admin")

    async def ask(self, method: str, path: str, **options: Any) -> Reply:
        """A whole request. A path that names no contract is one of sage's."""
        return await asgi.ask(self.application, method, _mounted(path), **options)

    def stream(self, account: Account, method: str, path: str, **options: Any) -> Any:
        headers = {"authorization": f"Bearer {account.token}"}
        return asgi.exchange(self.application, method, _mounted(path), headers=headers, **options)

    async def account(self, word: str, role: Any = "operator") -> Account:
        """A new account, logged in from an address of its own."""
        name = unique(word)
        user = await self.quartet.users.add(
            self.root, username=name, password=PASSWORD, email=f"{name}@example.com", role=role
        )
        return await self.again(Account(self, user.id, name, ""))

    async def again(self, account: Account) -> Account:
        """The same account in a new login session."""
        login = await self.identity.login(account.username, PASSWORD, address=fresh_address())
        return Account(self, account.id, account.username, login.access_token)

    async def populate(self) -> "Place":
        self.admin = await self.account("admin", "admin")
        self.owner = await self.account("owner")
        self.stranger = await self.account("stranger")
        self.viewer = await self.account("viewer", "viewer")
        made = await self.owner.ask("POST", "/api/agent/create", {"name": "theirs"})
        self.agent = made.data["agent_id"]
        provider = {"base_url": "https://8.8.8.8/v1", "api_keys": ["sk-owner"], "model": "m"}
        made = await self.owner.ask("POST", "/api/llm-provider/create", provider)
        self.provider = made.data["provider_id"]
        self.session = unique("session")
        said = {"messages": [{"role": "user", "content": "hello"}], "session_id": self.session}
        async with self.stream(self.owner, "POST", "/api/web-stream", body=said) as stream:
            headers = {name.lower(): value for name, value in stream.headers}
            assert stream.status == 200, await stream.rest()
            self.run = headers[b"x-run-id"].decode()
            await stream.rest()
        shown = await self.owner.ask("GET", f"/api/conversations/{self.session}/messages")
        self.conversation = shown.data["conversation_id"]
        return self

    def mailed(self, address: str) -> str:
        """The newest code for an address, from the outbox."""
        for file in sorted((self.data / "outbox").iterdir(), key=lambda one: -one.stat().st_mtime):
            text = file.read_text()
            if address in text and (found := re.search(r"\b\d{6}\b", text.split("\n\n", 1)[1])):
                return found[0]
        raise AssertionError(f"no code for {address}")


@contextlib.asynccontextmanager
async def opened(data: Path, **settings: Any) -> AsyncIterator[Place]:
    """A composition over a data directory, as shipped but for what a test cannot wait for."""
    given = {
        "data": data,
        "database_url": "",
        "redis_url": "",
        "object_store_url": "",
        "jaeger_url": "http://127.0.0.1:9/jaeger",
        "admin_password": "Administrator-password-1",
        "default_provider": "embedded/script",
        "login_rate": "100000/minute",
        "send_code_rate": "100000/minute",
        "chat_rate": "100000/minute",
        "read_rate": "100000/minute",
        "write_rate": "100000/minute",
        "oauth_clients": json.dumps(OAUTH_CLIENTS),
        "upstream_providers": json.dumps([issuer().openid(), issuer().openid(id="second")]),
        "outbound_allow": "oauth=127.0.0.1",
        **settings,
    }
    started = await composition.start(Settings(_env_file=None, **given))
    try:
        yield Place(started, data)
    finally:
        await started.close()


def _mounted(path: str) -> str:
    return path if path.startswith(_MOUNTED) else f"/sage{path}"


def path_of(operation: Operation, **values: str) -> str:
    """The operation's path with its parameters filled in; what is not given exists nowhere."""
    path = re.sub(r"\{(\w+)\}", lambda m: values.get(m[1], NOWHERE), operation.path)
    return f"/{operation.contract}{path}"


BODIES: dict[str, Any] = {
    "agent_replace": {"name": "taken"},
    "agent_set_grants": {"user_ids": []},
    "conversation_rename": {"title": "taken"},
    "llm_provider_update": {"name": "taken"},
    "session_chat": {},
    "session_interrupt": {},
    "session_read_file": {"filepath": "a"},
    "session_read_shell": {"session_id": "a"},
}
"""A body for each operation that has one and names an object in its path."""
