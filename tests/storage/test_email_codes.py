"""EmailCodeStore and StoredSettings on every database."""

import asyncio

from storage.database import Database, Unit
from storage.email_codes import EmailCode, EmailCodeStore
from storage.stored_settings import StoredSettings

STORE = EmailCodeStore()


async def sent(database: Database, name: str, at: float, to: str = "ann@example.com") -> None:
    code = EmailCode(name, to, f"hash-{name}", at, at + 300)
    await database.write(lambda: STORE.add(code))


async def tried(database: Database, now: float = 20.0, most: int = 3) -> tuple[str, str] | None:
    return await database.write(lambda: STORE.try_newest("ann@example.com", most=most, now=now))


async def test_only_the_newest_code_of_an_address_counts(database: Database) -> None:
    assert await tried(database) is None
    await sent(database, "c1", 10.0)
    await sent(database, "c2", 11.0)
    await sent(database, "d1", 12.0, to="bob@example.com")
    assert await tried(database) == ("c2", "hash-c2")


async def test_attempts_are_counted_and_capped_at_once(database: Database) -> None:
    await sent(database, "c1", 10.0)
    answers = await asyncio.gather(*(tried(database) for _ in range(10)))
    assert sum(answer is not None for answer in answers) == 3
    assert await tried(database, most=4) == ("c1", "hash-c1")


async def test_an_expired_or_used_code_is_none(database: Database) -> None:
    await sent(database, "c1", 10.0)
    assert await tried(database, now=310.0) is None
    used = await asyncio.gather(*(database.write(lambda: STORE.use("c1", 20.0)) for _ in range(5)))
    assert sorted(used) == [False, False, False, False, True]
    assert await tried(database) is None


async def test_what_was_sent_is_counted_per_address(database: Database) -> None:
    async def count(since: float) -> tuple[int, float]:
        return await database.write(lambda: STORE.sent_since("ann@example.com", since))

    assert await count(0.0) == (0, 0.0)
    await sent(database, "c1", 10.0)
    await sent(database, "c2", 11.0)
    await sent(database, "d1", 12.0, to="bob@example.com")
    assert await count(0.0) == (2, 11.0)
    assert await count(10.0) == (1, 11.0)


async def test_deleting_and_purging(database: Database) -> None:
    await sent(database, "c1", 10.0)
    await sent(database, "c2", 1000.0)
    await sent(database, "c3", 1001.0)
    await database.write(lambda: STORE.delete("c3"))
    assert await database.write(lambda: STORE.purge(500.0)) == 1
    assert await tried(database, now=1002.0) == ("c2", "hash-c2")


async def test_a_stored_setting_replaces_its_default(database: Database) -> None:
    stored = StoredSettings(database)
    assert await stored.find("allow_registration", True) is True
    for value in (False, {"a": [1, None]}, True):
        await database.write(lambda value=value: stored.put("allow_registration", value, 1.0))
        assert await stored.find("allow_registration", "default") == value
    assert await stored.find("another", "default") == "default"


async def test_the_first_who_lock_a_setting_wait_for_each_other(database: Database) -> None:
    stored = StoredSettings(database)

    def more() -> Unit[None]:
        held = yield from stored.lock("count", 0)
        yield from stored.put("count", held + 1, 1.0)

    await asyncio.gather(*(database.write(more) for _ in range(10)))
    assert await stored.find("count", None) == 10


async def test_settings_put_at_once_end_as_one(database: Database) -> None:
    stored = StoredSettings(database)
    await asyncio.gather(
        *(database.write(lambda n=n: stored.put("limit", n, 1.0)) for n in range(10))
    )
    assert await stored.find("limit", None) in range(10)
