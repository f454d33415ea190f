"""The one issuer and verifier of tokens, for every contract.

Tokens are JWTs (RFC 7519) signed with HS256. An access token carries the claims of rules,
"Accounts, roles, tokens", beside the claims that its contract documents; only the common ones are
ever read. A refresh token is for this server alone: it names its login session and a secret that
the session knows by its hash.
"""

import hashlib
import math
import secrets
from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec

from domain.errors import Unauthenticated

AUDIENCE = "quartet"
REFRESH_AUDIENCE = "quartet:refresh"
LONGEST = 8192
"""Bytes of the longest token that is looked at."""

_COMMON = ("iss", "aud", "sub", "sid", "jti", "iat", "exp")
_FOREIGN_KEYS = ("jku", "x5u", "jwk", "x5c", "crit", "zip", "b64")


class Claims(msgspec.Struct, frozen=True):
    """What a verified token says. `secret` is set in refresh tokens only."""

    user_id: str
    session_id: str
    expires_at: float
    secret: str = ""


class ClientClaims(msgspec.Struct, frozen=True):
    """What an OAuth2 access token says: who granted it to which client, and for what."""

    user_id: str
    grant_id: str
    client_id: str
    scope: str


class Tokens:
    """Issues and reads tokens with one key. Reading raises Unauthenticated, with the key
    "auth.expired" for a token that was good once and "auth.invalid" for any other."""

    def __init__(self, key: bytes, issuer: str, clock: Callable[[], float]) -> None:
        self._key = key
        self._issuer = issuer
        self._clock = clock
        self._kid = hashlib.sha256(b"quartet kid " + key).hexdigest()[:16]

    def access(
        self, user_id: str, session_id: str, ttl: int, claims: Mapping[str, Any] | None = None
    ) -> str:
        """An access token that lives for `ttl` seconds. `claims` are the contract's own; they
        cannot replace a common one."""
        return self._sign(AUDIENCE, "access", user_id, session_id, ttl, claims or {})

    def refresh(self, user_id: str, session_id: str, ttl: int, secret: str) -> str:
        """A refresh token; `uid` and `nonce` are the names that sage's clients know."""
        own = {"uid": user_id, "nonce": secret}
        return self._sign(REFRESH_AUDIENCE, "refresh", user_id, session_id, ttl, own)

    def read_access(self, token: str) -> Claims:
        return self._claims(self._verified(token, AUDIENCE, "access"))

    def read_refresh(self, token: str) -> Claims:
        payload = self._verified(token, REFRESH_AUDIENCE, "refresh")
        secret = payload.get("nonce")
        if not isinstance(secret, str):
            raise Unauthenticated("auth.invalid")
        return self._claims(payload, secret)

    def client_access(
        self, user_id: str, grant_id: str, client_id: str, ttl: int, scope: str
    ) -> str:
        """An OAuth2 access token: its audience is the client, so no contract takes it."""
        return self._sign(
            client_id, "oauth2", user_id, grant_id, ttl, {"scope": scope, "client_id": client_id}
        )

    def read_client_access(self, token: str, clients: Collection[str]) -> ClientClaims:
        """An OAuth2 access token of one of `clients`. Raises as the other readers."""
        import jwt

        try:
            named = jwt.decode(token[:LONGEST], options={"verify_signature": False}).get("aud")
        except (jwt.InvalidTokenError, ValueError, RecursionError) as error:
            raise Unauthenticated("auth.invalid") from error
        if not isinstance(named, str) or named not in clients:
            raise Unauthenticated("auth.invalid")
        payload = self._verified(token, named, "oauth2")
        scope = payload.get("scope")
        if not isinstance(scope, str):
            raise Unauthenticated("auth.invalid")
        claims = self._claims(payload)
        return ClientClaims(claims.user_id, claims.session_id, named, scope)

    def _sign(
        self,
        audience: str,
        kind: str,
        user_id: str,
        session_id: str,
        ttl: int,
        own: Mapping[str, Any],
    ) -> str:
        import jwt

        now = int(self._clock())
        payload = {
            **own,
            "iss": self._issuer,
            "aud": audience,
            "sub": user_id,
            "sid": session_id,
            "jti": secrets.token_urlsafe(16),
            "iat": now,
            "exp": now + ttl,
            "type": kind,
        }
        return jwt.encode(payload, self._key, algorithm="HS256", headers={"kid": self._kid})

    def _verified(self, token: str, audience: str, kind: str) -> dict[str, Any]:
        import jwt

        if len(token) > LONGEST or not token.isascii():
            raise Unauthenticated("auth.invalid")
        try:
            header = jwt.get_unverified_header(token)
            if header.get("kid") != self._kid or any(name in header for name in _FOREIGN_KEYS):
                raise Unauthenticated("auth.invalid")
            # Times are checked below, by a clock that never goes back.
            payload = jwt.decode(
                token,
                self._key,
                algorithms=["HS256"],
                audience=audience,
                issuer=self._issuer,
                options={
                    "require": list(_COMMON),
                    "strict_aud": True,
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except (jwt.InvalidTokenError, ValueError, RecursionError) as error:
            raise Unauthenticated("auth.invalid") from error
        if payload.get("type") != kind:
            raise Unauthenticated("auth.invalid")
        now = self._clock()
        not_before = payload.get("nbf", 0)
        if not _is_time(not_before) or not_before > now or not _is_time(payload["exp"]):
            raise Unauthenticated("auth.invalid")
        if payload["exp"] <= now:
            raise Unauthenticated("auth.expired")
        return payload

    @staticmethod
    def _claims(payload: Mapping[str, Any], secret: str = "") -> Claims:
        try:
            return msgspec.convert(
                {
                    "user_id": payload["sub"],
                    "session_id": payload["sid"],
                    "expires_at": payload["exp"],
                    "secret": secret,
                },
                Claims,
            )
        except msgspec.ValidationError as error:
            raise Unauthenticated("auth.invalid") from error


def _is_time(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)
