"""An account keeps so many bytes, whatever it uploads them as."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import cache
from pathlib import Path

import pytest

from domain.caller import Caller
from domain.errors import TooLarge
from domain.files import Files
from domain.quota import Quota
from storage.database import Database
from storage.events import EventLog
from storage.files import FileStore
from storage.objects import ObjectStore, open_objects
from storage.wakeups import OneProcess
from tests.security import asgi
from tests.security.place import Account, Place, opened, unique
from tests.skills.packing import packed, skill_md
from tests.storage.accounts import make_accounts

ANN, BOB = Caller(user_id="ann", role="operator"), Caller(user_id="bob", role="operator")


def files_of(database: Database, objects: ObjectStore, most: int) -> Files:
    return Files(
        database,
        FileStore(database),
        EventLog(database, OneProcess()),
        cache(lambda: objects),
        base_url="https://ai.example.com",
        clock=lambda: 1.5,
        quota=Quota(most),
    )


async def kept(files: Files, size: int, caller: Caller = ANN) -> str:
    async def content() -> AsyncIterator[bytes]:
        yield b"x" * size

    return (await files.keep(caller, "a.txt", "text/plain", size, content())).id


async def test_up_to_the_limit_and_no_further(database: Database, data: Path) -> None:
    await make_accounts(database, "ann", "bob")
    objects = open_objects("", data)
    files = files_of(database, objects, 1000)
    first = await kept(files, 600)
    await kept(files, 400)
    stored = sorted(path.name for path in (data / "objects" / "files").iterdir())
    with pytest.raises(TooLarge, match=r"storage\.quota") as refused:
        await kept(files, 1)
    assert refused.value.details == {"held": 1001, "limit": 1000}
    assert sorted(path.name for path in (data / "objects" / "files").iterdir()) == stored
    await kept(files, 1000, BOB)
    await files.delete(ANN, first)
    await kept(files, 600)


async def test_uploads_at_once_do_not_exceed_it(database: Database, data: Path) -> None:
    await make_accounts(database, "ann")
    files = files_of(database, open_objects("", data), 1000)
    outcomes = await asyncio.gather(*(kept(files, 300) for _ in range(8)), return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, TooLarge)]
    assert [type(each) for each in outcomes if not isinstance(each, str)] == [TooLarge] * 5
    assert len(refused) == 5


async def test_none_is_no_limit(database: Database, data: Path) -> None:
    await make_accounts(database, "ann")
    await kept(files_of(database, open_objects("", data), 0), 5_000_000)


async def _published(who: Account, size: int) -> asgi.Reply:
    form = asgi.form(("file", "a.txt", b"x" * size))
    return await who.ask("POST", "/api/oss/upload", **form)


async def _attached(who: Account, size: int) -> asgi.Reply:
    form = asgi.form(("file", "a.txt", b"x" * size))
    return await who.ask("POST", "/sandbox/api/files", **form)


async def _added(who: Account, size: int) -> asgi.Reply:
    made = await who.ask("POST", "/api/knowledge-base/add", {"name": unique("base"), "type": "rag"})
    parts = ("kdb_id", None, made.data["kdb_id"].encode()), ("files", "a.md", b"x" * size)
    return await who.ask("POST", "/api/knowledge-base/doc/add_by_files", **asgi.form(*parts))


async def _packed(who: Account, size: int) -> asgi.Reply:
    name = unique("skill")
    archive = packed({f"{name}/SKILL.md": skill_md(name), f"{name}/big.txt": "x" * size})
    return await who.ask("POST", "/api/skills/upload", **asgi.form(("file", "a.zip", archive)))


Way = Callable[[Account, int], Awaitable[asgi.Reply]]
WAYS: tuple[Way, ...] = (_published, _attached, _added, _packed)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with opened(tmp_path / "data", storage_per_user=10_000) as place:
        yield place


@pytest.mark.parametrize("way", WAYS)
async def test_each_way_of_uploading_counts(place: Place, way: Way) -> None:
    ann = await place.account("ann")
    assert (await way(ann, 9_000)).http == 200
    for other in WAYS:
        reply = await other(ann, 2_000)
        assert (reply.http, reply.json()["code"]) == (413, 413), other
        assert b"10000" in reply.body
    bob = await place.account("bob")
    assert (await way(bob, 9_000)).http == 200
