"""The ASGI application: contracts under Connexion, each served by the request lane."""

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from connexion.middleware.lifespan import LifespanMiddleware
from connexion.middleware.main import API, ConnexionMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from server.dispatch import Dispatch, Root
from server.lane.contract import BuiltSpecification, Contract, Lane, Routes, load_document
from server.lane.operation import Around
from server.lane.shapes import SHAPES

GENERATED = Path(__file__).parent.parent / "generated"
CONTRACTS = ("sage", "sandbox")
"""The contracts that are built, in order of precedence at the root of the main port."""
REPLAYING = {"sage": "chat", "sandbox": "session"}
"""The handler module of a contract whose `replay` streams a run that a repeated request began."""
AT_THE_ROOT = {f"/{page}": f"/sandbox/{page}" for page in ("docs", "redoc", "openapi.json")}
"""Pages that stand at the root of the main port as well (rules, "Routing")."""


class Application(ConnexionMiddleware):
    """Connexion's middleware with the lane as its innermost application."""

    def __init__(
        self,
        contracts: Mapping[str, Contract],
        dispatch: Dispatch,
        lifespan: Callable[..., Any] | None = None,
    ) -> None:
        self.lane = Lane(dispatch)
        super().__init__(
            self.lane,
            lifespan=lifespan,
            middlewares=[cast(ASGIApp, LifespanMiddleware)],
        )
        for name, contract in contracts.items():
            self.apis.append(
                API(
                    BuiltSpecification(contract.document),
                    base_path=f"/{name}",
                    contract=contract,
                )
            )
        self.app, self.middleware_stack = self._build_middleware_stack()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = self
        await self.app(scope, receive, send)


def generated_contract(name: str, around: Around) -> Contract:
    """A contract from generated/<name>: its document and its routes."""
    routes = importlib.import_module(f"generated.{name}.routes")
    replaying = REPLAYING.get(name)
    return Contract(
        name,
        load_document(GENERATED / name),
        Routes(routes.HANDLERS, routes.ALIASES, routes.BODIES, routes.ENVELOPED, routes.CHANNELS),
        around,
        importlib.import_module(f"handlers.{name}.{replaying}").replay if replaying else None,
        websockets=load_document(GENERATED / name, "asyncapi.json"),
    )


def build(
    around: Around,
    *,
    port: int,
    assistant_port: int,
    pages: Callable[[Mapping[str, Contract]], Mapping[str, ASGIApp]],
    cors_origins: frozenset[str],
    root_path: str,
    lifespan: Callable[..., Any] | None = None,
) -> Application:
    """The whole application. Raises BindingError when handlers and specs do not fit."""
    contracts = {name: generated_contract(name, around) for name in CONTRACTS}
    made = pages(contracts)
    main = Root(
        [contracts[n] for n in ("sage", "sandbox", "fleet") if n in contracts],
        SHAPES["sage"],
        {path: made[page] for path, page in AT_THE_ROOT.items() if page in made},
    )
    assistant = Root([contracts[n] for n in ("assistant",) if n in contracts], SHAPES["assistant"])
    dispatch = Dispatch(
        roots={port: main, assistant_port: assistant},
        default_root=main,
        contracts=contracts,
        pages=made,
        cors_origins=cors_origins,
        root_path=root_path,
        json_limit=around.json_limit,
    )
    return Application(contracts, dispatch, lifespan)
