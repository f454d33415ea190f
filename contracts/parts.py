"""What the suite's pictures of the contracts have in common: accounts, requests, and the ways to
send them. sage.py, sandbox.py, … say the rest."""

import base64
import itertools
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

from contracts.client import ABSENT, Client, Form
from contracts.running import Started

PASSWORD = "StrongPassword123"
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
"""A picture of one pixel."""
NUMBERS = itertools.count(1)
RUN = os.urandom(3).hex()


def unique(prefix: str) -> str:
    """A name that no other test, process or run uses."""
    return f"{prefix}-{RUN}-{next(NUMBERS)}"


def address() -> dict[str, str]:
    """A client address of its own, for servers that trust this one as a proxy: what one test gets
    wrong locks no other out."""
    number = next(NUMBERS)
    return {"x-forwarded-for": f"10.{os.getpid() % 256}.{number // 256 % 256}.{number % 256}"}


class Account(NamedTuple):
    """An account with its login. `client` sends as it."""

    user_id: str
    username: str
    password: str
    client: Client


class Request(NamedTuple):
    """The parts of a request that a test may change one by one."""

    operation_id: str
    path: Mapping[str, str] = {}
    query: Mapping[str, Any] = {}
    body: Any = ABSENT
    form: Form | None = None
    fields: Mapping[str, str] | None = None
    headers: Mapping[str, str] = {}


class World(ABC):
    """One contract of a server, its administrator, and accounts made for the tests."""

    spent: ClassVar[frozenset[str]] = frozenset()
    """Operations that end the login they are called with."""

    def __init__(self, started: Started, anonymous: Client) -> None:
        self.started = started
        self.anonymous = anonymous
        self.admin = self.login(*started.admin)
        self.owner = self.account("owner")
        self.stranger = self.account("stranger")
        self.viewer = self.new_viewer()

    @abstractmethod
    def login_request(self, username: str, password: str) -> Request:
        """What logs an account in."""

    @abstractmethod
    def token(self, username: str, password: str) -> str:
        """The access token of a new login. Raises AssertionError when that fails."""

    @abstractmethod
    def user_id(self, client: Client) -> str:
        """Whose token a client holds."""

    @abstractmethod
    def create(self, username: str, **columns: str) -> None:
        """Make an account. `columns` are set behind the server's back."""

    @abstractmethod
    def request(self, operation_id: str, account: Account) -> Request:
        """A request of the account's that the operation answers with its success."""

    @abstractmethod
    def makers(self) -> Mapping[str, Callable[[Account], str]]:
        """Name of an id in a path or a body → what makes a thing of the account's own for it."""

    def granted(self, account: Account) -> Client:
        """Holds what the account granted to an OAuth2 client, where the contract has those."""
        raise LookupError("nothing of this contract is for OAuth2 clients")

    def login(self, username: str, password: str) -> Account:
        """Log in. Raises AssertionError when that fails."""
        client = self.anonymous.holding(self.token(username, password))
        return Account(self.user_id(client), username, password, client)

    def account(self, prefix: str = "someone", **columns: str) -> Account:
        """A new account, logged in."""
        username = unique(prefix)
        self.create(username, **columns)
        return self.login(username, PASSWORD)

    def new_viewer(self) -> Account:
        """An account that may read: a new one, or the one that was named."""
        if self.started.data is None:
            return self.login(*self.started.viewer)
        return self.account("viewer", role="viewer")

    def left(self) -> Client:
        """Holds the token of an account that was made inactive after its login."""
        username = unique("left")
        self.create(username)
        token = self.token(username, PASSWORD)
        self.started.set_account(username, status="inactive")
        return self.anonymous.holding(token)


Making = Callable[[Any, Account], Request]
"""Makes a request in a world (of the contract's own class)."""


def on(operation_id: str, name: str, make: Callable[[Any, Account], str], **more: Any) -> Making:
    """A request to a thing of the caller's own, made for it."""
    return lambda world, account: Request(operation_id, {name: make(world, account)}, **more)


def plain(operation_id: str, **more: Any) -> Making:
    """The same request each time."""
    return lambda world, account: Request(operation_id, **more)


def one(reply: Any, key: str) -> str:
    """A value of a success's data."""
    assert reply.success, reply
    value: str = reply.data[key]
    return value


def send(client: Client, request: Request, **changes: Any) -> Any:
    """Send a request, with other headers, or with parts of it changed."""
    headers = {**address(), **request.headers, **changes.pop("headers", {})}
    changed = request._replace(**changes)
    return client.call(
        changed.operation_id,
        path=changed.path,
        query=changed.query,
        body=changed.body,
        form=changed.form,
        fields=changed.fields,
        headers=headers,
    )
