"""LoginSessionStore on every database."""

import asyncio

import pytest

from storage.database import Database
from storage.login_sessions import LoginSession, LoginSessionStore
from tests.storage.accounts import make_accounts


@pytest.fixture
async def store(database: Database) -> LoginSessionStore:
    await make_accounts(database, "ann", "bob")
    return LoginSessionStore(database)


async def opened(
    database: Database, store: LoginSessionStore, owner: str, name: str, expires_at: float = 100.0
) -> None:
    session = LoginSession(
        id=name,
        user_id=owner,
        cookie=f"cookie-{name}",
        refresh=f"refresh-{name}",
        via="password",
        address="a" * 300,
        user_agent="u" * 1000,
        created_at=1.0,
        expires_at=expires_at,
    )
    await database.write(lambda: store.open(session))


async def test_a_session_is_found_by_id_and_by_cookie_with_its_account(
    database: Database, store: LoginSessionStore
) -> None:
    await opened(database, store, "ann", "s1")
    found = await store.find("s1")
    assert found is not None
    assert found == await store.find_by_cookie("cookie-s1")
    assert (found.session_id, found.user_id, found.username) == ("s1", "ann", "ann")
    assert (found.role, found.status, found.revoked_at) == ("operator", "active", None)
    assert await store.find("s2") is None
    assert await store.find_by_cookie("s1") is None
    assert await store.find_by_cookie("") is None


async def test_no_secret_is_stored(
    database: Database, store: LoginSessionStore, dialect: str
) -> None:
    from sqlalchemy import select

    from storage.database import Statement
    from storage.schema import login_sessions

    await opened(database, store, "ann", "s1")
    rows = await database.read(Statement(select(login_sessions))())
    assert "cookie-s1" not in str(rows)
    assert "refresh-s1" not in str(rows)


async def test_a_refresh_secret_is_exchanged_once(
    database: Database, store: LoginSessionStore
) -> None:
    await opened(database, store, "ann", "s1")

    async def rotate(old: str, new: str, now: float = 2.0) -> bool:
        return await database.write(
            lambda: store.rotate("s1", old=old, new=new, now=now, until=200.0)
        )

    won = await asyncio.gather(*(rotate("refresh-s1", f"next-{n}") for n in range(8)))
    assert won.count(True) == 1
    latest = f"next-{won.index(True)}"
    assert await rotate("refresh-s1", "x") is False
    assert (await store.find("s1")).expires_at == 200.0  # type: ignore[union-attr]
    assert await rotate(latest, "y", now=200.0) is False
    assert await rotate(latest, "y") is True


async def test_only_the_owner_ends_a_session_and_once(
    database: Database, store: LoginSessionStore
) -> None:
    await opened(database, store, "ann", "s1")
    assert await database.write(lambda: store.revoke("bob", "s1", 5.0)) == []
    assert await database.write(lambda: store.revoke("ann", "s1", 5.0)) == ["s1"]
    assert await database.write(lambda: store.revoke("ann", "s1", 6.0)) == []
    assert (await store.find("s1")).revoked_at == 5.0  # type: ignore[union-attr]
    assert (
        await database.write(
            lambda: store.rotate("s1", old="refresh-s1", new="x", now=6.0, until=9.0)
        )
        is False
    )


async def test_all_but_one_end(database: Database, store: LoginSessionStore) -> None:
    for name, owner in (("s1", "ann"), ("s2", "ann"), ("s3", "ann"), ("t1", "bob")):
        await opened(database, store, owner, name)
    ended = await database.write(lambda: store.revoke_all("ann", 5.0, except_id="s2"))
    assert sorted(ended) == ["s1", "s3"]
    assert await database.write(lambda: store.revoke_all("ann", 5.0)) == ["s2"]
    assert (await store.find("t1")).revoked_at is None  # type: ignore[union-attr]


async def test_purging_forgets_what_ended_long_ago(
    database: Database, store: LoginSessionStore
) -> None:
    await opened(database, store, "ann", "expired", expires_at=10.0)
    await opened(database, store, "ann", "revoked", expires_at=1000.0)
    await opened(database, store, "ann", "live", expires_at=1000.0)
    await database.write(lambda: store.revoke("ann", "revoked", 20.0))
    assert await database.write(lambda: store.purge(10.0)) == 0
    assert await database.write(lambda: store.purge(30.0)) == 2
    assert await store.find("live") is not None
