"""The authorization server: from an authorization request to a grant, its tokens and userinfo."""

import asyncio
import secrets
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import msgspec

from domain.caller import Caller, Role
from domain.errors import Forbidden, Unauthenticated
from domain.identity.tokens import Tokens
from domain.identity.trail import Trail
from domain.ids import uuid7
from domain.oauth2.clients import SCOPES, Client
from domain.oauth2.errors import INVALID_TOKEN, refused
from storage.database import Database, Unit
from storage.oauth_grants import Grant, NewGrant, OAuthGrantStore
from storage.users import UserStore

if TYPE_CHECKING:
    from domain.oauth2.judging import Asked, Judge, Known

KEPT_S = 7 * 24 * 3600
"""How long the row of an ended grant is kept, so that a late reuse is still seen."""


class OAuth2Policy(msgspec.Struct, frozen=True):
    """Times in seconds. `issuer` is a URL, `root` the path under which a proxy serves the server
    ("" or "/ai"); the pages that people are sent to lie under it."""

    issuer: str
    root: str = ""
    code_ttl_s: int = 60
    access_ttl_s: int = 3600
    refresh_ttl_s: int = 7 * 24 * 3600


class Metadata(msgspec.Struct, frozen=True):
    """What a client needs to know of the server (RFC 8414 §2)."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    userinfo_endpoint: str
    scopes_supported: tuple[str, ...] = SCOPES
    response_types_supported: tuple[str, ...] = ("code",)
    response_modes_supported: tuple[str, ...] = ("query",)
    grant_types_supported: tuple[str, ...] = ("authorization_code", "refresh_token")
    token_endpoint_auth_methods_supported: tuple[str, ...] = (
        "client_secret_basic",
        "client_secret_post",
        "none",
    )
    code_challenge_methods_supported: tuple[str, ...] = ("S256",)
    authorization_response_iss_parameter_supported: bool = True


class Issued(msgspec.Struct, frozen=True):
    """The answer to a token request (RFC 6749 §5.1); `expires_in` is in seconds."""

    access_token: str
    expires_in: int
    refresh_token: str
    scope: str
    token_type: str = "Bearer"  # noqa: S105


class Userinfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who granted a token. The e-mail address takes the scope `email`, name and picture take
    `profile`; what the account has not is left out."""

    sub: str
    iss: str
    preferred_username: str
    role: str
    name: str | None = None
    picture: str | None = None
    avatar_url: str | None = None
    email: str | None = None
    email_verified: bool | None = None


class AuthorizationServer:
    """Grants to the clients of the configuration. A grant lasts as long as the login session it
    was given in, and its access tokens open userinfo and nothing else."""

    def __init__(
        self,
        database: Database,
        *,
        grants: OAuthGrantStore,
        users: UserStore,
        clients: Mapping[str, Client],
        tokens: Tokens,
        trail: Trail,
        policy: OAuth2Policy,
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._grants = grants
        self._users = users
        self._clients = clients
        self._tokens = tokens
        self._trail = trail
        self._policy = policy
        self._clock = clock
        self._judge: Judge | None = None

    def metadata(self) -> Metadata:
        issuer = self._policy.issuer
        return Metadata(
            issuer=issuer,
            authorization_endpoint=f"{issuer}/authorize",
            token_endpoint=f"{issuer}/token",
            userinfo_endpoint=f"{issuer}/userinfo",
        )

    # --- authorization ------------------------------------------------------------------------

    async def authorize(self, caller: Caller, query: Mapping[str, str]) -> str:
        """Where the browser goes next: to the login page, to the consent page, or back to the
        client with a code or an error.

        Raises DomainError where the client or its redirect_uri is not known, so that nothing is
        ever sent to an address that is not the client's.
        """
        asked = await self._asked(query)
        if isinstance(asked, str):
            return asked
        root = self._policy.root
        if not caller.user_id:
            here = f"{root}/oauth2/authorize?{urlencode(query)}"
            return f"{root}/login?next={quote(here, safe='')}"
        if not asked.client.skip_consent and not await self._grants.has_consent(
            caller.user_id, asked.client.client_id, asked.scope
        ):
            return f"{root}/consent?{urlencode(query)}"
        return await self._grant(caller, asked)

    async def consent_asked(self, query: Mapping[str, str]) -> "Asked | str":
        """What a consent page asks for, or where the browser goes instead. Raises as
        `authorize`."""
        return await self._asked(query)

    async def decide(
        self, caller: Caller, query: Mapping[str, str], *, allow: bool, address: str = ""
    ) -> str:
        """Remember a yes for this account, client and set of scopes; where the browser goes next.
        A no is told to the client and not remembered. Raises as `authorize`."""
        asked = await self._asked(query)
        if isinstance(asked, str):
            return asked
        if not allow:
            return self._back(asked, error="access_denied")
        now = self._clock()
        client_id = asked.client.client_id

        def unit() -> Unit[None]:
            yield from self._grants.consent(caller.user_id, client_id, asked.scope, now)
            yield from self._trail.tell(
                caller.user_id,
                "oauth2.consented",
                actor=caller.user_id,
                address=address,
                client_id=client_id,
                scope=asked.scope,
            )

        await self._database.write(unit)
        return await self._grant(caller, asked)

    async def _asked(self, query: Mapping[str, str]) -> "Asked | str":
        from domain.oauth2.judging import Refusal

        judge = await self._judging()
        try:
            return judge.authorization(query)
        except Refusal as refusal:
            return f"{refusal.location}&{urlencode({'iss': self._policy.issuer})}"

    async def _grant(self, caller: Caller, asked: "Asked") -> str:
        now = self._clock()
        code = secrets.token_urlsafe(36)
        grant = NewGrant(
            id=uuid7(),
            user_id=caller.user_id,
            session_id=caller.session_id or None,
            client_id=asked.client.client_id,
            scope=asked.scope,
            redirect_uri=asked.redirect_uri,
            redirect_named=asked.redirect_named,
            code=code,
            code_challenge=asked.code_challenge,
            code_expires_at=now + self._policy.code_ttl_s,
            created_at=now,
            expires_at=now + self._policy.code_ttl_s,
        )
        await self._database.write(lambda: self._grants.add(grant))
        return self._back(asked, code=code)

    def _back(self, asked: "Asked", **answer: str) -> str:
        """The client's address with an answer (RFC 6749 §4.1.2, `iss` by RFC 9207)."""
        if asked.state is not None:
            answer["state"] = asked.state
        answer["iss"] = self._policy.issuer
        joint = "&" if "?" in asked.redirect_uri else "?"
        return f"{asked.redirect_uri}{joint}{urlencode(answer)}"

    # --- tokens -------------------------------------------------------------------------------

    async def issue(
        self, form: Mapping[str, str], *, authorization: str = "", address: str = ""
    ) -> Issued:
        """Exchange a code or a refresh token, once, for tokens.

        `authorization` is the header that a client may prove itself by. A code or a refresh token
        that comes again ends its grant: either the client or a thief holds the newer tokens (RFC
        6749 §4.1.2, RFC 9700 §4.14.2). Raises DomainError by the names of RFC 6749 §5.2.
        """
        judge = await self._judging()
        known = await self._known(form, address)
        judged = judge.token(form, authorization, known)
        grant, refresh = judged.grant, secrets.token_urlsafe(32)
        now = self._clock()
        until = now + self._policy.refresh_ttl_s
        by_code = form["grant_type"] == "authorization_code"

        def unit() -> Unit[bool]:
            if by_code:
                taken = yield from self._grants.use_code(grant.id, now=now, until=until)
            else:
                taken = yield from self._grants.use_refresh(
                    grant.id, form["refresh_token"], now=now, until=until
                )
            if not taken:  # another request was first, with the same code or token
                yield from self._end(grant, now, address)
                return False
            yield from self._grants.add_refresh(grant.id, refresh, until=until)
            if by_code:
                yield from self._trail.tell(
                    grant.user_id,
                    "oauth2.granted",
                    actor=grant.user_id,
                    address=address,
                    client_id=grant.client_id,
                    scope=grant.scope,
                )
            return True

        if not await self._database.write(unit):
            raise refused("invalid_grant", "It is not known, was used, or has run out.")
        return Issued(
            access_token=self._tokens.client_access(
                grant.user_id,
                grant.id,
                grant.client_id,
                self._policy.access_ttl_s,
                judged.scope,
            ),
            expires_in=self._policy.access_ttl_s,
            refresh_token=refresh,
            scope=judged.scope,
        )

    async def _known(self, form: Mapping[str, str], address: str) -> "Known":
        """The rows that a token request names; a reuse is answered here, before anything else."""
        from domain.oauth2.judging import Known

        now = self._clock()
        kind = form.get("grant_type")
        grant: Grant | None = None
        fresh = False
        if kind == "authorization_code" and (code := form.get("code")):
            grant = await self._grants.find_by_code(code)
            fresh = grant is not None and grant.code_expires_at > now
            used = grant is not None and grant.code_used_at is not None
        elif kind == "refresh_token" and (token := form.get("refresh_token")):
            refresh = await self._grants.find_refresh(token)
            grant = await self._grants.find(refresh.grant_id) if refresh else None
            fresh = refresh is not None and refresh.expires_at > now
            used = refresh is not None and refresh.used_at is not None
        if grant is None:
            return Known()
        if used:
            ended = grant
            await self._database.write(lambda: self._end(ended, now, address))
        usable = fresh and not used and grant.holds(now) and grant.status == "active"
        return Known(grant, usable)

    def _end(self, grant: Grant, now: float, address: str) -> Unit[None]:
        if (yield from self._grants.revoke(grant.id, now)):
            yield from self._trail.tell(
                grant.user_id,
                "oauth2.reused",
                actor="",
                address=address,
                client_id=grant.client_id,
            )

    # --- userinfo -----------------------------------------------------------------------------

    async def verify(self, token: str) -> Caller:
        """Who an access token of a client stands for.

        Raises Unauthenticated("oauth2.invalid_token"), Forbidden("account.inactive").
        """
        try:
            claims = self._tokens.read_client_access(token, self._clients)
        except Unauthenticated:
            raise refused("invalid_token", "The token is not valid, or has run out.") from None
        grant = await self._grants.find(claims.grant_id)
        if (
            grant is None
            or (grant.user_id, grant.client_id) != (claims.user_id, claims.client_id)
            or not grant.holds(self._clock())
        ):
            raise refused("invalid_token", "The grant behind the token has ended.")
        if grant.status != "active":
            raise Forbidden("account.inactive")
        role: Role = "admin" if grant.role == "admin" else "operator"
        return Caller(
            user_id=grant.user_id,
            role=role,
            username=grant.username,
            via="client",
            scope=claims.scope,
        )

    async def userinfo(self, caller: Caller) -> Userinfo:
        """What the token's scopes show of the account. Raises
        Unauthenticated("oauth2.invalid_token") when it was deleted meanwhile."""
        user = await self._users.find(caller.user_id)
        if user is None:
            raise Unauthenticated(INVALID_TOKEN, reason="The account is gone.")
        scopes = caller.scope.split()
        shown: dict[str, Any] = {}
        if "profile" in scopes:
            shown = {"name": user.nickname, "picture": user.avatar, "avatar_url": user.avatar}
        if "email" in scopes and user.email:
            shown |= {"email": user.email, "email_verified": user.email_verified}
        return Userinfo(
            sub=user.id,
            iss=self._policy.issuer,
            preferred_username=user.username,
            role="admin" if user.role == "admin" else "user",
            **shown,
        )

    async def purge(self) -> int:
        """Forget grants that ended a week ago or earlier; how many."""
        before = self._clock() - KEPT_S
        return await self._database.write(lambda: self._grants.purge(before))

    async def _judging(self) -> "Judge":
        if self._judge is None:
            self._judge = await asyncio.to_thread(_judge, self._clients)
        return self._judge


def _judge(clients: Mapping[str, Client]) -> "Judge":
    from domain.oauth2.judging import Judge

    return Judge(clients)
