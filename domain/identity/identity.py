"""Logging in, being recognised, and logging out."""

import asyncio
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Literal, cast

import msgspec

from domain.caller import Caller, Role
from domain.errors import Disabled, Forbidden, Unauthenticated
from domain.identity.failures import FailedLogins
from domain.identity.known import Known, Memory, Revocation
from domain.identity.lockout import Lockout
from domain.identity.passwords import Passwords
from domain.identity.policy import IdentityPolicy
from domain.identity.proxied import Proxied
from domain.identity.revocations import Revocations
from domain.identity.tokens import Tokens
from domain.identity.trail import Trail
from domain.ids import uuid7
from storage.database import Database, Unit
from storage.login_sessions import LoginSession, LoginSessionStore, SessionOwner
from storage.users import User, UserStore

MakeClaims = Callable[[User], Mapping[str, Any]]
"""The claims that a contract adds to its access tokens."""

KEPT_S = 7 * 24 * 3600
"""How long the row of an ended login session is kept."""


def no_claims(user: User) -> Mapping[str, Any]:
    return {}


class Login(msgspec.Struct, frozen=True):
    """A new or renewed login session and its credentials, none of which is stored in the clear.

    `cookie` is the session's opaque id for a browser; it is empty after a refresh. `expires_in`
    is the access token's, in seconds.
    """

    user: User
    session_id: str
    access_token: str
    refresh_token: str
    expires_in: int
    cookie: str = ""


class Identity:
    """Proves who somebody is. Every way to log in ends in `open_session`; every credential is
    verified here, once, and then known until it expires or its login session ends."""

    def __init__(
        self,
        database: Database,
        *,
        users: UserStore,
        sessions: LoginSessionStore,
        trail: Trail,
        known: Known,
        revocations: Revocations,
        tokens: Tokens,
        passwords: Passwords,
        lockout: Lockout,
        failures: FailedLogins,
        proxied: Proxied,
        policy: IdentityPolicy,
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._users = users
        self._sessions = sessions
        self._trail = trail
        self._known = known
        self._revocations = revocations
        self._tokens = tokens
        self._passwords = passwords
        self._lockout = lockout
        self._failures = failures
        self._proxied = proxied
        self._policy = policy
        self._clock = clock

    # --- logging in -------------------------------------------------------------------------

    async def login(
        self,
        username_or_email: str,
        password: str,
        *,
        address: str,
        user_agent: str = "",
        claims: MakeClaims = no_claims,
        access_ttl_s: int = 0,
    ) -> Login:
        """Log in with a password; a name with an `@` is an e-mail address.

        Raises Disabled("login.disabled"), Unauthenticated("login.failed") for an
        unknown account as for a wrong password, Throttled("login.locked", "login.busy"),
        Forbidden("account.inactive") for an inactive or banned account, and
        Forbidden("login.admin_only") behind a trusted proxy, where only administrators log in.
        """
        if self._policy.mode == "oauth":
            raise Disabled("login.disabled")
        user = await self.prove(username_or_email, password, address=address)
        if self._policy.mode == "trusted_proxy" and user.role != "admin":
            raise Forbidden("login.admin_only")
        return await self.open_session(
            user,
            via="password",
            address=address,
            user_agent=user_agent,
            claims=claims,
            access_ttl_s=access_ttl_s,
        )

    async def prove(self, username_or_email: str, password: str, *, address: str) -> User:
        """The active account that a name and a password belong to. Raises as `login`."""
        name = username_or_email.strip()
        find = self._users.find_by_email if "@" in name else self._users.find_by_username
        user = await find(name)
        attempt = await self._lockout.begin(user.id if user else name, address)
        stored = user.password_hash if user else None
        if not await attempt.judge(self._passwords.verify(stored, password)):
            self._failures.note(user.id if user else "", address)
            raise Unauthenticated("login.failed")
        assert user is not None
        assert user.password_hash is not None
        _refuse_inactive(user.status)
        if self._passwords.is_outdated(user.password_hash):
            await self._rehash(user, user.password_hash, password)
        return user

    async def open_session(
        self,
        user: User,
        *,
        via: str,
        address: str,
        user_agent: str = "",
        claims: MakeClaims = no_claims,
        access_ttl_s: int = 0,
    ) -> Login:
        """Issue a login session to an account that has proved itself; `via` says how.

        Raises Unauthenticated("login.failed") if the account was deleted or its password changed
        since, Forbidden("account.inactive").
        """
        now = self._clock()
        session = LoginSession(
            id=uuid7(),
            user_id=user.id,
            cookie=secrets.token_urlsafe(32),
            refresh=secrets.token_urlsafe(32),
            via=via,
            address=address,
            user_agent=user_agent,
            created_at=now,
            expires_at=now + self._policy.session_ttl_s,
        )

        def unit() -> Unit[None]:
            # Whoever changes the password ends all sessions: none may slip in behind that.
            current = yield from self._users.lock(user.id)
            if current is None or current.password_hash != user.password_hash:
                raise Unauthenticated("login.failed")
            _refuse_inactive(current.status)
            yield from self._sessions.open(session)
            yield from self._trail.tell(
                user.id, "login.succeeded", actor=user.id, address=address, via=via
            )

        await self._database.write(unit)
        login = self._issue(user, session.id, session.refresh, claims, access_ttl_s)
        return msgspec.structs.replace(login, cookie=session.cookie)

    async def refresh(
        self,
        refresh_token: str,
        *,
        address: str,
        claims: MakeClaims = no_claims,
        access_ttl_s: int = 0,
    ) -> Login:
        """Exchange a refresh token, once, for a new pair (RFC 9700 §4.14.2).

        A token that was exchanged before ends its login session with all its credentials: either
        its owner or a thief holds the newer one, and nobody can tell which.
        Raises Unauthenticated("auth.expired" | "auth.invalid"), Forbidden("account.inactive").
        """
        old = self._tokens.read_refresh(refresh_token)
        secret = secrets.token_urlsafe(32)
        now = self._clock()

        def unit() -> Unit[User | None]:
            session = yield from self._sessions.owner(old.session_id)
            if session is None or session.user_id != old.user_id:
                return None
            _refuse_inactive(session.status)
            until = max(session.expires_at, now + self._policy.refresh_ttl_s)
            if (
                yield from self._sessions.rotate(
                    old.session_id, old=old.secret, new=secret, now=now, until=until
                )
            ):
                return (yield from self._users.lock(old.user_id))
            ended = yield from self._sessions.revoke(old.user_id, old.session_id, now)
            if ended:
                yield from self._trail.revoke(Revocation(old.user_id, ended))
                yield from self._trail.tell(
                    old.user_id, "login.refresh_reused", actor=old.user_id, address=address
                )
            return None

        user = await self._database.write(unit)
        if user is None:
            raise Unauthenticated("auth.expired")
        return self._issue(user, old.session_id, secret, claims, access_ttl_s)

    async def logout(self, caller: Caller, *, address: str = "") -> None:
        """End the caller's login session with its cookie and all its tokens; of no effect for a
        caller that a proxy asserted."""
        if not caller.session_id:
            return
        now = self._clock()

        def unit() -> Unit[None]:
            ended = yield from self._sessions.revoke(caller.user_id, caller.session_id, now)
            if ended:
                yield from self._trail.revoke(Revocation(caller.user_id, ended))
                yield from self._trail.tell(
                    caller.user_id, "login.ended", actor=caller.user_id, address=address
                )

        await self._database.write(unit)

    # --- being recognised -------------------------------------------------------------------

    def known(self, token: str) -> Caller | None:
        """Who a bearer token stands for, if it was verified before and still holds. No I/O."""
        return self._known.recall(self._known.bearers, token)

    def known_cookie(self, value: str) -> Caller | None:
        """Who a session cookie stands for, if it was verified before and still holds. No I/O."""
        return self._known.recall(self._known.cookies, value)

    async def verify_bearer(self, token: str) -> Caller:
        """Who an access token stands for. Raises Unauthenticated("auth.expired" |
        "auth.invalid"), Forbidden("account.inactive")."""
        claims = self._tokens.read_access(token)
        generation = self._known.generation
        session = await self._sessions.find(claims.session_id)
        if session is None or session.user_id != claims.user_id:
            raise Unauthenticated("auth.expired")
        return self._recognise(
            session, "bearer", self._known.bearers, token, claims.expires_at, generation
        )

    async def verify_cookie(self, value: str) -> Caller:
        """Who a session cookie stands for. Raises as `verify_bearer`."""
        generation = self._known.generation
        if len(value) > 128:
            raise Unauthenticated("auth.invalid")
        session = await self._sessions.find_by_cookie(value)
        if session is None:
            raise Unauthenticated("auth.invalid")
        return self._recognise(
            session, "cookie", self._known.cookies, value, session.expires_at, generation
        )

    async def verify_proxy(self, user_id: str) -> Caller:
        """The account that a trusted proxy asserts, made at first sight.

        It never has more than an operator's rights: administrators log in.
        Raises Unauthenticated("auth.invalid"), Forbidden("account.inactive").
        """
        known = self._known.recall(self._known.proxied, user_id)
        if known is not None:
            return known
        generation = self._known.generation
        user = await self._proxied.find_or_add(user_id)
        _refuse_inactive(user.status)
        role: Role = "viewer" if user.role == "viewer" else "operator"
        caller = Caller(user_id=user.id, role=role, username=user.username, via="proxy")
        until = self._clock() + self._policy.session_ttl_s
        self._known.remember(self._known.proxied, user_id, caller, until, generation)
        return caller

    # --- ends of login sessions -------------------------------------------------------------

    def ended(self, caller: Caller) -> asyncio.Event:
        """Set when the caller's login session ends or its account changes: an open stream of it
        is then to be cut."""
        return self._known.ended(caller)

    def is_revoked(self, session_id: str) -> bool:
        """Whether this process has lately learned that a login session was ended."""
        return self._known.is_revoked(session_id)

    def on_revoked(self, callback: Callable[[Revocation], Any]) -> None:
        """Call `callback` for each revocation, on the event loop."""
        self._known.on_revoked(callback)

    async def start(self) -> None:
        """Read revocations from the log from now on. Raises StorageError."""
        await self._revocations.start()

    async def purge(self) -> int:
        """Forget login sessions that ended a week ago or earlier; how many."""
        before = self._clock() - KEPT_S
        return await self._database.write(lambda: self._sessions.purge(before))

    async def close(self) -> None:
        """Write down what was counted, and let the threads go."""
        self._revocations.close()
        await self._failures.flush()
        await self._lockout.close()
        self._passwords.close()

    # --- parts ------------------------------------------------------------------------------

    def _issue(
        self, user: User, session_id: str, secret: str, claims: MakeClaims, access_ttl_s: int
    ) -> Login:
        ttl = access_ttl_s or self._policy.access_ttl_s
        return Login(
            user=user,
            session_id=session_id,
            access_token=self._tokens.access(user.id, session_id, ttl, claims(user)),
            refresh_token=self._tokens.refresh(
                user.id, session_id, self._policy.refresh_ttl_s, secret
            ),
            expires_in=ttl,
        )

    def _recognise(
        self,
        session: SessionOwner,
        via: Literal["bearer", "cookie"],
        memory: Memory,
        credential: str,
        expires_at: float,
        generation: int,
    ) -> Caller:
        if session.revoked_at is not None or session.expires_at <= self._clock():
            raise Unauthenticated("auth.expired")
        _refuse_inactive(session.status)
        caller = Caller(
            user_id=session.user_id,
            role=cast(Role, session.role),
            username=session.username,
            session_id=session.session_id,
            via=via,
        )
        until = min(expires_at, session.expires_at)
        self._known.remember(memory, credential, caller, until, generation)
        return caller

    async def _rehash(self, user: User, old_hash: str, password: str) -> None:
        new_hash = await self._passwords.rehash(password)
        await self._database.write(lambda: self._users.rehash(user.id, old_hash, new_hash))
        user.password_hash = new_hash


def _refuse_inactive(status: str) -> None:
    if status != "active":
        raise Forbidden("account.inactive")
