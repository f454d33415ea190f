"""KnowledgeStore and Vectors on every database."""

import asyncio
from pathlib import Path
from typing import Any

import numpy
import pytest

from domain.knowledge.words import asked
from storage.database import Database, NoSuchRow
from storage.knowledge import Document, KnowledgeStore, Words
from storage.vectors import Vectors
from tests.knowledge.conftest import (
    DIMENSIONS,
    MADE_BY,
    index_of,
    ingest,
    make_base,
    pieces_of,
    waiting,
)


def vector(place: int) -> bytes:
    """A vector along one axis."""
    made = numpy.zeros(DIMENSIONS, dtype=numpy.float32)
    made[place] = 1.0
    return made.tobytes()


def pieces(*texts: str, first: int = 0) -> list[Words]:
    return pieces_of(texts, [vector(first + place) for place in range(len(texts))])


async def add(
    database: Database, store: KnowledgeStore, base_id: str, name: str, *texts: str, first: int = 0
) -> Document:
    document = waiting(base_id, name)
    await database.write(lambda: store.add([document], override=False))
    assert await ingest(database, store, document, pieces(*texts, first=first))
    found = await store.document(document.id)
    assert found is not None
    return found


async def contents(store: KnowledgeStore, numbers: list[int]) -> list[str]:
    rows = {chunk.number: chunk.content for chunk in await store.chunks(numbers)}
    assert sorted(rows) == sorted(numbers), "those that were asked for, and no others"
    return [rows[number] for number in numbers]


async def test_a_base_is_its_owners(database: Database, store: KnowledgeStore) -> None:
    base_id = await make_base(database, store)
    assert await store.find("bob", base_id) is None
    assert await store.find("bob", base_id, everything=True) is not None
    found = await store.find("ann", base_id)
    assert found is not None
    assert (found.edition, found.erased, found.setting) == (0, 0, {})
    page = {"everything": False, "name": "", "type_": "", "limit": 10, "offset": 0}
    assert (await store.list_bases("bob", **page))[1] == 0
    rows, total = await store.list_bases("ann", **{**page, "name": "dOC"})
    assert ([row.base.id for row in rows], total) == ([base_id], 1)
    assert (await store.list_bases("ann", **{**page, "offset": 5})) == ([], 1)
    assert (await store.list_bases("ann", **{**page, "name": "%"}))[1] == 0


@pytest.mark.parametrize(
    ("name", "asked_for", "found"),
    [
        ("ÄRGER Über", "ärger", True),
        ("ÄRGER Über", "ÜBER", True),
        ("Straße.md", "STRASSE", True),
        ("ＡＢＣ文档", "abc文", True),
        ("İstanbul", "istanbul", False),
        ("ÄRGER Über", "arger", False),
        ("a.md", "%", False),
    ],
)
async def test_names_are_compared_folded(
    database: Database, store: KnowledgeStore, name: str, asked_for: str, found: bool
) -> None:
    base_id = await make_base(database, store)
    page = {"everything": False, "name": asked_for, "type_": "", "limit": 10}
    assert (await store.list_bases("ann", **page, offset=0))[1] == 0
    await database.write(lambda: store.update(base_id, name, "", None))
    assert (await store.list_bases("ann", **page, offset=0))[1] == found
    assert (await store.list_bases("ann", **page, offset=5))[1] == found
    await database.write(lambda: store.update(base_id, "", "an intro", None))
    assert (await store.list_bases("ann", **page, offset=0))[1] == found
    await database.write(lambda: store.add([waiting(base_id, name)], override=False))
    rows, total = await store.list_documents(
        base_id, name=asked_for, states=["waiting"], task_id="", limit=10, offset=0
    )
    assert (len(rows), total) == (found, found)


async def test_words_are_found_within_their_base(database: Database, store: KnowledgeStore) -> None:
    mine, other = await make_base(database, store), await make_base(database, store, "bob")
    await add(database, store, mine, "a.md", "The cat sleeps.", "数据库连接失败")
    await add(database, store, other, "b.md", "Another cat runs.")
    for query, expected in {
        "cats sleeping": ["The cat sleeps."],
        "连接": ["数据库连接失败"],
        "dog": [],
        "\"'OR base:*": [],
        "the": [],
    }.items():
        found = await contents(store, await store.by_words(mine, asked(query), 10))
        assert [text for text in expected if text not in found] == [], query
        assert "Another cat runs." not in found


async def test_all_chunks_are_replaced_in_one(database: Database, store: KnowledgeStore) -> None:
    base_id = await make_base(database, store)
    document = await add(database, store, base_id, "a.md", "one", "two", "three")
    assert (document.state, document.chunks) == ("succeeded", 3)
    (again,) = await database.write(lambda: store.again(base_id, document_id=document.id))
    assert (again.attempt, again.state, again.chunks) == (2, "waiting", 3)
    assert len(await store.by_words(base_id, ["two"], 10)) == 1, "found until it is done anew"
    assert await ingest(database, store, again, pieces("four"))
    assert await store.by_words(base_id, ["two"], 10) == []
    assert len(await store.vectors(base_id, MADE_BY, 0, 10)) == 1


async def test_an_overtaken_attempt_leaves_nothing(
    database: Database, store: KnowledgeStore
) -> None:
    base_id = await make_base(database, store)
    document = waiting(base_id)
    await database.write(lambda: store.add([document], override=False))
    first = await database.write(lambda: store.begin(document.id, 1))
    assert first is not None
    (second,) = await database.write(lambda: store.again(base_id))
    assert (
        await database.write(lambda: store.succeed(first, pieces("old"), embedder=MADE_BY)) is False
    )
    assert await database.write(lambda: store.begin(document.id, 1)) is None
    assert await ingest(database, store, second, pieces("new"))
    assert (
        await database.write(lambda: store.succeed(first, pieces("old"), embedder=MADE_BY)) is False
    )
    twice = await asyncio.gather(
        *(
            database.write(lambda: store.succeed(second, pieces("new"), embedder=MADE_BY))
            for _ in range(3)
        )
    )
    assert twice == [False] * 3
    assert [row[0] for row in await store.vectors(base_id, MADE_BY, 0, 10)] == await store.by_words(
        base_id, ["new"], 10
    )


async def test_override_replaces_documents_of_the_same_name(
    database: Database, store: KnowledgeStore
) -> None:
    base_id = await make_base(database, store)
    old = await add(database, store, base_id, "a.md", "old text")
    kept = await add(database, store, base_id, "b.md", "kept text", first=5)
    fresh = waiting(base_id, "a.md", "second")
    assert await database.write(lambda: store.add([fresh], override=True)) == [old.id]
    assert await store.by_words(base_id, ["old"], 10) == []
    rows, total = await store.list_documents(
        base_id, name="", states=["waiting", "succeeded"], task_id="", limit=10, offset=0
    )
    assert ({row.id for row in rows}, total) == ({fresh.id, kept.id}, 2)
    assert await store.progress(base_id, "second") == {"waiting": 1}


async def test_deleting_takes_chunks_and_words_along(
    database: Database, store: KnowledgeStore
) -> None:
    base_id = await make_base(database, store)
    document = await add(database, store, base_id, "a.md", "alpha")
    await add(database, store, base_id, "b.md", "beta", first=3)
    await database.write(lambda: store.delete_document(base_id, document.id))
    assert await store.by_words(base_id, ["alpha"], 10) == []
    assert len(await database.write(lambda: store.clear(base_id))) == 1
    assert await store.vectors(base_id, MADE_BY, 0, 10) == []
    await database.write(lambda: store.delete(base_id))
    with pytest.raises(NoSuchRow):
        await database.write(lambda: store.delete(base_id))
    assert await store.by_words(base_id, ["beta"], 10) == []


async def test_vectors_follow_the_rows(
    database: Database, store: KnowledgeStore, tmp_path: Path
) -> None:
    base_id = await make_base(database, store)
    index = index_of(tmp_path / "vectors", store)
    assert await index.nearest(base_id, vector(0), 5) == []
    first = await add(database, store, base_id, "a.md", "zero", "one")
    found = await index.nearest(base_id, vector(1), 1)
    assert await contents(store, [number for number, _ in found]) == ["one"]
    assert found[0][1] == pytest.approx(1.0)
    await add(database, store, base_id, "b.md", "two", first=2)
    found = await index.nearest(base_id, vector(2), 1)
    assert await contents(store, [number for number, _ in found]) == ["two"]
    await database.write(lambda: store.delete_document(base_id, first.id))
    assert len(await index.nearest(base_id, vector(0), 5)) == 1
    await database.write(lambda: store.delete(base_id))
    assert await index.nearest(base_id, vector(0), 5) == []
    assert list((tmp_path / "vectors").iterdir()) == []


async def test_a_damaged_file_is_made_anew(
    database: Database, store: KnowledgeStore, tmp_path: Path
) -> None:
    base_id = await make_base(database, store)
    await add(database, store, base_id, "a.md", "zero", "one", "two")
    folder = tmp_path / "vectors"
    whole = await index_of(folder, store).nearest(base_id, vector(2), 3)
    for break_it in (
        lambda: (folder / f"{base_id}.f32").write_bytes(b"short"),
        lambda: (folder / f"{base_id}.json").write_bytes(b"{"),
        lambda: (folder / f"{base_id}.json").unlink(),
    ):
        break_it()
        assert await index_of(folder, store).nearest(base_id, vector(2), 3) == whole


async def test_files_of_bases_that_are_gone_are_swept(
    database: Database, store: KnowledgeStore, tmp_path: Path
) -> None:
    gone, kept = await make_base(database, store), await make_base(database, store)
    folders = [tmp_path / "vectors" / name for name in ("mine", "others")]
    for folder in folders:
        index = index_of(folder, store)
        for base_id in (gone, kept):
            await add(database, store, base_id, "a.md", "zero")
            assert await index.nearest(base_id, vector(0), 1)
        (folder / "notes.txt").write_text("another's")
    await database.write(lambda: store.delete(gone))
    mine = index_of(folders[0], store)
    await mine.sweep()
    for folder in folders:
        left = sorted(path.name for path in folder.iterdir())
        assert left == sorted([f"{kept}.f32", f"{kept}.json", "notes.txt"])
    assert await mine.nearest(kept, vector(0), 1)


async def test_a_base_may_go_while_its_vectors_are_read(
    database: Database, store: KnowledgeStore, tmp_path: Path
) -> None:
    base_id = await make_base(database, store)
    await add(database, store, base_id, "a.md", "zero")

    class Deleting(KnowledgeStore):
        async def vectors(self, *asked: Any) -> list[tuple[int, bytes]]:
            rows = await super().vectors(*asked)
            if rows:
                await database.write(lambda: self.delete(base_id))
                index.forget(base_id)
            return rows

    index = index_of(tmp_path / "vectors", Deleting(database))
    assert await index.nearest(base_id, vector(0), 1) == []
    assert list((tmp_path / "vectors").iterdir()) == []


OTHER = "other:384"


async def test_vectors_are_read_of_one_embedder_alone(
    database: Database, store: KnowledgeStore, tmp_path: Path
) -> None:
    base_id = await make_base(database, store)
    await add(database, store, base_id, "a.md", "zero")
    document = waiting(base_id, "b.md")
    await database.write(lambda: store.add([document], override=False))
    claimed = await database.write(lambda: store.begin(document.id, 1))
    assert claimed is not None
    await database.write(lambda: store.succeed(claimed, pieces("one"), embedder=OTHER))
    index = index_of(tmp_path, store)
    others = Vectors(tmp_path, store, embedder=OTHER, dimensions=DIMENSIONS)
    for _ in range(2):  # over the same files, each finding the other's
        for one, text in ((index, "zero"), (others, "one")):
            found = await one.nearest(base_id, vector(0), 5)
            assert await contents(store, [number for number, _ in found]) == [text]
    assert {row[0] for row in await store.outdated(MADE_BY)} == {base_id}
    assert {row[0] for row in await store.outdated(OTHER)} == {base_id}


async def test_a_base_is_an_embedders_once_all_is_made_anew(
    database: Database, store: KnowledgeStore, tmp_path: Path
) -> None:
    base_id, untouched = await make_base(database, store), await make_base(database, store)
    await add(database, store, base_id, "a.md", "zero", "one")
    await add(database, store, untouched, "a.md", "zero")
    assert await store.outdated(MADE_BY) == []
    assert dict(await store.outdated(OTHER)) == {base_id: 0, untouched: 0}
    others = Vectors(tmp_path, store, embedder=OTHER, dimensions=DIMENSIONS)
    assert await others.nearest(base_id, vector(0), 5) == []

    first, second = await store.unread(base_id, OTHER, 0, 10)
    assert (first.content, second.content) == ("zero", "one")
    assert await store.unread(base_id, OTHER, first.number, 10) == [second]
    assert await store.unread(base_id, MADE_BY, 0, 10) == []
    gone = second.number + 100
    fresh = {first.number: vector(7), gone: vector(8)}
    await database.write(lambda: store.replace_vectors(fresh, OTHER))
    assert await database.write(lambda: store.rebuilt(base_id, OTHER)) is False, "one is left"
    assert [number for number, _ in await others.nearest(base_id, vector(7), 5)] == [first.number]
    await database.write(lambda: store.replace_vectors({second.number: vector(8)}, OTHER))
    assert await database.write(lambda: store.rebuilt(base_id, OTHER)) is True
    found = await others.nearest(base_id, vector(8), 5)
    assert [number for number, _ in found] == [second.number, first.number]
    assert dict(await store.outdated(OTHER)) == {untouched: 0}
    assert dict(await store.outdated(MADE_BY)) == {base_id: 0}

    twice = [database.write(lambda: store.rebuild_again(base_id, 0)) for _ in range(3)]
    assert sorted(await asyncio.gather(*twice)) == [False, False, True]
    assert dict(await store.outdated(MADE_BY)) == {base_id: 1}
    with pytest.raises(NoSuchRow):
        await database.write(lambda: store.rebuilt("gone", OTHER))
