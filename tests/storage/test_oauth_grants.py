"""OAuthGrantStore on every database."""

import asyncio
from typing import Any

import pytest

from storage.database import Database, Duplicate
from storage.login_sessions import LoginSession, LoginSessionStore
from storage.oauth_grants import Grant, NewGrant, OAuthGrantStore
from tests.storage.accounts import make_accounts

NOW = 1_000.0


@pytest.fixture
async def store(database: Database) -> OAuthGrantStore:
    await make_accounts(database, "ann", "bob")
    return OAuthGrantStore(database)


async def granted(database: Database, name: str = "grant", **fields: Any) -> None:
    given = {
        "user_id": "ann",
        "session_id": None,
        "client_id": "wiki",
        "scope": "openid",
        "redirect_uri": "https://wiki.example.com/callback",
        "redirect_named": True,
        "code": f"code-of-{name}",
        "code_challenge": "x" * 43,
        "code_expires_at": NOW + 60,
        "created_at": NOW,
        "expires_at": NOW + 60,
        **fields,
    }
    store = OAuthGrantStore(database)
    await database.write(lambda: store.add(NewGrant(id=name, **given)))


async def opened(database: Database, session_id: str) -> LoginSessionStore:
    sessions = LoginSessionStore(database)
    session = LoginSession(
        id=session_id,
        user_id="ann",
        cookie=f"cookie-{session_id}",
        refresh=f"refresh-{session_id}",
        via="password",
        address="",
        user_agent="",
        created_at=NOW,
        expires_at=NOW + 500,
    )
    await database.write(lambda: sessions.open(session))
    return sessions


async def test_a_grant_is_found_by_its_code_as_it_was_given(
    database: Database, store: OAuthGrantStore
) -> None:
    await granted(database, redirect_named=False, code_challenge=None)
    found = await store.find_by_code("code-of-grant")
    assert found == await store.find("grant")
    assert isinstance(found, Grant)
    assert (found.user_id, found.client_id, found.scope) == ("ann", "wiki", "openid")
    assert found.redirect_named is False
    assert found.code_challenge is None
    assert found.code_used_at is None
    assert (found.username, found.role, found.status) == ("ann", "operator", "active")
    assert await store.find_by_code("another") is None
    assert await store.find("another") is None


async def test_two_grants_have_no_code_in_common(
    database: Database, store: OAuthGrantStore
) -> None:
    await granted(database)
    with pytest.raises(Duplicate) as refused:
        await granted(database, "second", code="code-of-grant")
    assert refused.value.constraint == "uq_oauth_grants_code"


async def test_a_code_is_taken_once_among_many(database: Database, store: OAuthGrantStore) -> None:
    await granted(database)

    async def take() -> bool:
        return await database.write(lambda: store.use_code("grant", now=NOW + 1, until=NOW + 900))

    assert sorted(await asyncio.gather(*(take() for _ in range(8)))) == [False] * 7 + [True]
    found = await store.find("grant")
    assert found is not None
    assert (found.code_used_at, found.expires_at) == (NOW + 1, NOW + 900)


async def test_a_late_code_and_an_ended_grant_give_nothing(
    database: Database, store: OAuthGrantStore
) -> None:
    await granted(database)
    late = NOW + 60
    assert not await database.write(lambda: store.use_code("grant", now=late, until=late + 9))
    assert await database.write(lambda: store.revoke("grant", NOW + 1))
    assert not await database.write(lambda: store.revoke("grant", NOW + 2))
    assert not await database.write(lambda: store.use_code("grant", now=NOW, until=late))


async def test_a_refresh_token_is_exchanged_once_among_many(
    database: Database, store: OAuthGrantStore
) -> None:
    await granted(database)
    await database.write(lambda: store.add_refresh("grant", "token", until=NOW + 100))

    async def take() -> bool:
        return await database.write(
            lambda: store.use_refresh("grant", "token", now=NOW + 5, until=NOW + 200)
        )

    assert sorted(await asyncio.gather(*(take() for _ in range(8)))) == [False] * 7 + [True]
    found = await store.find_refresh("token")
    assert found is not None
    assert (found.grant_id, found.used_at) == ("grant", NOW + 5)
    grant = await store.find("grant")
    assert grant is not None
    assert grant.expires_at == NOW + 200
    assert await store.find_refresh("another") is None


async def test_a_refresh_token_ends_with_its_grant(
    database: Database, store: OAuthGrantStore
) -> None:
    await granted(database)
    await database.write(lambda: store.add_refresh("grant", "late", until=NOW + 10))
    await database.write(lambda: store.add_refresh("grant", "good", until=NOW + 100))
    taken = {"grant_id": "grant", "now": NOW + 10, "until": NOW + 200}
    assert not await database.write(lambda: store.use_refresh(token="late", **taken))
    await database.write(lambda: store.revoke("grant", NOW + 11))
    assert not await database.write(lambda: store.use_refresh(token="good", **taken))


async def test_a_grant_holds_as_long_as_its_login_session(
    database: Database, store: OAuthGrantStore
) -> None:
    sessions = await opened(database, "session")
    await granted(database, session_id="session", expires_at=NOW + 900)
    await granted(database, "alone", expires_at=NOW + 900)

    async def holds(name: str, now: float) -> bool:
        found = await store.find(name)
        assert found is not None
        return found.holds(now)

    assert await holds("grant", NOW + 499)
    assert not await holds("grant", NOW + 500)
    assert await holds("alone", NOW + 899)
    assert not await holds("alone", NOW + 900)
    await database.write(lambda: sessions.revoke("ann", "session", NOW + 1))
    assert not await holds("grant", NOW + 2)
    await database.write(lambda: store.revoke("alone", NOW + 1))
    assert not await holds("alone", NOW + 2)
    await database.write(lambda: sessions.purge(NOW + 5_000))
    assert await store.find("grant") is None
    assert await store.find("alone") is not None


async def test_consent_is_one_accounts_for_one_client_and_set_of_scopes(
    database: Database, store: OAuthGrantStore
) -> None:
    for _ in range(2):
        await database.write(lambda: store.consent("ann", "wiki", "openid email", NOW))
    assert await store.has_consent("ann", "wiki", "openid email")
    assert not await store.has_consent("bob", "wiki", "openid email")
    assert not await store.has_consent("ann", "other", "openid email")
    assert not await store.has_consent("ann", "wiki", "openid")


async def test_old_grants_are_forgotten(database: Database, store: OAuthGrantStore) -> None:
    await granted(database, "old")
    await granted(database, "ended", expires_at=NOW + 900)
    await granted(database, "live", expires_at=NOW + 900)
    await database.write(lambda: store.add_refresh("old", "token", until=NOW + 10))
    await database.write(lambda: store.revoke("ended", NOW + 1))
    assert await database.write(lambda: store.purge(NOW + 61)) == 2
    assert await store.find("old") is None
    assert await store.find_refresh("token") is None
    assert await store.find("live") is not None


async def test_no_secret_is_stored(database: Database, store: OAuthGrantStore) -> None:
    from sqlalchemy import select

    from storage.database import Statement
    from storage.schema import oauth_grants, oauth_refresh_tokens

    await granted(database, code="a-secret-code")
    await database.write(lambda: store.add_refresh("grant", "a-secret-token", until=NOW))
    for table in (oauth_grants, oauth_refresh_tokens):
        assert "a-secret" not in repr(await database.read(Statement(select(table))()))
