"""Clients of the sandbox contract, for tests over a real server."""

import contextlib
import itertools
import os
from collections.abc import Iterator
from typing import Any

import httpx

from tests.serving import Server

ADMIN = {"username": "admin", "password": "Administrator-password-1"}
SETTINGS = {
    "ADMIN_PASSWORD": ADMIN["password"],
    "DEFAULT_PROVIDER": "embedded/script",
    "LOGIN_RATE": "100000/minute",
    "READ_RATE": "100000/minute",
    "WRITE_RATE": "100000/minute",
    "CHAT_RATE": "100000/minute",
}
_NUMBERS = itertools.count(1)


def unique(prefix: str) -> str:
    """A name that no other test or process uses."""
    return f"{prefix}-{os.getpid()}-{next(_NUMBERS)}"


class Person:
    """An account with a client that sends as it. `user` is its profile."""

    def __init__(self, server: Server, route: str, body: dict[str, Any]) -> None:
        self.client = httpx.Client(base_url=f"{server.url}/sandbox", timeout=30)
        answer = self.client.post(f"/api/auth/{route}", json=body).json()
        assert answer["code"] == 200, answer
        self.user: dict[str, Any] = answer["data"]["user"]
        self.id: str = self.user["id"]
        self.token: str = answer["data"]["tokens"]["access_token"]
        self.client.headers["authorization"] = f"Bearer {self.token}"

    def data(self, method: str, path: str, **options: Any) -> Any:
        """What stands under `data` of a success. Raises AssertionError for anything else."""
        answer = self.client.request(method, path, **options)
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert body["code"] == 200, body
        return body["data"]


class People:
    """The accounts of one test."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._clients: list[httpx.Client] = []

    def _kept(self, person: Person) -> Person:
        self._clients.append(person.client)
        return person

    def admin(self) -> Person:
        return self._kept(Person(self.server, "login", ADMIN))

    def user(self, name: str = "") -> Person:
        body = {"username": name or unique("user"), "password": "password123"}
        return self._kept(Person(self.server, "register", body))

    def login(self, name: str) -> Person:
        body = {"username": name, "password": "password123"}
        return self._kept(Person(self.server, "login", body))

    def close(self) -> None:
        for client in self._clients:
            client.close()


@contextlib.contextmanager
def people_of(server: Server) -> Iterator[People]:
    """The accounts of a test, whose connections end with the block."""
    made = People(server)
    try:
        yield made
    finally:
        made.close()
