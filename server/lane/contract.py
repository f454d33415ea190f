"""One contract on the lane: its spec through Connexion's own classes, its operations compiled."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from connexion.middleware.abstract import AbstractRoutingAPI, SpecMiddleware
from connexion.operations import AbstractOperation
from connexion.resolver import Resolution, Resolver
from connexion.spec import OpenAPISpecification
from starlette.types import Receive, Scope, Send

from server.lane.channel import Channel
from server.lane.operation import Around, BindingError, Operation, ReplayRun
from server.lane.router import Router
from server.lane.schemas import Schemas
from server.lane.shapes import SHAPES, Shape


class Routes(NamedTuple):
    """What generated/<contract>/routes.py holds."""

    HANDLERS: Mapping[str, Any]
    ALIASES: Mapping[str, str]
    BODIES: Mapping[str, Any]
    ENVELOPED: frozenset[str]
    CHANNELS: Mapping[str, Any] = MappingProxyType({})


class BuiltSpecification(OpenAPISpecification):
    """A bundled document. `scripts/generate --check` validated it; a start need not do so again
    (measured: 0.6 s of CPU for 100 operations)."""

    @classmethod
    def _validate_spec(cls, spec: Mapping[str, Any]) -> None:
        del spec


class GeneratedResolver(Resolver):
    """operationId → function, by the generated routes."""

    def __init__(self, routes: Routes) -> None:
        super().__init__()
        self._routes = routes

    def resolve(self, operation: AbstractOperation) -> Resolution:
        """Raises KeyError for an operation that the generated routes do not know."""
        operation_id = operation.operation_id
        target = self._routes.ALIASES.get(operation_id, operation_id)
        return Resolution(self._routes.HANDLERS[target], operation_id)


class _LaneAPI(AbstractRoutingAPI[Operation]):
    """Walks a specification and compiles each operation into the contract's router."""

    def __init__(self, contract: "Contract", specification: BuiltSpecification, **options: Any):
        self._contract = contract
        super().__init__(specification, **options)

    def make_operation(self, operation: AbstractOperation) -> Operation:
        return self._contract.compile(operation)

    @staticmethod
    def _framework_path_and_name(operation: AbstractOperation, path: str) -> tuple[str, str]:
        return path, operation.operation_id

    def _add_operation_internal(
        self, method: str, path: str, operation: Operation, name: str | None = None
    ) -> None:
        del name
        self._contract.add(method.upper(), path, operation)


class Contract:
    """A contract's name, shape, document and compiled operations."""

    def __init__(
        self,
        name: str,
        document: dict[str, Any],
        routes: Routes,
        around: Around,
        replay_run: ReplayRun | None = None,
        *,
        shape: Shape | None = None,
        websockets: Mapping[str, Any] | None = None,
    ) -> None:
        """`document` is its OpenAPI document, `websockets` its AsyncAPI document."""
        self.name = name
        self.document = document
        self.shape: Shape = shape or SHAPES[name]
        self.router: Router[Operation] = Router()
        self.operations: dict[str, Operation] = {}
        self._routes = routes
        self._around = around
        self._replay_run = replay_run
        self._schemas = Schemas(name, document)
        self.channels: Router[Channel] = Router()
        self._misfits: list[str] = []
        self.websockets = websockets or {}
        for channel_id, declared in self.websockets.get("channels", {}).items():
            channel = Channel(
                channel_id=channel_id,
                declared=declared,
                handler=routes.CHANNELS[channel_id],
                shape=self.shape,
                around=around,
            )
            self.channels.add("WS", channel.path, channel)
            self._misfits += channel.misfits

    @property
    def resolver(self) -> Resolver:
        """Connexion's resolver over the generated routes."""
        return GeneratedResolver(self._routes)

    def compile(self, operation: AbstractOperation) -> Operation:
        """The compiled form of one operation."""
        operation_id = operation.operation_id
        target = self._routes.ALIASES.get(operation_id, operation_id)
        return Operation(
            operation_id=operation_id,
            method=operation.method.upper(),
            path=operation.path,
            declared=self._raw(operation),
            parameters=list(operation.parameters),
            handler=operation.function,
            body_type=self._routes.BODIES.get(target),
            enveloped=target in self._routes.ENVELOPED,
            shape=self.shape,
            schemas=self._schemas,
            around=self._around,
            replay_run=self._replay_run,
        )

    def _raw(self, operation: AbstractOperation) -> dict[str, Any]:
        """The operation as written, with response and body references followed once."""
        declared = dict(self.document["paths"][operation.path][operation.method])
        declared["responses"] = {
            status: self._followed(response) for status, response in declared["responses"].items()
        }
        if "requestBody" in declared:
            declared["requestBody"] = body = dict(self._followed(declared["requestBody"]))
            body["content"] = {
                media: {**each, "schema": self._followed(each.get("schema", {}))}
                if media != "application/json"
                else each
                for media, each in body["content"].items()
            }
        declared.setdefault("security", self.document.get("security", []))
        return declared

    def _followed(self, node: dict[str, Any]) -> dict[str, Any]:
        if "$ref" not in node:
            return node
        found: Any = self.document
        for part in node["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        return dict(found)

    def add(self, method: str, path: str, operation: Operation) -> None:
        """Register a compiled operation under its path."""
        tails = [p["name"] for p in operation.declared.get("parameters", ()) if p.get("x-tail")]
        self.router.add(method, path, operation, tail=tails[0] if tails else "")
        self.operations[operation.operation_id] = operation

    def bind(self) -> None:
        """Raise BindingError unless handlers and operations fit, both ways, with the whole list."""
        misfits = [*self._misfits]
        misfits += [line for operation in self.operations.values() for line in operation.misfits]
        served = {self._routes.ALIASES.get(name, name) for name in self.operations}
        misfits += [
            f"{name}: a handler without an operation"
            for name in self._routes.HANDLERS.keys() - served
        ]
        if misfits:
            raise BindingError(f"contract {self.name}:\n  " + "\n  ".join(misfits))


def load_document(folder: Path, name: str = "openapi.json") -> dict[str, Any]:
    """A document of generated/<contract>; {} for the one of websockets where there are none."""
    file = folder / name
    if name != "openapi.json" and not file.exists():
        return {}
    document: dict[str, Any] = json.loads(file.read_bytes())
    return document


class Lane(SpecMiddleware):
    """The innermost ASGI application: Connexion registers every API on it like on its own."""

    def __init__(self, dispatch: Any) -> None:
        self._dispatch = dispatch
        self.contracts: dict[str, Contract] = {}

    def add_api(self, specification: BuiltSpecification, **options: Any) -> _LaneAPI:
        """Compile one contract (called by Connexion while it builds its stack)."""
        contract: Contract = options["contract"]
        api = _LaneAPI(
            contract,
            specification,
            base_path=options.get("base_path"),
            resolver=contract.resolver,
        )
        contract.bind()
        self.contracts[contract.name] = contract
        return api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._dispatch(scope, receive, send)
