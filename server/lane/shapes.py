"""How each contract frames its answers (rules, "Errors"). One renderer per contract."""

import time
from typing import Any, Protocol

import msgspec

_encode = msgspec.json.Encoder().encode


class Shape(Protocol):
    """The frame of one contract."""

    cookie: bool
    """Whether the contract accepts the `sage_session` cookie."""

    def success(self, data: bytes) -> bytes:
        """The envelope around encoded data."""

    def failure(self, code: int, text: str, errors: list[dict[str, Any]] | None) -> bytes:
        """The body of an error; `errors` are the schema violations of a 422."""


class SageShape:
    """`{code, message, data, timestamp}`; the four keys and no others."""

    cookie = True

    def success(self, data: bytes) -> bytes:
        return b'{"code":200,"message":"success","data":%b,"timestamp":%.6f}' % (data, time.time())

    def failure(self, code: int, text: str, errors: list[dict[str, Any]] | None) -> bytes:
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

    def success(self, data: bytes) -> bytes:
        return data

    def failure(self, code: int, text: str, errors: list[dict[str, Any]] | None) -> bytes:
        if errors is None:
            return _encode({"error": text})
        return _encode({"error": "Validation error", "details": errors})


SHAPES: dict[str, Shape] = {"sage": SageShape(), "assistant": AssistantShape()}
