"""Whose account a person is who has logged in elsewhere.

An account is found by the provider's subject; else by an e-mail address that the provider vouches
for and the account's holder has proved; else it is made, where that is allowed.
"""

import secrets
from collections.abc import Callable
from functools import partial

from domain.errors import Conflict, Forbidden, Unusable
from domain.identity.trail import Trail
from domain.identity.upstream_providers import Person
from domain.system import System
from domain.users import add_unique, new_user
from storage.database import Database, Duplicate, Unit
from storage.upstream import UpstreamStore
from storage.users import User, UserStore


class Subjects:
    """The accounts of people who log in at providers."""

    def __init__(
        self,
        database: Database,
        *,
        store: UpstreamStore,
        users: UserStore,
        system: System,
        trail: Trail,
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._store = store
        self._users = users
        self._system = system
        self._trail = trail
        self._clock = clock

    async def account(
        self, key: str, provider_id: str, person: Person, *, admits: bool, address: str
    ) -> User:
        """The person's account. `key` is what the provider's subjects are kept under, `admits` says
        whether people without an account get one. Raises Forbidden("upstream.closed"),
        Conflict("user.exists")."""
        admitted = admits and await self._system.admits()
        suffix = secrets.token_hex(4)
        longer = f"{person.username[:100] or 'user'}-{suffix}"
        for name in (person.username, longer, f"user-{suffix}"):
            user_id = await self._store.owner(key, person.subject)
            found = await self._users.find(user_id) if user_id else None
            if found is not None:
                return found
            meet = partial(self._meet, key, provider_id, person, name, admitted, address)
            try:
                return await self._database.write(meet)
            except (Conflict, Duplicate, Unusable):
                continue  # the name is taken or is none, or another request was first
        raise Conflict("user.exists")

    def _meet(
        self, key: str, provider_id: str, person: Person, name: str, admitted: bool, address: str
    ) -> Unit[User]:
        """Give a subject that was never here the account of its address, or a new one."""
        now = self._clock()
        user = (yield from self._users.lock_by_email(person.email)) if person.email else None
        email = None if user is not None else person.email
        if user is not None and user.email_verified:
            done = "upstream.linked"
        else:
            if not admitted:
                raise Forbidden("upstream.closed")
            done = "user.registered"
            user = new_user(name, email, None, "operator", now=now)
            user.email_verified = email is not None
            user.nickname, user.avatar = person.name, person.picture
            yield from add_unique(self._users, user)
        yield from self._store.link(key, person.subject, user.id, now)
        yield from self._trail.tell(
            user.id, done, actor=user.id, address=address, provider=provider_id
        )
        return user
