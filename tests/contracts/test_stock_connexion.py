"""The lane against stock Connexion: the same requests, the same document, the same handlers.

Status and body of successes and the class of an error's status must agree (rules, "Routing").
DIFFERENCES lists what does not and why; it cleans itself.
"""

import copy
import inspect
import json
import logging
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import connexion
import httpx
import pytest

from server.app import GENERATED
from server.lane.contract import Routes, load_document
from server.lane.rates import Rates
from tests.lane.conftest import CALLERS, application, contract

SEED = 20261123
PER_OPERATION = 12
TOKEN = {"authorization": "Bearer root"}
HERE = __name__


class Request(NamedTuple):
    """A request, and what makes it special ("" for one that should succeed)."""

    kind: str
    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = MappingProxyType({})
    content: bytes | None = None


DIFFERENCES = {
    "key twice": "stock takes the last of two equal keys silently",
    "number with an underscore": "stock converts with int(), which takes 1_0",
    "number with blanks": "stock converts with int(), which takes blanks",
    "not UTF-8": "stock answers 500 where the text is no UTF-8",
    "NUL in a text": "stock lets NUL through to the store",
    "lone surrogate": "stock lets a lone surrogate through to the store",
    "unacceptable": "stock does not look at Accept",
    "slash at the end": "the lane serves both spellings directly",
    "idempotency key too long": "stock does not check a header's length",
}
"""What the two do differently, by kind of request."""


# --- the two applications ---------------------------------------------------------------------


def known(token: str) -> dict[str, str] | None:
    """Stock's bearer check: the lane's table of callers."""
    return {"sub": token} if token in CALLERS else None


def known_cookie(value: str, required_scopes: Any = None) -> dict[str, str] | None:
    return known(value.removeprefix("s-"))


def document() -> dict[str, Any]:
    """sage's bundle, less what is no JSON on either side, what redirects, and what stock cannot
    bind."""
    made = copy.deepcopy(load_document(GENERATED / "sage"))
    made["servers"] = [{"url": "/sage"}]
    for path, item in list(made["paths"].items()):
        for method, operation in list(item.items()):
            answers = operation["responses"].get("200", {}).get("content", {})
            bodies = operation.get("requestBody", {}).get("content", {"application/json": {}})
            redirects = next(iter(operation["responses"])) != "200"
            if redirects or "application/json" not in answers or "application/json" not in bodies:
                del item[method]
        if not item:
            del made["paths"][path]
    schemes = made["components"]["securitySchemes"]
    schemes["bearer"]["x-bearerInfoFunc"] = f"{HERE}.known"
    schemes["session_cookie"]["x-apikeyInfoFunc"] = f"{HERE}.known_cookie"
    return made


DOCUMENT = document()


def followed(node: Any) -> Any:
    while isinstance(node, dict) and "$ref" in node:
        found: Any = DOCUMENT
        for part in node["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        node = found
    return node


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in DOCUMENT["paths"].items():
        for method, operation in item.items():
            yield method, path, operation


def parameters(operation: dict[str, Any], place: str) -> list[dict[str, Any]]:
    found = [followed(each) for each in operation.get("parameters", ())]
    return [each for each in found if each["in"] == place]


def lane_handler(operation: dict[str, Any]) -> Any:
    """Answers with what it was given; the lane binds it by name."""

    async def handler(**values: Any) -> Any:
        return {"operation": operation["operationId"], "given": given(values)}

    names = [p["name"] for place in ("path", "query") for p in parameters(operation, place)]
    names += ["body"] if "requestBody" in operation else []
    handler.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in names]
    )
    return handler


def stock_handler(operation: dict[str, Any]) -> Any:
    """The same for stock, which passes everything to `**values`."""
    if "requestBody" in operation:

        async def with_body(body: Any = None, **values: Any) -> Any:
            return {
                "operation": operation["operationId"],
                "given": given({**values, "body": body}),
            }

        return with_body

    async def handler(**values: Any) -> Any:
        return {"operation": operation["operationId"], "given": given(values)}

    return handler


def given(values: dict[str, Any]) -> dict[str, Any]:
    """What both can know: stock leaves absent parameters out, the lane gives None."""
    own = {"user", "token_info"}
    return {k: v for k, v in sorted(values.items()) if v is not None and k not in own}


class ByOperation(connexion.Resolver):
    """operationId → the stock handler."""

    def __init__(self) -> None:
        super().__init__()
        self._handlers = {op["operationId"]: stock_handler(op) for _, _, op in operations()}

    def resolve_function_from_operation_id(self, operation_id: str) -> Any:
        return self._handlers[operation_id]


@pytest.fixture(scope="module")
def stock() -> connexion.AsyncApp:
    logging.getLogger("connexion").setLevel(logging.CRITICAL)
    app = connexion.AsyncApp(HERE)
    app.add_api(copy.deepcopy(DOCUMENT), resolver=ByOperation(), base_path="/sage")
    return app


@pytest.fixture
async def both(stock: connexion.AsyncApp) -> AsyncIterator[tuple[Any, Any]]:
    """(the lane, stock), each as a client."""
    handlers = {op["operationId"]: lane_handler(op) for _, _, op in operations()}
    lane = application(
        contract(
            document=copy.deepcopy(DOCUMENT),
            routes=Routes(handlers, {}, {}, frozenset()),
            check_responses=False,
            rates=Rates(dict.fromkeys(("login", "send_code", "chat"), "100000/minute")),
            json_limit=1_000_000,
        )
    )
    clients = [
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app, raise_app_exceptions=False),
            base_url="http://shop.test:8000",
        )
        for app in (lane, stock)
    ]
    async with clients[0], clients[1]:
        yield clients[0], clients[1]


# --- the requests ------------------------------------------------------------------------------


def example(schema: dict[str, Any]) -> Any:
    """An example of a body: every body schema has one."""
    return copy.deepcopy(followed(schema)["example"])


def requests(rng: random.Random) -> Iterator[Request]:
    for method, path, operation in operations():
        for _ in range(PER_OPERATION):
            yield good(rng, method, path, operation)
        yield from bad(rng, method, path, operation)


def good(rng: random.Random, method: str, path: str, operation: dict[str, Any]) -> Request:
    for parameter in parameters(operation, "path"):
        value = rng.choice(["abc", "sess_123", "a.b:c-d", "%E4%BD%A0", "with%20blank"])
        path = path.replace("{" + parameter["name"] + "}", value)
    pairs = []
    for parameter in parameters(operation, "query"):
        if rng.random() < 0.6:
            schema = followed(parameter["schema"])
            value = rng.choice(schema.get("enum") or ["1", "7", "42"])
            pairs.append(f"{parameter['name']}={value}")
    headers, content = dict(TOKEN), None
    if "requestBody" in operation:
        value = example(operation["requestBody"]["content"]["application/json"]["schema"])
        required = followed(operation["requestBody"]["content"]["application/json"]["schema"])
        for name in list(value):
            if name not in required.get("required", ()) and rng.random() < 0.4:
                del value[name]
        content = json.dumps(value).encode()
        headers["content-type"] = rng.choice(
            ["application/json", "application/json; charset=utf-8"]
        )
    return Request("", method, f"/sage{path}", "&".join(pairs), headers, content)


def bad(rng: random.Random, method: str, path: str, operation: dict[str, Any]) -> Iterator[Request]:
    base = good(rng, method, path, operation)
    if operation["security"]:
        without = {k: v for k, v in base.headers.items() if k != "authorization"}
        yield base._replace(kind="no credential", headers=without)
        wrong = {**base.headers, "authorization": "Bearer nobody"}
        yield base._replace(kind="wrong credential", headers=wrong)
        cookie = {**without, "cookie": "sage_session=s-root"}
        yield base._replace(kind="cookie", headers=cookie)
    yield base._replace(kind="wrong method", method="patch")
    yield base._replace(kind="slash at the end", path=base.path + "/")
    yield base._replace(kind="unacceptable", headers={**base.headers, "accept": "image/png"})
    yield base._replace(kind="unknown parameter", query=f"{base.query}&unknown=1".lstrip("&"))
    if parameters(operation, "header"):
        long = {**base.headers, "idempotency-key": "k" * 300}
        yield base._replace(kind="idempotency key too long", headers=long)
    for parameter in parameters(operation, "query"):
        schema = followed(parameter["schema"])
        name = parameter["name"]
        if schema["type"] == "integer":
            for kind, text in {
                "number with an underscore": "1_0",
                "number with blanks": "%201",
                "number that is none": "one",
                "number with a point": "1.5",
                "number below": "-1",
                "number beyond": "99999999999999999999999",
                "number missing": "",
            }.items():
                yield base._replace(kind=kind, query=f"{name}={text}")
        elif "enum" in schema:
            yield base._replace(kind="not of the enum", query=f"{name}=nothing")
    if base.content is None:
        return
    value = json.loads(base.content)
    schema = followed(operation["requestBody"]["content"]["application/json"]["schema"])
    name = next(iter(schema["properties"]))
    for kind, content in {
        "not JSON": b"{",
        "an array": b"[]",
        "a text": b'"text"',
        "null": b"null",
        "not UTF-8": b'{"a": "\xff"}',
        "key twice": base.content[:-1] + b', "%b": %b}' % (
            name.encode(),
            json.dumps(value.get(name)).encode(),
        ) if name in value else None,
    }.items():  # fmt: skip
        if content is not None:
            yield base._replace(kind=kind, content=content)
    for required in schema.get("required", ()):
        less = {k: v for k, v in value.items() if k != required}
        yield base._replace(kind="field missing", content=json.dumps(less).encode())
    for field in value:
        wrong = json.dumps({**value, field: {"of": ["another", "type"]}}).encode()
        field_schema = followed(schema["properties"][field])
        if field_schema.get("type") in ("string", "integer", "number", "boolean", "array"):
            yield base._replace(kind="field of another type", content=wrong)
        if field_schema.get("type") == "string" and "pattern" not in field_schema:
            kind = {**value, field: "a\0b"}
            if "enum" not in field_schema and field_schema.get("format") != "date-time":
                yield base._replace(
                    kind="NUL in a text", content=json.dumps({**value, field: "a\0b"}).encode()
                )
                half = json.dumps({**value, field: "HERE"}).replace("HERE", "\\ud800")
                yield base._replace(kind="lone surrogate", content=half.encode())
    if schema.get("additionalProperties") is False:
        more = json.dumps({**value, "unknown_field": 1}).encode()
        yield base._replace(kind="unknown field", content=more)
    plain = {**base.headers, "content-type": "text/plain"}
    yield base._replace(kind="wrong media type", headers=plain)


async def answer(client: httpx.AsyncClient, request: Request) -> tuple[str, Any]:
    """(status, body) of a success, (its class, None) of anything else."""
    url = request.path + (f"?{request.query}" if request.query else "")
    response = await client.request(
        request.method, url, headers=request.headers, content=request.content
    )
    if response.is_success:
        return str(response.status_code), response.json()
    return f"{response.status_code // 100}xx", None


async def test_the_lane_answers_as_stock_connexion_does(both: tuple[Any, Any]) -> None:
    lane, stock = both
    rng = random.Random(SEED)
    differing: Counter[str] = Counter()
    compared: Counter[str] = Counter()
    unexplained = []
    for request in requests(rng):
        ours, theirs = await answer(lane, request), await answer(stock, request)
        compared[request.kind] += 1
        if ours == theirs:
            continue
        differing[request.kind] += 1
        if request.kind not in DIFFERENCES:
            unexplained.append(f"{request}\n  lane  {ours}\n  stock {theirs}")
    assert unexplained == [], f"{len(unexplained)} differ\n" + "\n".join(unexplained[:12])
    assert compared[""] == PER_OPERATION * sum(1 for _ in operations())
    stale = DIFFERENCES.keys() - differing.keys()
    assert not stale, f"no longer different: {sorted(stale)}"
