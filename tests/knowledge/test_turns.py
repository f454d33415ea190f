"""Whose document is worked on next, and what is no longer worked on."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from domain.knowledge.bases import key
from domain.knowledge.ingestion import BATCH, Ingestion
from domain.knowledge.turns import Turns
from gateways.documents.parser import Parser
from storage.database import Database
from storage.knowledge import Document, KnowledgeStore
from storage.objects import ObjectStore, open_objects
from tests.knowledge.conftest import DIMENSIONS, MADE_BY, make_base, waiting

# --- turns --------------------------------------------------------------------------------------


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


class Crowd:
    """Accounts that wait for turns; `seen` says who got one, in order."""

    def __init__(self, at_once: int) -> None:
        self.turns = Turns(at_once)
        self.seen: list[str] = []
        self.ends: list[asyncio.Event] = []

    async def come(self, owner: str) -> "asyncio.Task[None]":
        async def work() -> None:
            async with self.turns.of(owner):
                self.seen.append(owner)
                end = asyncio.Event()
                self.ends.append(end)
                await end.wait()

        task = asyncio.create_task(work())
        await settled()
        return task

    async def end(self, place: int) -> None:
        self.ends[place].set()
        await settled()


async def test_accounts_take_turns() -> None:
    crowd = Crowd(2)
    tasks = [await crowd.come(owner) for owner in ("ann",) * 5 + ("bob",) * 2 + ("cas",)]
    assert crowd.seen == ["ann", "ann"]
    for place in range(6):
        await crowd.end(place)
    assert crowd.seen == ["ann", "ann", "bob", "cas", "ann", "bob", "ann", "ann"]
    for place in (6, 7):
        await crowd.end(place)
    await asyncio.gather(*tasks)
    assert crowd.turns._free == 2


async def test_who_gives_up_takes_no_turn_along() -> None:
    crowd = Crowd(1)
    first = await crowd.come("ann")
    waiting_, given = await crowd.come("bob"), await crowd.come("cas")
    waiting_.cancel()
    await settled()
    crowd.ends[0].set()
    await first
    given.cancel()  # at the moment at which it is given
    await asyncio.gather(waiting_, given, return_exceptions=True)
    last = await crowd.come("ann")
    assert crowd.seen[0] == crowd.seen[-1] == "ann"
    await crowd.end(-1)
    await last
    assert crowd.turns._free == 1
    assert crowd.turns._waiting == {}


async def test_a_pause_lets_others_go_before() -> None:
    turns = Turns(1)
    told: list[str] = []

    async def work(owner: str, pauses: int) -> None:
        async with turns.of(owner) as turn:
            told.append(owner)
            for _ in range(pauses):
                await asyncio.sleep(0)
                await turn.pause()
                told.append(owner)

    await asyncio.gather(work("ann", 3), work("ann", 0), work("bob", 1))
    assert told == ["ann", "bob", "ann", "bob", "ann", "ann", "ann"]
    assert turns._free == 1


# --- ingestion ----------------------------------------------------------------------------------


class Unstarted:
    """Workflows that the test carries out itself."""

    def register(self, name: str, body: Callable[[str], Awaitable[None]]) -> None:
        self.carry_out = body


class Recording:
    """An embedder without a model; `before` is awaited with each batch."""

    name = MADE_BY
    dimensions = DIMENSIONS

    def __init__(self) -> None:
        self.asked: list[Sequence[str]] = []
        self.before: Callable[[], Awaitable[Any]] | None = None

    async def embed(self, texts: Sequence[str]) -> list[bytes]:
        self.asked.append(texts)
        if self.before is not None:
            await self.before()
        return [bytes(4 * DIMENSIONS)] * len(texts)

    async def embed_question(self, text: str) -> bytes:
        return bytes(4 * DIMENSIONS)

    async def close(self) -> None:
        """There is nothing to let go of."""


class Bench:
    """Ingestion whose workflows are called by hand."""

    def __init__(self, database: Database, store: KnowledgeStore, objects: ObjectStore) -> None:
        self.database, self.store, self.objects = database, store, objects
        self.embedder, self.workflows, self.parser = Recording(), Unstarted(), Parser()
        self.ingestion = Ingestion(
            database,
            store,
            cache(lambda: objects),
            self.workflows,  # type: ignore[arg-type]
            self.parser,
            self.embedder,
        )

    async def document(self, base_id: str, word: str, chunks: int) -> Document:
        made = waiting(base_id, f"{word}.md")
        text = "\n\n".join(f"# Part {n}\n\n{word} number {n}." for n in range(chunks))
        await self.objects.put(key(base_id, made.id), text.encode())
        await self.database.write(lambda: self.store.add([made], override=False))
        return made

    async def ingest(self, document: Document) -> None:
        await self.workflows.carry_out(f"{document.id}.{document.attempt}")

    async def state(self, document: Document) -> tuple[str, int]:
        found = await self.store.document(document.id)
        assert found is not None
        return found.state, found.chunks


@pytest.fixture
async def bench(database: Database, store: KnowledgeStore, data: Path) -> AsyncIterator[Bench]:
    made = Bench(database, store, open_objects("", data))
    yield made
    await made.parser.close()


async def test_a_deleted_document_is_not_embedded_to_its_end(bench: Bench) -> None:
    base_id = await make_base(bench.database, bench.store)
    long = [await bench.document(base_id, "whale", 3 * BATCH) for _ in range(3)]
    await bench.ingest(long[0])
    assert [len(texts) for texts in bench.embedder.asked] == [BATCH] * 3
    assert await bench.state(long[0]) == ("succeeded", 3 * BATCH)

    async def delete() -> None:
        await bench.database.write(lambda: bench.store.delete_document(base_id, long[1].id))

    async def begin_again() -> None:
        await bench.database.write(lambda: bench.store.again(base_id, document_id=long[2].id))

    for document, before in ((long[1], delete), (long[2], begin_again)):
        bench.embedder.asked.clear()
        bench.embedder.before = before
        await bench.ingest(document)
        assert len(bench.embedder.asked) == 1
    bench.embedder.before = None
    await bench.ingest(long[1])
    assert len(bench.embedder.asked) == 1, "it is gone"
    assert await bench.state(long[2]) == ("waiting", 0)


async def test_a_short_document_does_not_wait_for_anothers_long_ones(bench: Bench) -> None:
    ann = await make_base(bench.database, bench.store)
    bob = await make_base(bench.database, bench.store, "bob")
    many = [await bench.document(ann, "whale", 3 * BATCH) for _ in range(4)]
    one = await bench.document(bob, "minnow", 1)
    begun, waits, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        """Both turns are on a first batch when the short one comes; nothing else of the long ones
        is embedded before it has ended."""
        number = len(bench.embedder.asked)
        if number == 2:
            begun.set()
        if number <= 2:
            await waits.wait()
        elif "minnow" not in bench.embedder.asked[number - 1][0]:
            await ended.wait()

    bench.embedder.before = wait
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for document in many:
            group.create_task(bench.ingest(document))
        await begun.wait()
        short = group.create_task(bench.ingest(one))
        while not bench.ingestion._turns.wanted_by_others("ann"):  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        waits.set()
        await short
        assert await bench.state(one) == ("succeeded", 1)
        assert {await bench.state(document) for document in many} == {
            ("processing", 0),
            ("waiting", 0),
        }
        ended.set()
    assert [await bench.state(document) for document in many] == [("succeeded", 3 * BATCH)] * 4
