"""Bases over HTTP and both databases: several requests at work on them, and what they leave."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.security import asgi
from tests.security.place import NOWHERE, Account, Place, opened

BASES = "/api/knowledge-base"
ROUNDS = 6


@pytest.fixture
async def place(data: Path, database_url: str) -> AsyncIterator[Place]:
    async with opened(data, database_url=database_url) as place:
        yield place


@pytest.fixture
async def ann(place: Place) -> Account:
    return await place.account("ann")


async def make_base(who: Account, name: str = "Docs") -> str:
    made = await who.ask("POST", f"{BASES}/add", {"name": name, "type": "rag"})
    return str(made.data["kdb_id"])


async def upload(who: Account, base: str, name: str, *, override: bool = False) -> asgi.Reply:
    fields = ("kdb_id", None, base.encode()), ("override", None, str(override).lower().encode())
    parts = asgi.form(*fields, ("files", name, b"The harbour floods at spring tide."))
    return await who.ask("POST", f"{BASES}/doc/add_by_files", **parts)


async def names_in(who: Account, base: str) -> list[str]:
    found = await who.ask("GET", f"{BASES}/doc/list?kdb_id={base}")
    return [row["doc_name"] for row in found.data["list"]]


def stored(place: Place, base: str) -> list[Path]:
    return list((place.data / "objects" / "knowledge" / base).glob("*"))


async def test_overriding_uploads_at_once_leave_one_document(place: Place, ann: Account) -> None:
    for _ in range(ROUNDS):
        base = await make_base(ann)
        at_once = [upload(ann, base, "same.md", override=True) for _ in range(4)]
        at_once.append(upload(ann, base, "other.md", override=True))
        assert [reply.http for reply in await asyncio.gather(*at_once)] == [200] * 5
        assert sorted(await names_in(ann, base)) == ["other.md", "same.md"]
        assert len(stored(place, base)) == 2


async def test_deleting_a_base_takes_overlapping_uploads_along(place: Place, ann: Account) -> None:
    kept = await make_base(ann)
    assert (await upload(ann, kept, "kept.md")).http == 200
    for _ in range(ROUNDS):
        base = await make_base(ann)
        assert (await upload(ann, base, "first.md")).http == 200
        deletion = ann.ask("DELETE", f"{BASES}/delete/{base}")
        uploads = [upload(ann, base, f"{n}.md") for n in range(3)]
        replies = await asyncio.gather(*uploads, deletion, upload(ann, base, "late.md"))
        assert replies[3].http == 200
        assert {reply.http for reply in replies} <= {200, 404}
        assert stored(place, base) == []
    assert await names_in(ann, kept) == ["kept.md"]
    assert len(stored(place, kept)) == 1


async def test_a_deleted_bases_vectors_go_from_the_disk(place: Place, ann: Account) -> None:
    gone, kept = await make_base(ann), await make_base(ann)
    folder = place.quartet.knowledge.bases._vectors._directory
    folder.mkdir(parents=True, exist_ok=True)
    for base in (gone, kept):
        for suffix in ("f32", "json"):
            (folder / f"{base}.{suffix}").write_bytes(b"vectors")
    assert (await ann.ask("DELETE", f"{BASES}/delete/{gone}")).http == 200
    assert sorted(path.name for path in folder.iterdir()) == [f"{kept}.f32", f"{kept}.json"]


async def test_a_start_removes_vectors_of_unknown_bases(data: Path) -> None:
    stray = data / "vectors" / "another-process" / f"{NOWHERE}.f32"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"vectors")
    async with opened(data), asyncio.timeout(30):
        while stray.exists():  # noqa: ASYNC110 (a file tells nobody that it goes)
            await asyncio.sleep(0.01)
