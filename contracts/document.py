"""A contract as its OpenAPI document and its documented table say it. No code of a server."""

import csv
import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen

HERE = Path(__file__).parent
BUNDLES = HERE.parent / "generated"
GONE = 410
"""The success of an operation that is documented to be there no more."""
PAGES = frozenset({"/docs", "/redoc", "/openapi.json"})
"""Documented paths that are pages at the root, and no operations."""
METHODS = ("get", "put", "post", "delete", "patch", "head", "options", "trace")


class Parameter(NamedTuple):
    """A parameter as it stands on an operation; `place` is path, query, header or cookie."""

    name: str
    place: str
    required: bool
    schema: Mapping[str, Any]


class Operation(NamedTuple):
    """One operation. `statuses` maps a declared HTTP status to its response, references followed;
    `media` lists what a body may be, empty where there is none."""

    contract: str
    id: str
    method: str
    path: str
    tag: str
    public: bool
    role: str
    effect: str
    success: int
    statuses: Mapping[int, Mapping[str, Any]]
    parameters: tuple[Parameter, ...]
    media: tuple[str, ...]
    raw: Mapping[str, Any]

    @property
    def writes(self) -> bool:
        """Whether a viewer is refused (openapi/README.md, `x-effect`)."""
        return not self.public and self.method != "GET" and self.effect == "write"

    @property
    def form(self) -> bool:
        """Whether a body is a form with files."""
        return "multipart/form-data" in self.media

    @property
    def keyed(self) -> bool:
        """Whether `Idempotency-Key` is honoured."""
        return any(parameter.name == "Idempotency-Key" for parameter in self.parameters)

    @property
    def label(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def key(self) -> str:
        """`sandbox.auth_login`: an operationId is unique within its contract alone."""
        return f"{self.contract}.{self.id}"


class Contract:
    """A bundled document and the operations in it, by operationId."""

    def __init__(self, name: str, document: dict[str, Any]) -> None:
        self.name = name
        self.document = document
        self.operations = {each.id: each for each in self._read()}

    def followed(self, node: Any) -> Any:
        """`node`, or what its `$ref` names."""
        while isinstance(node, Mapping) and "$ref" in node:
            found: Any = self.document
            for part in node["$ref"].removeprefix("#/").split("/"):
                found = found[part.replace("~1", "/").replace("~0", "~")]
            node = found
        return node

    def at(self, method: str, path: str) -> tuple[Operation, ...]:
        """The operations of a documented row: ANY is every method, `*` the rest of a path."""
        path = path.replace("*", "{rest}")
        return tuple(
            each
            for each in self.operations.values()
            if each.path == path and method in (each.method, "ANY")
        )

    def _read(self) -> Iterator[Operation]:
        for path, item in self.document["paths"].items():
            for method in METHODS:
                if method in item:
                    yield self._operation(method.upper(), path, item[method])

    def _operation(self, method: str, path: str, raw: Mapping[str, Any]) -> Operation:
        parameters = [self.followed(each) for each in raw.get("parameters", ())]
        statuses = {int(s): self.followed(r) for s, r in raw["responses"].items()}
        return Operation(
            contract=self.name,
            id=raw["operationId"],
            method=method,
            path=path,
            tag=raw["tags"][0],
            public=not raw["security"],
            role=raw.get("x-role", ""),
            effect=raw.get("x-effect", "read" if method == "GET" else "write"),
            success=next((status for status in statuses if status < 400), GONE),
            statuses=statuses,
            parameters=tuple(
                Parameter(p["name"], p["in"], bool(p.get("required")), self.followed(p["schema"]))
                for p in parameters
            ),
            media=tuple(self.followed(raw.get("requestBody", {})).get("content", ())),
            raw=raw,
        )


class Row(NamedTuple):
    """A row of documented.tsv: what the document says of an operation, outside any spec."""

    contract: str
    method: str
    path: str
    auth: str


def rows(file: Path) -> list[Row]:
    """Contract, method, path and the column after them, of a table with a heading."""
    with file.open(newline="") as lines:
        table = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        next(table)
        return [Row(*line[:4]) for line in table]


def built() -> list[Row]:
    """The documented rows that are built."""
    missing = {row[:3] for row in rows(HERE / "not_built.tsv")}
    return [row for row in rows(HERE / "documented.tsv") if row[:3] not in missing]


def documented(contract: str) -> list[Row]:
    """The rows of a contract that are built and operations."""
    return [
        row
        for row in built()
        if row.contract == contract and row.method != "WS" and row.path not in PAGES
    ]


def pages() -> list[Row]:
    """The rows that are pages."""
    return [row for row in built() if row.path in PAGES]


def channels() -> list[Row]:
    """The rows that are websockets: channels of an AsyncAPI document."""
    return [row for row in built() if row.method == "WS"]


@cache
def load(name: str, url: str = "") -> Contract:
    """A contract from its bundle, or from the server at `url`."""
    if url:
        with urlopen(f"{url}/{name}/openapi.json", timeout=30) as answer:
            return Contract(name, json.load(answer))
    return Contract(name, json.loads((BUNDLES / name / "openapi.json").read_bytes()))
