"""The shop contract on the lane, called in process."""

import copy
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from domain.caller import Caller
from domain.errors import Forbidden, Unauthenticated
from server.app import Application
from server.dispatch import Dispatch, Root
from server.lane.access import Door
from server.lane.contract import Contract, Routes
from server.lane.forms import Limits
from server.lane.idempotency import Idempotency
from server.lane.leases import Leases
from server.lane.operation import Around
from server.lane.origin import Proxies
from server.lane.rates import Rates
from server.lane.replies import Drain
from server.lane.shapes import SHAPES
from tests.lane import shop

CALLERS = {
    "alice": Caller("alice", "operator", via="bearer"),
    "root": Caller("root", "admin", via="bearer"),
    "vera": Caller("vera", "viewer", via="bearer"),
}


class Tokens:
    """The identity of these tests: a token is a name, a cookie is `s-` and a name."""

    def known(self, token: str) -> Caller | None:
        return CALLERS.get(token)

    async def verify_bearer(self, token: str) -> Caller:
        if token == "banned":
            raise Forbidden("auth.forbidden")
        raise Unauthenticated("auth.required")

    def known_cookie(self, value: str) -> Caller | None:
        return None

    async def verify_cookie(self, value: str) -> Caller:
        caller = CALLERS.get(value.removeprefix("s-"))
        if caller is None:
            raise Unauthenticated("auth.required")
        return caller

    async def verify_proxy(self, user_id: str) -> Caller:
        return Caller(user_id, "operator", via="proxy")


def cookie(value: str) -> tuple[bytes, bytes]:
    return (b"set-cookie", f"sage_session={value}".encode())


def around(**changes: Any) -> Around:
    proxies = Proxies(["10.0.0.0/8"])
    made = Around(
        quartet=object(),
        door=Door(
            Tokens(),
            cookie_name="sage_session",
            origins=frozenset({"http://shop.test"}),
            proxies=proxies,
            proxy_header="X-User",
        ),
        proxies=proxies,
        rates=Rates({"login": "3/minute"}),
        leases=Leases({"sse": 2}),
        idempotency=changes.pop("idempotency", None) or Idempotency.__new__(Idempotency),
        drain=Drain(),
        json_limit=2000,
        forms=Limits(file=3_000_000, files=3),
        cookie=cookie,
        check_responses=True,
    )
    return made._replace(**changes)


def routes(**changes: Any) -> Routes:
    return Routes(shop.HANDLERS, {}, shop.BODIES, shop.ENVELOPED)._replace(**changes)


def contract(**changes: Any) -> Contract:
    return Contract(
        "sage",
        changes.pop("document", copy.deepcopy(shop.DOCUMENT)),
        changes.pop("routes", routes()),
        around(**changes),
    )


def application(made: Contract, **changes: Any) -> Application:
    root = Root([made], SHAPES["sage"])
    dispatch = Dispatch(
        roots={8000: root, 3005: Root([], SHAPES["assistant"])},
        default_root=root,
        contracts={"sage": made},
        pages=changes.get("pages", {}),
        cors_origins=frozenset(changes.get("cors", ())),
        root_path=changes.get("root_path", ""),
        json_limit=2000,
    )
    return Application({"sage": made}, dispatch)


@pytest.fixture
def app() -> Application:
    return application(contract())


@pytest.fixture
async def client(app: Application) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=True, client=("1.2.3.4", 5))
    async with httpx.AsyncClient(
        transport=transport,
        base_url="http://shop.test:8000",
        headers={"authorization": "Bearer alice"},
    ) as made:
        yield made
