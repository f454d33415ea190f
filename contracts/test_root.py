"""The root of the server, which the contracts share: whose operation answers, and the documented
rows that are no operations: pages and websockets (rules, "Routing")."""

import json
from typing import Any

import pytest
import requests

from contracts.client import Reply
from contracts.conftest import URL, Worlds
from contracts.document import Row, channels, load, pages
from contracts.parts import PASSWORD, address, unique
from contracts.running import Started
from contracts.subjects import SUBJECTS

LOGIN, REGISTER = "/api/auth/login", "/api/auth/register"
SHARED = {LOGIN: "auth_login", REGISTER: "auth_register"}


def post(worlds: Worlds, name: str, path: str, content: bytes | str) -> Reply:
    """A request at the root, judged as that contract's."""
    world = worlds(name)
    response = requests.post(
        world.started.url + path,
        data=content,
        headers={"content-type": "application/json", **address()},
        timeout=20,
    )
    client = world.anonymous
    return client.judged(client.contract.operations[SHARED[path]], response)


@pytest.mark.parametrize(
    ("path", "body", "name", "status"),
    [
        (LOGIN, {"username_or_email": "nobody", "password": "x"}, "sage", 401),
        (LOGIN, {"username": "nobody", "password": "x"}, "sandbox", 401),
        (LOGIN, {"email": "nobody@example.com", "password": "x"}, "sandbox", 401),
        (LOGIN, {"password": "x"}, "sandbox", 401),
        (LOGIN, {"username_or_email": "a", "username": "b", "password": "x"}, "sage", 422),
        (LOGIN, {"username_or_email": None}, "sage", 422),
        (LOGIN, {"phonenum": "13800000000", "password": "x"}, "sage", 422),
        (LOGIN, {"user": {"username_or_email": "nested"}}, "sandbox", 422),
        (LOGIN, {}, "sandbox", 422),
        (LOGIN, [{"username": "nobody", "password": "x"}], "sage", 422),
        (LOGIN, "username", "sage", 422),
        (LOGIN, None, "sage", 422),
        (REGISTER, {"username": "a", "password": "x"}, "sandbox", 422),
        (REGISTER, {"password": PASSWORD}, "sandbox", 400),
        (REGISTER, {"verification_code": "123456"}, "sage", 422),
        (REGISTER, {"phonenum": "13800000000"}, "sage", 422),
        (REGISTER, {"phonenum": None, "username": "abc", "password": PASSWORD}, "sage", 422),
        (REGISTER, {}, "sandbox", 422),
        (REGISTER, [], "sage", 422),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict | list) else None,
)
def test_a_key_decides_whose_login_it_is(
    path: str, body: Any, name: str, status: int, worlds: Worlds
) -> None:
    """sage's for an object with one of sage's keys and for what is no object, else sandbox's."""
    reply = post(worlds, name, path, json.dumps(body))
    assert reply.status == status
    SUBJECTS[name].assert_refused(reply, soft=reply.http == 200)


@pytest.mark.parametrize("content", [b"", b"{", b'{"username": "a", "username": "b"', b"\xff"])
@pytest.mark.parametrize("path", SHARED)
def test_what_is_no_json_is_sages(path: str, content: bytes, worlds: Worlds) -> None:
    assert post(worlds, "sage", path, content).status == 400


def test_both_log_in_at_the_root(worlds: Worlds) -> None:
    """The same account by either body, and each answer is the contract's own."""
    body = {"username": unique("both"), "password": PASSWORD}
    made = post(worlds, "sandbox", REGISTER, json.dumps(body))
    assert made.data["user"]["username"] == body["username"]
    assert set(post(worlds, "sandbox", LOGIN, json.dumps(body)).data) == {"user", "tokens"}
    sages = {"username_or_email": body["username"], "password": PASSWORD}
    assert "expires_in" in post(worlds, "sage", LOGIN, json.dumps(sages)).data


def test_a_body_that_is_too_large_is_sages(worlds: Worlds) -> None:
    large = json.dumps({"username": "x" * (1024 * 1024)})
    assert post(worlds, "sage", LOGIN, large).status == 413


def test_each_other_path_is_one_contracts(started: Started) -> None:
    """Its errors have that contract's shape; what nobody knows has sage's."""
    for method, path, status, key in (
        ("GET", "/api/auth/session", 401, "message"),
        ("GET", "/api/auth/me", 401, "msg"),
        ("POST", "/api/auth/refresh", 422, "msg"),
        ("DELETE", "/api/auth/me", 405, "msg"),
        ("GET", LOGIN, 405, "message"),
        ("GET", "/api/nothing", 404, "message"),
        ("GET", "/sandbox/api/nothing", 404, "msg"),
        ("GET", "/sandbox/api/auth/session", 404, "msg"),
        ("GET", "/sage/api/auth/me", 404, "message"),
    ):
        json_ = {} if method == "POST" else None
        reply = requests.request(method, started.url + path, json=json_, timeout=20)
        assert (reply.status_code, key in reply.json()) == (status, True), (path, reply.text)


# --- rows that are no operations ----------------------------------------------------------------


@pytest.mark.parametrize("row", pages(), ids=lambda row: row.path)
def test_documented_pages(row: Row, started: Started) -> None:
    """At the root as under the contract's prefix."""
    at_root, own = (
        requests.get(f"{started.url}{prefix}{row.path}", timeout=20)
        for prefix in ("", f"/{row.contract}")
    )
    assert at_root.status_code == own.status_code == 200
    assert at_root.content == own.content
    kind = at_root.headers["content-type"].partition(";")[0]
    if row.path == "/openapi.json":
        assert kind == "application/json"
        assert at_root.json() == load(row.contract, URL).document
        return
    assert kind == "text/html"
    assert f"/{row.contract}/openapi.json" in at_root.text


def test_documented_websockets_are_channels(started: Started) -> None:
    """Each in the AsyncAPI document of its contract; until one is built there is none to ask."""
    for row in channels():
        answer = requests.get(f"{started.url}/{row.contract}/asyncapi.json", timeout=20)
        assert answer.status_code == 200, row
        addresses = [each["address"] for each in answer.json()["channels"].values()]
        assert row.path in addresses
