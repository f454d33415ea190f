"""What the lane itself refuses, before a handler runs."""

from collections.abc import Sequence
from typing import Any


class Refusal(Exception):
    """A request the lane does not let through, or a domain error turned into a status.

    `status` is the HTTP status, `key` names the message, `code` the contract's own code when it
    differs from the status, `errors` the schema violations of a 422.
    """

    def __init__(
        self,
        status: int,
        key: str,
        *,
        details: dict[str, Any] | None = None,
        headers: Sequence[tuple[bytes, bytes]] = (),
        errors: list[dict[str, Any]] | None = None,
        code: int = 0,
    ) -> None:
        super().__init__(status, key)
        self.status = status
        self.key = key
        self.details = details or {}
        self.headers = tuple(headers)
        self.errors = errors
        self.code = code or status
