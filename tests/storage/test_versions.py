"""VersionStore on every database."""

import pytest

from domain.ids import uuid7
from storage.database import Database, Duplicate, NoSuchRow
from storage.versions import Artifact, Version, VersionStore

FULL = Version(
    "1.2.0-beta.1",
    "说明\n'Δ'",
    [
        Artifact(
            platform="darwin-aarch64",
            installer_url="https://a/b.dmg",
            updater_url="https://a/b.tar.gz",
            updater_signature="c2ln",
        ),
        Artifact(platform="linux-x86_64"),
    ],
    1710000000.123,
)


def plain(version: str, at: float, notes: str = "") -> Version:
    return Version(version, notes, [], at)


@pytest.fixture
def store(database: Database) -> VersionStore:
    return VersionStore(database)


async def test_every_field_comes_back_with_its_type(
    database: Database, store: VersionStore
) -> None:
    await database.write(lambda: store.create(uuid7(), FULL))
    found = await store.latest()
    assert found == FULL
    assert type(found.published_at) is float


async def test_the_newest_publication_is_first(database: Database, store: VersionStore) -> None:
    assert await store.latest() is None
    for version, at in (("2.0", 20.0), ("1.0", 10.0), ("3.0", 5.0), ("4.0", 20.0)):
        await database.write(lambda v=version, t=at: store.create(uuid7(), plain(v, t)))
    assert [each.version for each in await store.list()] == ["4.0", "2.0", "1.0", "3.0"]
    latest = await store.latest()
    assert latest is not None
    assert latest.version == "4.0"


async def test_a_name_stands_once(database: Database, store: VersionStore) -> None:
    await database.write(lambda: store.create(uuid7(), plain("1.0", 1.0, "first")))
    with pytest.raises(Duplicate) as refused:
        await database.write(lambda: store.create(uuid7(), plain("1.0", 2.0, "second")))
    assert refused.value.constraint == "uq_versions_version"
    assert [each.release_notes for each in await store.list()] == ["first"]


async def test_put_writes_over_and_only_its_own(database: Database, store: VersionStore) -> None:
    await database.write(lambda: store.put(uuid7(), plain("1.0", 1.0)))
    await database.write(lambda: store.put(uuid7(), plain("2.0", 2.0)))
    await database.write(lambda: store.put(uuid7(), plain("1.0", 3.0, "again")))
    assert [(each.version, each.release_notes) for each in await store.list()] == [
        ("1.0", "again"),
        ("2.0", ""),
    ]


async def test_delete_takes_one(database: Database, store: VersionStore) -> None:
    for version in ("1.0", "2.0"):
        await database.write(lambda v=version: store.create(uuid7(), plain(v, 1.0)))
    await database.write(lambda: store.delete("1.0"))
    assert [each.version for each in await store.list()] == ["2.0"]
    with pytest.raises(NoSuchRow):
        await database.write(lambda: store.delete("1.0"))
