"""Logins that people began at an upstream provider, and which account is whose there.

A login under way is found by its state and the secret in the cookie of the browser that began it
together; both are stored as their SHA-256 alone.
"""

import hashlib

import msgspec
from sqlalchemy import bindparam, delete, insert, select

from storage.database import Database, Statement, Unit
from storage.schema import upstream_accounts as accounts
from storage.schema import upstream_logins as logins


class UpstreamLogin(msgspec.Struct, frozen=True):
    """A login under way; `state` and `browser` are the secrets. `next` is where it leads,
    `redirect_uri` what the provider was told. Times are UTC seconds."""

    state: str
    browser: str
    provider: str
    next: str
    redirect_uri: str
    expires_at: float


class Began(msgspec.Struct, frozen=True):
    """What is to be known of a login when its browser comes back."""

    next: str
    redirect_uri: str


def hashed(secret: str) -> str:
    """SHA-256, hex. The secrets have 256 random bits, so a slow hash would add nothing."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


BEGIN = Statement(insert(logins))
TAKE = Statement(
    delete(logins)
    .where(
        logins.c.state_hash == bindparam("state_hash"),
        logins.c.browser_hash == bindparam("browser_hash"),
        logins.c.provider == bindparam("provider"),
        logins.c.expires_at > bindparam("now"),
    )
    .returning(logins.c.next, logins.c.redirect_uri)
)
PURGE = Statement(delete(logins).where(logins.c.expires_at < bindparam("before")))
OWNER = Statement(
    select(accounts.c.user_id).where(
        accounts.c.provider == bindparam("provider"), accounts.c.subject == bindparam("subject")
    )
)
LINK = Statement(insert(accounts))


class UpstreamStore:
    """Reads are coroutines, writes are units."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, login: UpstreamLogin) -> Unit[None]:
        row = msgspec.structs.asdict(login)
        state, browser = row.pop("state"), row.pop("browser")
        yield BEGIN(**row, state_hash=hashed(state), browser_hash=hashed(browser))

    def take(self, state: str, *, browser: str, provider: str, now: float) -> Unit[Began | None]:
        """The login that this browser began with this provider, once; None for another browser
        or provider, which leave it as it is, and when it was taken or has run out."""
        rows = yield TAKE(
            state_hash=hashed(state), browser_hash=hashed(browser), provider=provider, now=now
        )
        return Began(*rows[0]) if rows else None

    async def owner(self, provider: str, subject: str) -> str | None:
        """The id of the account that a provider's subject belongs to."""
        rows = await self._database.read(OWNER(provider=provider, subject=subject))
        return rows[0][0] if rows else None

    def link(self, provider: str, subject: str, user_id: str, now: float) -> Unit[None]:
        """Raises Duplicate("pk_upstream_accounts") when the subject has an account."""
        yield LINK(provider=provider, subject=subject, user_id=user_id, created_at=now)

    def purge(self, before: float) -> Unit[int]:
        """Forget logins that ran out before a time; how many."""
        changed: int = yield PURGE(before=before)
        return changed
