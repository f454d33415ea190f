"""Which contract answers at the root of a port, and what its errors look like."""

from typing import Any

import httpx
import pytest

from server.app import Application
from server.dispatch import Dispatch, Root, prefers_sage
from server.lane.contract import Contract, Routes
from server.lane.shapes import SHAPES
from tests.lane.conftest import around
from tests.lane.shop import OK, PUBLIC, json_body, operation


def named(name: str, shape: str, *paths: tuple[str, str]) -> Contract:
    """A contract whose operations answer with its own name."""

    def handler(operation_id: str, takes_body: bool) -> Any:
        async def with_body(body: Any) -> Any:
            return {"by": name, "operation": operation_id, "body": body}

        async def without_body() -> Any:
            return {"by": name, "operation": operation_id}

        return with_body if takes_body else without_body

    document: dict[str, Any] = {
        "openapi": "3.0.3",
        "info": {"title": name, "version": "1"},
        "paths": {},
        "components": {"securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}}},
    }
    handlers = {}
    for method, path in paths:
        operation_id = f"{method}{path.replace('/', '_')}"
        body = {"requestBody": json_body({})} if method == "post" else {}
        declared = operation(operation_id, security=PUBLIC, responses={"200": OK}, **body)
        document["paths"].setdefault(path, {})[method] = declared
        handlers[operation_id] = handler(operation_id, bool(body))
    return Contract(
        name,
        document,
        Routes(handlers, {}, {}, frozenset()),
        around(check_responses=False),
        shape=SHAPES[shape],
    )


@pytest.fixture
def app() -> Application:
    shared = (("post", "/api/auth/login"), ("get", "/api/things"))
    sage = named("sage", "sage", *shared[:1], ("get", "/api/sage-only"))
    sandbox = named("sandbox", "assistant", *shared, ("put", "/api/sage-only"))
    assistant = named("assistant", "assistant", ("get", "/api/sage-only"))
    contracts = {"sage": sage, "sandbox": sandbox, "assistant": assistant}
    main = Root([sage, sandbox], SHAPES["sage"])
    dispatch = Dispatch(
        roots={8000: main, 3005: Root([assistant], SHAPES["assistant"])},
        default_root=main,
        contracts=contracts,
        pages={},
        cors_origins=frozenset(),
        root_path="",
        json_limit=200,
    )
    return Application(contracts, dispatch)


def at(app: Application, port: int = 8000) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app), base_url=f"http://here.test:{port}"
    )


@pytest.mark.parametrize(
    ("body", "by"),
    [
        ({"username_or_email": "a", "password": "b"}, "sage"),
        ({"email": "a@b.c", "verification_code": "1"}, "sage"),
        ({"phonenum": "1"}, "sage"),
        ({"email": "a@b.c", "password": "b"}, "sandbox"),
        ({}, "sandbox"),
        ([], "sage"),
        ("text", "sage"),
    ],
)
async def test_login_at_the_root_goes_by_a_key_of_the_body(
    app: Application, body: Any, by: str
) -> None:
    async with at(app) as client:
        answer = await client.post("/api/auth/login", json=body)
        assert answer.json()["by"] == by
        assert answer.json()["body"] == body
        under = await client.post("/sandbox/api/auth/login", json=body)
        assert under.json()["by"] == "sandbox"


async def test_a_shared_body_is_limited_and_what_is_no_json_is_sages(app: Application) -> None:
    async with at(app) as client:
        headers = {"content-type": "application/json"}
        large = await client.post("/api/auth/login", content=b" " * 201, headers=headers)
        assert large.status_code == 413
        broken = await client.post("/api/auth/login", content=b"{", headers=headers)
        assert (broken.status_code, broken.json()["code"]) == (400, 400)
    assert prefers_sage(b"\xff")


async def test_a_path_belongs_to_the_contract_that_has_it(app: Application) -> None:
    async with at(app) as client:
        assert (await client.get("/api/things")).json()["by"] == "sandbox"
        assert (await client.get("/api/sage-only")).json()["by"] == "sage"
    async with at(app, 3005) as client:
        assert (await client.get("/api/sage-only")).json()["by"] == "assistant"
        assert (await client.get("/sage/api/sage-only")).json()["by"] == "sage"


async def test_405_names_the_methods_of_all_in_the_first_contracts_shape(
    app: Application,
) -> None:
    async with at(app) as client:
        answer = await client.delete("/api/sage-only")
        assert answer.status_code == 405
        assert answer.headers["allow"] == "GET, HEAD, OPTIONS, PUT"
        assert answer.json().keys() == {"code", "message", "data", "timestamp"}
        alone = await client.delete("/sandbox/api/sage-only")
        assert alone.headers["allow"] == "OPTIONS, PUT"
        assert alone.json().keys() == {"error"}


async def test_a_websocket_to_nowhere_is_refused(app: Application) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    await app({"type": "websocket", "path": "/ws", "headers": []}, receive, send)
    assert [m["type"] for m in sent] == ["websocket.close"]
