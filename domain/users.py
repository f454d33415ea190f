"""Accounts: what people do with their own, and administrators with others'."""

import secrets
import unicodedata
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from domain.caller import Caller, Role
from domain.errors import (
    Conflict,
    Forbidden,
    NotFound,
    PreconditionFailed,
    TooLarge,
    Unauthenticated,
    Unusable,
)
from domain.identity.known import Revocation
from domain.identity.lockout import Lockout
from domain.identity.passwords import Passwords
from domain.identity.trail import Trail
from domain.ids import uuid7
from domain.mail_address import mail_address
from storage.database import Database, Duplicate, Unit
from storage.login_sessions import LoginSessionStore
from storage.users import User, UserStore, folded

OPTIONS = 1000
"""Accounts that a selector is given."""
CONFIG_MAX = 1024 * 1024
"""Bytes of an account's settings as JSON."""

STATUSES = ("active", "inactive", "banned")

Leaving = Callable[[str], Awaitable[None]]
"""Called with the id of an account that is about to be deleted, or was shut out."""


class Users:
    """Every change commits together with the events that tell of it and the ends of the login
    sessions that it costs."""

    def __init__(
        self,
        database: Database,
        *,
        users: UserStore,
        sessions: LoginSessionStore,
        trail: Trail,
        passwords: Passwords,
        lockout: Lockout,
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._users = users
        self._sessions = sessions
        self._trail = trail
        self._passwords = passwords
        self._lockout = lockout
        self._clock = clock
        self._leaving: list[Leaving] = []
        self._barred: list[Leaving] = []

    # --- one's own account ------------------------------------------------------------------

    async def get(self, user_id: str) -> User:
        """Raises NotFound("user.not_found")."""
        user = await self._users.find(user_id)
        if user is None:
            raise NotFound("user.not_found")
        return user

    async def owns(self, user_id: str) -> tuple[bool, bool]:
        """Whether an account has made a provider, and an agent, of its own."""
        return await self._users.owns(user_id)

    async def change_password(self, caller: Caller, old: str, new: str, *, address: str) -> None:
        """Set a new password against the old one; every other login session of the account ends.

        Raises Unusable("user.no_password", "password.length"),
        Unauthenticated("user.password_wrong"), Throttled as a login does.
        """
        user = await self.get(caller.user_id)
        if user.password_hash is None:
            raise Unusable("user.no_password")
        self._passwords.check(new)
        attempt = await self._lockout.begin(user.id, address)
        if not await attempt.judge(self._passwords.verify(user.password_hash, old)):
            raise Unauthenticated("user.password_wrong")
        fresh = await self._passwords.hash(new)
        await self._set_password(caller, user.id, fresh, address, instead_of=user.password_hash)

    async def update_profile(
        self,
        caller: Caller,
        *,
        nickname: str | None = None,
        avatar: str | None = None,
        version: int | None = None,
    ) -> User:
        """Set what is not None; the account as it is then. Raises NotFound("user.not_found"), and
        PreconditionFailed("request.precondition") where it has another version than the one named.
        """
        now = self._clock()

        def unit() -> Unit[User]:
            user = yield from self._lock(caller.user_id)
            _require(user, version)
            user.nickname = user.nickname if nickname is None else nickname
            user.avatar = user.avatar if avatar is None else avatar
            yield from self._users.set_profile(user.id, user.nickname, user.avatar, now)
            user.version += 1
            return user

        return await self._database.write(unit)

    async def get_config(self, user_id: str) -> dict[str, Any]:
        return (await self.get(user_id)).config

    async def merge_config(self, user_id: str, changes: dict[str, Any]) -> dict[str, Any]:
        """Put names into the stored settings, one level deep; the whole as it is then.

        Raises TooLarge("user.config_too_large").
        """
        now = self._clock()

        def unit() -> Unit[dict[str, Any]]:
            user = yield from self._lock(user_id)
            merged = {**user.config, **changes}
            if len(msgspec.json.encode(merged)) > CONFIG_MAX:
                raise TooLarge("user.config_too_large", limit=CONFIG_MAX)
            yield from self._users.set_config(user_id, merged, now)
            return merged

        return await self._database.write(unit)

    # --- others' accounts -------------------------------------------------------------------

    async def names(self) -> list[tuple[str, str]]:
        """(id, username) of up to 1,000 active accounts, by name."""
        return await self._users.names(OPTIONS)

    async def page(self, page: int, page_size: int) -> tuple[list[User], int]:
        """One page of all accounts, from 1, the newest first; and how many there are."""
        return await self._users.page(offset=(page - 1) * page_size, limit=page_size)

    async def slice(self, offset: int, limit: int) -> tuple[list[User], int]:
        """Up to `limit` accounts after the first `offset`, the newest first; and how many there
        are."""
        return await self._users.page(offset=offset, limit=limit)

    async def add(
        self,
        actor: Caller,
        *,
        username: str,
        password: str,
        email: str | None = None,
        phonenum: str | None = None,
        role: Role = "operator",
        address: str = "",
    ) -> User:
        """Make an account. Raises Unusable("user.username_invalid", "password.length",
        "registration.email_invalid"), Conflict("user.exists", "user.email_exists")."""
        user = new_user(username, email, phonenum, role, now=self._clock())
        user.email_verified = user.email is not None
        user.password_hash = await self._passwords.hash(password)

        def unit() -> Unit[None]:
            yield from add_unique(self._users, user)
            yield from self._trail.tell(
                user.id, "user.added", actor=actor.user_id, address=address, role=role
            )

        await self._database.write(unit)
        return user

    async def delete(
        self, actor: Caller, user_id: str, *, address: str = "", version: int | None = None
    ) -> None:
        """Erase an account and all it owns. It is barred first, its login sessions end, and what
        it owns elsewhere is erased before its row goes; one that could not be erased whole stays
        barred, and deleting it again goes on.

        Raises NotFound("user.not_found"), Forbidden("user.own_protected") for the actor's own
        account, Forbidden("user.admin_protected") for another administrator's, and
        PreconditionFailed("request.precondition") where it has another version than the one named.
        """
        if user_id == actor.user_id:
            await self.get(user_id)
            raise Forbidden("user.own_protected")
        now = self._clock()

        def unit() -> Unit[bool]:
            current = yield from self._lock(user_id)
            if current.role == "admin":
                raise Forbidden("user.admin_protected")
            if (yield from self._users.keeps(user_id)):
                return False
            ended = yield from self._sessions.revoke_all(user_id, now)
            yield from self._users.delete(user_id)
            yield from self._trail.tell(
                user_id,
                "user.deleted",
                actor=actor.user_id,
                address=address,
                username=current.username,
            )
            yield from self._trail.revoke(Revocation(user_id, ended, whole=True))
            return True

        await self._bar(actor, user_id, address, version)
        while True:
            for leaving in self._leaving:
                await leaving(user_id)
            if await self._database.write(unit):
                return
            # What was admitted before has kept something meanwhile, or somebody let it in again.
            await self._bar(actor, user_id, address)

    async def _bar(
        self, actor: Caller, user_id: str, address: str, version: int | None = None
    ) -> None:
        """Make an account that is about to go inactive, unless it is barred already."""
        now = self._clock()

        def unit() -> Unit[None]:
            user = yield from self._lock(user_id)
            if user.role == "admin":
                raise Forbidden("user.admin_protected")
            _require(user, version)
            if user.status == "active":
                yield from self._put_status(actor, user, "inactive", address, now)

        await self._database.write(unit)
        for barred in self._barred:
            await barred(user_id)

    def on_leaving(self, leaving: Leaving) -> None:
        """Call `leaving` before an account is deleted: runs are cancelled, files are erased. It is
        called again while the account keeps something (storage.users.UserStore.keeps)."""
        self._leaving.append(leaving)

    async def set_role(self, actor: Caller, user_id: str, role: Role, *, address: str = "") -> None:
        """Give an account another role. Its login sessions go on, under the new role; its open
        streams are cut. Raises NotFound, Forbidden("user.admin_protected") for administrators,
        the actor included: nobody is demoted by a peer."""
        now = self._clock()

        def unit() -> Unit[None]:
            user = yield from self._lock(user_id)
            if user.role == role:
                return
            if user.role == "admin":
                raise Forbidden("user.admin_protected")
            yield from self._users.set_role(user_id, role, now)
            yield from self._trail.tell(
                user_id,
                "user.role_changed",
                actor=actor.user_id,
                address=address,
                before=user.role,
                role=role,
            )
            yield from self._trail.revoke(Revocation(user_id, whole=True))

        await self._database.write(unit)

    async def set_status(
        self,
        actor: Caller,
        user_id: str,
        status: str,
        *,
        address: str = "",
        version: int | None = None,
    ) -> None:
        """Make an account `active`, `inactive` or `banned`; unless active, its login sessions and
        what runs for it end.

        Raises Unusable("user.status_unknown"), NotFound("user.not_found"),
        Forbidden("user.own_protected" | "user.admin_protected"), and
        PreconditionFailed("request.precondition") where it has another version than the one named.
        """
        if status not in STATUSES:
            raise Unusable("user.status_unknown", statuses=", ".join(STATUSES))
        if user_id == actor.user_id:
            raise Forbidden("user.own_protected")
        now = self._clock()

        def unit() -> Unit[None]:
            user = yield from self._lock(user_id)
            _require(user, version)
            if user.status == status:
                return
            if user.role == "admin":
                raise Forbidden("user.admin_protected")
            yield from self._put_status(actor, user, status, address, now)

        await self._database.write(unit)
        if status != "active":
            for barred in self._barred:
                await barred(user_id)

    def on_barred(self, barred: Leaving) -> None:
        """Call `barred` after an account has been made inactive or banned, also to be deleted."""
        self._barred.append(barred)

    async def reset_password(self, user_id: str, password: str) -> None:
        """Set a password without the old one, from the command line; all login sessions end.

        Raises NotFound, Unusable("password.length").
        """
        await self.get(user_id)
        nobody = Caller(user_id="", role="admin")
        await self._set_password(nobody, user_id, await self._passwords.hash(password), "")

    async def bootstrap_admin(self, username: str, email: str, password: str | None) -> str | None:
        """Make the first administrator, if there is none.

        Returns the password if it was generated here, to be shown once, else None.
        Raises Unusable, Conflict when the name or address belongs to an ordinary account.
        """
        if await self._database.write(self._users.has_admin):
            return None
        chosen = password or secrets.token_urlsafe(15)
        admin = new_user(username, email or None, None, "admin", now=self._clock())
        admin.email_verified = admin.email is not None
        admin.password_hash = await self._passwords.hash(chosen)

        def unit() -> Unit[bool]:
            if (yield from self._users.has_admin()):
                return False
            yield from add_unique(self._users, admin)
            yield from self._trail.tell(
                admin.id, "user.added", actor="start", address="", role="admin"
            )
            return True

        try:
            made = await self._database.write(unit)
        except Conflict:
            # Two processes that start together on one new database: the other was first.
            if await self._database.write(self._users.has_admin):
                return None
            raise
        return chosen if made and password is None else None

    # --- parts ------------------------------------------------------------------------------

    def _lock(self, user_id: str) -> Unit[User]:
        user = yield from self._users.lock(user_id)
        if user is None:
            raise NotFound("user.not_found")
        return user

    def _put_status(
        self, actor: Caller, user: User, status: str, address: str, now: float
    ) -> Unit[None]:
        yield from self._users.set_status(user.id, status, now)
        ended: list[str] = []
        if status != "active":
            ended = yield from self._sessions.revoke_all(user.id, now)
        yield from self._trail.tell(
            user.id,
            "user.status_changed",
            actor=actor.user_id,
            address=address,
            before=user.status,
            status=status,
        )
        yield from self._trail.revoke(Revocation(user.id, ended, whole=True))

    async def _set_password(
        self,
        actor: Caller,
        user_id: str,
        new_hash: str,
        address: str,
        *,
        instead_of: str | None = None,
    ) -> None:
        """Raises Unauthenticated("user.password_wrong") where the one that it was proved against,
        `instead_of`, is not the password any more."""
        now = self._clock()

        def unit() -> Unit[None]:
            user = yield from self._lock(user_id)
            if instead_of not in (None, user.password_hash):
                raise Unauthenticated("user.password_wrong")
            yield from self._users.set_password(user_id, new_hash, now)
            ended = yield from self._sessions.revoke_all(user_id, now, except_id=actor.session_id)
            yield from self._trail.tell(
                user_id, "user.password_changed", actor=actor.user_id, address=address
            )
            if ended:
                yield from self._trail.revoke(Revocation(user_id, ended))

        await self._database.write(unit)


def new_user(
    username: str, email: str | None, phonenum: str | None, role: Role, *, now: float
) -> User:
    """A row for a new account, without a password yet. Raises Unusable("user.username_invalid",
    "registration.email_invalid")."""
    username = username.strip()
    key = folded(username)
    control = any(unicodedata.category(character)[0] == "C" for character in username)
    if not username or "@" in key or control or max(len(username), len(key)) > 128:
        raise Unusable("user.username_invalid")
    email = mail_address(email) if email else None
    return User(
        id=uuid7(),
        username=username,
        username_key=key,
        email=email,
        email_key=folded(email) if email else None,
        phonenum=phonenum or None,
        nickname=None,
        avatar=None,
        password_hash=None,
        role=role,
        status="active",
        config={},
        created_at=now,
        updated_at=now,
    )


def _require(user: User, version: int | None) -> None:
    if version not in (None, user.version):
        raise PreconditionFailed("request.precondition")


def add_under_free_name(users: UserStore, user: User) -> Unit[None]:
    """Add an account whose name nobody chose: where the name is taken, one like it.

    Raises Conflict("user.email_exists").
    """
    wished = user.username
    while (yield from users.has_username(user.username_key)):
        user.username = f"{wished}-{secrets.token_hex(3)}"
        user.username_key = folded(user.username)
    yield from add_unique(users, user)


def add_unique(users: UserStore, user: User) -> Unit[None]:
    """Add an account. Raises Conflict("user.exists" | "user.email_exists")."""
    # Where both are taken, databases differ in which constraint they name.
    if (yield from users.has_username(user.username_key)):
        raise Conflict("user.exists")
    try:
        yield from users.add(user)
    except Duplicate as error:
        taken = "user.email_exists" if error.constraint == "uq_users_email" else "user.exists"
        raise Conflict(taken) from error
