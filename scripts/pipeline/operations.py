"""The operations of a bundled document, by the words of openapi/README.md."""

import builtins
import keyword
from collections.abc import Iterator
from typing import Any, NamedTuple

METHODS = ("get", "head", "post", "put", "patch", "delete", "options", "trace")
JSON = "application/json"
_ENVELOPES = ({"code", "message", "data", "timestamp"}, {"code", "msg", "data"})
"""The keys of sage's envelope and of sandbox's."""


class Operation(NamedTuple):
    """One method of one path. `raw` is the operation as written, `document` what it refers to."""

    document: dict[str, Any]
    path: str
    method: str
    raw: dict[str, Any]
    shared_parameters: list[Any]

    def __str__(self) -> str:
        return f"{self.method.upper()} {self.path}"

    @property
    def id(self) -> str:
        return str(self.raw.get("operationId", ""))

    @property
    def tag(self) -> str:
        tags = self.raw.get("tags") or [""]
        return str(tags[0])

    @property
    def resource(self) -> str:
        """The first tag in snake_case: "LLM provider" → llm_provider."""
        return self.tag.lower().replace(" ", "_")

    @property
    def rest(self) -> str:
        """What follows the resource in the operationId, "" when it does not begin with it."""
        prefix = f"{self.resource}_"
        return self.id.removeprefix(prefix) if self.id.startswith(prefix) else ""

    @property
    def function(self) -> str:
        """The name of its handler in handlers/<contract>/<resource>.py."""
        return python_name(self.rest)

    @property
    def alias_of(self) -> str:
        return str(self.raw.get("x-alias-of", ""))

    @property
    def parameters(self) -> list[dict[str, Any]]:
        """Its parameters and its path's, references followed."""
        own = [*self.shared_parameters, *self.raw.get("parameters", [])]
        return [self.follow(parameter) for parameter in own]

    @property
    def body(self) -> dict[str, Any]:
        """Its request body, references followed; {} when it has none."""
        return self.follow(self.raw.get("requestBody", {}))

    @property
    def responses(self) -> dict[str, dict[str, Any]]:
        """Its responses by status, references followed."""
        return {
            status: self.follow(response)
            for status, response in self.raw.get("responses", {}).items()
        }

    def follow(self, node: Any) -> dict[str, Any]:
        """What `node` is once its `$ref` is followed; {} for what is not an object."""
        return follow(self.document, node)

    @property
    def data(self) -> dict[str, Any] | None:
        """The schema of the `data` of its 200's envelope; None when it has no envelope."""
        schema = self.follow(self.responses.get("200", {}).get("content", {}).get(JSON, {}).get(
            "schema", {}))  # fmt: skip
        for option in (schema, *map(self.follow, schema.get("oneOf", ()))):
            properties = option.get("properties", {})
            if set(properties) in _ENVELOPES and properties["code"].get("enum") == [200]:
                return self.follow(properties["data"])
        return None


def follow(document: dict[str, Any], node: Any) -> dict[str, Any]:
    """What `node` is once its `$ref` into `document` is followed."""
    while isinstance(node, dict) and "$ref" in node:
        _, kind, section, name = node["$ref"].split("/")
        node = document[kind][section][name]
    return node if isinstance(node, dict) else {}


def operations(document: dict[str, Any], *, aliases: bool = True) -> Iterator[Operation]:
    """Every operation of a document, in its order; `aliases=False` leaves aliases out."""
    for path, item in document.get("paths", {}).items():
        for method in METHODS:
            if method in item and (aliases or "x-alias-of" not in item[method]):
                yield Operation(document, path, method, item[method], item.get("parameters", []))


def python_name(name: str) -> str:
    """`name` as a Python function: - becomes _, and words that Python has get a trailing _."""
    name = name.replace("-", "_")
    return f"{name}_" if keyword.iskeyword(name) or hasattr(builtins, name) else name


def parameter_name(name: str) -> str:
    """A parameter as the argument of its handler: - becomes _, a keyword gets a trailing _."""
    name = name.replace("-", "_")
    return f"{name}_" if keyword.iskeyword(name) else name
