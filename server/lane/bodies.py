"""Reading a JSON body (rules, "Routing"): size, parse, refuse what no store can hold, schema.

jiter catches duplicate keys, which orjson and msgspec take silently. Text that holds NUL or a lone
surrogate, numbers that are not finite, integers beyond 64 bits and nesting beyond 100 are refused
as unusable JSON (RFC 8259 §8.2, §9 let a receiver set such limits).
"""

import re
from typing import Any

import jiter
from starlette.types import Receive

from server.lane.refusals import Refusal

DEPTH_MAX = 100
_INTEGER_MAX = 2**63 - 1
_INTEGER_MIN = -(2**63)
_SUSPECT = re.compile(rb"[0-9](?:[0-9]{18}|[eE])")


class ClientGone(Exception):
    """The client left while its request was being read."""


async def read_body(receive: Receive, limit: int, declared: bytes | None) -> bytes:
    """The whole body, at most `limit` bytes.

    Raises Refusal 413 as soon as the limit is known to be passed, ClientGone when the client
    leaves. That it keeps sending is the protocol's to see to (server/protocol.py).
    """
    if declared is not None and (not declared.isdigit() or int(declared) > limit):
        raise Refusal(413, "request.too_large", details={"limit": limit})
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGone
    body: bytes = message.get("body", b"")
    if message.get("more_body"):
        chunks = [body]
        size = len(body)
        while message.get("more_body"):
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > limit:
                raise Refusal(413, "request.too_large", details={"limit": limit})
            chunks.append(chunk)
        body = b"".join(chunks)
    if len(body) > limit:
        raise Refusal(413, "request.too_large", details={"limit": limit})
    return body


def parse_json(body: bytes) -> Any:
    """The value of a JSON text. Raises Refusal 400 for anything a store could not hold."""
    try:
        value = jiter.from_json(body, allow_inf_nan=False, catch_duplicate_keys=True)
    except ValueError as error:
        raise Refusal(400, "request.not_json", details={"reason": _reason(error)}) from None
    if b"\\u" in body or _SUSPECT.search(body) or body.count(b"[") + body.count(b"{") > DEPTH_MAX:
        _scan(value)
    return value


def _reason(error: ValueError) -> str:
    """jiter's text without the key it quotes: an error never repeats what was sent."""
    return re.sub(r'key ".*" at', "key at", str(error), flags=re.DOTALL)[:200]


def _scan(value: Any) -> None:
    """Refuse what passed the parser and must not pass us; iterative, so depth costs no stack."""
    pending = [(value, 1)]
    while pending:
        item, depth = pending.pop()
        if isinstance(item, str):
            _check_text(item)
        elif isinstance(item, dict | list):
            if depth > DEPTH_MAX:
                raise Refusal(400, "request.not_json", details={"reason": "nested too deeply"})
            if isinstance(item, dict):
                for key in item:
                    _check_text(key)
                item = item.values()
            pending.extend((child, depth + 1) for child in item)
        elif isinstance(item, float):
            if item != item or item in (float("inf"), float("-inf")):
                raise Refusal(400, "request.not_json", details={"reason": "number out of range"})
        elif isinstance(item, int) and not _INTEGER_MIN <= item <= _INTEGER_MAX:
            raise Refusal(400, "request.not_json", details={"reason": "number out of range"})


def _check_text(text: str) -> None:
    if "\0" in text or (not text.isprintable() and _has_surrogate(text)):
        raise Refusal(400, "request.not_json", details={"reason": "text holds NUL or a surrogate"})


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)
