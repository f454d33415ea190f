"""Checks of schemas and of the examples that must fit them."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from scripts.pipeline.bundle import Bundle
from scripts.pipeline.operations import follow, operations
from server.lane.schemas import Schemas, Violation

if TYPE_CHECKING:
    from scripts.pipeline.checks import Surroundings

_LISTS = ("oneOf", "anyOf", "allOf")
_SINGLE = ("items", "additionalProperties", "not")


class Site(NamedTuple):
    """A schema and where it stands."""

    where: str
    schema: dict[str, Any]


def closed_responses(bundle: Bundle, around: "Surroundings") -> Iterator[str]:
    """Objects of answers state `required` and `additionalProperties`; free maps say what holds."""
    for where, schema in _reachable(bundle, _response_roots(bundle)):
        if not _is_object(schema):
            continue
        further = schema.get("additionalProperties")
        if further is None:
            yield f"{where}: an object of an answer states additionalProperties"
        elif further is not False and not str(schema.get("description", "")).strip():
            yield f"{where}: a free map has a description that says what may stand in it"
        if schema.get("properties") and not schema.get("required"):
            yield f"{where}: an object of an answer states required"


def stated_requests(bundle: Bundle, around: "Surroundings") -> Iterator[str]:
    """Objects of requests state `additionalProperties`, and lose nothing in becoming Structs."""
    for where, schema in _reachable(bundle, _request_roots(bundle)):
        if not _is_object(schema):
            continue
        further = schema.get("additionalProperties")
        if further is None:
            yield f"{where}: an object of a request states additionalProperties"
        if schema.get("properties") and isinstance(further, dict):
            yield f"{where}: properties beside a schema for further ones: a Struct loses those"


def required_exist(bundle: Bundle, around: "Surroundings") -> Iterator[str]:
    """What is required of a closed object is one of its properties."""
    for where, schema in _everywhere(bundle):
        if schema.get("additionalProperties") is False and "allOf" not in schema:
            for name in schema.get("required", ()):
                if name not in schema.get("properties", {}):
                    yield f"{where}: requires {name}, which it does not allow"


def nullable(bundle: Bundle, around: "Surroundings") -> Iterator[str]:
    """Null means the same to every reader of the document."""
    for where, schema in _everywhere(bundle):
        if schema.get("nullable") and None not in schema.get("enum", (None,)):
            yield f"{where}: nullable, and its enum does not list null"
        if schema.get("nullable") and "type" in schema and any(key in schema for key in _LISTS):
            yield f"{where}: nullable beside type and alternatives: say null in one place"
        if "default" in schema and schema["default"] is None:
            yield f"{where}: default null: absent and null are two things"


def examples(bundle: Bundle, around: "Surroundings") -> Iterator[str]:
    """Every example of a schema, body or parameter fits its schema as the server reads that."""
    schemas = Schemas(bundle.contract, bundle.document)
    for site, value in _examples(bundle):
        try:
            schemas.validator(site.schema, "example").check(value)
        except Violation as violation:
            first = violation.errors[0]
            place = ".".join(map(str, first["loc"]))
            yield f"{site.where}: {place}: {first['msg']}"


def _examples(bundle: Bundle) -> Iterator[tuple[Site, Any]]:
    for site in _everywhere(bundle):
        if "example" in site.schema:
            yield site, site.schema["example"]
    for operation in operations(bundle.document, aliases=False):
        holders = [(f"parameter {each.get('name')}", each) for each in operation.parameters]
        holders += [("body", media) for media in operation.body.get("content", {}).values()]
        for status, response in operation.responses.items():
            holders += [(status, media) for media in response.get("content", {}).values()]
            for name, header in response.get("headers", {}).items():
                holders.append((f"{status} header {name}", operation.follow(header)))
        for place, holder in holders:
            site = Site(f"{operation}: {place}", holder.get("schema", {}))
            if "example" in holder:
                yield site, holder["example"]
            for name, example in holder.get("examples", {}).items():
                if "value" in example:
                    yield Site(f"{site.where}: {name}", site.schema), example["value"]


def _request_roots(bundle: Bundle) -> Iterator[Site]:
    for operation in operations(bundle.document, aliases=False):
        for media_type, media in operation.body.get("content", {}).items():
            yield Site(f"{operation}: {media_type} body", media.get("schema", {}))


def _response_roots(bundle: Bundle) -> Iterator[Site]:
    for operation in operations(bundle.document, aliases=False):
        for status, response in operation.responses.items():
            for media in response.get("content", {}).values():
                yield Site(f"{operation}: {status}", media.get("schema", {}))


def _everywhere(bundle: Bundle) -> Iterator[Site]:
    """Every schema that is written anywhere, each once."""
    roots = [*_request_roots(bundle), *_response_roots(bundle)]
    for operation in operations(bundle.document, aliases=False):
        for parameter in operation.parameters:
            where = f"{operation}: parameter {parameter.get('name')}"
            roots.append(Site(where, parameter.get("schema", {})))
    components = bundle.document.get("components", {}).get("schemas", {})
    roots += [Site(name, schema) for name, schema in components.items()]
    yield from _reachable(bundle, iter(roots))


def _reachable(bundle: Bundle, roots: Iterator[Site]) -> Iterator[Site]:
    """The schemas under `roots`, references followed, each once."""
    seen: set[int] = set()
    waiting = list(roots)[::-1]
    while waiting:
        where, schema = waiting.pop()
        if "$ref" in schema:
            where, schema = schema["$ref"].rpartition("/")[2], follow(bundle.document, schema)
        if id(schema) in seen:
            continue
        seen.add(id(schema))
        yield Site(where, schema)
        inner = [(f"{where}.{name}", each) for name, each in schema.get("properties", {}).items()]
        inner += [(f"{where}.{key}", schema[key]) for key in _SINGLE if key in schema]
        for key in _LISTS:
            inner += [(f"{where}.{key}[{n}]", each) for n, each in enumerate(schema.get(key, ()))]
        waiting += [Site(*each) for each in inner if isinstance(each[1], dict)][::-1]


def _is_object(schema: dict[str, Any]) -> bool:
    return (schema.get("type") == "object" or "properties" in schema) and "enum" not in schema
