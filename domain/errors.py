"""Errors of the domain. Each names its kind and a message key; neither knows HTTP.

A contract decides how a kind shows on its wire (server/lane/errors.py); the text of a key is
looked up by language in server/messages.
"""

from collections.abc import Sequence
from typing import Any, ClassVar


class DomainError(Exception):
    """Something the caller asked for cannot be done.

    `key` names the message ("user.exists"), `details` fill its placeholders. The detail `shown` is
    what a contract may show beside the message, where it has a place for that.
    """

    kind: ClassVar[str] = "unusable"

    def __init__(self, key: str, **details: Any) -> None:
        super().__init__(key)
        self.key = key
        self.details = details


class Unusable(DomainError):
    """The input is well formed but cannot be used. HTTP 400."""

    kind = "unusable"


class Invalid(DomainError):
    """The input breaks a rule that its schema cannot state. HTTP 422.

    `loc` is the place within the body, `rule` the keyword that stands for the rule, `said` what is
    wrong there, in English as a schema's violations are, without the value.
    """

    kind = "invalid"

    def __init__(self, loc: Sequence[str | int], *, rule: str, said: str) -> None:
        super().__init__("request.invalid")
        self.loc = tuple(loc)
        self.rule = rule
        self.said = said


class Disabled(DomainError):
    """The operator has switched this off. HTTP 400 where a contract says no more."""

    kind = "disabled"


class Unauthenticated(DomainError):
    """Who the caller is could not be established. HTTP 401."""

    kind = "unauthenticated"


class Forbidden(DomainError):
    """The caller is known and may not do this. HTTP 403."""

    kind = "forbidden"


class NotFound(DomainError):
    """It does not exist, or the caller may not see it. HTTP 404."""

    kind = "not_found"


class Conflict(DomainError):
    """It exists already, or is busy. HTTP 409."""

    kind = "conflict"


class Gone(DomainError):
    """It was once and is no more. HTTP 410."""

    kind = "gone"


class PreconditionFailed(DomainError):
    """The version the caller named is not the current one. HTTP 412."""

    kind = "precondition"


class TooLarge(DomainError):
    """More than a limit allows. HTTP 413."""

    kind = "too_large"


class Throttled(DomainError):
    """Too many attempts. HTTP 429; `retry_after` is in seconds."""

    kind = "throttled"

    def __init__(self, key: str, *, retry_after: int, **details: Any) -> None:
        super().__init__(key, retry_after=retry_after, **details)
        self.retry_after = retry_after


class Unavailable(DomainError):
    """A part this needs does not answer now; trying again may help. HTTP 503."""

    kind = "unavailable"
