"""A contract's websockets: openapi/<contract>/asyncapi.yaml, AsyncAPI 3.0 by hand.

A channel's key is its id, named like an operationId; its first tag is the resource that serves it.
What OpenAPI's operations say by extensions, a channel says by the same ones.
"""

import gzip
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema_rs

from scripts.pipeline.operations import parameter_name, python_name
from scripts.pipeline.source import Unreadable, read

SCHEMA = Path(__file__).parent / "asyncapi-specs-6.11.1" / "3.0.0.json.gz"
"""AsyncAPI's own schema of its documents (scripts/vendor)."""
CREDENTIAL = "token"
"""The query parameter that the lane reads as the caller's access token."""

_EXTENSIONS = {
    "x-role": ("user", "admin"),
    "x-effect": ("read", "write"),
    "x-rate-limit": ("read", "write", "chat"),
    "x-stream-limit": ("ws",),
}
_KNOWN = frozenset((*_EXTENSIONS, "x-subprotocols"))


class Channel(NamedTuple):
    """One websocket. `raw` is the channel as written."""

    id: str
    raw: dict[str, Any]

    def __str__(self) -> str:
        return f"WS {self.address}"

    @property
    def address(self) -> str:
        return str(self.raw.get("address", ""))

    @property
    def resource(self) -> str:
        """The first tag in snake_case, as an operation's."""
        tags = self.raw.get("tags") or [{}]
        return str(tags[0].get("name", "")).lower().replace(" ", "_")

    @property
    def function(self) -> str:
        """The name of its handler in handlers/<contract>/<resource>.py."""
        return python_name(self.id.removeprefix(f"{self.resource}_"))

    @property
    def arguments(self) -> set[str]:
        """What its handler is given beside what the lane has: values of the path and the query."""
        query = self.raw.get("bindings", {}).get("ws", {}).get("query", {}).get("properties", {})
        return {parameter_name(name) for name in (*self.raw.get("parameters", {}), *query)} - {
            CREDENTIAL
        }


def read_channels(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """The document of a contract's folder, {} where it has no websockets, and what is wrong."""
    file = folder / "asyncapi.yaml"
    if not file.exists():
        return {}, []
    try:
        document = read(file)
    except Unreadable as error:
        return {}, [f"openapi/{folder.name}/asyncapi.yaml: {error}"]
    return document, list(_problems(folder.name, document))


def channels(document: dict[str, Any]) -> Iterator[Channel]:
    """Every channel of a document, in its order."""
    for name, raw in document.get("channels", {}).items():
        yield Channel(name, raw)


def _problems(contract: str, document: dict[str, Any]) -> Iterator[str]:
    where = f"openapi/{contract}/asyncapi.yaml"
    for error in _schema().iter_errors(document):
        yield f"{where}: {'/'.join(map(str, error.instance_path))}: {error.message[:200]}"
        return  # its alternatives repeat the first fault in many ways
    for channel in channels(document):
        if not channel.resource or not channel.id.startswith(f"{channel.resource}_open"):
            yield f"{where}: {channel.id}: not <first tag>_open…"
        if {part[1:-1] for part in channel.address.split("/") if part[:1] == "{"} != set(
            channel.raw.get("parameters", {})
        ):
            yield f"{where}: {channel.id}: its parameters are not those of its address"
        for key, value in channel.raw.items():
            if key.startswith("x-") and key not in _KNOWN:
                yield f"{where}: {channel.id}: {key} is not known"
            elif key in _EXTENSIONS and value not in _EXTENSIONS[key]:
                yield f"{where}: {channel.id}: {key} is {value!r}"
        if "x-role" not in channel.raw:
            yield f"{where}: {channel.id}: no x-role says who may open it"
        if "x-effect" not in channel.raw:
            yield f"{where}: {channel.id}: no x-effect says whether a viewer may open it"
        if not str(channel.raw.get("description", "")).strip():
            yield f"{where}: {channel.id}: no description"


@cache
def _schema() -> jsonschema_rs.Draft7Validator:
    return jsonschema_rs.Draft7Validator(json.loads(gzip.decompress(SCHEMA.read_bytes())))
