"""Refusals by the names of RFC 6749 §4.1.2.1 and §5.2 and RFC 6750 §3.1: the message key is
`oauth2.<error>`, `reason` fills it."""

from domain.errors import DomainError, Forbidden, Unauthenticated, Unusable

INVALID_REQUEST = "oauth2.invalid_request"
INVALID_CLIENT = "oauth2.invalid_client"
INVALID_GRANT = "oauth2.invalid_grant"
INVALID_TOKEN = "oauth2.invalid_token"  # noqa: S105


def refused(error: str, reason: str) -> DomainError:
    """The exception of an error by its RFC name: 401 for a client or token that proves nothing,
    403 for one that may not, else 400."""
    key = f"oauth2.{error}"
    if key in (INVALID_CLIENT, INVALID_TOKEN):
        return Unauthenticated(key, reason=reason)
    if error == "unauthorized_client":
        return Forbidden(key, reason=reason)
    return Unusable(key, reason=reason)
