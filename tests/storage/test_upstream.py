"""UpstreamStore on every database."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import text

from storage.database import Database, Duplicate, Statement
from storage.upstream import Began, UpstreamLogin, UpstreamStore
from storage.users import UserStore
from tests.storage.accounts import make_accounts

NOW = 1_000.0
ROWS = Statement(text("SELECT state_hash, browser_hash FROM upstream_logins"))


@pytest.fixture
async def store(database: Database) -> UpstreamStore:
    await make_accounts(database, "ann", "bob")
    return UpstreamStore(database)


async def begun(database: Database, **fields: Any) -> None:
    given = {
        "state": "state",
        "browser": "browser",
        "provider": "corporate",
        "next": "/agent/chat?q=é",
        "redirect_uri": "https://here/callback",
        "expires_at": NOW + 600,
        **fields,
    }
    await database.write(lambda: UpstreamStore(database).begin(UpstreamLogin(**given)))


async def taken(database: Database, **fields: Any) -> Began | None:
    given = {"browser": "browser", "provider": "corporate", "now": NOW, **fields}
    state = given.pop("state", "state")
    return await database.write(lambda: UpstreamStore(database).take(state, **given))


async def test_a_login_is_taken_once_as_it_was_begun(
    database: Database, store: UpstreamStore
) -> None:
    await begun(database)
    await begun(database, state="other", next="/")
    assert await taken(database) == Began("/agent/chat?q=é", "https://here/callback")
    assert await taken(database) is None
    assert await taken(database, state="other") == Began("/", "https://here/callback")


@pytest.mark.parametrize(
    "wrong",
    [
        {"state": "another"},
        {"state": ""},
        {"browser": "another"},
        {"browser": ""},
        {"browser": "\x80ÿ"},
        {"provider": "another"},
        {"now": NOW + 600},
    ],
)
async def test_what_does_not_fit_takes_nothing(
    database: Database, store: UpstreamStore, wrong: dict[str, Any]
) -> None:
    await begun(database)
    assert await taken(database, **wrong) is None
    assert await taken(database) is not None


async def test_of_many_at_once_one_takes(database: Database, store: UpstreamStore) -> None:
    await begun(database)
    found = await asyncio.gather(*(taken(database) for _ in range(10)))
    assert sum(each is not None for each in found) == 1


async def test_the_secrets_are_not_stored(database: Database, store: UpstreamStore) -> None:
    await begun(database)
    ((state, browser),) = await database.read(ROWS())
    assert {state, browser} & {"state", "browser"} == set()
    assert len(state) == len(browser) == 64


async def test_a_subject_has_one_account(database: Database, store: UpstreamStore) -> None:
    await database.write(lambda: store.link("corporate", "42", "ann", NOW))
    await database.write(lambda: store.link("corporate", "43", "ann", NOW))
    await database.write(lambda: store.link("elsewhere", "42", "bob", NOW))
    assert await store.owner("corporate", "42") == "ann"
    assert await store.owner("elsewhere", "42") == "bob"
    assert await store.owner("elsewhere", "43") is None
    assert await store.owner("corporate", "4") is None
    with pytest.raises(Duplicate) as refused:
        await database.write(lambda: store.link("corporate", "42", "bob", NOW))
    assert refused.value.constraint == "pk_upstream_accounts"
    assert await store.owner("corporate", "42") == "ann"


async def test_a_subject_is_case_sensitive(database: Database, store: UpstreamStore) -> None:
    await database.write(lambda: store.link("corporate", "Ann", "ann", NOW))
    assert await store.owner("corporate", "ann") is None
    await database.write(lambda: store.link("corporate", "ann", "bob", NOW))
    assert await store.owner("corporate", "Ann") == "ann"


async def test_an_account_takes_its_subjects_along(
    database: Database, store: UpstreamStore
) -> None:
    await database.write(lambda: store.link("corporate", "42", "ann", NOW))
    await database.write(lambda: UserStore(database).delete("ann"))
    assert await store.owner("corporate", "42") is None


async def test_what_ran_out_is_forgotten(database: Database, store: UpstreamStore) -> None:
    await begun(database)
    await begun(database, state="late", expires_at=NOW + 900)
    assert await database.write(lambda: store.purge(NOW + 700)) == 1
    assert await taken(database) is None
    assert await taken(database, state="late") is not None
