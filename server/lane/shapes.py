"""How each contract frames its answers (rules, "Errors"). One renderer per contract."""

import re
import time
from typing import Any, ClassVar, Protocol

import msgspec

_encode = msgspec.json.Encoder().encode


class Shape(Protocol):
    """The frame of one contract."""

    cookie: bool
    """Whether the contract accepts the `sage_session` cookie."""
    language: str
    """The one language of its messages; "" where Accept-Language chooses."""
    invalid: int
    """The status of a request that breaks its schema."""
    once: bool
    """Whether a query parameter that is no array may be sent only once."""

    def success(self, data: bytes) -> bytes:
        """The envelope around encoded data."""

    def failure(self, code: int, key: str, text: str, errors: list[dict[str, Any]] | None) -> bytes:
        """The body of an error: its message by key and by text, and where a schema was broken."""


class SageShape:
    """`{code, message, data, timestamp}`; the four keys and no others."""

    cookie = True
    language = ""
    invalid = 422
    once = False

    def success(self, data: bytes) -> bytes:
        return b'{"code":200,"message":"success","data":%b,"timestamp":%.6f}' % (data, time.time())

    def failure(self, code: int, key: str, text: str, errors: list[dict[str, Any]] | None) -> bytes:
        return _encode(
            {
                "code": code,
                "message": text,
                "data": None if errors is None else {"errors": errors},
                "timestamp": round(time.time(), 6),
            }
        )


class AssistantShape:
    """Plain JSON; errors are `{error}`, and violations stand under `details`."""

    cookie = False
    language = ""
    invalid = 422
    once = False

    def success(self, data: bytes) -> bytes:
        return data

    def failure(self, code: int, key: str, text: str, errors: list[dict[str, Any]] | None) -> bytes:
        if errors is None:
            return _encode({"error": text})
        return _encode({"error": "Validation error", "details": errors})


class OAuth2Shape:
    """`{error, error_description}` in any contract (RFC 6749 §5.2).

    Descriptions are ASCII without `"` and `\\`, so they are English; a request that breaks its
    schema is `invalid_request`, status 400, and no parameter may be repeated (§3.1, §3.2).
    """

    cookie = True
    language = "en"
    invalid = 400
    once = True
    _NAMES: ClassVar = {
        401: "invalid_token",
        403: "access_denied",
        429: "temporarily_unavailable",
        500: "server_error",
        503: "temporarily_unavailable",
        507: "temporarily_unavailable",
    }
    _UNSAID = re.compile(r"[^ !#-\[\]-~]")

    def success(self, data: bytes) -> bytes:
        return data

    def failure(self, code: int, key: str, text: str, errors: list[dict[str, Any]] | None) -> bytes:
        noun, _, name = key.partition(".")
        if noun != "oauth2":
            name = self._NAMES.get(code, "invalid_request")
        if errors:
            where = "/".join(map(str, errors[0]["loc"][1:])) or errors[0]["loc"][0]
            text = f"{text} {where}: {errors[0]['type']}."
        return _encode({"error": name, "error_description": self._UNSAID.sub("'", text)})


SHAPES: dict[str, Shape] = {"sage": SageShape(), "assistant": AssistantShape()}
"""The frame of each contract."""

OPERATION_SHAPES: dict[str, Shape] = {"oauth2": OAuth2Shape()}
"""The frames that an operation may have in place of its contract's (`x-shape`)."""
