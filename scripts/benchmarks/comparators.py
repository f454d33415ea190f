"""The same 400 routes on FastAPI, Litestar, a bare ASGI callable, and our lane.

FastAPI stands twice: as its documentation recommends (routers mounted as sub-applications, the
better of its two layouts here; `response_model`; an async `Depends` for the session) and tuned (no
response model). Claims are made against the recommended one.
"""

from typing import Annotated, Any

import msgspec

from scripts.benchmarks.catalogue import (
    APIS,
    LIST_LENGTH,
    SESSIONS,
    document,
    item,
    items,
    resources,
)

# --- FastAPI -----------------------------------------------------------------------------------


def fastapi_app(*, tuned: bool = False) -> Any:
    from typing import Literal

    from fastapi import Depends, FastAPI, HTTPException, Query
    from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
    from pydantic import BaseModel, ConfigDict, Field

    class Limits(BaseModel):
        model_config = ConfigDict(extra="forbid")
        requests: int = Field(ge=0)
        tokens: int = Field(ge=0)
        ratio: float = Field(ge=0, le=1)

    class ItemCreate(BaseModel):
        model_config = ConfigDict(extra="forbid")
        name: str = Field(min_length=1, max_length=100)
        description: str | None = Field(None, max_length=1000)
        price: float = Field(ge=0)
        count: int = Field(ge=0, le=1000000)
        active: bool
        kind: Literal["basic", "team", "pro"]
        tags: list[Annotated[str, Field(max_length=50)]] = Field(max_length=20)
        limits: Limits

    class Item(ItemCreate):
        id: str
        owner: str
        created_at: float
        updated_at: float

    bearer = HTTPBearer(auto_error=False)

    async def session(
        credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
    ) -> str:
        user = SESSIONS.get(credentials.credentials) if credentials else None
        if user is None:
            raise HTTPException(401)
        return user

    User = Annotated[str, Depends(session)]
    one: Any = {} if tuned else {"response_model": Item}
    many: Any = {} if tuned else {"response_model": list[Item]}
    if tuned:
        one = many = {"response_model": None}

    def add(app: Any, name: str) -> None:
        @app.get(f"/api/{name}", **many)
        async def list_items(user: User, limit: Annotated[int, Query(ge=1, le=100)] = LIST_LENGTH):
            return items(limit)

        @app.post(f"/api/{name}", **one)
        async def create_item(user: User, body: ItemCreate):
            return {**item(), **body.model_dump()}

        @app.get(f"/api/{name}/{{item_id}}", **one)
        async def get_item(user: User, item_id: str):
            return item()

        @app.put(f"/api/{name}/{{item_id}}", **one)
        async def replace_item(user: User, item_id: str, body: ItemCreate):
            return {**item(), **body.model_dump()}

        @app.delete(f"/api/{name}/{{item_id}}", **one)
        async def delete_item(user: User, item_id: str):
            return item()

    outer = FastAPI()
    for api in APIS:
        inner = FastAPI()
        for name in resources(api):
            add(inner, name)
        outer.mount(f"/{api}", inner)
    return outer


# --- Litestar ----------------------------------------------------------------------------------


def litestar_app() -> Any:
    from litestar import Litestar, Router, delete, get, post, put
    from litestar.connection import ASGIConnection
    from litestar.exceptions import NotAuthorizedException
    from litestar.handlers import BaseRouteHandler
    from litestar.params import Parameter

    Text = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]

    class Limits(msgspec.Struct, forbid_unknown_fields=True):
        requests: Annotated[int, msgspec.Meta(ge=0)]
        tokens: Annotated[int, msgspec.Meta(ge=0)]
        ratio: Annotated[float, msgspec.Meta(ge=0, le=1)]

    class ItemCreate(msgspec.Struct, forbid_unknown_fields=True):
        name: Text
        price: Annotated[float, msgspec.Meta(ge=0)]
        count: Annotated[int, msgspec.Meta(ge=0, le=1000000)]
        active: bool
        kind: str
        tags: Annotated[
            list[Annotated[str, msgspec.Meta(max_length=50)]], msgspec.Meta(max_length=20)
        ]
        limits: Limits
        description: Annotated[str, msgspec.Meta(max_length=1000)] | None = None

    def guard(connection: ASGIConnection, _: BaseRouteHandler) -> None:
        token = connection.headers.get("authorization", "")[7:]
        if token not in SESSIONS:
            raise NotAuthorizedException

    def routes(name: str) -> list[Any]:
        @get(f"/api/{name}")
        async def list_items(
            limit: Annotated[int, Parameter(ge=1, le=100)] = LIST_LENGTH,
        ) -> list[dict[str, Any]]:
            return items(limit)

        @post(f"/api/{name}", status_code=200)
        async def create_item(data: ItemCreate) -> dict[str, Any]:
            return {**item(), **msgspec.to_builtins(data)}

        @get(f"/api/{name}/{{item_id:str}}")
        async def get_item(item_id: str) -> dict[str, Any]:
            return item()

        @put(f"/api/{name}/{{item_id:str}}")
        async def replace_item(item_id: str, data: ItemCreate) -> dict[str, Any]:
            return {**item(), **msgspec.to_builtins(data)}

        @delete(f"/api/{name}/{{item_id:str}}", status_code=200)
        async def delete_item(item_id: str) -> dict[str, Any]:
            return item()

        return [list_items, create_item, get_item, replace_item, delete_item]

    return Litestar(
        [
            Router(f"/{api}", route_handlers=[r for n in resources(api) for r in routes(n)])
            for api in APIS
        ],
        guards=[guard],
        openapi_config=None,
        logging_config=None,
    )


# --- bare ASGI ---------------------------------------------------------------------------------


def bare_app() -> Any:
    """The ceiling: one callable that knows the three requests and does the handler's own work."""
    encode = msgspec.json.Encoder().encode
    decode = msgspec.json.Decoder().decode

    async def app(scope: Any, receive: Any, send: Any) -> None:
        token = dict(scope["headers"])[b"authorization"][7:].decode()
        if token not in SESSIONS:
            raise PermissionError
        if scope["method"] == "POST":
            result: Any = {**item(), **decode((await receive())["body"])}
        elif scope["path"].count("/") == 3:
            result = items(LIST_LENGTH)
        else:
            result = item()
        body = encode(result)
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [
                    (b"content-type", b"application/json"),
                    (b"content-length", b"%d" % len(body)),
                ],
            }
        )
        await send({"type": "http.response.body", "body": body})

    return app


# --- the lane ----------------------------------------------------------------------------------


class Tokens:
    """The same session check as the others': one dictionary."""

    def __init__(self) -> None:
        from domain.caller import Caller

        self._callers = {t: Caller(u, "operator", via="bearer") for t, u in SESSIONS.items()}

    def known(self, token: str) -> Any:
        return self._callers.get(token)

    def known_cookie(self, value: str) -> Any:
        return None

    async def verify_bearer(self, token: str) -> Any:
        from domain.errors import Unauthenticated

        raise Unauthenticated("auth.invalid")

    verify_cookie = verify_proxy = verify_bearer


def lane_app() -> Any:
    from server.app import Application
    from server.dispatch import Dispatch, Root
    from server.lane.access import Door
    from server.lane.contract import Contract, Routes
    from server.lane.forms import Limits
    from server.lane.leases import Leases
    from server.lane.operation import Around
    from server.lane.origin import Proxies
    from server.lane.rates import Rates
    from server.lane.replies import Drain
    from server.lane.shapes import SHAPES

    class LimitsBody(msgspec.Struct):
        requests: int
        tokens: int
        ratio: float

    class ItemCreate(msgspec.Struct):
        name: str
        price: float
        count: int
        active: bool
        kind: str
        tags: list[str]
        limits: LimitsBody
        description: str | None = None

    def handlers(name: str) -> dict[str, Any]:
        async def list_items(limit: int) -> Any:
            return items(limit)

        async def create_item(body: ItemCreate) -> Any:
            return {**item(), **msgspec.structs.asdict(body)}

        async def get_item(item_id: str) -> Any:
            return item()

        async def replace_item(item_id: str, body: ItemCreate) -> Any:
            return {**item(), **msgspec.structs.asdict(body)}

        async def delete_item(item_id: str) -> Any:
            return item()

        return {
            f"{name}_list": list_items,
            f"{name}_create": create_item,
            f"{name}_get": get_item,
            f"{name}_replace": replace_item,
            f"{name}_delete": delete_item,
        }

    proxies = Proxies([])
    around = Around(
        quartet=None,
        door=Door(Tokens(), cookie_name="sage_session", origins=frozenset(), proxies=proxies),
        proxies=proxies,
        rates=Rates({}),
        leases=Leases({}),
        idempotency=None,  # type: ignore[arg-type]  # no request of the bench carries a key
        drain=Drain(),
        json_limit=1 << 20,
        forms=Limits(1 << 20, 1),
        cookie=lambda value: (b"set-cookie", value.encode()),
        check_responses=False,
    )
    contracts = {}
    for api in APIS:
        bound = {k: v for name in resources(api) for k, v in handlers(name).items()}
        bodies = {k: ItemCreate for k in bound if k.endswith(("_create", "_replace"))}
        routes = Routes(bound, {}, bodies, frozenset())
        contracts[api] = Contract(api, document(api), routes, around, shape=SHAPES["assistant"])
    root = Root([], SHAPES["assistant"])
    dispatch = Dispatch(
        roots={},
        default_root=root,
        contracts=contracts,
        pages={},
        cors_origins=frozenset(),
        root_path="",
        json_limit=1 << 20,
    )
    return Application(contracts, dispatch)


APPS = {
    "lane": lane_app,
    "FastAPI": fastapi_app,
    "FastAPI tuned": lambda: fastapi_app(tuned=True),
    "Litestar": litestar_app,
    "bare ASGI": bare_app,
}
