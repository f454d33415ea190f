"""Plans for path, query, header and cookie parameters, made once per operation.

Text from the wire is converted by the declared type with no leniency (`1_0` and ` 1` are not
integers), then checked against the rest of its schema. An array repeats its parameter; with
`x-commas: true` commas separate values as well.
"""

import keyword
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote_plus

from server.lane.cookies import Cookies
from server.lane.refusals import Refusal
from server.lane.schemas import Schemas, Validator, Violation

_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,18})", re.ASCII)
_NUMBER = re.compile(
    r"-?(?:0|[1-9][0-9]{0,30})(?:\.[0-9]{1,30})?(?:[eE][+-]?[0-9]{1,3})?", re.ASCII
)
_PLAIN = {"type", "default", "description", "example", "nullable", "format", "title"}
_MISSING = object()
READ_BY_LANE = frozenset(
    {
        "accept",
        "accept-language",
        "idempotency-key",
        "if-match",
        "if-none-match",
        "last-event-id",
        "x-request-id",
    }
)
"""Header parameters that a spec documents and the lane itself reads: no handler names them."""


def argument_name(name: str) -> str:
    """What a handler calls a parameter: `from` is `from_`, the header `X-Trace` is `x_trace`."""
    name = name.replace("-", "_")
    return f"{name}_" if keyword.iskeyword(name) else name


def _integer(text: str) -> int:
    if not _INTEGER.fullmatch(text):
        raise ValueError
    value = int(text)
    if not -(2**63) <= value < 2**63:
        raise ValueError
    return value


def _number(text: str) -> float:
    if not _NUMBER.fullmatch(text) or (value := float(text)) in (float("inf"), float("-inf")):
        raise ValueError
    return value


def _boolean(text: str) -> bool:
    if text == "true":
        return True
    if text == "false":
        return False
    raise ValueError


CONVERT: dict[str, Callable[[str], Any]] = {
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "string": str,
}


class Parameter:
    """How one parameter's text becomes a value."""

    __slots__ = (
        "_commas",
        "_convert",
        "_expected",
        "_many",
        "_validator",
        "argument",
        "default",
        "location",
        "name",
        "required",
    )

    def __init__(
        self, declared: Mapping[str, Any], schema: dict[str, Any], schemas: Schemas
    ) -> None:
        self.name: str = declared["name"]
        self.location: str = declared["in"]
        self.argument = argument_name(self.name.lower() if self.location == "header" else self.name)
        self.required = bool(declared.get("required"))
        self.default = schema.get("default", _MISSING)
        self._many = schema.get("type") == "array"
        self._commas = bool(declared.get("x-commas"))
        item = schema.get("items", {}) if self._many else schema
        self._expected: str = item.get("type", "string")
        self._convert = CONVERT[self._expected]
        self._validator: Validator | None = None
        if set(schema) - _PLAIN or self._many:
            self._validator = schemas.validator(schema, self.location)

    def value(self, texts: list[str] | None) -> Any:
        """The converted value, the default, or None when absent. Raises Violation."""
        if not texts:
            if self.default is not _MISSING:
                return self.default
            if self.required:
                raise self._violation("is required", "missing")
            return None
        if self._many:
            if self._commas:
                texts = [part for text in texts for part in text.split(",")]
            value: Any = [self._one(text) for text in texts]
        else:
            value = self._one(texts[-1])
        if self._validator is not None and not self._validator.accepts(value):
            try:
                self._validator.check(value)
            except Violation as violation:
                for error in violation.errors:
                    error["loc"].insert(1, self.name)
                raise
        return value

    def repeated(self) -> Violation:
        """What is wrong with a parameter that comes more than once."""
        return self._violation("is repeated", "repeated")

    def _one(self, text: str) -> Any:
        if "\0" in text:
            raise self._violation("holds NUL", "type")
        try:
            return self._convert(text)
        except ValueError:
            raise self._violation(f"is not of type {self._expected}", "type") from None

    def _violation(self, message: str, kind: str) -> Violation:
        return Violation([{"loc": [self.location, self.name], "msg": message, "type": kind}])


def parse_query(raw: bytes) -> dict[str, list[str]]:
    """A query string as names and their values in order. Raises Refusal 400 if not UTF-8."""
    found: dict[str, list[str]] = {}
    if not raw:
        return found
    try:
        text = raw.decode("ascii")
        for pair in text.split("&"):
            if not pair:
                continue
            name, _, value = pair.partition("=")
            if "%" in pair or "+" in pair:
                name = unquote_plus(name, errors="strict")
                value = unquote_plus(value, errors="strict")
            found.setdefault(name, []).append(value)
    except UnicodeDecodeError:
        raise Refusal(400, "request.bad_query") from None
    return found


class Plan:
    """All parameters of one operation, by argument name."""

    __slots__ = ("_cookies", "_elsewhere", "_once", "_path", "arguments")

    def __init__(
        self,
        declared: list[Mapping[str, Any]],
        path: str,
        schemas: Schemas,
        cookies: Cookies,
        *,
        once: bool = False,
    ) -> None:
        """`once` refuses a parameter that is repeated and is no array."""
        self._cookies = cookies
        self._once = once
        parameters = {
            p["name"]: Parameter(p, _schema(p), schemas)
            for p in declared
            if not (p["in"] == "header" and p["name"].lower() in READ_BY_LANE)
        }
        names = re.findall(r"\{([^}]+)\}", path)
        self._path = tuple(parameters[name] for name in names)
        self._elsewhere = tuple(p for p in parameters.values() if p.location != "path")
        self.arguments = frozenset(p.argument for p in parameters.values())

    def values(
        self, captured: tuple[str, ...], query: bytes, headers: Mapping[bytes, bytes]
    ) -> dict[str, Any]:
        """Every parameter's value. Raises Refusal 422 with every violation, 400 for a bad query."""
        found: dict[str, Any] = {}
        errors: list[dict[str, Any]] = []
        for parameter, text in zip(self._path, captured, strict=True):
            try:
                found[parameter.argument] = parameter.value([text])
            except Violation as violation:
                errors.extend(violation.errors)
        if self._elsewhere:
            texts = parse_query(query)
            for parameter in self._elsewhere:
                try:
                    if parameter.location == "query":
                        given = texts.get(parameter.name)
                        if self._once and given and len(given) > 1:
                            raise parameter.repeated()
                    elif parameter.location == "cookie":
                        cookie = self._cookies.read(headers, parameter.name)
                        given = None if cookie is None else [cookie]
                    else:
                        header = headers.get(parameter.name.lower().encode())
                        given = None if header is None else [header.decode("latin-1")]
                    found[parameter.argument] = parameter.value(given)
                except Violation as violation:
                    errors.extend(violation.errors)
        if errors:
            raise Refusal(422, "request.invalid", errors=errors)
        return found


def _schema(declared: Mapping[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = declared["schema"]
    return schema
