"""What accounts granted to OAuth2 clients.

A grant begins with its authorization code and goes on as a family of refresh tokens, of which one
is current. It belongs to the login session it was given in and ends with that. Codes and tokens
are stored as their SHA-256 alone.
"""

import hashlib

import msgspec
from sqlalchemy import and_, bindparam, delete, func, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from storage.database import Database, Statement, Unit
from storage.schema import login_sessions, oauth_consents, oauth_refresh_tokens, users
from storage.schema import oauth_grants as grants


class Grant(msgspec.Struct, frozen=True):
    """A row of `oauth_grants` with the state of its account. `session_id` is None for an account
    that a proxy asserted; `redirect_named` says whether the request named its redirect_uri."""

    id: str
    user_id: str
    session_id: str | None
    client_id: str
    scope: str
    redirect_uri: str
    redirect_named: bool
    code_challenge: str | None
    code_expires_at: float
    code_used_at: float | None
    expires_at: float
    revoked_at: float | None
    username: str
    role: str
    status: str
    session_expires_at: float | None
    session_revoked_at: float | None

    def holds(self, now: float) -> bool:
        """Whether neither the grant nor the login session that gave it has ended."""
        if self.revoked_at is not None or self.expires_at <= now:
            return False
        if self.session_id is None:
            return True
        return self.session_revoked_at is None and (self.session_expires_at or 0.0) > now


class Refresh(msgspec.Struct, frozen=True):
    """A refresh token that was issued; `used_at` is set once it was exchanged."""

    grant_id: str
    expires_at: float
    used_at: float | None


class NewGrant(msgspec.Struct, frozen=True):
    """A row to add; `code` is the secret, stored hashed."""

    id: str
    user_id: str
    session_id: str | None
    client_id: str
    scope: str
    redirect_uri: str
    redirect_named: bool
    code: str
    code_challenge: str | None
    code_expires_at: float
    created_at: float
    expires_at: float


def hashed(secret: str) -> str:
    """SHA-256, hex. Codes and tokens have 256 random bits, so a slow hash would add nothing."""
    return hashlib.sha256(secret.encode()).hexdigest()


_found = (
    select(
        grants.c.id,
        grants.c.user_id,
        grants.c.session_id,
        grants.c.client_id,
        grants.c.scope,
        grants.c.redirect_uri,
        grants.c.redirect_named,
        grants.c.code_challenge,
        grants.c.code_expires_at,
        grants.c.code_used_at,
        grants.c.expires_at,
        grants.c.revoked_at,
        users.c.username,
        users.c.role,
        users.c.status,
        login_sessions.c.expires_at,
        login_sessions.c.revoked_at,
    )
    .join(users, users.c.id == grants.c.user_id)
    .outerjoin(login_sessions, login_sessions.c.id == grants.c.session_id)
    .limit(1)
)
_one = grants.c.id == bindparam("grant_id")

ADD = Statement(insert(grants))
FIND = Statement(_found.where(_one), into=Grant)
FIND_BY_CODE = Statement(_found.where(grants.c.code_hash == bindparam("code_hash")), into=Grant)
USE_CODE = Statement(
    update(grants)
    .where(
        _one,
        grants.c.code_used_at.is_(None),
        grants.c.revoked_at.is_(None),
        grants.c.code_expires_at > bindparam("now"),
    )
    .values(code_used_at=bindparam("now"), expires_at=bindparam("until"))
    .returning(grants.c.id)
)
EXTEND = Statement(
    update(grants)
    .where(_one, grants.c.revoked_at.is_(None))
    .values(expires_at=bindparam("until"))
    .returning(grants.c.id)
)
REVOKE = Statement(
    update(grants)
    .where(_one, grants.c.revoked_at.is_(None))
    .values(revoked_at=bindparam("now"))
    .returning(grants.c.id)
)
ADD_REFRESH = Statement(insert(oauth_refresh_tokens))
FIND_REFRESH = Statement(
    select(
        oauth_refresh_tokens.c.grant_id,
        oauth_refresh_tokens.c.expires_at,
        oauth_refresh_tokens.c.used_at,
    ).where(oauth_refresh_tokens.c.token_hash == bindparam("hash")),
    into=Refresh,
)
USE_REFRESH = Statement(
    update(oauth_refresh_tokens)
    .where(
        oauth_refresh_tokens.c.token_hash == bindparam("hash"),
        oauth_refresh_tokens.c.used_at.is_(None),
        oauth_refresh_tokens.c.expires_at > bindparam("now"),
    )
    .values(used_at=bindparam("now"))
    .returning(oauth_refresh_tokens.c.grant_id)
)
CONSENT = Statement(
    {
        "sqlite": sqlite.insert(oauth_consents).on_conflict_do_nothing(),
        "postgresql": postgresql.insert(oauth_consents).on_conflict_do_nothing(),
    }
)
CONSENTED = Statement(
    select(func.count()).where(
        oauth_consents.c.user_id == bindparam("user_id"),
        oauth_consents.c.client_id == bindparam("client_id"),
        oauth_consents.c.scope == bindparam("scope"),
    )
)
PURGE = Statement(
    delete(grants).where(
        or_(
            grants.c.expires_at < bindparam("before"),
            and_(grants.c.revoked_at.is_not(None), grants.c.revoked_at < bindparam("before")),
        )
    )
)


class OAuthGrantStore:
    """Reads are coroutines, writes are units."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, grant_id: str) -> Grant | None:
        """The grant, whether or not it has ended."""
        return await self._database.read_one(FIND(grant_id=grant_id))

    async def find_by_code(self, code: str) -> Grant | None:
        """The grant that a code began, whether or not the code was used."""
        return await self._database.read_one(FIND_BY_CODE(code_hash=hashed(code)))

    async def find_refresh(self, token: str) -> Refresh | None:
        """A refresh token as it was issued, whether or not it was exchanged."""
        return await self._database.read_one(FIND_REFRESH(hash=hashed(token)))

    async def has_consent(self, user_id: str, client_id: str, scope: str) -> bool:
        """Whether an account said yes to exactly these scopes of a client."""
        asked = CONSENTED(user_id=user_id, client_id=client_id, scope=scope)
        ((count,),) = await self._database.read(asked)
        return bool(count)

    def consent(self, user_id: str, client_id: str, scope: str, now: float) -> Unit[None]:
        """Remember a yes; of no effect when it is known."""
        yield CONSENT(user_id=user_id, client_id=client_id, scope=scope, created_at=now)

    def add(self, grant: NewGrant) -> Unit[None]:
        row = msgspec.structs.asdict(grant)
        code = row.pop("code")
        yield ADD(**row, code_hash=hashed(code))

    def use_code(self, grant_id: str, *, now: float, until: float) -> Unit[bool]:
        """Take the code and let the grant last until a time; False when the code was taken before
        or has run out."""
        return bool((yield USE_CODE(grant_id=grant_id, now=now, until=until)))

    def add_refresh(self, grant_id: str, token: str, *, until: float) -> Unit[None]:
        yield ADD_REFRESH(token_hash=hashed(token), grant_id=grant_id, expires_at=until)

    def use_refresh(self, grant_id: str, token: str, *, now: float, until: float) -> Unit[bool]:
        """Exchange a refresh token and let its grant last until a time; False when it was
        exchanged before, has run out, or the grant has ended."""
        if not (yield USE_REFRESH(hash=hashed(token), now=now)):
            return False
        return bool((yield EXTEND(grant_id=grant_id, until=until)))

    def revoke(self, grant_id: str, now: float) -> Unit[bool]:
        """End a grant with all its tokens; False when it had ended before."""
        return bool((yield REVOKE(grant_id=grant_id, now=now)))

    def purge(self, before: float) -> Unit[int]:
        """Forget grants that ended before a time; how many."""
        changed: int = yield PURGE(before=before)
        return changed
