"""How each contract frames its answers (rules, "Errors"). One renderer per contract."""

import re
import time
from typing import ClassVar, Protocol

import msgspec

from server.lane.refusals import Refusal

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

    def failure(self, refusal: Refusal, text: str) -> bytes:
        """The body of a refusal; `text` is its message."""


class SageShape:
    """`{code, message, data, timestamp}`; the four keys and no others."""

    cookie = True
    language = ""
    invalid = 422
    once = False

    def success(self, data: bytes) -> bytes:
        return b'{"code":200,"message":"success","data":%b,"timestamp":%.6f}' % (data, time.time())

    def failure(self, refusal: Refusal, text: str) -> bytes:
        return _encode(
            {
                "code": refusal.code,
                "message": text,
                "data": None if refusal.errors is None else {"errors": refusal.errors},
                "timestamp": round(time.time(), 6),
            }
        )


class SandboxShape:
    """`{code, msg, data}`: a refusal's `data` is {}, beside HTTP 200 and 410 null or what the error
    shows; a schema's violations and what a client that waits must know stand in it."""

    cookie = False
    language = ""
    invalid = 422
    once = False
    _WAITING: ClassVar = ("retry_after", "limit", "window_seconds", "bucket")

    def success(self, data: bytes) -> bytes:
        return b'{"code":200,"msg":"success","data":%b}' % data

    def failure(self, refusal: Refusal, text: str) -> bytes:
        data: object = {}
        if refusal.status in (200, 410):
            data = refusal.details.get("shown")
        elif refusal.errors is not None:
            data = {"errors": refusal.errors}
        elif refusal.status == 429:
            told = refusal.details
            data = {name: told[name] for name in self._WAITING if name in told}
        return _encode({"code": refusal.code, "msg": text, "data": data})


class AssistantShape:
    """Plain JSON; errors are `{error}`, and violations stand under `details`."""

    cookie = False
    language = ""
    invalid = 422
    once = False

    def success(self, data: bytes) -> bytes:
        return data

    def failure(self, refusal: Refusal, text: str) -> bytes:
        if refusal.errors is None:
            return _encode({"error": text})
        return _encode({"error": "Validation error", "details": refusal.errors})


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

    def failure(self, refusal: Refusal, text: str) -> bytes:
        noun, _, name = refusal.key.partition(".")
        errors = refusal.errors
        if noun != "oauth2":
            name = self._NAMES.get(refusal.code, "invalid_request")
        if errors:
            where = "/".join(map(str, errors[0]["loc"][1:])) or errors[0]["loc"][0]
            text = f"{text} {where}: {errors[0]['type']}."
        return _encode({"error": name, "error_description": self._UNSAID.sub("'", text)})


SHAPES: dict[str, Shape] = {
    "sage": SageShape(),
    "sandbox": SandboxShape(),
    "assistant": AssistantShape(),
}
"""The frame of each contract."""

OPERATION_SHAPES: dict[str, Shape] = {"oauth2": OAuth2Shape()}
"""The frames that an operation may have in place of its contract's (`x-shape`)."""
