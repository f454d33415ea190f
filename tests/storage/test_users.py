"""UserStore on every database."""

import asyncio
from typing import Any

import pytest

from storage.database import Database, Duplicate
from storage.users import User, UserStore, folded


def user(name: str, **fields: Any) -> User:
    email = fields.pop("email", f"{name}@example.com")
    given: dict[str, Any] = {
        "id": name,
        "username": name,
        "username_key": folded(name),
        "email": email,
        "email_key": folded(email) if email else None,
        "phonenum": None,
        "nickname": None,
        "avatar": None,
        "password_hash": "hash",
        "role": "operator",
        "status": "active",
        "config": {},
        "created_at": 1.5,
        "updated_at": 1.5,
    }
    return User(**{**given, **fields})


@pytest.fixture
def store(database: Database) -> UserStore:
    return UserStore(database)


async def test_every_field_comes_back_with_its_type(database: Database, store: UserStore) -> None:
    put = user(
        "Ann",
        phonenum="138",
        nickname="安",
        avatar="a.png",
        config={"theme": None, "deep": {"n": 1, "x": [1.5, True]}},
    )
    await database.write(lambda: store.add(put))
    found = await store.find("Ann")
    assert found == put
    assert found is not None
    assert [type(getattr(found, f)) for f in User.__struct_fields__] == [
        type(getattr(put, f)) for f in User.__struct_fields__
    ]
    assert "hash" not in repr(found)


@pytest.mark.parametrize("spelling", ["ann", "ANN", "Ａnn"])
async def test_a_username_is_found_and_refused_in_any_spelling(
    database: Database, store: UserStore, spelling: str
) -> None:
    await database.write(lambda: store.add(user("Ann")))
    found = await store.find_by_username(spelling)
    assert found is not None
    assert found.id == "Ann"
    with pytest.raises(Duplicate) as refused:
        await database.write(
            lambda: store.add(user(spelling, id="other", email="other@example.com"))
        )
    assert refused.value.constraint == "uq_users_username"
    assert await store.find("other") is None


async def test_an_address_is_one_account_s_in_any_case(
    database: Database, store: UserStore
) -> None:
    await database.write(lambda: store.add(user("ann")))
    assert (await store.find_by_email("ANN@Example.COM")).id == "ann"  # type: ignore[union-attr]
    with pytest.raises(Duplicate) as refused:
        await database.write(lambda: store.add(user("bob", email="Ann@EXAMPLE.com")))
    assert refused.value.constraint == "uq_users_email"


async def test_many_accounts_have_no_address(database: Database, store: UserStore) -> None:
    for name in ("ann", "bob"):
        await database.write(lambda name=name: store.add(user(name, email=None)))
    assert (await store.page(offset=0, limit=10))[1] == 2


async def test_a_username_never_answers_for_an_address(
    database: Database, store: UserStore
) -> None:
    await database.write(lambda: store.add(user("ann")))
    assert await store.find_by_username("ann@example.com") is None
    assert await store.find_by_email("ann") is None


async def test_pages_are_newest_first_and_whole(database: Database, store: UserStore) -> None:
    for at, name in enumerate("abcde"):
        await database.write(
            lambda name=name, at=at: store.add(user(name, created_at=float(at // 2)))
        )
    seen = []
    for offset in (0, 2, 4, 6):
        found, total = await store.page(offset=offset, limit=2)
        assert total == 5
        seen += [u.id for u in found]
    assert seen == ["e", "d", "c", "b", "a"]


async def test_names_are_of_active_accounts(database: Database, store: UserStore) -> None:
    for name, status in (("cas", "active"), ("ann", "active"), ("bob", "banned")):
        await database.write(lambda name=name, status=status: store.add(user(name, status=status)))
    assert [tuple(row) for row in await store.names(10)] == [("ann", "ann"), ("cas", "cas")]
    assert [tuple(row) for row in await store.names(1)] == [("ann", "ann")]


async def test_a_write_touches_one_row_and_its_version(
    database: Database, store: UserStore
) -> None:
    for name in ("ann", "bob"):
        await database.write(lambda name=name: store.add(user(name)))
    bob = await store.find("bob")
    await database.write(lambda: store.set_password("ann", "new", 2.0))
    await database.write(lambda: store.set_role("ann", "viewer", 3.0))
    await database.write(lambda: store.set_status("ann", "banned", 4.0))
    await database.write(lambda: store.set_config("ann", {"a": 1}, 5.0))
    ann = await store.find("ann")
    assert ann is not None
    assert (ann.password_hash, ann.role, ann.status, ann.config) == (
        "new",
        "viewer",
        "banned",
        {"a": 1},
    )
    assert (ann.updated_at, ann.version) == (5.0, 5)
    assert await store.find("bob") == bob


async def test_a_rehash_never_undoes_a_new_password(database: Database, store: UserStore) -> None:
    await database.write(lambda: store.add(user("ann")))
    await database.write(lambda: store.set_password("ann", "new", 2.0))
    await database.write(lambda: store.rehash("ann", "hash", "hash at other costs"))
    assert (await store.find("ann")).password_hash == "new"  # type: ignore[union-attr]


async def test_locked_merges_do_not_lose_one_another(database: Database, store: UserStore) -> None:
    await database.write(lambda: store.add(user("ann")))

    def merge(n: int) -> Any:
        found = yield from store.lock("ann")
        yield from store.set_config("ann", {**found.config, str(n): n}, 2.0)

    await asyncio.gather(*(database.write(lambda n=n: merge(n)) for n in range(20)))
    assert (await store.find("ann")).config == {  # type: ignore[union-attr]
        str(n): n for n in range(20)
    }


async def test_deleting_a_stranger_leaves_everybody(database: Database, store: UserStore) -> None:
    await database.write(lambda: store.add(user("ann")))
    await database.write(lambda: store.delete("nobody"))
    assert await store.find("ann") is not None
    await database.write(lambda: store.delete("ann"))
    assert await store.find("ann") is None


async def test_an_admin_is_found_only_where_one_is(database: Database, store: UserStore) -> None:
    await database.write(lambda: store.add(user("ann")))
    assert await database.write(store.has_admin) is False
    await database.write(lambda: store.set_role("ann", "admin", 2.0))
    assert await database.write(store.has_admin) is True
