"""Checks of a document as a whole."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from openapi_spec_validator import OpenAPIV30SpecValidator

from scripts.pipeline.bundle import Bundle, path_file_name
from scripts.pipeline.operations import operations

if TYPE_CHECKING:
    from scripts.pipeline.checks import Surroundings

KIND_STATUS = {
    "unusable": 400,
    "disabled": 400,
    "unauthenticated": 401,
    "forbidden": 403,
    "not_found": 404,
    "conflict": 409,
    "gone": 410,
    "precondition": 412,
    "too_large": 413,
    "invalid": 422,
    "throttled": 429,
    "unavailable": 503,
}
"""The kinds of domain/errors.py and the HTTP status that each has by nature."""

_ONE_OF = {
    "x-role": ("user", "admin", "gate", "oauth2"),
    "x-effect": ("read", "self"),
    "x-idempotency": ("none",),
    "x-rate-limit": ("login", "send_code", "chat", "read", "write"),
    "x-stream-limit": ("sse", "ws"),
    "x-etag": (True,),
    "x-language": (True,),
    "x-extension": (True,),
    "x-shape": ("oauth2",),
}
_TEXT = ("x-alias-of", "x-idempotency-reason")
_CODES = ("x-soft", "x-code")
_PARAMETER = ("x-tail", "x-commas")
_OPERATION = frozenset((*_ONE_OF, *_TEXT, *_CODES))
_NAMES = frozenset(
    {"properties", "headers", "examples", "mapping", "schemas", "parameters", "responses"}
)
_LITERAL = frozenset({"example", "value", "default", "enum"})


def valid_openapi(bundle: Bundle, around: "Surroundings") -> Iterator[str]:
    """OpenAPI 3.0 as openapi-spec-validator reads it."""
    for error in OpenAPIV30SpecValidator(bundle.document).iter_errors():
        while error.context:
            error = max(error.context, key=lambda inner: len(inner.absolute_path))
        yield f"{'/'.join(map(str, error.absolute_path))}: {error.message.splitlines()[0][:200]}"


def version(bundle: Bundle, around: "Surroundings") -> Iterator[str]:
    """Connexion takes 3.0 only, and one patch version keeps the four contracts alike."""
    if bundle.document.get("openapi") != "3.0.3":
        yield f"openapi is {bundle.document.get('openapi')!r}, not '3.0.3'"


def path_files(bundle: Bundle, around: "Surroundings") -> Iterator[str]:
    """A path's file is found without searching."""
    for url, name in bundle.path_files.items():
        if name != path_file_name(url):
            yield f"{url} stands in {name}, not in {path_file_name(url)}"


def extensions(bundle: Bundle, around: "Surroundings") -> Iterator[str]:
    """Every `x-` key is one of openapi/README.md, in its place, with a value it may have."""
    placed: set[int] = set()
    for operation in operations(bundle.document):
        placed.add(id(operation.raw))
        for key in operation.raw:
            if key.startswith("x-") and (key == "x-alias-of" or not operation.alias_of):
                for problem in _value(key, operation.raw, around):
                    yield f"{operation}: {problem}"
        for parameter in operation.parameters:
            placed.add(id(parameter))
            for key in parameter:
                if key.startswith("x-") and (key not in _PARAMETER or parameter[key] is not True):
                    yield f"{operation}: parameter {parameter.get('name')}: {key} is not known"
    for where, key in _strays(bundle.document, "", placed):
        yield f"{where}: {key} is not known here"


def _value(key: str, operation: dict[str, Any], around: "Surroundings") -> Iterator[str]:
    value = operation[key]
    if key not in _OPERATION:
        yield f"{key} is not known"
    elif key in _ONE_OF and not any(value is each or value == each for each in _ONE_OF[key]):
        yield f"{key} is {value!r}, not one of {', '.join(map(str, _ONE_OF[key]))}"
    elif key in _TEXT and not (isinstance(value, str) and value.strip()):
        yield f"{key} is {value!r}, not a text"
    elif key in _CODES:
        if not isinstance(value, dict) or not value:
            yield f"{key} is not a mapping of kinds and message keys"
            return
        for name, code in value.items():
            if name not in KIND_STATUS and name not in around.messages:
                yield f"{key}: {name} is neither an error kind nor a key of server/messages"
            if type(code) is not int or not 400 <= code <= 599:
                yield f"{key}: {name}: {code!r} is not an error code"


def _strays(node: Any, where: str, placed: set[int], names: bool = False) -> Iterator[Any]:
    """The `x-` keys of objects that are neither operations nor parameters."""
    if isinstance(node, list):
        for position, item in enumerate(node):
            yield from _strays(item, f"{where}/{position}", placed)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key.startswith("x-") and not names and id(node) not in placed:
                yield where, key
            if names or key not in _LITERAL:
                inner = not names and key in _NAMES
                yield from _strays(value, f"{where}/{key}", placed, names=inner)
