"""Accounts that a trusted proxy asserts."""

import re
import secrets
from collections.abc import Callable

from domain.errors import Unauthenticated
from domain.identity.trail import Trail
from storage.database import Database, Duplicate, Unit
from storage.users import User, UserStore, folded

# What may follow the colon of a stream's name, and stand in a path.
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@+-]{0,63}", re.ASCII)


class Proxied:
    """Rows for identities that come in a header: others' rows refer to their owner.

    The account's id is the asserted one, because clients behind such a proxy compare the `user_id`
    they read with the one they know. It is matched by id alone: asserting "admin" does not make
    anyone the administrator of that username.
    """

    def __init__(
        self, database: Database, users: UserStore, trail: Trail, clock: Callable[[], float]
    ) -> None:
        self._database = database
        self._users = users
        self._trail = trail
        self._clock = clock

    async def find_or_add(self, user_id: str) -> User:
        """The account of an asserted id; a new one is an operator without password or e-mail.

        Raises Unauthenticated("auth.invalid") for an id that cannot be one.
        """
        found = await self._users.find(user_id) if _ID.fullmatch(user_id) else None
        if found is not None:
            return found
        if not _ID.fullmatch(user_id):
            raise Unauthenticated("auth.invalid")
        name = user_id.partition("@")[0]
        for username in (name, f"{name}-{secrets.token_hex(4)}"):
            user = self._new(user_id, username)
            try:
                await self._database.write(lambda user=user: self._add(user))  # type: ignore[misc]
            except Duplicate:
                # Another request was first, or the name belongs to somebody else.
                found = await self._users.find(user_id)
                if found is not None:
                    return found
            else:
                return user
        raise Unauthenticated("auth.invalid")

    def _new(self, user_id: str, username: str) -> User:
        now = self._clock()
        return User(
            id=user_id,
            username=username,
            username_key=folded(username),
            email=None,
            email_key=None,
            phonenum=None,
            nickname=None,
            avatar=None,
            password_hash=None,
            role="operator",
            status="active",
            config={},
            created_at=now,
            updated_at=now,
        )

    def _add(self, user: User) -> Unit[None]:
        yield from self._users.add(user)
        yield from self._trail.tell(
            user.id, "user.added", actor="proxy", address="", role=user.role
        )
