"""Exceptions become refusals here and nowhere else (style 19).

Domain and storage know no HTTP: this table gives each kind its status. What an operation's spec
says under `x-soft` and `x-code` decides the envelope's code (rules, "Errors").
"""

from collections.abc import Mapping

from domain.errors import DomainError, Invalid, Throttled
from server.lane.refusals import Refusal
from storage.database import (
    Duplicate,
    NoSuchRow,
    Orphan,
    StorageFull,
    StorageUnavailable,
)

STATUS = {
    "unusable": 400,
    "disabled": 400,
    "unauthenticated": 401,
    "forbidden": 403,
    "not_found": 404,
    "conflict": 409,
    "gone": 410,
    "precondition": 412,
    "too_large": 413,
    "throttled": 429,
    "unavailable": 503,
}
CHALLENGE = (b"www-authenticate", b'Bearer realm="quartet"')
CHALLENGES = {
    "oauth2.invalid_client": (b"www-authenticate", b'Basic realm="quartet", charset="UTF-8"'),
    "oauth2.invalid_token": (
        b"www-authenticate",
        b'Bearer realm="quartet", error="invalid_token"',
    ),
}
"""Challenges that depend on what was wrong, by message key (RFC 6749 §5.2, RFC 6750 §3)."""


def refusal_of(
    error: Exception, soft: Mapping[str, int], codes: Mapping[str, int]
) -> Refusal | None:
    """The refusal that an exception from a handler means, or None for a fault of ours."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, Invalid):
        place = {"loc": ["body", *error.loc], "msg": error.said, "type": error.rule}
        return Refusal(422, error.key, errors=[place])
    if isinstance(error, DomainError):
        code = soft.get(error.key) or soft.get(error.kind)
        if code is not None:
            return Refusal(200, error.key, details=error.details, code=code)
        status = STATUS[error.kind]
        headers = []
        if isinstance(error, Throttled):
            headers.append((b"retry-after", b"%d" % max(1, error.retry_after)))
        if status == 401:
            headers.append(CHALLENGES.get(error.key, CHALLENGE))
        code = codes.get(error.key) or codes.get(error.kind) or status
        return Refusal(status, error.key, details=error.details, headers=headers, code=code)
    if isinstance(error, StorageFull):
        return Refusal(507, "storage.full")
    if isinstance(error, StorageUnavailable):
        return Refusal(503, "storage.unavailable", headers=[(b"retry-after", b"1")])
    if isinstance(error, Orphan):
        # What else may be gone has an error of its own: it is the caller's account.
        return Refusal(
            401, "auth.invalid", headers=[CHALLENGE], code=codes.get("unauthenticated", 401)
        )
    if isinstance(error, NoSuchRow):
        code = codes.get("not_found", 404)
        return Refusal(404, "request.not_found", code=code)
    if isinstance(error, Duplicate):
        return Refusal(409, "request.conflict", code=codes.get("conflict", 409))
    return None
