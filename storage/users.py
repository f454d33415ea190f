"""Accounts.

`username_key` and `email_key` are what is unique: the text folded by `folded`, so that two
spellings which look alike to people are one name. The event log's owner columns refer to `id`, and
deleting a row takes everything it owns with it.
"""

import unicodedata
from typing import Any

import msgspec
from sqlalchemy import bindparam, delete, exists, func, insert, select, update

from storage.database import Database, Statement, Unit
from storage.schema import agents, files, knowledge_bases, providers, skills, users


class User(msgspec.Struct):
    """A row of `users`, in table order. Times are UTC seconds. `email_verified` says that the
    account's holder is known to read the address: by a code, by an upstream provider that vouches
    for it, or because an administrator gave it."""

    id: str
    username: str
    username_key: str
    email: str | None
    email_key: str | None
    phonenum: str | None
    nickname: str | None
    avatar: str | None
    password_hash: str | None
    role: str
    status: str
    config: dict[str, Any]
    created_at: float
    updated_at: float
    version: int = 1
    email_verified: bool = False

    def __repr__(self) -> str:
        """Without the hash: a record may end up in a log."""
        return f"User(id={self.id!r}, username={self.username!r}, role={self.role!r})"


def folded(name: str) -> str:
    """The form in which a username or an e-mail address is compared: NFKC, case folded."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


_one = users.c.id == bindparam("user_id")
_touch = {"updated_at": bindparam("now"), "version": users.c.version + 1}

ADD = Statement(insert(users))
FIND = Statement(select(users).where(_one), into=User)
FIND_BY_USERNAME = Statement(
    select(users).where(users.c.username_key == bindparam("key")), into=User
)
FIND_BY_EMAIL = Statement(select(users).where(users.c.email_key == bindparam("key")), into=User)
LOCK = Statement(select(users).where(_one).with_for_update(), into=User)
LOCK_BY_EMAIL = Statement(
    select(users).where(users.c.email_key == bindparam("key")).with_for_update(), into=User
)
PAGE = Statement(
    select(users)
    .order_by(users.c.created_at.desc(), users.c.id.desc())
    .limit(bindparam("limit"))
    .offset(bindparam("offset")),
    into=User,
)
COUNT = Statement(select(func.count()).select_from(users))
NAMES = Statement(
    select(users.c.id, users.c.username)
    .where(users.c.status == "active")
    .order_by(users.c.username_key)
    .limit(bindparam("limit"))
)
ANY_ADMIN = Statement(select(users.c.id).where(users.c.role == "admin").limit(1))
OWNS = Statement(
    select(
        exists().where(providers.c.owner_id == bindparam("user_id")),
        exists().where(agents.c.owner_id == bindparam("user_id")),
    )
)
KEEPS = Statement(
    select(
        exists().where(files.c.owner_id == bindparam("user_id"), files.c.session_id.is_(None))
        | exists().where(knowledge_bases.c.owner_id == bindparam("user_id"))
        | exists().where(skills.c.owner_id == bindparam("user_id"))
    )
)
SET_PASSWORD = Statement(
    update(users).where(_one).values(password_hash=bindparam("new_hash"), **_touch)
)
REHASH = Statement(
    update(users)
    .where(_one, users.c.password_hash == bindparam("old_hash"))
    .values(password_hash=bindparam("new_hash"))
)
SET_ROLE = Statement(update(users).where(_one).values(role=bindparam("new_role"), **_touch))
SET_STATUS = Statement(update(users).where(_one).values(status=bindparam("new_status"), **_touch))
SET_CONFIG = Statement(update(users).where(_one).values(config=bindparam("new_config"), **_touch))
SET_PROFILE = Statement(
    update(users)
    .where(_one)
    .values(nickname=bindparam("new_nickname"), avatar=bindparam("new_avatar"), **_touch)
)
DELETE = Statement(delete(users).where(_one))


class UserStore:
    """Reads are coroutines, writes are units; the account itself is the owner of its row."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, user_id: str) -> User | None:
        return await self._database.read_one(FIND(user_id=user_id))

    async def find_by_username(self, username: str) -> User | None:
        return await self._database.read_one(FIND_BY_USERNAME(key=folded(username)))

    async def find_by_email(self, email: str) -> User | None:
        return await self._database.read_one(FIND_BY_EMAIL(key=folded(email)))

    async def page(self, *, offset: int, limit: int) -> tuple[list[User], int]:
        """Accounts, newest first, and how many there are."""
        found = await self._database.read(PAGE(offset=offset, limit=limit))
        return found, (await self._database.read(COUNT()))[0][0]

    async def names(self, limit: int) -> list[tuple[str, str]]:
        """(id, username) of active accounts, by name."""
        return await self._database.read(NAMES(limit=limit))

    async def owns(self, user_id: str) -> tuple[bool, bool]:
        """Whether an account has a provider, and an agent, of its own."""
        ((provider, agent),) = await self._database.read(OWNS(user_id=user_id))
        return bool(provider), bool(agent)

    def add(self, user: User) -> Unit[None]:
        """Raises Duplicate("uq_users_username" | "uq_users_email")."""
        yield ADD(**msgspec.structs.asdict(user))

    def has_username(self, username_key: str) -> Unit[bool]:
        return bool((yield FIND_BY_USERNAME(key=username_key)))

    def lock(self, user_id: str) -> Unit[User | None]:
        """The account, held until the unit ends."""
        found = yield LOCK(user_id=user_id)
        return found[0] if found else None

    def lock_by_email(self, email: str) -> Unit[User | None]:
        """The account with an e-mail address, held until the unit ends."""
        found = yield LOCK_BY_EMAIL(key=folded(email))
        return found[0] if found else None

    def has_admin(self) -> Unit[bool]:
        return bool((yield ANY_ADMIN()))

    def keeps(self, user_id: str) -> Unit[bool]:
        """Whether an account has rows that stand for files outside the database. While the
        account is locked it gets no more of them."""
        ((kept,),) = yield KEEPS(user_id=user_id)
        return bool(kept)

    def set_password(self, user_id: str, new_hash: str, now: float) -> Unit[None]:
        yield SET_PASSWORD(user_id=user_id, new_hash=new_hash, now=now)

    def rehash(self, user_id: str, old_hash: str, new_hash: str) -> Unit[None]:
        """Replaces the hash of the same password, unless the password was changed meanwhile."""
        yield REHASH(user_id=user_id, old_hash=old_hash, new_hash=new_hash)

    def set_role(self, user_id: str, role: str, now: float) -> Unit[None]:
        yield SET_ROLE(user_id=user_id, new_role=role, now=now)

    def set_status(self, user_id: str, status: str, now: float) -> Unit[None]:
        yield SET_STATUS(user_id=user_id, new_status=status, now=now)

    def set_config(self, user_id: str, config: dict[str, Any], now: float) -> Unit[None]:
        yield SET_CONFIG(user_id=user_id, new_config=config, now=now)

    def set_profile(
        self, user_id: str, nickname: str | None, avatar: str | None, now: float
    ) -> Unit[None]:
        yield SET_PROFILE(user_id=user_id, new_nickname=nickname, new_avatar=avatar, now=now)

    def delete(self, user_id: str) -> Unit[None]:
        yield DELETE(user_id=user_id)
