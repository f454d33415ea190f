"""Login sessions: one row per login. A row is what a cookie, an access token (`sid`) and a family
of refresh tokens have in common; ending the row ends them all.

Neither the cookie nor a refresh token is stored, only its SHA-256.
"""

import hashlib

import msgspec
from sqlalchemy import bindparam, delete, insert, or_, select, update

from storage.database import Database, Statement, Unit
from storage.schema import login_sessions as sessions
from storage.schema import users


class LoginSession(msgspec.Struct):
    """A new row of `login_sessions`; `cookie` and `refresh` are the secrets, stored hashed."""

    id: str
    user_id: str
    cookie: str
    refresh: str
    via: str
    address: str
    user_agent: str
    created_at: float
    expires_at: float


class SessionOwner(msgspec.Struct, frozen=True):
    """What a request needs to know of a login session and its account."""

    session_id: str
    user_id: str
    expires_at: float
    revoked_at: float | None
    username: str
    role: str
    status: str


def hashed(secret: str) -> str:
    """SHA-256, hex. The secrets have 256 random bits, so a slow hash would add nothing."""
    return hashlib.sha256(secret.encode()).hexdigest()


_one = sessions.c.id == bindparam("session_id")
_live = sessions.c.revoked_at.is_(None)
_owner = (
    select(
        sessions.c.id,
        sessions.c.user_id,
        sessions.c.expires_at,
        sessions.c.revoked_at,
        users.c.username,
        users.c.role,
        users.c.status,
    )
    .join(users, users.c.id == sessions.c.user_id)
    .limit(1)
)

OPEN = Statement(insert(sessions))
FIND = Statement(_owner.where(_one), into=SessionOwner)
FIND_BY_COOKIE = Statement(
    _owner.where(sessions.c.cookie_hash == bindparam("cookie_hash")), into=SessionOwner
)
ROTATE = Statement(
    update(sessions)
    .where(
        _one,
        _live,
        sessions.c.refresh_hash == bindparam("old_hash"),
        sessions.c.expires_at > bindparam("now"),
    )
    .values(refresh_hash=bindparam("new_hash"), expires_at=bindparam("until"))
    .returning(sessions.c.id)
)
REVOKE = Statement(
    update(sessions)
    .where(_one, _live, sessions.c.user_id == bindparam("user_id"))
    .values(revoked_at=bindparam("now"))
    .returning(sessions.c.id)
)
REVOKE_ALL = Statement(
    update(sessions)
    .where(
        sessions.c.user_id == bindparam("user_id"), _live, sessions.c.id != bindparam("except_id")
    )
    .values(revoked_at=bindparam("now"))
    .returning(sessions.c.id)
)
PURGE = Statement(
    delete(sessions).where(
        or_(
            sessions.c.expires_at < bindparam("before"), sessions.c.revoked_at < bindparam("before")
        )
    )
)


class LoginSessionStore:
    """Reads are coroutines, writes are units."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, session_id: str) -> SessionOwner | None:
        """The session and its account, whether or not it has ended."""
        return await self._database.read_one(FIND(session_id=session_id))

    async def find_by_cookie(self, cookie: str) -> SessionOwner | None:
        return await self._database.read_one(FIND_BY_COOKIE(cookie_hash=hashed(cookie)))

    def open(self, session: LoginSession) -> Unit[None]:
        yield OPEN(
            id=session.id,
            user_id=session.user_id,
            cookie_hash=hashed(session.cookie),
            refresh_hash=hashed(session.refresh),
            via=session.via,
            address=session.address[:64],
            user_agent=session.user_agent[:256],
            created_at=session.created_at,
            expires_at=session.expires_at,
        )

    def rotate(
        self, session_id: str, *, old: str, new: str, now: float, until: float
    ) -> Unit[bool]:
        """Replace the refresh secret `old` by `new`; False when `old` is not the current one or
        the session has ended."""
        rows = yield ROTATE(
            session_id=session_id, old_hash=hashed(old), new_hash=hashed(new), now=now, until=until
        )
        return bool(rows)

    def owner(self, session_id: str) -> Unit[SessionOwner | None]:
        found = yield FIND(session_id=session_id)
        return found[0] if found else None

    def revoke(self, user_id: str, session_id: str, now: float) -> Unit[list[str]]:
        """End one session; the ids that this call ended (none if it had ended before)."""
        rows = yield REVOKE(user_id=user_id, session_id=session_id, now=now)
        return [row[0] for row in rows]

    def revoke_all(self, user_id: str, now: float, *, except_id: str = "") -> Unit[list[str]]:
        """End every session of an account but `except_id`; the ids that this call ended."""
        rows = yield REVOKE_ALL(user_id=user_id, except_id=except_id, now=now)
        return [row[0] for row in rows]

    def purge(self, before: float) -> Unit[int]:
        """Forget sessions that ended before a time; how many."""
        changed: int = yield PURGE(before=before)
        return changed
